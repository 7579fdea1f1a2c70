"""The end of a server process: new callers are sent elsewhere, what is in flight finishes, and what takes too long is
cut off with an error of its own.

The process that watches over the workers says the word through a pipe that they all inherit, because it has their
attention in no other way that comes before the end. The pipe says it as well when that process has died.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import socket
import stat
import struct
import sys
import threading
import time
from collections.abc import Callable

import structlog

from services.errors import ServiceUnavailable

_log = structlog.get_logger("stopping")

# How long a worker goes on accepting after its listeners take no more connections, which is ample for those on the way.
DOOR_SECONDS = 0.25

# A filter for incoming packets of a listener (BPF in its classic form): those that ask for a new connection are dropped
# (flags SYN without ACK, byte 13 of TCP's header), everything else passes.
_SO_ATTACH_FILTER = 26
_NO_NEW_CONNECTIONS = (
    (0x30, 0, 0, 13),
    (0x54, 0, 0, 0x12),
    (0x15, 0, 1, 0x02),
    (0x06, 0, 0, 0),
    (0x06, 0, 0, 0xFFFFFFFF),
)


class Stopping(ServiceUnavailable):
    """The call was not over when the portal had to stop."""

    message = "The portal is being restarted. Please retry."


class _Process:
    """What this process knows of its end."""

    begun = False
    time_is_up = threading.Event()


def has_begun() -> bool:
    """Tell whether this process is about to end, and callers do better to go elsewhere."""
    return _Process.begun


def time_is_up() -> bool:
    """Tell whether what is still in flight has to end now."""
    return _Process.time_is_up.is_set()


def check() -> None:
    """Raise Stopping when what is in flight has to end now."""
    if _Process.time_is_up.is_set():
        raise Stopping


def pause(seconds: float) -> None:
    """Wait so long within what is in flight. Raises Stopping as soon as that has to end."""
    if _Process.time_is_up.wait(seconds):
        raise Stopping


def heed(pipe: int, drain_seconds: float, stop_seconds: float, cut_off: Callable[[], None]) -> None:
    """Wait for the word in a thread of this worker: until there is something in the pipe, which nobody takes out.

    For ``drain_seconds`` everything is answered as ever, while ``/readyz`` and ``Connection: close`` send callers
    elsewhere; what is in flight then has ``stop_seconds`` to finish, before ``cut_off``
    ends what waits for somebody else.
    """
    arguments = (pipe, drain_seconds, stop_seconds, cut_off)
    threading.Thread(target=_end, args=arguments, name="stopping", daemon=True).start()


def _end(pipe: int, drain_seconds: float, stop_seconds: float, cut_off: Callable[[], None]) -> None:
    select.select([pipe], [], [])
    _Process.begun = True
    time.sleep(drain_seconds)
    shut_the_door()
    time.sleep(stop_seconds)
    _Process.time_is_up.set()
    _log.warning("what is still in flight is cut off", seconds=stop_seconds)
    while True:
        cut_off()
        # Whoever was between two waits meanwhile.
        time.sleep(0.1)


def shut_the_door() -> None:
    """Let the listeners of this process take no new connections, while those in their queue are still accepted.

    A listener that is closed resets the connections in its queue, and the request that a proxy has put on one of them
    is lost: it cannot know whether it was carried out. A connection that was never made is made elsewhere. Does nothing
    where the system has no such filter.
    """
    if not sys.platform.startswith("linux"):
        return
    program = b"".join(struct.pack("=HBBI", *step) for step in _NO_NEW_CONNECTIONS)
    kept = ctypes.create_string_buffer(program)
    argument = struct.pack("HL", len(_NO_NEW_CONNECTIONS), ctypes.addressof(kept))
    for descriptor in map(int, os.listdir("/proc/self/fd")):
        # One that is gone already is the listing's own.
        with contextlib.suppress(OSError):
            if stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                _filter(descriptor, argument)


def _filter(descriptor: int, argument: bytes) -> None:
    with socket.socket(fileno=os.dup(descriptor)) as found:
        if found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            found.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, argument)
