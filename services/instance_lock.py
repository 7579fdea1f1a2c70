"""Who works with an instance: any number of servers, or one act that wants it for itself.

A lock on a file in the instance folder, which the kernel takes back when the last process that holds it has ended,
however it ended.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_NAME = "in_use"


class InUse(Exception):
    """Somebody holds the instance in a way that does not go with ours."""


class Unwritable(Exception):
    """Nothing can be written in the instance folder. Its text is a sentence for the operator."""


@contextmanager
def serving(instance: Path) -> Iterator[int]:
    """Hold the instance together with other servers. Raises InUse and Unwritable.

    Gives the descriptor of the lock: a child that inherits it holds the lock, too.
    """
    with _held(instance, fcntl.LOCK_SH) as descriptor:
        yield descriptor


@contextmanager
def alone(instance: Path) -> Iterator[None]:
    """Hold the instance while nobody serves it. Raises InUse and Unwritable."""
    with _held(instance, fcntl.LOCK_EX):
        yield


@contextmanager
def _held(instance: Path, how: int) -> Iterator[int]:
    try:
        descriptor = os.open(instance / _NAME, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise Unwritable(f"ARKA_INSTANCE_PATH: {instance} cannot be written: {error.strerror}.") from None
    try:
        try:
            fcntl.flock(descriptor, how | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InUse from None
        yield descriptor
    finally:
        os.close(descriptor)
