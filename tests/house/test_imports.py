"""Imports point one way: app -> blueprints, commands -> services -> models -> extensions."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from config import ROOT

LAYERS = {"extensions": 0, "models": 1, "services": 2, "blueprints": 3, "commands": 3, "app": 4, "server": 5}
OURS = sorted(
    path
    for pattern in ("*.py", "blueprints/**/*.py", "commands/**/*.py", "models/**/*.py", "services/**/*.py")
    for path in ROOT.glob(pattern)
)
WEB_NAMES = {"request", "session", "g", "flash", "render_template", "redirect", "url_for", "make_response"}


def imports_of(path: Path) -> list[tuple[str, str]]:
    """Return (module, name) of every import; name is empty for ``import module``."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [(alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found += [(node.module or "", alias.name) for alias in node.names]
    return found


def layer_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", OURS, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_imports_from_a_layer_above_it(path: Path) -> None:
    mine = LAYERS.get(layer_of(path))
    if mine is None:
        return
    for module, name in imports_of(path):
        theirs = LAYERS.get(module.split(".")[0])
        assert theirs is None or theirs <= mine, f"{path.name} looks back to {module} ({name})"


@pytest.mark.parametrize("path", OURS, ids=lambda path: str(path.relative_to(ROOT)))
def test_only_the_app_and_the_commands_it_configures_read_the_settings(path: Path) -> None:
    if layer_of(path) in ("app", "config") or path.relative_to(ROOT).parts in (
        ("commands", "__init__.py"),
        ("commands", "serve.py"),
    ):
        return
    assert not [module for module, _ in imports_of(path) if module == "config"]


@pytest.mark.parametrize("path", sorted(ROOT.glob("services/**/*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_services_know_nothing_of_the_web(path: Path) -> None:
    for module, name in imports_of(path):
        assert not module.startswith(("werkzeug", "flask_login", "flask_wtf", "wtforms", "jinja2", "blueprints"))
        assert module != "flask" or name not in WEB_NAMES, f"{path.name} imports {name} from flask"


@pytest.mark.parametrize("path", sorted(ROOT.glob("models/**/*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_models_know_nothing_of_flask(path: Path) -> None:
    assert not [module for module, _ in imports_of(path) if module.split(".")[0].startswith(("flask", "werkzeug"))]


SHARED_BLUEPRINT_FILES = {
    "assets",
    "charts",
    "csv_lines",
    "errors",
    "forms",
    "guards",
    "hooks",
    "known_devices",
    "portal",
    "presenters",
    "proving",
    "request_form",
    "template_tools",
    "times",
}


@pytest.mark.parametrize(
    "path", sorted(ROOT.glob("blueprints/*/**/*.py")), ids=lambda path: str(path.relative_to(ROOT))
)
def test_blueprints_do_not_import_each_other(path: Path) -> None:
    mine = path.relative_to(ROOT / "blueprints").parts[0]
    for module, _ in imports_of(path):
        parts = module.split(".")
        if parts[0] == "blueprints" and len(parts) > 1:
            assert parts[1] in SHARED_BLUEPRINT_FILES | {mine}, f"{mine} imports {module}"


@pytest.mark.parametrize("path", sorted(ROOT.glob("blueprints/**/*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_views_never_commit(path: Path) -> None:
    text = path.read_text()
    assert "transaction(" not in text
    assert ".commit(" not in text
