"""The file of a backup: a ZIP archive that ordinary tools open and any later version can read.

``tables/NAME.jsonl`` holds one table, a JSON array a line. ``manifest.json`` comes last and tells when the backup was
made, the revision of its schema, and of each table the columns, the number of rows and the SHA-256 of the lines.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson

from models.base import now
from services.errors import InvalidRequest
from services.rows import Row

FORMAT = 1
_MANIFEST = "manifest.json"
_MOST_MANIFEST_BYTES = 10_000_000
_DAMAGE = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, ValueError, NotImplementedError, RuntimeError)


class Damaged(Exception):
    """The file is no whole backup. The text is the end of a sentence."""


@dataclass(frozen=True, slots=True)
class Part:
    """What the manifest tells of one table."""

    columns: list[str]
    rows: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a backup tells of itself. ``signing_key`` and ``master_keys`` recognise the keys it needs, and hold none."""

    revision: str
    created_at: datetime
    signing_key: str
    master_keys: list[str]
    tables: dict[str, Part]

    @property
    def rows(self) -> int:
        return sum(part.rows for part in self.tables.values())


class Writer:
    """Adds one table after the other."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        self._tables: dict[str, Part] = {}

    def add(self, name: str, columns: list[str], rows: Iterable[Row]) -> None:
        digest, written = hashlib.sha256(), 0
        with self._archive.open(_entry(_table_entry(name)), "w", force_zip64=True) as file:
            for row in rows:
                line = orjson.dumps(row) + b"\n"
                digest.update(line)
                file.write(line)
                written += 1
        self._tables[name] = Part(columns, written, digest.hexdigest())

    def finish(self, *, revision: str, signing_key: str, master_keys: list[str]) -> Manifest:
        """Write the manifest; nothing can be added after it."""
        manifest = Manifest(revision, now(), signing_key, master_keys, self._tables)
        text = orjson.dumps({"format": FORMAT, **asdict(manifest)}, option=orjson.OPT_INDENT_2)
        self._archive.writestr(_entry(_MANIFEST), text)
        return manifest


@contextmanager
def writing(path: Path) -> Iterator[Writer]:
    """Write the file beside its place, for its owner only, and put it there when it is whole; or leave nothing.

    Where the path is a link, its place is where that leads. Raises InvalidRequest when something else than a file is
    there, and OSError.
    """
    path = _place(path)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w+b") as file:
            with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
                yield Writer(archive)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def _place(path: Path) -> Path:
    """Return where the file itself is. What is put there takes the place of what was: that would be the end of a
    device, and whoever has made a link means what it leads to."""
    with suppress(FileNotFoundError):
        # Asked through the links: where that to the end of a pipe leads, nothing is to be found by its name.
        if not stat.S_ISREG(path.stat().st_mode):
            raise InvalidRequest(f"{path} is no file. Name one that is there, or is to be made.")
    return Path(os.path.realpath(path))


class Reader:
    """A backup that was looked at as a whole: every line is there, and is what the manifest says."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        self.manifest = _manifest(archive)
        self._check()

    def rows(self, name: str) -> Iterator[Row]:
        with self._archive.open(_table_entry(name)) as file:
            for line in file:
                yield orjson.loads(line)

    def _check(self) -> None:
        expected = [*map(_table_entry, self.manifest.tables), _MANIFEST]
        if sorted(self._archive.namelist()) != sorted(expected):
            raise Damaged("does not hold the tables that its manifest names")
        for name, part in self.manifest.tables.items():
            digest, rows = hashlib.sha256(), 0
            with self._archive.open(_table_entry(name)) as file:
                for line in file:
                    digest.update(line)
                    rows += 1
            if (rows, digest.hexdigest()) != (part.rows, part.sha256):
                raise Damaged(f"is not as it was written: table {name} has changed")


@contextmanager
def reading(path: Path) -> Iterator[Reader]:
    """Open a backup and check all of it. Raises Damaged, and OSError when it cannot be read at all."""
    with path.open("rb") as file:
        try:
            archive = zipfile.ZipFile(file)
            reader = Reader(archive)
        except _DAMAGE as error:
            raise Damaged("is no backup of the portal, or not a whole one") from error
        except OSError as error:
            # A damaged directory leads to places before the beginning of the file.
            if error.errno != errno.EINVAL:
                raise
            raise Damaged("is no backup of the portal, or not a whole one") from error
        with archive:
            yield reader


def _manifest(archive: zipfile.ZipFile) -> Manifest:
    try:
        if archive.getinfo(_MANIFEST).file_size > _MOST_MANIFEST_BYTES:
            raise Damaged("has a manifest that is too long")
        found: dict[str, Any] = orjson.loads(archive.read(_MANIFEST))
        if found.pop("format") != FORMAT:
            raise Damaged("was made by a newer version of the portal")
        tables = {str(name): Part(**part) for name, part in found.pop("tables").items()}
        return Manifest(**found | {"created_at": datetime.fromisoformat(found["created_at"]), "tables": tables})
    except (KeyError, TypeError, AttributeError) as error:
        raise Damaged("has a manifest that cannot be read") from error


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, now().timetuple()[:6])
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = 0o600 << 16
    return entry


def _table_entry(name: str) -> str:
    return f"tables/{name}.jsonl"
