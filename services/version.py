"""The version of the portal, the same as in ``pyproject.toml``, which an installation need not have."""

from __future__ import annotations

VERSION = "0.1.0"
