"""One worker process: granian, and beside the requests the background work.

A worker is forked by ``flask serve``, or started afresh as ``python -m server`` when another has died. It does not
outlive for long the process that watches over it, so that a portal that is started again has its port to itself.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import resource
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flask import Flask
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.log import LogLevels
from granian.server.mp import MPServer

from extensions import db
from services import metrics, server_processes, settling, stopping
from services.background import Background
from services.child import end_with
from services.parts import parts
from services.tasks import TASKS

# A client that has not sent its headers by then is not going to.
_HEADER_MILLISECONDS = 15_000
_SECONDS_BETWEEN_SWITCHES = 0.05
# About what twenty calls make.
_OBJECTS_BETWEEN_COLLECTIONS = 10_000
# Of mallopt(3).
_M_ARENA_MAX = -8


@dataclass(frozen=True, slots=True)
class Worker:
    """How a worker serves: where, with how many threads, and how many seconds its end may take."""

    host: str
    port: int
    threads: int
    drain_seconds: int
    stop_seconds: int

    def run(self, app: Flask, watcher: int, word: int) -> None:
        """Serve until told to stop, and return when the last request is answered.

        ``watcher`` is the process whose child this is, ``word`` the pipe through which it tells that the end has come.
        The process is the worker's own: its signals are set, and threads are left in it.
        """
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        # Those of a terminal come to all its processes. The watcher tells the workers.
        signal.pthread_sigmask(signal.SIG_SETMASK, {signal.SIGINT, signal.SIGHUP})
        end_with(watcher, signal.SIGTERM)
        allow_open_files(4 * self.threads)
        share_memory_between_threads()
        let_many_threads_wait()
        # What is loaded stays. Without it the collector has less to look through, and forks go on to share it. By
        # default it looks after every call or two, which is a tenth of the time that calls take.
        gc.freeze()
        gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS, 20, 20)
        metrics.share(Path(app.instance_path))
        background = Background(app, TASKS)
        background.start()
        with app.app_context():
            cut_off = parts().upstream.interrupt
            parts().quick.hold_file()
        stopping.heed(word, self.drain_seconds, self.stop_seconds, cut_off)
        try:
            self._server().serve(target_loader=lambda: app, wrap_loader=False)
        finally:
            background.stop()
            with app.app_context():
                settling.settle_waiting()
                server_processes.leave()
                # Nothing closes them at the end of this process, and SQLite's last one puts its log into the file.
                parts().quick.close()
                db.session.remove()
                db.engine.dispose()

    def _server(self) -> _InThisProcess:
        return _InThisProcess(
            "",
            interface=Interfaces.WSGI,
            http=HTTPModes.http1,
            websockets=False,
            address=self.host,
            port=self.port,
            blocking_threads=self.threads,
            backlog=4096,
            backpressure=self.threads,
            http1_settings=HTTP1Settings(header_read_timeout=_HEADER_MILLISECONDS),
            log_level=LogLevels.error,
        )


class _InThisProcess(MPServer):
    """granian without a main process of its own, which would weigh as much as a worker and only wait.

    What granian would run in a process that it forks is run here.
    """

    def _spawn_workers(self, spawn_target: Any, target_loader: Any) -> None:
        # Here are the handlers of the main process by now, which would swallow a signal.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        self._spawn_worker(0, spawn_target, target_loader).inner.run()
        # For the loop that waits for workers, of which there are none.
        self.interrupt_signal = True
        self.main_loop_interrupt.set()


def share_memory_between_threads() -> None:
    """Let all threads take their memory from one place, instead of eight for each core (glibc only).

    What a thread gives back can be used again only by those of its place. So every place grows until it has held the
    most that its own threads need, which takes many minutes and comes to twice the memory of the whole process; and
    Python's threads seldom allocate at the same time. Heeded only before there are threads.
    """
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)


def let_many_threads_wait() -> None:
    """Let a thread that waits for the interpreter look for it twenty times a second, instead of two hundred.

    Each look is a switch between threads. With the five hundred that carry five hundred streams those alone can take
    the processors, and then more threads wait, and look: streams that were on time one moment stand still for seconds
    the next. A thread at work gives the interpreter up at each system call and statement, long before it is asked to.
    """
    sys.setswitchinterval(_SECONDS_BETWEEN_SWITCHES)


def allow_open_files(number: int) -> None:
    """Let this process have so many files open, if the system permits: every call at work has two connections."""
    allowed, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = number if most == resource.RLIM_INFINITY else min(number, most)
    if allowed != resource.RLIM_INFINITY and allowed < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))
