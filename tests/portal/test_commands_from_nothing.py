"""Every command as an operator runs it: a new Python loads the portal for it. Other tests have it loaded already."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from flask import Flask

from tests.neighbours.fake_provider import FakeProvider
from tests.neighbours.portal import Portal
from tests.portal.calls import PASSWORD

# Each running portal here serves.
NOT_HERE = {"serve"}


@pytest.fixture
def database_url(one_database_url: str) -> str:
    return one_database_url


def commands_of(group: click.Group, *before: str) -> Iterator[str]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands_of(command, *before, name)
        else:
            # Those of Flask-Migrate for who changes the tables are not the portal's.
            yield "db upgrade" if name == "db" else " ".join([*before, name])


# A Python for each of them.
@pytest.mark.timeout(600)
def test_every_command_loads_what_it_needs(app: Flask, tmp_path: Path, provider: FakeProvider) -> None:
    portal = Portal({"ARKA_DEMO": "0", "ARKA_OPENAI_BASE_URL": provider.openai_base_url}, tmp_path, 1)
    has_run = set()

    def run(command: str, *arguments: str, input: str = "", status: int = 0) -> str:
        done = portal.command_from_nothing(*command.split(), *arguments, input=input + "\n")
        assert done.returncode == status, f"{command}: {done.stdout}{done.stderr}"
        assert "Traceback" not in done.stderr
        has_run.add(command)
        return done.stdout.strip()

    run("db upgrade")
    run("user create", "alice@northwind.example", input=PASSWORD)
    run("user list")
    run("user reset-second-factor", "alice@northwind.example")
    run("workspace set-plan", "alice", "agency")
    run("workspace set-limits", "alice", "--daily", "5")
    run("workspace list")
    run("request list")
    run("request grant", "1", status=1)
    run("request decline", "1", "--words", "Not now.", status=1)
    run("provider set", "--workspace", "alice", "openai", input=provider.good_key)
    run("provider list", "--workspace", "alice")
    run("provider test", "--workspace", "alice", "openai")
    run("provider delete", "--workspace", "alice", "openai")
    run("scope define", "--workspace", "alice", "emails:send", "Send e-mail.")
    run("scope list", "--workspace", "alice")
    key = run("key create", "--workspace", "alice", "--name", "server")
    run("key inspect", input=key)
    key_id = run("key list").split("\t")[0]
    run("key rotate", key_id, "--overlap", "1h")
    for act in ("finish", "disable", "enable", "revoke"):
        run(f"key {act}", key_id)
    run("vault status")
    run("vault rotate", "--new-key")
    run("vault forget")
    run("audit verify")
    run("audit seal")
    run("doctor")
    run("backup", str(tmp_path / "backup"))
    run("restore", str(tmp_path / "backup"), "--yes")
    run("user close", "alice@northwind.example", "--reason", "She asked for it.")
    run("user reopen", "alice@northwind.example", "--reason", "She asked for it.")
    assert set(commands_of(app.cli)) - NOT_HERE == has_run
    portal.drop()
