"""The server process that ``flask serve`` watches: granian's main process and, forked from it, the workers.

Run as ``python -m server [PID of the process that watches it]``. Whatever dies, nothing is left behind: the main
process ends with the one that watches it, and the workers with the main process, so that a server that is started
again never shares the port with an old one.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import resource
import signal
import sys
from multiprocessing.util import Finalize
from pathlib import Path

from flask import Flask
from granian import Granian
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.log import LogLevels

from app import create_app, load_settings
from services import metrics, server_processes
from services.background import Background
from services.tasks import TASKS

_PR_SET_PDEATHSIG = 1
# A client that has not sent its headers by then is not going to.
_HEADER_MILLISECONDS = 15_000
# What is in flight when the server is told to stop may take this long to finish.
_STOP_SECONDS = 30


def main() -> None:
    """Serve until told to stop. Signals are granian's: SIGTERM ends it after the requests in flight."""
    settings = load_settings()
    end_with(int(sys.argv[1]) if len(sys.argv) > 1 else os.getppid(), signal.SIGTERM)
    allow_open_files(4 * settings.threads)
    metrics.begin_anew(settings.instance_path)
    # Until granian has set a worker's own handlers, it would swallow a signal with its parent's.
    os.register_at_fork(after_in_child=_heed_signals)
    Granian(
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
        workers_kill_timeout=_STOP_SECONDS,
        log_level=LogLevels.error,
    ).serve()


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
    app = create_app()
    metrics.share(Path(app.instance_path))
    background = Background(app, TASKS)
    background.start()
    # When the last request is answered. A process of multiprocessing ends without what atexit knows.
    Finalize(None, _leave, (app, background), exitpriority=0)
    return app


def _leave(app: Flask, background: Background) -> None:
    background.stop()
    with app.app_context():
        server_processes.leave()


def _heed_signals() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)


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
