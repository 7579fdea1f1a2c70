"""Whoever copies the database, and all that lies beside it but the two key files, holds no secret that works."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
import sqlalchemy

from tests.neighbours.portal import Portal
from tests.portal.calls import CHAT, HELLO, PASSWORD, call

# What somebody would try who has read the code but not the key file.
GUESSES = ["", "arka", "arka api key", "arka ended api key", "api key", "secret", "dev", "changeme", "portal", PASSWORD]
KEY_FILES = {"secret_key", "master_key"}


@pytest.fixture
def secrets(portal: Portal) -> list[str]:
    """Every secret that was ever issued: living, rotated away, deleted, disabled, refused; all have been used."""
    portal.command("user", "create", "alice@northwind.example", input=PASSWORD + "\n")
    portal.command("workspace", "set-plan", "alice", "agency")
    made = portal.command("key", "create", "--workspace", "alice", "--name", "admin", "--test").stdout.strip()
    issued = [made]

    def act(method: str, path: str, body: Any = None) -> Any:
        status, _, answer = call(
            portal.port, made, method, path, body, **{"Idempotency-Key": f"{method} {path} {len(issued)}"}
        )
        assert status in (200, 201), answer
        return answer

    for number, kind in enumerate(("secret", "publishable", "secret", "secret")):
        body = {"name": f"key {number}", "kind": kind, "environment": "test", "preset": "read_only"}
        key = act("POST", "/v1/keys", body)
        issued.append(key["key"])
        issued.append(act("POST", f"/v1/keys/{key['id']}/rotate", {"overlap": "24h"})["key"])
        act(*[("DELETE", f"/v1/keys/{key['id']}"), ("POST", f"/v1/keys/{key['id']}/disable")][number % 2])
    for secret in issued:
        # Used in every way that leaves a trace: let in, refused, misplaced, asked about.
        call(portal.port, secret, "POST", CHAT, HELLO)
        call(
            portal.port, None, "GET", f"/v1/models?api_key={secret}", **{"X-API-Key": secret, "User-Agent": secret[:20]}
        )
        call(portal.port, secret, "GET", f"/v1/models/{secret}")
        call(portal.port, made, "POST", "/v1/keys/verify", {"key": secret})
    return issued


def copies(portal: Portal) -> Iterator[tuple[str, bytes]]:
    """The bytes of every file of the instance but the key files, and every cell of a database beside it."""
    files = [path for path in portal.instance_path.rglob("*") if path.is_file() and path.name not in KEY_FILES]
    for path in files:
        yield path.name, path.read_bytes()
        if path.suffix == ".db":
            with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
                yield f"dump of {path.name}", "\n".join(connection.iterdump()).encode()
    if "ARKA_DATABASE_URL" in portal.environment:
        yield "tables", b"\n".join(cells(portal.environment["ARKA_DATABASE_URL"]))


def cells(url: str) -> Iterator[bytes]:
    engine = sqlalchemy.create_engine(url)
    with engine.connect() as connection:
        for table in sqlalchemy.inspect(engine).get_table_names():
            for row in connection.execute(sqlalchemy.text(f'SELECT * FROM "{table}"')):
                for cell in row:
                    yield cell.hex().encode() if isinstance(cell, bytes | memoryview) else str(cell).encode()
    engine.dispose()


def forms_of(value: bytes) -> list[bytes]:
    """How bytes may be written down."""
    hexed = value.hex()
    return [value, hexed.encode(), hexed.upper().encode(), base64.b64encode(value), base64.urlsafe_b64encode(value)]


def traces_of(secret: str) -> Iterator[tuple[str, bytes]]:
    """All that must be nowhere: the secret, its halves and its digests under keys that can be guessed."""
    random = re.sub(r"^arka_.k_(test_)?", "", secret)
    for name, part in (
        ("whole", secret),
        ("first half", random[:16]),
        ("second half", random[16:]),
        ("middle", random[5:-6]),
    ):
        yield from ((name, form) for form in forms_of(part.encode()))
    for text in (secret, random):
        for name in ("md5", "sha1", "sha256", "sha512", "blake2b"):
            yield from ((name, form) for form in forms_of(hashlib.new(name, text.encode()).digest()))
        for guess in GUESSES:
            digest = hmac.digest(guess.encode(), text.encode(), "sha256")
            yield from ((f"hmac under {guess!r}", form) for form in forms_of(digest))


def test_a_copy_of_the_database_holds_no_usable_secret(portal: Portal, secrets: list[str]) -> None:
    found = dict(copies(portal))
    # What is searched holds what the secrets left behind, so a secret would be found as well.
    whole = b"".join(found.values())
    assert secrets[0][-5:].encode() in whole
    assert b"invalid_api_key" in whole
    assert any(name in found for name in ("tables", "dump of portal.db")), sorted(found)
    wrong = [
        (place, trace)
        for secret in secrets
        for trace, text in traces_of(secret)
        for place, content in found.items()
        if text in content
    ]
    assert wrong == []
    assert PASSWORD.encode() not in whole
    printed = portal.output()
    assert not [secret for secret in secrets if secret in printed]


def test_another_signing_key_on_the_same_database_lets_nobody_in(portal: Portal, new_key: Callable[..., str]) -> None:
    """What opens is the signing key and not the copy: with another one the same rows are worth nothing."""
    key = new_key("server", "--test")
    assert call(portal.port, key)[0] == 200
    portal.stop()
    (portal.instance_path / "secret_key").unlink()
    portal.start()
    assert call(portal.port, key)[0] == 403
