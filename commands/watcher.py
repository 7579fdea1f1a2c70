"""What ``flask serve`` becomes once its workers are forked: the process that watches over them.

It starts a worker again that has died, and stops all of them in order when it is told to. It lives as long as the
portal does and has nothing else to do, so it is a program of its own, of little of the standard library, and light.

Run as ``python -I -S watcher.py DRAIN STOP ADDRESS CLAIM READ WRITE GREETER WORKER ...``: how many seconds the workers
go on taking new requests after they were told to stop, and how many those in flight may take then; the address on which
they listen; the descriptor that keeps other portals from their port; the two ends of the pipe through which they are
told; the ids of the child that greets the operator and of the workers.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from pathlib import Path
from types import FrameType

_ROOT = Path(__file__).resolve().parent.parent
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
# A worker that dies at once, time after time, is started again more and more slowly.
_RESTART_PAUSES = (0.2, 1.0, 2.0, 5.0, 10.0)
_STEADY_SECONDS = 10.0
# For a worker that does not end although everything in flight was cut off.
_LAST_SECONDS = 5.0


class Watcher:
    """The workers by their ids, and how far they have come with stopping."""

    def __init__(
        self,
        *,
        drain_seconds: float,
        stop_seconds: float,
        address: str,
        claim: int,
        word: tuple[int, int],
        greeter: int,
        workers: list[int],
    ) -> None:
        self._drain_seconds, self._stop_seconds = drain_seconds, stop_seconds
        self._address, self._claim = address, claim
        self._read_word, self._write_word = word
        self._greeter: int | None = greeter
        self._greeted = False
        self._began = dict.fromkeys(workers, time.monotonic())
        self._failures = 0
        self._due: list[float] = []
        self._told: list[int] = []
        # When the workers are to end after what is in flight, and when at all events.
        self._end_at: float | None = None
        self._kill_at: float | None = None
        self._status = 0

    def run(self) -> int:
        """Watch until it was told to stop and no child is left, and return the exit status."""
        woken, waker = os.pipe()
        for end in (woken, waker):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        for number in STOP_SIGNALS:
            signal.signal(number, self._note)
        signal.signal(signal.SIGCHLD, _nothing)
        # They waited from the moment on when the workers were forked.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
        while True:
            self._heed_signals()
            self._reap()
            self._do_what_is_due()
            if self._kill_at is not None and not self._began and self._greeter is None:
                return self._status
            select.select([woken], [], [], self._seconds_until_due())
            _empty(woken)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self._told.append(number)

    def _heed_signals(self) -> None:
        while self._told:
            number = self._told.pop(0)
            if self._kill_at is None:
                # At a terminal nobody has to be sent elsewhere first.
                self._stop(0.0 if number == signal.SIGINT else self._drain_seconds)
            else:
                self._status = 1
                self._signal_workers(signal.SIGKILL)

    def _stop(self, drain_seconds: float) -> None:
        """Tell the workers that the end has come. What they do then is in ``services/stopping.py``."""
        now = time.monotonic()
        os.write(self._write_word, b"x")
        self._end_at = now + drain_seconds
        self._kill_at = now + self._drain_seconds + self._stop_seconds + _LAST_SECONDS
        self._due.clear()
        if self._greeter is not None:
            os.kill(self._greeter, signal.SIGKILL)

    def _do_what_is_due(self) -> None:
        now = time.monotonic()
        while self._due and self._due[0] <= now:
            del self._due[0]
            self._start_worker()
        if self._end_at is not None and self._end_at <= now:
            self._end_at = None
            self._signal_workers(signal.SIGTERM)
            # They close their listeners at once. Another portal may begin while they finish what is in flight.
            os.close(self._claim)
        if self._kill_at is not None and self._kill_at <= now:
            self._signal_workers(signal.SIGKILL)
            self._kill_at = now + 1

    def _seconds_until_due(self) -> float | None:
        moments = [moment for moment in (*self._due[:1], self._end_at, self._kill_at) if moment is not None]
        return max(0.0, min(moments) - time.monotonic()) if moments else None

    def _signal_workers(self, number: signal.Signals) -> None:
        for pid in self._began:
            os.kill(pid, number)

    def _reap(self) -> None:
        """Take notice of every child that has ended."""
        while True:
            try:
                pid, found = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self._ended(pid, os.waitstatus_to_exitcode(found))

    def _ended(self, pid: int, status: int) -> None:
        if pid == self._greeter:
            # It ends when the portal answers. Should it break off, the portal serves on.
            self._greeter, self._greeted = None, True
        elif pid in self._began:
            lived = time.monotonic() - self._began.pop(pid)
            if self._kill_at is not None or self._told:
                # The signal may have come to all processes of the group.
                return
            if self._greeted:
                self._start_again(status, lived)
            else:
                _say("The server did not start; the lines above say why.")
                self._status = status or 1
                self._stop(0.0)

    def _start_again(self, status: int, lived: float) -> None:
        self._failures = 0 if lived > _STEADY_SECONDS else self._failures + 1
        pause = _RESTART_PAUSES[min(self._failures, len(_RESTART_PAUSES)) - 1] if self._failures else 0.0
        _say(f"A worker ended with status {status}; another is started in {pause:g} s.")
        self._due.append(time.monotonic() + pause)
        self._due.sort()

    def _start_worker(self) -> None:
        arguments = [sys.executable, "-m", "server", str(os.getpid()), str(self._read_word), self._address]
        pid = os.fork()
        if pid == 0:
            try:
                os.execv(sys.executable, arguments)
            finally:
                os._exit(1)
        self._began[pid] = time.monotonic()


def main() -> None:
    drain_seconds, stop_seconds = map(float, sys.argv[1:3])
    address = sys.argv[3]
    claim, read, write, greeter, *workers = map(int, sys.argv[4:])
    # Only the workers' end is for those that are started later.
    for number in (claim, write):
        os.set_inheritable(number, False)
    os.chdir(_ROOT)
    watcher = Watcher(
        drain_seconds=drain_seconds,
        stop_seconds=stop_seconds,
        address=address,
        claim=claim,
        word=(read, write),
        greeter=greeter,
        workers=workers,
    )
    sys.exit(watcher.run())


def _nothing(_number: int, _frame: FrameType | None) -> None:
    """A signal that is ignored would not wake anybody."""


def _empty(pipe: int) -> None:
    try:
        while os.read(pipe, 512):
            pass
    except BlockingIOError:
        return


def _say(sentence: str) -> None:
    sys.stderr.write(sentence + "\n")
    sys.stderr.flush()


if __name__ == "__main__":
    main()
