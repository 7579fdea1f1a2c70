"""What the documents say is so."""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from config import ROOT
from services.gate import CHECKS, REASONS
from services.key_format import KeyFormat

DOCS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *ROOT.glob("docs/*.md")]


def codes_in_the_code() -> set[str]:
    """Every error code that a class or a call in services and blueprints names."""
    found = set(REASONS)
    for path in [*ROOT.glob("services/**/*.py"), *ROOT.glob("blueprints/**/*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.keyword) and node.arg == "code" and isinstance(node.value, ast.Constant):
                found.add(str(node.value.value))
    return found


def test_every_error_code_of_v1_is_documented() -> None:
    written = (ROOT / "docs" / "errors.md").read_text()
    missing = {code for code in codes_in_the_code() if f"`{code}`" not in written}
    assert missing == set()


def test_the_documented_order_is_the_order_of_the_checks() -> None:
    written = (ROOT / "docs" / "errors.md").read_text()
    rows = [match[1].split(", ") for match in re.finditer(r"^\| ([a-z, ]+) \| 4\d\d \|", written, re.MULTILINE)]
    names = [name for row in rows for name in row if name in dict(CHECKS)]
    assert list(dict.fromkeys(names)) == [name for name, _ in CHECKS]


def test_every_file_the_documents_link_to_exists() -> None:
    for path in DOCS:
        for link in re.findall(r"\]\(([^)#:]+)\)", path.read_text()):
            assert (path.parent / link).exists(), f"{path.name} links to {link}"


def test_every_place_on_the_map_exists() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    for places in re.findall(r"^\| (`[^|]+) \|", text, re.MULTILINE):
        for place in re.findall(r"`([^`]+)`", places):
            assert place == "instance/" or (ROOT / place).exists(), place
    for folder in [path for path in ROOT.iterdir() if (path / "__init__.py").exists() and path.name != "tests"]:
        assert f"`{folder.name}/`" in text


def our_commands(folder: str) -> dict[str, set[str]]:
    """Every command with its options."""
    from app import create_app
    from config import load

    def within(command: click.Command, name: str) -> Iterator[tuple[str, set[str]]]:
        if isinstance(command, click.Group):
            for word, part in command.commands.items():
                yield from within(part, f"{name} {word}".strip())
        else:
            options = [parameter for parameter in command.params if isinstance(parameter, click.Option)]
            yield name, {word for option in options for word in option.opts}

    return dict(within(create_app(load({"ARKA_INSTANCE_PATH": folder})).cli, ""))


def test_the_readme_has_every_command_with_all_its_options_and_no_other(tmp_path: Path) -> None:
    text = (ROOT / "README.md").read_text()
    table = text.partition("| command: ")[2].partition("\n\n")[0]
    cells = [line.split(" | ")[0] for line in table.splitlines()[2:]]
    told = {}
    for command in (command for cell in cells for command in re.findall(r"`([^`]+)`", cell)):
        words = re.match(r"[a-z -]*[a-z](?= |$)", command.split(" --")[0])
        assert words is not None
        # Its own commands are Alembic's.
        told["db" if words[0] == "db upgrade" else words[0]] = set(re.findall(r"--[a-z-]+", command))
    assert told == our_commands(str(tmp_path))


def test_the_documented_pattern_and_checksum_for_scanners_find_our_keys() -> None:
    text = (ROOT / "docs" / "secret-scanning.md").read_text()
    blocks = [textwrap.dedent(block) for block in re.findall(r"(?:^    .*\n|^\n(?=    ))+", text, re.MULTILINE)]
    pattern = re.compile(next(block.strip() for block in blocks if "arka_(sk" in block))
    names: dict[str, Any] = {}
    exec(next(block for block in blocks if "def is_key" in block), names)
    for kind in ("secret", "publishable"):
        for environment in ("live", "test"):
            key = KeyFormat("arka").generate(kind, environment).reveal()
            found = pattern.search(f'token = "{key}";')
            assert found is not None
            assert found[0] == key
            assert names["is_key"](key)
            assert not names["is_key"](key[:-1] + ("0" if key[-1] != "0" else "1"))


def test_the_fields_of_a_question_about_a_key_are_documented() -> None:
    from blueprints.v1.verify import QUESTION

    text = (ROOT / "docs" / "verify.md").read_text()
    assert tuple(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)) == QUESTION


def test_every_test_that_the_page_about_security_names_exists() -> None:
    written = (ROOT / "docs" / "security.md").read_text()
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", written)
    assert len(named) > 40
    missing = [f"{path}::{name}" for path, name in named if f"def {name}(" not in (ROOT / path).read_text()]
    assert missing == []
