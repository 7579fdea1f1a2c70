"""Every act that is recorded has words for the page of the audit log."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from blueprints.presenters import _ACTS, act_title
from config import ROOT

_ACTION = re.compile(r"[a-z][a-z_]*:[a-z][a-z_]*")
_LONGEST = 40
_LOCK = "one_at_a_time"
CODE = sorted(path for folder in ("services", "commands", "blueprints") for path in (ROOT / folder).rglob("*.py"))


def recorded_in(tree: ast.Module) -> set[str]:
    """Return the actions that a file records: what stands in the call, or, where a name does, whatever in the file
    looks like an action."""
    found: set[str] = set()
    for call in ast.walk(tree):
        if not (isinstance(call, ast.Call) and ast.unparse(call.func) == "audit.record"):
            continue
        given = [keyword.value for keyword in call.keywords if keyword.arg == "action"]
        action = given[0] if given else call.args[2]
        found |= texts_in(action) or texts_in(tree)
    return found


def texts_in(tree: ast.AST) -> set[str]:
    """Return what looks like an action and is no name of a lock."""
    locks = [call for call in ast.walk(tree) if isinstance(call, ast.Call) and ast.unparse(call.func) == _LOCK]
    named = {argument.value for call in locks for argument in call.args if isinstance(argument, ast.Constant)}
    texts = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    return {text for text in texts - named if _ACTION.fullmatch(text)}


@pytest.mark.parametrize("path", CODE, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_recorded_act_has_words(path: Path) -> None:
    actions = recorded_in(ast.parse(path.read_text()))
    assert not actions - set(_ACTS), "give these words in blueprints/presenters.py"
    assert all(len(action) <= _LONGEST for action in actions)


def test_the_search_finds_what_is_recorded() -> None:
    found = recorded_in(ast.parse((ROOT / "services" / "keys.py").read_text()))
    assert {"key:create", "key:change", "key:delete"} <= found
    by_name = recorded_in(ast.parse((ROOT / "services" / "provider_keys.py").read_text()))
    assert {"provider_key:add", "provider_key:replace", "provider_key:delete"} <= by_name


def test_an_act_without_words_is_told_by_its_name() -> None:
    assert act_title("thing:nobody_knows") == "thing:nobody_knows"
