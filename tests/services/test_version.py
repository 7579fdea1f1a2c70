"""The version is said in two places."""

from __future__ import annotations

import tomllib

from config import ROOT
from services.version import VERSION


def test_the_portal_says_the_version_it_is_packaged_as() -> None:
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == VERSION
