"""Minutes of mixed load at four fifths of what the portal can do, while its worker processes are killed at random.

    python -m bench.soak --minutes 10
    python -m bench.soak --minutes 5 --storage postgresql

Runs on one machine with what the tests run on (``requirements/test.txt``): a fake provider, the portal with two worker
processes, callers. Before each minute it measures how much of the mix is answered at most, and then offers a part of
that at a steady rate: what a machine can do changes with what else it does. Nothing is killed while it measures. At the
end it says what was promised and what was seen, and fails when a promise was broken:

- no answer of 5xx; a call whose worker was killed breaks off, nothing else does;
- every call that was answered has its usage row, none has two, none stays open, and no money stays held;
- no limit is exceeded in any 60 seconds;
- memory and file handles of the portal do not grow, once the workers that took the place of the last killed ones have
  met every kind of call, and as many at once as there ever are. Connections to the provider are kept as calls at once
  need them, so their number goes up and down; it stays within what the callers can need.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from sqlalchemy import create_engine, text

import config
from bench.soak_callers import KEY_LIMIT, Caller, Keys, Seen, Timetable, prepare
from tests.neighbours import processes
from tests.neighbours.fake_provider import OPENAI_KEY
from tests.neighbours.portal import ROOT, Portal, running_portal
from tests.neighbours.postgres import running_postgres
from tests.neighbours.valkey import running_valkey

_WORKERS = 2
_SATURATING_CALLERS = 16
_CALLERS = 48
_SHARE = 0.8
_ROUND_SECONDS = 60.0
_SAMPLE_SECONDS = 2.0
# Kills end before the run does, so that the processes of the end can be seen to keep their size. A new one has that
# after about two minutes: pages of the database are kept, threads are begun, each statement is prepared.
_KILLED_PART = 0.5
_SETTLED_PART = 0.7
_MEBIBYTE = 2**20
# What counts as growth, over the part in which all is settled, as a share for ten minutes.
_GROWTH = 0.10


@dataclass(frozen=True)
class Sample:
    """The portal's processes at a moment: seconds since the beginning, bytes of memory, open files, connections to the
    provider, which are not among the files, and how many processes."""

    at: float
    memory: int
    files: int
    to_provider: int
    processes: int


class Watch:
    """Looks at the portal's processes while the load is steady, and kills a worker now and then in the first part."""

    def __init__(self, portal: Portal, provider_port: int, kill_every: float, kill_seconds: float) -> None:
        self.samples: list[Sample] = []
        self.kills = 0
        self._portal = portal
        self._provider_port = provider_port
        self._kill_every = kill_every
        self._began = time.monotonic()
        self._kill_until = self._began + kill_seconds
        self._steady = threading.Event()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._look), threading.Thread(target=self._kill)]
        for thread in self._threads:
            thread.start()

    @contextlib.contextmanager
    def steady(self) -> Iterator[None]:
        """Say that the load is steady."""
        self._steady.set()
        try:
            yield
        finally:
            self._steady.clear()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _look(self) -> None:
        while not self._stop.wait(_SAMPLE_SECONDS):
            if not self._steady.is_set():
                continue
            found = family(self._portal.pid)
            at, to_provider = time.monotonic() - self._began, connections_to(self._provider_port)
            files = Counter(file in to_provider for pid in found for file in files_of(pid))
            self.samples.append(Sample(at, sum(map(memory_of, found)), files[False], files[True], len(found)))

    def _kill(self) -> None:
        # No worker twice in a moment, after which the pause before the next grows.
        while not self._stop.wait(self._kill_every * random.uniform(0.6, 1.4)):
            workers = workers_of(self._portal.pid)
            if self._steady.is_set() and time.monotonic() < self._kill_until and len(workers) > 1:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(random.choice(workers), signal.SIGKILL)
                    self.kills += 1


def family(pid: int) -> list[int]:
    """Return a process and all that descend from it."""
    found = [pid]
    for one in found:
        found += processes.children_of(one)
    return found


def workers_of(pid: int) -> list[int]:
    """Return the processes that answer: the children of the one that was started."""
    return processes.children_of(pid)


def memory_of(pid: int) -> int:
    """Return the memory that is its own, in bytes; what forks share counts for each by its part."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/smaps_rollup") as file:
        return next((int(line.split()[1]) * 1024 for line in file if line.startswith("Pss:")), 0)
    return 0


def files_of(pid: int) -> Iterator[str]:
    """Give what each open file of a process is, such as a path or ``socket:[4711]``."""
    with contextlib.suppress(OSError):
        for number in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                yield os.readlink(f"/proc/{pid}/fd/{number}")


def connections_to(port: int) -> set[str]:
    """Return the connections of this machine that lead to a port of it, as open files are called."""
    with open("/proc/net/tcp") as file:
        lines = [line.split() for line in file][1:]
    return {f"socket:[{line[9]}]" for line in lines if int(line[2].rpartition(":")[2], 16) == port}


# ---- the run


@contextlib.contextmanager
def storage(kind: str) -> Iterator[dict[str, str]]:
    """Give the settings of where the portal keeps its data."""
    if kind == "sqlite":
        yield {}
        return
    with running_postgres() as postgres, running_valkey() as valkey:
        url = postgres.url_of(postgres.create_database())
        yield {"ARKA_DATABASE_URL": url, "ARKA_RATELIMIT_STORAGE_URI": valkey.url}


@contextlib.contextmanager
def provider() -> Iterator[str]:
    """Run the fake provider in a process of its own; give its address."""
    command = [sys.executable, "-m", "tests.neighbours.fake_provider", "--key", OPENAI_KEY, "--event-delay", "0.02"]
    process = processes.start(
        command, output=subprocess.PIPE, errors=subprocess.DEVNULL, environment=os.environ, folder=ROOT
    )
    assert process.stdout is not None
    try:
        yield process.stdout.readline().decode().strip()
    finally:
        processes.stop(process, signal.SIGTERM)
        process.stdout.close()


def load(portal: Portal, keys: Keys, callers: int, timetable: Timetable) -> Seen:
    """Let callers work through a timetable and return what they saw."""
    found = [Caller(portal.port, keys, timetable) for _ in range(callers)]
    for caller in found:
        caller.start()
    for caller in found:
        caller.join()
    return Seen.all_of([caller.seen for caller in found])


def minutes_of_load(portal: Portal, keys: Keys, provider_port: int, given: argparse.Namespace) -> tuple[Seen, Watch]:
    """Measure and offer, round after round; return what the callers and the watch saw."""
    rounds = max(1, round(given.minutes * 60 / _ROUND_SECONDS))
    seconds = given.minutes * 60 / rounds
    watch = Watch(portal, provider_port, given.kill_every, rounds * (seconds + given.saturate) * _KILLED_PART)
    seen = []
    try:
        for _ in range(rounds):
            most = load(portal, keys, _SATURATING_CALLERS, Timetable.as_fast_as_can_be(given.saturate))
            rate = _SHARE * most.total / given.saturate
            with watch.steady():
                offered = load(portal, keys, _CALLERS, Timetable.steady(rate, seconds))
            print(
                f"{most.total / given.saturate:.0f} calls a second at most; {rate:.0f} offered, "
                f"{offered.total / seconds:.0f} answered",
                flush=True,
            )
            seen += [most, offered]
    finally:
        watch.stop()
    return Seen.all_of(seen), watch


def rows(portal: Portal, statement: str) -> list[str]:
    engine = create_engine(config.load(portal.environment).database_url)
    with engine.connect() as connection:
        found = [str(row[0]) for row in connection.execute(text(statement))]
    engine.dispose()
    return found


# ---- the verdict


@dataclass(frozen=True)
class Promise:
    words: str
    seen: str
    kept: bool


def judge(portal: Portal, seen: Seen, watch: Watch) -> list[Promise]:
    """Return what was promised, with what was seen of it."""
    server_errors = {code: count for code, count in seen.codes.items() if code.startswith("5")}
    kept = Counter(rows(portal, "SELECT request_id FROM usage_record"))
    lost = sum(1 for one in seen.answered if one not in kept)
    twice = sum(1 for count in kept.values() if count > 1)
    left_open = "SELECT request_id FROM usage_record WHERE ended_at IS NULL"
    processes.wait_until(lambda: not rows(portal, left_open), 45, 1)
    unfinished, held = len(rows(portal, left_open)), len(rows(portal, "SELECT request_id FROM spending_hold"))
    most = most_in_a_window(seen.limited)
    promises = [
        Promise("no answer of 5xx", str(server_errors or 0), not server_errors),
        Promise(
            "only kills break calls off",
            f"{seen.broken} of {seen.total:,} calls, {watch.kills} kills",
            seen.broken <= watch.kills * _CALLERS,
        ),
        Promise("usage rows of answered calls lost", f"{lost} of {len(seen.answered):,}", lost == 0),
        Promise("usage rows kept twice", str(twice), twice == 0),
        Promise("calls left open, money left held", f"{unfinished}, {held}", unfinished == held == 0),
        Promise(f"at most {KEY_LIMIT} of the limited key in any 60 s", str(most), most <= KEY_LIMIT),
    ]
    return [*promises, *growths(watch.samples), connections_kept(watch.samples)]


def most_in_a_window(limited: Sequence[tuple[float, float]], seconds: float = 60.0) -> int:
    """Return the most calls, as (sent, answered), that certainly were counted within any such window."""
    calls = sorted(limited)
    most = 0
    for place, (began, _) in enumerate(calls):
        within = [1 for sent, answered in calls[place:] if sent <= began + seconds and answered <= began + seconds]
        most = max(most, len(within))
    return most


def growths(samples: Sequence[Sample]) -> Iterator[Promise]:
    """Judge by the samples of the end, when every process is the one it was, and has its size."""
    last = samples[-1].at if samples else 0.0
    steady = [sample for sample in samples if sample.at > last * _SETTLED_PART]
    for name, of, unit in (("memory", lambda one: one.memory / _MEBIBYTE, "MiB"), ("files", lambda one: one.files, "")):
        if len(steady) < 5:
            continue
        numbers = [float(of(sample)) for sample in steady]
        slope = statistics.linear_regression([sample.at for sample in steady], numbers).slope
        ten_minutes = slope * 600 / statistics.mean(numbers)
        shown = f"{numbers[0]:.0f} to {numbers[-1]:.0f} {unit}, slope {slope * 60:+.2f} {unit} a minute"
        # Half a minute tells of noise alone.
        kept = steady[-1].at - steady[0].at < 60 or ten_minutes < _GROWTH
        yield Promise(f"{name} do not grow" if unit == "" else f"{name} does not grow", shown, kept)


def connections_kept(samples: Sequence[Sample]) -> Promise:
    """Judge the connections to the provider: each worker keeps as many as it ever had calls at once, and no more."""
    bound = _CALLERS * _WORKERS
    most = max((sample.to_provider for sample in samples), default=0)
    return Promise(f"at most {bound} connections to the provider", str(most), most <= bound)


def report(seen: Seen, promises: Sequence[Promise]) -> None:
    print(f"{'kind':12} {'calls':>9} {'p50 ms':>8} {'p99 ms':>8}")
    for kind, times in sorted(seen.seconds.items()):
        times.sort()
        p50, p99 = (times[int(len(times) * part)] * 1000 for part in (0.5, 0.99))
        print(f"{kind:12} {len(times):>9,} {p50:>8.1f} {p99:>8.1f}")
    print("answers:", ", ".join(f"{code}: {count:,}" for code, count in sorted(seen.codes.items())))
    for promise in promises:
        print(f"{'kept  ' if promise.kept else 'BROKEN'}  {promise.words}: {promise.seen}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, report, and return 0 when every promise was kept."""
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--storage", choices=["sqlite", "postgresql"], default="sqlite")
    parser.add_argument("--kill-every", type=float, default=15.0, help="seconds between two kills, about")
    parser.add_argument("--saturate", type=float, default=6.0, help="seconds in which the most is measured")
    given = parser.parse_args(arguments)
    with storage(given.storage) as kept, provider() as address:
        settings = {**kept, "ARKA_DEMO": "0", "ARKA_OPENAI_BASE_URL": f"{address}/v1", "ARKA_LOG_LEVEL": "warning"}
        with running_portal(settings, workers=_WORKERS) as portal:
            keys = prepare(portal)
            seen, watch = minutes_of_load(portal, keys, urlsplit(address).port or 80, given)
            promises = judge(portal, seen, watch)
            report(seen, promises)
    return 0 if all(promise.kept for promise in promises) else 1


if __name__ == "__main__":
    sys.exit(main())
