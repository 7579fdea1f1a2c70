"""A backup holds everything, on either kind of database; a restore puts it back as it was, or changes nothing."""

from __future__ import annotations

import hashlib
import json
import struct
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import flask_migrate
import orjson
import pytest
from flask import Flask
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import JSON, Column, Connection, MetaData, Table, create_engine, select, text

import config
from app import create_app
from extensions import db
from models import Base, LoginSession, MailMessage, ProviderKey, ServerProcess, UsageRecord, Workspace
from models.base import new_id, now, transaction
from services import (
    audit,
    backup,
    backup_file,
    instance_lock,
    keys,
    provider_keys,
    rows,
    schema,
    vault_rotation,
    webhooks,
    workspaces,
)
from services.backup import RestoreRefused
from services.parts import parts
from services.secret import Secret
from tests.factors import add_app
from tests.people import Person, bearer, enter, make_person

Mint = Callable[..., keys.Minted]
PROVIDER_KEY = "sk-canary-0123456789abcdef"
OTHER_KEY = "0123456789abcdef" * 4
NOT_KEPT = {"login_session", "server_process", "job"}


@pytest.fixture
def lively(app: Flask, alice: Person, mint: Mint) -> keys.Minted:
    """A portal with something in the tables that hold the odd kinds of values. Gives a key that works."""
    minted = mint("server")
    provider_keys.save(alice.workspace, "openai", Secret(PROVIDER_KEY), actor=alice.actor, check=False)
    ended = mint("ended")
    keys.delete(alice.workspace, ended.key.id, actor=alice.actor)
    with transaction() as session:
        for number, details in enumerate([None, {"a": "“\u2028é", "b": [1, 2.5, None]}, JSON.NULL]):
            session.add(
                UsageRecord(
                    request_id=new_id("req"),
                    workspace_id=alice.workspace_id,
                    api_key_id=minted.key.id,
                    secret_id="sec",
                    environment="test",
                    endpoint="chat/completions",
                    started_at=now(),
                    status=200,
                    details=details,
                    streamed=number == 1,
                    cost_nano_usd=2**60 + number,
                )
            )
        session.add(
            MailMessage(
                id=new_id("mail"),
                recipient="x@y.example",
                subject="Grüße\n",
                text="a\tb\n'\"\\",
                html="",
                created_at=now(),
                attempts=1,
                next_attempt_at=now(),
                sent_at=now(),
            )
        )
    return minted


def everything() -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table a backup keeps."""
    found = {}
    with db.engine.connect() as connection:
        for table in Base.metadata.sorted_tables:
            if table.name not in NOT_KEPT:
                query = select(table).order_by(*table.primary_key)
                found[table.name] = [tuple(row) for row in connection.execute(query)]
    return found


@contextmanager
def another(environment: dict[str, str], url: str, tmp_path: Path, **changes: str) -> Iterator[Flask]:
    """A second instance, with the keys of the first unless others are given."""
    folder = Path(environment["ARKA_INSTANCE_PATH"])
    own = {
        "ARKA_INSTANCE_PATH": str(tmp_path / "other"),
        "ARKA_DATABASE_URL": url,
        "ARKA_SECRET_KEY": (folder / "secret_key").read_text().strip(),
        "ARKA_MASTER_KEY": (folder / "master_key").read_text().strip(),
    }
    app = create_app(config.load(own | changes))
    app.testing = True
    with app.app_context():
        yield app
        db.session.remove()
        db.engine.dispose()
        parts().quick.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def other_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The address of another empty database, of each kind."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'other.db'}"
        return
    postgres = request.getfixturevalue("postgres")
    postgres.start()
    name = postgres.create_database()
    yield postgres.url_of(name)
    postgres.drop_database(name)


@pytest.fixture
def other_file(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'other.db'}"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "portal.backup"


def test_every_row_comes_back_whichever_database_it_came_from(
    environment: dict[str, str], lively: keys.Minted, other_url: str, tmp_path: Path, file: Path
) -> None:
    manifest = backup.make(file)
    before = everything()
    assert manifest.rows == sum(map(len, before.values()))
    assert all(before[name] for name in ("audit_event", "usage_record", "provider_key", "mail_message"))
    with another(environment, other_url, tmp_path) as app:
        backup.restore(file)
        assert everything() == before
        assert list(audit.first_breaks()) == []
        assert app.test_client().get("/v1/models", headers=bearer(lively.secret)).status_code == 200
        # A new row gets a number that no restored one has.
        assert [row[0] for row in everything()["usage_record"]] == [1, 2, 3, 4]


def test_a_backup_is_for_its_owner_and_holds_no_key(
    environment: dict[str, str], lively: keys.Minted, file: Path
) -> None:
    backup.make(file)
    assert file.stat().st_mode & 0o777 == 0o600
    with zipfile.ZipFile(file) as archive:
        content = b"".join(archive.read(name) for name in archive.namelist())
    instance = Path(environment["ARKA_INSTANCE_PATH"])
    for secret in (
        (instance / "secret_key").read_text().strip(),
        (instance / "master_key").read_text().strip(),
        PROVIDER_KEY,
        lively.secret.reveal(),
    ):
        assert secret.encode() not in content
        assert secret[-20:].encode() not in content


def test_what_happens_while_a_backup_is_made_is_not_in_it(
    lively: keys.Minted, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = everything()
    read = rows.read

    def read_slowly(connection: Connection, table: Table) -> Iterator[list[Any]]:
        # People and workspaces have been read by now.
        if table.name == "membership":
            make_person("late@northwind.example")
        yield from read(connection, table)

    monkeypatch.setattr(rows, "read", read_slowly)
    backup.make(file)
    monkeypatch.undo()
    assert everything() != before
    backup.restore(file, replace=True)
    assert everything() == before


def test_a_backup_that_fails_leaves_the_earlier_one(
    lively: keys.Minted, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backup.make(file)
    before = file.read_bytes()

    def broken(*_arguments: Any) -> Iterator[list[Any]]:
        yield ["x"]
        raise OSError("disk full")

    monkeypatch.setattr(rows, "read", broken)
    with pytest.raises(OSError, match="disk full"):
        backup.make(file)
    assert file.read_bytes() == before
    assert sorted(path.name for path in file.parent.glob(".*backup*")) == []


LOSES_ROWS = {
    "sqlite": "CREATE TRIGGER loses BEFORE INSERT ON api_key BEGIN SELECT RAISE(IGNORE); END",
    "postgresql": "CREATE RULE loses AS ON INSERT TO api_key DO INSTEAD NOTHING",
}


def test_a_database_that_does_not_take_every_row_is_left_as_it_was(app: Flask, lively: keys.Minted, file: Path) -> None:
    backup.make(file)
    before = everything()
    with transaction() as session:
        session.execute(text(LOSES_ROWS[db.engine.dialect.name]))
    with pytest.raises(RestoreRefused, match=r"holds 0 rows of api_key where the backup has 2\. Nothing was changed"):
        backup.restore(file, replace=True)
    assert everything() == before


def test_data_is_replaced_only_when_that_is_said(lively: keys.Minted, alice: Person, file: Path) -> None:
    backup.make(file)
    before = everything()
    later = make_person("late@northwind.example")
    changed = everything()
    with pytest.raises(RestoreRefused, match=r"There are 2 workspaces and 2 people here.*--yes"):
        backup.restore(file)
    assert everything() == changed
    backup.restore(file, replace=True)
    assert everything() == before
    assert db.session.get(Workspace, later.workspace_id) is None


def test_mail_that_waited_is_not_sent_by_a_restore(app: Flask, lively: keys.Minted, file: Path) -> None:
    """It has been sent since, or a copy of the portal must not send it."""
    with transaction() as session:
        session.query(MailMessage).update({"sent_at": None})
    backup.make(file)
    backup.restore(file, replace=True)
    (message,) = db.session.query(MailMessage)
    assert message.failed_at is not None
    assert (message.sent_at, message.text, message.last_error) == (None, "", "Restored from a backup")


def test_sessions_do_not_come_back_to_life(app: Flask, lively: keys.Minted, alice: Person, file: Path) -> None:
    enter(alice.email, Secret(alice.password), address="127.0.0.1", client="tests")
    assert db.session.query(LoginSession).count() == 1
    backup.make(file)
    backup.restore(file, replace=True)
    assert db.session.query(LoginSession).count() == 0


def test_nothing_is_restored_while_the_portal_serves(app: Flask, lively: keys.Minted, file: Path) -> None:
    backup.make(file)
    before = everything()
    with instance_lock.serving(Path(app.instance_path)), pytest.raises(RestoreRefused, match="Stop it first"):
        backup.restore(file, replace=True)
    with transaction() as session:
        until = now() + timedelta(minutes=1)
        session.add(ServerProcess(id=new_id("proc"), node="far", started_at=now(), alive_until=until))
    with pytest.raises(RestoreRefused, match="serving on far"):
        backup.restore(file, replace=True)
    assert everything() == before
    with transaction() as session:
        session.query(ServerProcess).update({"alive_until": now()})
    backup.restore(file, replace=True)
    assert everything() == before


def test_a_process_that_died_before_the_clock_was_set_back_holds_up_no_restore(
    app: Flask, lively: keys.Minted, file: Path
) -> None:
    backup.make(file)
    before = everything()
    with transaction() as session:
        ahead = now() + timedelta(hours=1)
        session.add(ServerProcess(id=new_id("proc"), node="far", started_at=ahead, alive_until=ahead))
    backup.restore(file, replace=True)
    assert everything() == before


def test_a_server_does_not_start_within_a_restore(tmp_path: Path) -> None:
    with instance_lock.alone(tmp_path), pytest.raises(instance_lock.InUse), instance_lock.serving(tmp_path):
        pass
    with instance_lock.serving(tmp_path), instance_lock.serving(tmp_path):
        pass


def test_an_instance_folder_in_which_nothing_can_be_written_is_told_by_its_setting(tmp_path: Path) -> None:
    for hold in (instance_lock.alone, instance_lock.serving):
        held = hold(tmp_path / "missing")
        with pytest.raises(instance_lock.Unwritable, match=r"^ARKA_INSTANCE_PATH: .+ cannot be written: .+\.$"), held:
            pass


def test_other_keys_than_the_backup_s_are_noticed(
    environment: dict[str, str], lively: keys.Minted, other_file: str, tmp_path: Path, file: Path
) -> None:
    backup.make(file)
    with (
        another(environment, other_file, tmp_path, ARKA_SECRET_KEY=OTHER_KEY),
        pytest.raises(RestoreRefused, match=r"no API key would work.*ARKA_SECRET_KEY"),
    ):
        backup.restore(file)
    with another(environment, other_file, tmp_path, ARKA_MASTER_KEY=OTHER_KEY):
        with pytest.raises(RestoreRefused, match=r"1 provider keys.*ARKA_MASTER_KEY"):
            backup.restore(file)
        with db.engine.connect() as connection:
            assert schema.revision_of(connection) is None
        backup.restore(file, with_other_keys=True)
        assert db.session.query(ProviderKey).count() == 1


def add_webhook(person: Person) -> None:
    webhooks.create(person.workspace, actor=person.actor, url="https://hooks.example/")


@pytest.mark.parametrize(
    ("add", "told"),
    [(add_app, "1 secrets of authenticator apps"), (add_webhook, "1 signing secrets of webhooks")],
    ids=["app", "webhook"],
)
def test_an_app_or_a_webhook_alone_tells_that_the_master_keys_are_others(
    environment: dict[str, str],
    alice: Person,
    other_file: str,
    tmp_path: Path,
    file: Path,
    add: Callable[[Person], object],
    told: str,
) -> None:
    add(alice)
    backup.make(file)
    with another(environment, other_file, tmp_path, ARKA_MASTER_KEY=OTHER_KEY):
        with pytest.raises(RestoreRefused, match=rf"^{told} in the backup cannot be opened.*ARKA_MASTER_KEY"):
            backup.restore(file)
        with db.engine.connect() as connection:
            assert schema.revision_of(connection) is None
        backup.restore(file, with_other_keys=True)
        assert len(vault_rotation.unreadable()) == 1
    with another(environment, other_file, tmp_path):
        backup.restore(file, replace=True)
        assert vault_rotation.unreadable() == []


def test_a_refusal_counts_each_kind_of_secret_that_does_not_open(
    environment: dict[str, str], lively: keys.Minted, alice: Person, other_file: str, tmp_path: Path, file: Path
) -> None:
    add_app(alice)
    for _ in range(2):
        add_webhook(alice)
    backup.make(file)
    told = "^1 provider keys, 1 secrets of authenticator apps, 2 signing secrets of webhooks in the backup"
    with (
        another(environment, other_file, tmp_path, ARKA_MASTER_KEY=OTHER_KEY),
        pytest.raises(RestoreRefused, match=told),
    ):
        backup.restore(file)


def test_a_backup_without_sealed_secrets_needs_no_particular_master_key(
    environment: dict[str, str], alice: Person, other_file: str, tmp_path: Path, file: Path
) -> None:
    backup.make(file)
    with another(environment, other_file, tmp_path, ARKA_MASTER_KEY=OTHER_KEY):
        backup.restore(file)
        assert db.session.query(Workspace).count() == 1


def test_a_secret_that_an_older_key_of_the_ring_has_sealed_is_no_reason_to_refuse(
    environment: dict[str, str], alice: Person, other_file: str, tmp_path: Path, file: Path
) -> None:
    add_app(alice)
    backup.make(file)
    master_key = (Path(environment["ARKA_INSTANCE_PATH"]) / "master_key").read_text().strip()
    with another(environment, other_file, tmp_path, ARKA_MASTER_KEY=f"{OTHER_KEY},{master_key}"):
        backup.restore(file)
        assert vault_rotation.unreadable() == []


# ---- Files that are not what they were


def rewritten(file: Path, change: Callable[[str, bytes], bytes | None]) -> None:
    """Write the archive anew, each entry as ``change`` says; None leaves it out."""
    with zipfile.ZipFile(file) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            if (changed := change(name, content)) is not None:
                archive.writestr(name, changed)


def without(table: str) -> Callable[[str, bytes], bytes | None]:
    """Neither the archive nor its manifest knows the table."""

    def change(name: str, content: bytes) -> bytes | None:
        if name == "manifest.json":
            manifest = json.loads(content)
            del manifest["tables"][table]
            return json.dumps(manifest).encode()
        return None if table in name else content

    return change


def manifest_with(**values: Any) -> Callable[[str, bytes], bytes]:
    return lambda name, content: orjson.dumps(orjson.loads(content) | values) if name == "manifest.json" else content


def with_matching_hash(table: str, content: bytes) -> Callable[[str, bytes], bytes]:
    """Another content of one table, and a manifest that agrees with it."""

    def change(name: str, old: bytes) -> bytes:
        if name == f"tables/{table}.jsonl":
            return content
        if name == "manifest.json":
            manifest = json.loads(old)
            part = manifest["tables"][table]
            part["rows"], part["sha256"] = content.count(b"\n"), hashlib.sha256(content).hexdigest()
            return json.dumps(manifest).encode()
        return old

    return change


FAULTS: dict[str, tuple[Callable[[str, bytes], bytes | None], str]] = {
    "one letter": (lambda name, text: text.replace(b"alice", b"malix") if "user" in name else text, "user has changed"),
    "a row less": (
        lambda name, text: text[: text.rindex(b"\n", 0, -1) + 1] if "audit_event" in name else text,
        "audit_event",
    ),
    "a newer format": (manifest_with(format=2), "newer version"),
    "a newer schema": (manifest_with(revision="9999"), "newer version"),
    "another schema": (manifest_with(revision="0001"), "tables of the version"),
    "no tables": (manifest_with(tables={}), "tables that its manifest names"),
    "a forgotten table": (without("usage_record"), "tables of the version"),
    "no manifest": (lambda name, text: b"[]" if name == "manifest.json" else text, "manifest"),
    "a nonsense row": (with_matching_hash("custom_scope", b"[1]\n"), "rows that the database does not take"),
    "no JSON": (with_matching_hash("custom_scope", b"hello\n"), "rows that the database does not take"),
    "a wrong moment": (
        with_matching_hash("setup_link", b'[1, null, "yesterday", null]\n'),
        "rows that the database does not take",
    ),
    "an orphan": (
        with_matching_hash("membership", b'["ws_none", "usr_none", "owner", "2026-01-01T00:00:00+00:00", null]\n'),
        "point at others",
    ),
}


@pytest.mark.embedded
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_file_that_was_changed_is_refused_and_changes_nothing(lively: keys.Minted, file: Path) -> None:
    backup.make(file)
    whole = file.read_bytes()
    before = everything()
    for fault, (change, complaint) in FAULTS.items():
        file.write_bytes(whole)
        rewritten(file, change)
        with pytest.raises(RestoreRefused) as caught:
            backup.restore(file, replace=True)
        assert complaint in caught.value.message, fault
        assert everything() == before
    file.write_bytes(whole)
    rewritten(file, lambda name, text: text)
    backup.restore(file, replace=True)


@pytest.fixture(scope="module")
def small_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("backup") / "small"
    with backup_file.writing(path) as writer:
        writer.add("word", ["id", "text"], [[number, "x" * number] for number in range(30)])
        writer.finish(revision="0001", signing_key="ab", master_keys=["cd"])
    return path


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_file_is_never_read_as_something_else(small_file: Path, tmp_path: Path, data: st.DataObject) -> None:
    whole = small_file.read_bytes()
    with backup_file.reading(small_file) as reader:
        right = (reader.manifest, list(reader.rows("word")))
    damaged = bytearray(whole)
    if data.draw(st.booleans()):
        damaged = damaged[: data.draw(st.integers(0, len(whole) - 1))]
    else:
        damaged[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    path = tmp_path / "damaged"
    path.write_bytes(bytes(damaged))
    try:
        with backup_file.reading(path) as reader:
            assert (reader.manifest, list(reader.rows("word"))) == right
    except backup_file.Damaged:
        pass


def test_a_directory_that_leads_before_the_beginning_of_the_file_is_damage(small_file: Path, tmp_path: Path) -> None:
    damaged = bytearray(small_file.read_bytes())
    # Where the directory begins, in the file's last 22 bytes: everything is then looked for so much further ahead.
    begins_at = struct.unpack_from("<I", damaged, len(damaged) - 6)[0]
    struct.pack_into("<I", damaged, len(damaged) - 6, begins_at + 1_000)
    path = tmp_path / "damaged"
    path.write_bytes(bytes(damaged))
    with pytest.raises(backup_file.Damaged), backup_file.reading(path):
        pass


def test_a_restore_that_fails_at_its_very_end_leaves_the_data_untouched(
    lively: keys.Minted, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backup.make(file)
    make_person("late@northwind.example")
    before = everything()

    def broken(connection: Connection, table: Table) -> int:
        return -1 if table.name == "workspace" and connection.engine is db.engine else rows_count(connection, table)

    rows_count = rows.count
    monkeypatch.setattr(rows, "count", broken)
    with pytest.raises(RestoreRefused, match="rows of workspace"):
        backup.restore(file, replace=True)
    monkeypatch.undo()
    assert everything() == before
    assert list(Path(file.parent / "instance").glob("restore-*")) == []


# ---- Older versions


def test_a_backup_of_an_older_version_is_upgraded(
    environment: dict[str, str], app: Flask, other_url: str, tmp_path: Path, file: Path
) -> None:
    db.session.remove()
    flask_migrate.downgrade(revision="0001")
    with db.engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO workspace (id, slug, name, plan, created_at) VALUES ('ws_1', 'old', 'Old', 'agency', :at)"
            ),
            {"at": "2026-01-01 00:00:00"},
        )
    assert backup.make(file).revision == "0001"
    with another(environment, other_url, tmp_path):
        backup.restore(file)
        with db.engine.connect() as connection:
            assert schema.revision_of(connection) == schema.head()
        (found,) = workspaces.all_workspaces()
        assert (found.slug, found.allow_unknown_price) == ("old", False)


def test_a_restore_into_a_database_of_an_older_version_upgrades_it(lively: keys.Minted, file: Path) -> None:
    backup.make(file)
    before = everything()
    db.session.remove()
    db.engine.dispose()
    flask_migrate.downgrade(revision="0001")
    backup.restore(file, replace=True)
    assert everything() == before


def test_a_database_without_tables_or_of_a_newer_version_is_said_in_words(app: Flask, file: Path) -> None:
    backup.make(file)
    with db.engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(Exception, match="newer version"):
        backup.make(file.with_name("second"))
    with pytest.raises(RestoreRefused, match="newer version"):
        backup.restore(file, replace=True)
    assert not file.with_name("second").exists()


def test_every_kind_of_column_can_be_kept(app: Flask) -> None:
    engine = create_engine("sqlite://")
    with engine.connect() as connection:
        for table in schema.tables_at(schema.head()).tables.values():
            table.create(connection, checkfirst=True)
            assert list(rows.read(connection, table)) == []
    engine.dispose()
    with pytest.raises(TypeError, match="cannot be kept"):
        list(rows.read(connection, Table("t", MetaData(), Column("c"))))
