"""Ends what a test run would leave behind if it were killed. Needs only the standard library.

``processes.py`` runs this file as a script and tells it through its standard input what exists. The kernel
closes that pipe however the test run ends, also by SIGKILL; what is still listed then is ended and removed.

Lines: ``group ID SIGNAL``, ``group-ended ID``, ``folder PATH``, ``folder-removed PATH``.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from collections.abc import Iterable

PATIENCE_SECONDS = 5.0


def main(lines: Iterable[str]) -> None:
    groups, folders = left_over(lines)
    for group, number in groups.items():
        tell(group, number)
    deadline = time.monotonic() + PATIENCE_SECONDS
    for group in groups:
        end(group, deadline)
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def left_over(lines: Iterable[str]) -> tuple[dict[int, int], set[str]]:
    """Read to the end; return the process groups that are still there, each with its signal, and the folders."""
    groups: dict[int, int] = {}
    folders: set[str] = set()
    for line in lines:
        word, _, rest = line.rstrip("\n").partition(" ")
        if word == "group":
            group_id, number = rest.split()
            groups[int(group_id)] = int(number)
        elif word == "group-ended":
            groups.pop(int(rest), None)
        elif word == "folder":
            folders.add(rest)
        elif word == "folder-removed":
            folders.discard(rest)
    return groups, folders


def tell(group: int, number: int) -> bool:
    """Send a signal to a process group; return False when the group is gone."""
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def end(group: int, deadline: float) -> None:
    while time.monotonic() < deadline and tell(group, 0):
        time.sleep(0.05)
    tell(group, signal.SIGKILL)


if __name__ == "__main__":
    main(sys.stdin)
