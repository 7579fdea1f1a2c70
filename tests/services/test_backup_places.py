"""Where a backup is written, and what is left lying about when a backup or a restore is told to end."""

from __future__ import annotations

import os
import signal
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from flask import Flask

from services import backup, backup_file, rows
from tests.people import Person


@pytest.fixture
def database_url(one_database_url: str) -> str:
    """One kind: what is read and written is tested with both."""
    return one_database_url


def run(app: Flask, *arguments: str) -> Result:
    return app.test_cli_runner().invoke(args=list(arguments))


def is_whole(file: Path) -> bool:
    with backup_file.reading(file) as reader:
        return reader.manifest.rows > 0


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("through_link", [False, True])
def test_what_is_no_file_is_left_as_it_is(app: Flask, alice: Person, tmp_path: Path, through_link: bool) -> None:
    place = tmp_path / "pipe"
    os.mkfifo(place)
    named = place
    if through_link:
        named = tmp_path / "latest"
        named.symlink_to(place)
    before = names_in(tmp_path)
    result = run(app, "backup", str(named))
    assert (result.exit_code, f"Error: {named} is no file" in result.stderr) == (1, True), result.stderr
    assert stat.S_ISFIFO(place.lstat().st_mode)
    assert named.is_symlink() == through_link
    assert names_in(tmp_path) == before


def test_the_end_of_a_pipe_is_no_place_for_a_backup(app: Flask, alice: Person) -> None:
    """As ``/dev/stdout`` is: a link to a name that leads nowhere, and is a pipe none the less."""
    read, write = os.pipe()
    try:
        result = run(app, "backup", f"/dev/fd/{write}")
    finally:
        os.close(read)
        os.close(write)
    assert (result.exit_code, "is no file" in result.stderr) == (1, True), result.stderr


@pytest.mark.parametrize("exists", [True, False])
def test_a_link_goes_on_leading_to_the_newest_backup(app: Flask, alice: Person, tmp_path: Path, exists: bool) -> None:
    folder = tmp_path / "backups"
    folder.mkdir()
    file, link = folder / "monday", tmp_path / "latest"
    if exists:
        file.write_text("an earlier one")
    link.symlink_to("backups/monday")
    assert run(app, "backup", str(link)).exit_code == 0
    assert link.is_symlink()
    assert not file.is_symlink()
    assert is_whole(file)
    assert names_in(folder) == {"monday"}


def test_standard_output_gets_no_backup(
    app: Flask, alice: Person, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(app, "backup", "-")
    assert (result.exit_code, "Name a file" in result.stderr) == (1, True), result.stderr
    assert not Path("-").exists()


@pytest.fixture
def passed_over() -> Iterator[list[int]]:
    """The signals that nobody else has heeded. Without a handler they would end the tests."""
    found: list[int] = []
    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, lambda number, _frame: found.append(number)) for number in numbers]
    yield found
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


def then_told_to_end(act: Callable[..., Any], number: signal.Signals) -> Callable[..., Any]:
    def told(*arguments: Any) -> Any:
        os.kill(os.getpid(), number)
        return act(*arguments)

    return told


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_backup_that_is_told_to_end_leaves_nothing_behind(
    app: Flask,
    alice: Person,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    passed_over: list[int],
    number: signal.Signals,
) -> None:
    folder = tmp_path / "backups"
    folder.mkdir()
    monkeypatch.setattr(rows, "read", then_told_to_end(rows.read, number))
    assert run(app, "backup", str(folder / "monday")).exit_code == 128 + number
    assert names_in(folder) == set()
    # Whoever runs the command from within gets his own signals back.
    os.kill(os.getpid(), number)
    assert passed_over == [number]


def test_a_restore_that_is_told_to_end_leaves_the_data_and_nothing_behind(
    app: Flask, alice: Person, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, passed_over: list[int]
) -> None:
    file = tmp_path / "portal.backup"
    backup.make(file)
    before = names_in(Path(app.instance_path))
    monkeypatch.setattr(rows, "write", then_told_to_end(rows.write, signal.SIGTERM))
    assert run(app, "restore", str(file), "--yes").exit_code == 128 + signal.SIGTERM
    assert names_in(Path(app.instance_path)) - {"in_use"} == before - {"in_use"}
    assert passed_over == []
    assert alice.workspace.slug == "alice"


def test_what_is_to_survive_the_end_of_its_terminal_does(
    app: Flask, alice: Person, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As ``nohup`` starts it."""
    file = tmp_path / "portal.backup"
    monkeypatch.setattr(rows, "read", then_told_to_end(rows.read, signal.SIGHUP))
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert run(app, "backup", str(file)).exit_code == 0
    finally:
        signal.signal(signal.SIGHUP, before)
    assert is_whole(file)
