"""Chromium for the tests: where it is found and how it is started."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

VARIABLE = "ARKA_TEST_CHROMIUM"
HOW_TO_GET = (
    "no Chromium found: install your distribution's package (apt-get install chromium), or run "
    f"`python -m playwright install chromium`, or set {VARIABLE} to its path"
)
NAMES = (
    "chromium",
    "chromium-browser",
    "chromium-headless-shell",
    "google-chrome",
    "google-chrome-stable",
    "chrome",
    "microsoft-edge",
)
DOWNLOADED = (
    "chromium-*/chrome-linux*/chrome",
    "chromium_headless_shell-*/chrome-*linux*/*headless*shell",
    "chromium-*/chrome-mac*/*.app/Contents/MacOS/*",
)
FLAGS = (
    # The pages shown are only our own, and containers often forbid what the sandbox needs.
    "--no-sandbox",
    # Containers often have a /dev/shm that is too small.
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--no-first-run",
    "--no-default-browser-check",
    "--no-pings",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-domain-reliability",
    "--disable-extensions",
    "--disable-sync",
    "--no-proxy-server",
    # Every name but these is unknown, so nothing leaves this machine, not even a question to a name server.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE ::1, EXCLUDE localhost",
)


@functools.cache
def find_chromium() -> Path | None:
    """Return the first Chromium that starts, or None.

    Looks at the environment variable, at the usual names on the path, and at Playwright's downloads. Raises
    FileNotFoundError when the variable names something that does not start.
    """
    named = os.environ.get(VARIABLE)
    if named:
        if not _starts(Path(named)):
            raise FileNotFoundError(f"{VARIABLE} names {named}, which does not start")
        return Path(named)
    return next((path for path in _candidates() if _starts(path)), None)


def launch_options() -> dict[str, Any]:
    """Return the arguments for Playwright's ``chromium.launch``. Raises FileNotFoundError without a Chromium."""
    path = find_chromium()
    if path is None:
        raise FileNotFoundError(HOW_TO_GET)
    return {"executable_path": str(path), "headless": True, "args": list(FLAGS), "timeout": 30_000}


def _candidates() -> Iterator[Path]:
    for name in NAMES:
        found = shutil.which(name)
        if found:
            yield Path(found)
    folder = _download_folder()
    for pattern in DOWNLOADED:
        yield from sorted(folder.glob(pattern), reverse=True)


def _download_folder() -> Path:
    named = os.environ.get("PLAYWRIGHT_BROWSERS_PATH")
    if named:
        return Path(named)
    return Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache") / "ms-playwright"


def _starts(path: Path) -> bool:
    # Ubuntu has a chromium-browser that only says where to get the real one.
    try:
        done = subprocess.run([path, "--version"], capture_output=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0
