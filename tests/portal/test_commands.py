"""The commands that scripts outside the project rely on."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.neighbours.fake_provider import FakeProvider
from tests.neighbours.portal import Portal, running_portal
from tests.neighbours.storage import GROWN
from tests.portal.calls import CHAT, HELLO, PASSWORD, call
from tests.portal.database import run

Make = Callable[..., str]


def test_user_create_prints_the_slug_alone(portal: Portal) -> None:
    made = portal.command("user", "create", "mira@northwind.example", input=PASSWORD + "\n")
    assert (made.returncode, made.stdout) == (0, "mira\n")
    again = portal.command("user", "create", "mira@northwind.example", input=PASSWORD + "\n")
    assert (again.returncode, again.stdout) == (1, "")
    weak = portal.command("user", "create", "jo@northwind.example", input="short\n")
    assert weak.returncode == 1
    assert "at least 15 characters" in weak.stderr


def test_an_operator_made_by_command_closes_the_set_up_link(portal: Portal) -> None:
    assert portal.command("user", "create", "ops@people.example", "--operator", input=PASSWORD + "\n").returncode == 0
    found = re.search(r"/setup/\S+", portal.stdout())
    assert found
    status, _, page = call(portal.port, None, path=found[0])
    assert status in (404, 410)
    assert b"<form" not in page


def test_key_create_prints_the_key_alone_and_refuses_without_the_plan(portal: Portal, new_key: Make) -> None:
    assert re.fullmatch(r"arka_sk_[0-9A-Za-z]{32}", new_key("live"))
    assert re.fullmatch(r"arka_sk_test_[0-9A-Za-z]{32}", new_key("test", "--test"))
    assert re.fullmatch(r"arka_pk_test_[0-9A-Za-z]{32}", new_key("shop", "--test", "--publishable"))
    assert portal.command("workspace", "set-plan", "alice", "starter").returncode == 0
    refused = portal.command("key", "create", "--workspace", "alice", "--name", "more")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "Agency plan" in refused.stderr


def test_scopes_and_expiry_of_a_key_made_by_command_hold(portal: Portal, new_key: Make) -> None:
    key = new_key("narrow", "--test", "--scope", "models:read", "--scope", "usage:read", "--expires-in", "30d")
    assert call(portal.port, key)[0] == 200
    status, _, answer = call(portal.port, key, "POST", CHAT, HELLO)
    assert (status, answer["error"]["details"]["granted"]) == (403, ["models:read", "usage:read"])


@pytest.mark.parametrize("options", [["--scope", "nonsense"], ["--expires-in", "soon"], ["--expires-in", "0d"]])
def test_a_wrong_option_makes_no_key(portal: Portal, new_key: Make, options: list[str]) -> None:
    result = portal.command("key", "create", "--workspace", "alice", "--name", "x", *options)
    assert result.returncode != 0
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    assert portal.command("key", "list").stdout == ""


def test_a_key_can_be_listed_and_ended_by_command(portal: Portal, new_key: Make) -> None:
    key = new_key("server", "--test")
    assert call(portal.port, key)[0] == 200
    listed = portal.command("key", "list").stdout
    key_id, slug, mask, status, name = listed.rstrip("\n").split("\t")
    assert (slug, mask, status, name) == ("alice", f"arka_sk_test_{key[13:17]}...{key[-5:]}", "active", "server")
    assert portal.command("key", "revoke", key_id).returncode == 0
    assert call(portal.port, key)[0] == 403
    assert portal.command("key", "revoke", key_id).returncode == 1


def test_plans_are_granted_at_once(portal: Portal, new_key: Make) -> None:
    key = new_key("server", "--test")
    portal.command("workspace", "set-plan", "alice", "enterprise", "--requests-per-minute", "7")
    assert call(portal.port, key)[1]["X-RateLimit-Limit"] == "7"
    assert portal.command("workspace", "list").stdout == "alice\tenterprise\t7\talice\n"
    assert portal.command("workspace", "set-plan", "alice", "gold").returncode == 1
    assert portal.command("workspace", "set-plan", "nobody", "agency").returncode == 1


def test_the_audit_log_verifies(portal: Portal, new_key: Make) -> None:
    new_key("server")
    assert portal.command("audit", "verify").returncode == 0
    assert portal.command("audit", "seal").returncode == 0


def test_a_log_that_was_changed_in_the_table_is_named_with_its_first_broken_entry() -> None:
    with running_portal({"ARKA_DEMO": "0"}) as portal:
        portal.command("user", "create", "alice@northwind.example", input=PASSWORD + "\n")
        last = run(portal, "SELECT max(number) FROM audit_event")[0][0]
        run(portal, f"DELETE FROM audit_event WHERE number = {last}")
        for act in ("verify", "seal"):
            result = portal.command("audit", act)
            assert result.returncode == 1
            assert "alice: " in result.stderr
        assert f"alice: entry {last} is missing or was changed." in portal.command("audit", "verify").stderr
        assert portal.command("audit", "seal", "--anew").returncode == 0
        assert portal.command("audit", "verify").returncode == 0


def test_a_database_without_tables_is_said_in_words() -> None:
    with running_portal({"ARKA_DEMO": "0"}) as portal:
        portal.stop()
        if GROWN:
            run(portal, "DROP SCHEMA public CASCADE")
            run(portal, "CREATE SCHEMA public")
        for file in portal.instance_path.glob("portal.db*"):
            file.unlink()
        result = portal.command("workspace", "list")
        assert result.returncode == 1
        assert "db upgrade" in result.stderr
        assert portal.command("db", "upgrade").returncode == 0
        assert portal.command("workspace", "list").returncode == 0


def test_a_live_key_reaches_the_provider_streamed_or_not(storage: dict[str, str], provider: FakeProvider) -> None:
    settings = {**storage, "ARKA_DEMO": "0", "ARKA_OPENAI_BASE_URL": provider.openai_base_url}
    with running_portal(settings) as portal:
        portal.command("user", "create", "alice@northwind.example", input=PASSWORD + "\n")
        portal.command("workspace", "set-plan", "alice", "agency")
        refused = portal.command("provider", "set", "--workspace", "alice", "openai", input="sk-wrong-key-0000000\n")
        assert refused.returncode == 1
        assert "does not accept this key" in refused.stderr
        assert "sk-wrong" not in refused.stderr
        saved = portal.command("provider", "set", "--workspace", "alice", "openai", input=provider.good_key + "\n")
        assert saved.returncode == 0, saved.stderr
        key = portal.command("key", "create", "--workspace", "alice", "--name", "live").stdout.strip()
        status, _, answer = call(portal.port, key, "POST", CHAT, HELLO)
        assert status == 200
        assert "Hello, world!" in answer["choices"][0]["message"]["content"]
        status, headers, streamed = call(portal.port, key, "POST", CHAT, {**HELLO, "stream": True})
        assert (status, headers["Content-Type"].split(";")[0]) == (200, "text/event-stream")
        assert streamed.endswith(b"data: [DONE]\n\n")
        printed = portal.output()
    for secret in (provider.good_key, key, key[8:]):
        assert secret not in printed


def test_a_key_can_be_rotated_disabled_and_enabled_by_command(portal: Portal, new_key: Make) -> None:
    old = new_key("server", "--test")
    key_id = portal.command("key", "list").stdout.split("\t")[0]
    rotated = portal.command("key", "rotate", key_id, "--overlap", "1h")
    assert rotated.returncode == 0, rotated.stderr
    new = rotated.stdout.removesuffix("\n")
    assert re.fullmatch(r"arka_sk_test_[0-9A-Za-z]{32}", new)
    assert [call(portal.port, key)[0] for key in (old, new)] == [200, 200]
    assert portal.command("key", "rotate", key_id, "--overlap", "soon").returncode == 1
    assert portal.command("key", "disable", key_id).returncode == 0
    assert [call(portal.port, key)[0] for key in (old, new)] == [403, 403]
    assert portal.command("key", "enable", key_id).returncode == 0
    assert [call(portal.port, key)[0] for key in (old, new)] == [200, 200]
    assert portal.command("key", "finish", key_id).returncode == 0
    assert [call(portal.port, key)[0] for key in (old, new)] == [403, 200]
    assert portal.command("key", "finish", key_id).returncode == 1


@pytest.mark.parametrize("into", [">/dev/full", ">&-", "| true"])
def test_a_key_that_cannot_be_printed_is_not_made_and_a_secret_not_changed(
    portal: Portal, new_key: Make, into: str
) -> None:
    key = new_key("server", "--test")
    listed = portal.command("key", "list").stdout
    ways = [("create", "--workspace", "alice", "--name", "more"), ("rotate", listed.split("\t")[0], "--overlap", "now")]
    for way in ways:
        done = portal.command_in_shell(f'set -o pipefail; "$@" {into}', "key", *way)
        assert (done.returncode, done.stdout) == (1, "")
        assert re.fullmatch(
            r"Error: The key cannot be written to standard output: .+\. Nothing was changed\.\n", done.stderr
        )
    assert portal.command("key", "list").stdout == listed
    assert call(portal.port, key)[0] == 200
    assert portal.command("audit", "verify").returncode == 0


def test_inspect_tells_offline_what_a_string_is(portal: Portal, new_key: Make) -> None:
    key = new_key("server")
    portal.stop()
    told = portal.command("key", "inspect", input=key + "\n")
    assert told.returncode == 0
    assert "secret live key" in told.stdout
    wrong = key[:-1] + ("a" if key[-1] != "a" else "b")
    for other, reason in ((wrong, "checksum is wrong"), ("sk-something", "no key")):
        refused = portal.command("key", "inspect", input=other + "\n")
        assert refused.returncode == 1
        assert reason in refused.stderr
        assert other[8:] not in refused.stdout + refused.stderr


def test_a_workspace_s_own_scopes_can_be_defined_by_command(portal: Portal, new_key: Make) -> None:
    new_key("first")
    define = ["scope", "define", "--workspace", "alice"]
    assert portal.command(*define, "emails:send", "Send e-mail.").returncode == 0
    assert portal.command(*define, "chat:read", "A resource of the portal.").returncode == 1
    assert portal.command("scope", "list", "--workspace", "alice").stdout == "emails:send\tSend e-mail.\n"
    assert new_key("mailer", "--scope", "emails:send")


def test_doctor_names_what_cannot_be_reached_and_nobody_s_password(tmp_path: Path) -> None:
    settings = {
        "ARKA_DATABASE_URL": "postgresql://portal:hush-hush@127.0.0.1:1/portal",
        "ARKA_RATELIMIT_STORAGE_URI": "redis://:hush-hush@127.0.0.1:1",
    }
    found = Portal(settings, tmp_path, 1).command("doctor")
    assert found.returncode == 1
    failed = {line.split()[1].rstrip(":") for line in found.stdout.splitlines() if line.startswith("FAIL")}
    assert {"database", "limits", "vault"} <= failed
    assert "hush" not in found.stdout + found.stderr
    assert "Traceback" not in found.stderr


def no_database(path: Path) -> str:
    path.write_text("This is no database, although it is where one was promised.\n" * 20)
    return f"sqlite:///{path}"


@pytest.mark.embedded
@pytest.mark.parametrize("reach", [lambda _: "postgresql://u:hunter2@127.0.0.1:1/portal", no_database])
@pytest.mark.parametrize("command", [("user", "list"), ("serve",)], ids=" ".join)
def test_a_database_that_cannot_be_used_is_told_by_its_setting(
    tmp_path: Path, port: int, reach: Callable[[Path], str], command: tuple[str, ...]
) -> None:
    result = Portal({"ARKA_DATABASE_URL": reach(tmp_path / "portal.db")}, tmp_path, port).command(*command)
    assert result.returncode != 0
    assert "ARKA_DATABASE_URL" in result.stderr
    assert "Traceback" not in result.stderr
    assert "hunter2" not in result.stderr


@pytest.mark.embedded
def test_instances_whose_folders_differ_by_a_spelling_of_addresses_keep_apart(tmp_path: Path) -> None:
    """All that opens the database by its address: commands, the server, doctor, backup and restore."""
    names = ("a b", "a%20b", "a?b")
    for name in names:
        with running_portal({"ARKA_DEMO": "0", "ARKA_INSTANCE_PATH": str(tmp_path / name)}, workers=1) as portal:
            made = portal.command("user", "create", "alice@northwind.example", input=PASSWORD + "\n")
            assert made.stdout == "alice\n", made.stderr
            assert portal.command("doctor").returncode == 0
            assert call(portal.port, None, path="/readyz")[0] == 200
            assert portal.command("backup", str(tmp_path / "backup")).returncode == 0
            portal.stop()
            restored = portal.command("restore", str(tmp_path / "backup"), "--yes")
            assert restored.returncode == 0, restored.stderr
            assert {"portal.db", "limits.db"} <= {path.name for path in portal.instance_path.iterdir()}
    assert {path.name for path in tmp_path.iterdir()} == {*names, "backup"}
