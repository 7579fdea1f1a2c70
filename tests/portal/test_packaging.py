"""The container file and the unit: what they name exists, and a portal made of it starts."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import config
from config import ROOT
from tests.neighbours.portal import Portal, running_portal
from tests.neighbours.processes import wait_until

CONTAINERFILE = ROOT / "examples" / "container" / "Containerfile"
UNIT = ROOT / "examples" / "systemd" / "arka-portal.service"


def instructions() -> list[tuple[str, str]]:
    """The lines of the container file as (instruction, rest)."""
    text = re.sub(r"^#.*\n", "", CONTAINERFILE.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in text.splitlines() if line.strip()]


def copied() -> Iterator[tuple[list[str], str]]:
    """What comes out of the repository, and where it goes."""
    for name, rest in instructions():
        if name == "COPY" and "--from" not in rest:
            *sources, target = (word for word in rest.split() if not word.startswith("--"))
            yield sources, target


def test_the_portal_of_the_container_can_read_its_code_whoever_has_cloned_it() -> None:
    """A copy keeps the modes that files have, and under umask 077 those are for their owner only."""
    last = max(place for place, (name, _) in enumerate(instructions()) if name == "FROM")
    copies = [rest for name, rest in instructions()[last:] if name == "COPY" and "--from" not in rest]
    assert copies
    for rest in copies:
        mode = re.search(r"--chmod=(0[0-7]{3})\b", rest)
        # It holds for folders as well, and not every builder takes letters.
        assert mode is not None, rest
        assert int(mode[1], 8) == 0o755


def test_the_container_file_copies_what_exists_and_all_that_is_needed(tmp_path: Path) -> None:
    for sources, target in copied():
        for source in sources:
            assert (ROOT / source).exists(), source
            if target.startswith("./"):
                place = tmp_path / target
                ignored = shutil.ignore_patterns("__pycache__")
                if (ROOT / source).is_dir():
                    shutil.copytree(ROOT / source, place, ignore=ignored)
                else:
                    shutil.copy(ROOT / source, place)
    environment = {
        name: value for name, _, value in (rest.partition("=") for name, rest in instructions() if name == "ENV")
    }
    settings = {name: value for name, value in environment.items() if name.startswith("ARKA_")}
    assert settings == {"ARKA_INSTANCE_PATH": "/data", "ARKA_HOST": "0.0.0.0"}
    command = json.loads(dict(instructions())["CMD"])
    check = json.loads(dict(instructions())["HEALTHCHECK"].partition(" CMD ")[2])
    assert (command[0], check[0]) == ("flask", "python")

    with running_portal({"ARKA_DEMO": "0"}, workers=1) as portal:
        portal.stop()
        process = subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=tmp_path,
            env=portal.environment | {"ARKA_HOST": "127.0.0.1", "PYTHONDONTWRITEBYTECODE": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            assert wait_until(lambda: is_healthy([sys.executable, *check[1:]], portal), 60, 0.2)
        finally:
            process.terminate()
            assert process.wait(30) == 0
        assert not is_healthy([sys.executable, *check[1:]], portal)
        # It wrote nothing beside the instance folder.
        assert {path.name for path in tmp_path.iterdir()} == {
            Path(s).name for sources, t in copied() for s in sources if t[0] == "."
        }


def is_healthy(check: list[str], portal: Portal) -> bool:
    return subprocess.run(check, env=portal.environment, stderr=subprocess.DEVNULL, check=False).returncode == 0


def test_the_container_file_installs_from_the_hashed_lock_file_and_runs_unprivileged() -> None:
    steps = instructions()
    assert ("COPY", "requirements/run.txt /run.txt") in steps
    (install,) = [rest for name, rest in steps if name == "RUN" and "pip install" in rest]
    assert "--require-hashes -r /run.txt" in install
    assert [name for name, _ in steps].index("USER") < [name for name, _ in steps].index("CMD")


def unit() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in UNIT.read_text().splitlines():
        if "=" in line and not line.startswith("#"):
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


def test_the_unit_starts_the_portal_and_gives_it_time_to_stop(tmp_path: Path) -> None:
    options = unit()
    (folder,) = options["WorkingDirectory"]
    program, *arguments = shlex.split(options["ExecStart"][0])
    assert program == f"{folder}/.venv/bin/flask"
    assert arguments == ["--app", "app", "serve"]
    assert f"ARKA_INSTANCE_PATH=/var/lib/{options['StateDirectory'][0]}" in options["Environment"]
    settings = config.load({"ARKA_INSTANCE_PATH": str(tmp_path / "instance")})
    assert int(options["TimeoutStopSec"][0]) >= settings.drain_seconds + settings.stop_seconds + 10
    assert options["KillMode"] == ["mixed"]


def test_who_lets_the_portal_stop_for_longer_is_told_to_tell_systemd() -> None:
    """The unit cannot know what its file of settings says."""
    comment = UNIT.read_text().partition("TimeoutStopSec=")[0].rpartition("\n\n")[2]
    for words in (comment, (UNIT.parent / "README.md").read_text()):
        for named in ("ARKA_DRAIN_SECONDS", "ARKA_STOP_SECONDS", "10 seconds", "systemctl edit"):
            assert named in words


def complaints_of_systemd(unit: str, name: str, folder: Path) -> list[str]:
    """What systemd has to say of a unit, whose program is replaced by one that is there."""
    verify = shutil.which("systemd-analyze")
    if verify is None:
        pytest.skip("systemd-analyze is missing: apt install systemd")
    file = folder / name
    file.write_text(unit.replace("/opt/arka-portal/.venv/bin/flask", sys.executable))
    result = subprocess.run(
        [verify, "verify", str(file)], capture_output=True, text=True, check=False, env=dict(os.environ)
    )
    complaints = [line for line in result.stderr.splitlines() if name in line]
    return complaints if result.returncode == 0 else [*complaints, f"status {result.returncode}"]


def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path) -> None:
    assert complaints_of_systemd(UNIT.read_text(), UNIT.name, tmp_path) == []


def command_of_the_readme() -> list[str]:
    """The words of the function that runs a command under systemd."""
    text = (UNIT.parent / "README.md").read_text()
    return shlex.split(text.partition("portal() {")[2].partition("}")[0].replace("\\\n", " "))


def test_a_command_runs_as_the_unit_does_and_systemd_finds_nothing_wrong_with_that(tmp_path: Path) -> None:
    words = command_of_the_readme()
    given = [words[place + 1] for place, word in enumerate(words) if word == "-p"]
    place = words.index("-E")
    program = words[place + 2 :]
    while program[0] == "-p":
        program = program[2:]
    assert program == [*shlex.split(unit()["ExecStart"][0])[:-1], "$@"]
    told = dict(option.partition("=")[::2] for option in given) | {"Environment": words[place + 1]}
    # Without a name of its own it would be another user than the unit's, which has the unit's name.
    assert told.pop("User") == UNIT.stem
    for name, value in told.items():
        assert value in unit()[name], name
    assert {"DynamicUser", "StateDirectory", "StateDirectoryMode", "EnvironmentFile", "WorkingDirectory"} <= set(told)
    lines = ["[Service]", *given, f"Environment={words[place + 1]}", f"ExecStart={shlex.join(program[:-1])} doctor"]
    assert complaints_of_systemd("\n".join([*lines, ""]), "command.service", tmp_path) == []


def test_the_backup_of_the_readme_goes_where_a_unit_with_a_user_of_its_own_may_write() -> None:
    text = (UNIT.parent / "README.md").read_text()
    files = re.findall(r"portal (?:backup|restore) (\S+)", text)
    assert len(files) == 2
    for file in files:
        assert file.startswith(f"/var/lib/{unit()['StateDirectory'][0]}/")
