"""The server process that ``flask serve`` watches: granian's main process and, forked from it, the workers.

Run as ``python -m server [PID of the process that watches it]``. Whatever dies, nothing is left behind: the main
process ends with the one that watches it, and the workers with the main process, so that a server that is started
again never shares the port with an old one.
"""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import os
import resource
import signal
import sys
import threading
from multiprocessing.util import Finalize
from pathlib import Path
from types import FrameType
from typing import Any

from flask import Flask
from granian import Granian
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.log import LogLevels

from app import create_app, load_settings
from services import metrics, server_processes, settling, stopping
from services.background import Background
from services.parts import parts
from services.tasks import TASKS

_PR_SET_PDEATHSIG = 1
# A client that has not sent its headers by then is not going to.
_HEADER_MILLISECONDS = 15_000
# About what twenty calls make.
_OBJECTS_BETWEEN_COLLECTIONS = 10_000
# For a worker that does not end although everything in flight was cut off.
_LAST_SECONDS = 5


def main() -> None:
    """Serve until told to stop: SIGTERM ends it after the requests in flight, SIGINT does so without a wait before."""
    settings = load_settings()
    end_with(int(sys.argv[1]) if len(sys.argv) > 1 else os.getppid(), signal.SIGTERM)
    allow_open_files(4 * settings.threads)
    metrics.begin_anew(settings.instance_path)
    # Until granian has set a worker's own handlers, it would swallow a signal with its parent's.
    os.register_at_fork(after_in_child=_heed_signals)
    stopping.prepare()
    server = Granian(
        "server:application",
        factory=True,
        interface=Interfaces.WSGI,
        http=HTTPModes.http1,
        websockets=False,
        address=settings.host,
        port=settings.port,
        workers=settings.workers,
        blocking_threads=settings.threads,
        backlog=4096,
        backpressure=settings.threads,
        http1_settings=HTTP1Settings(header_read_timeout=_HEADER_MILLISECONDS),
        respawn_failed_workers=True,
        respawn_interval=0.2,
        workers_kill_timeout=settings.stop_seconds + _LAST_SECONDS,
        log_level=LogLevels.error,
    )
    server.on_startup(lambda: _stop_in_order(server, settings.drain_seconds))
    server.serve()


def _stop_in_order(server: Any, drain_seconds: float) -> None:
    """Take SIGTERM over from granian, which has just set its own: it is to come after the time to drain."""
    at_once = signal.getsignal(signal.SIGTERM)
    assert callable(at_once)
    end = threading.Timer(drain_seconds + stopping.DOOR_SECONDS, at_once, (signal.SIGTERM, None))
    end.daemon = True

    def begin(_number: int, _frame: FrameType | None) -> None:
        if end.ident is None:
            # The signal may have come to all processes of the group.
            server.respawn_failed_workers = False
            stopping.tell_workers()
            end.start()

    signal.signal(signal.SIGTERM, begin)


def allow_open_files(number: int) -> None:
    """Let each process have so many files open, if the system permits: every call at work has two connections."""
    allowed, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = number if most == resource.RLIM_INFINITY else min(number, most)
    if allowed != resource.RLIM_INFINITY and allowed < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


def application() -> Flask:
    """Make the app of one worker process."""
    main_process = multiprocessing.parent_process()
    if main_process is not None and main_process.pid is not None:
        # A worker that is just starting does not heed SIGTERM yet.
        end_with(main_process.pid, signal.SIGKILL)
    settings = load_settings()
    app = create_app(settings)
    metrics.share(Path(app.instance_path))
    background = Background(app, TASKS)
    background.start()
    with app.app_context():
        cut_off = parts().upstream.interrupt
    stopping.heed(settings.drain_seconds, settings.stop_seconds, cut_off)
    # When the last request is answered. A process of multiprocessing ends without what atexit knows.
    Finalize(None, _leave, (app, background), exitpriority=0)
    _leave_alone_what_stays()
    return app


def _leave_alone_what_stays() -> None:
    """Take what is loaded by now out of the garbage collector's rounds, and let it look less often at what is new.

    It would look through everything again and again, which is a tenth of the time that calls take.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS, 20, 20)


def _leave(app: Flask, background: Background) -> None:
    background.stop()
    with app.app_context():
        settling.settle_waiting()
        server_processes.leave()


def _heed_signals() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # Ctrl-C comes to all processes. The main one tells the workers; told twice, granian's would not end.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})


def end_with(parent: int, number: signal.Signals) -> None:
    """Ask the kernel to send this process a signal when its parent dies (prctl(2); Linux only).

    Exits at once when the parent is dead already.
    """
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:
        os._exit(1)


if __name__ == "__main__":
    main()
