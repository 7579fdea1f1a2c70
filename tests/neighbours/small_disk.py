"""A disk that is really full when it is: a file system of a few kilobytes in memory, mounted on a folder.

A bound on the size of files is something else: room that a sparse or a mapped file lacks shows only on a disk.
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


class SmallDisk:
    """A mounted folder, which can be filled to the last byte and freed again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"

    def fill(self) -> None:
        """Take all the room there is."""
        with self._ballast.open("ab", buffering=0) as file, contextlib.suppress(OSError):
            for size in (65_536, 4_096, 1):
                with contextlib.suppress(OSError):
                    while True:
                        file.write(bytes(size))

    def free(self) -> None:
        """Give back what ``fill`` took."""
        self._ballast.unlink()


@contextlib.contextmanager
def small_disk(folder: Path, kilobytes: int) -> Iterator[SmallDisk]:
    """Yield a disk of that size, mounted on a folder. Skips the test where we may not mount."""
    folder.mkdir(parents=True, exist_ok=True)
    options = f"size={kilobytes}k,mode=0700"
    try:
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "arka-test", str(folder)], capture_output=True)
    except FileNotFoundError:
        pytest.skip("a small disk cannot be made: there is no mount command")
    if done.returncode != 0:
        pytest.skip("a small disk cannot be made: mounting needs root, and a container the right to it")
    try:
        yield SmallDisk(folder)
    finally:
        # Lazily, because what a killed process held open may take a moment to go.
        subprocess.run(["umount", "--lazy", str(folder)], check=True, capture_output=True)
