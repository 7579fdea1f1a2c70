"""What the portal counts of itself, for Prometheus, as one sum over all processes of an instance.

Every process counts in memory that is also a file of its own, so counting is an addition and no system call, nothing is
lost when a process is killed, and whichever process is asked adds up all files. A process that starts goes on in the
file of one that has ended: totals never fall, and there are never more files than there were processes at once. What is
so at the moment (a Gauge) counts only for living processes. The files are begun anew when the server starts.

A label must have few values: never a key, a model or anything else that a caller chooses.
"""

from __future__ import annotations

import fcntl
import json
import mmap
import os
import threading
import time
from bisect import bisect_left
from collections.abc import Iterator
from pathlib import Path

import structlog

# A file is a row of records: a number, then the name of its series, padded with NUL.
_RECORD_BYTES = 256
_NUMBER_BYTES = 8
_NUMBERS_PER_RECORD = _RECORD_BYTES // _NUMBER_BYTES
_MOST_SERIES = 4096
_FILE_BYTES = _MOST_SERIES * _RECORD_BYTES
_FOLDER = "metrics"
_SUFFIX = ".numbers"
# How a status is told by its class.
CLASSES = {number: f"{number}xx" for number in range(1, 6)}
_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)

_Name = tuple[str, ...]

_log = structlog.get_logger("metrics")


class _Store:
    """The numbers of this process, by the name of their series."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._slots: dict[_Name, int] = {}
        self.folder: Path | None = None
        self._use(memoryview(bytearray(_FILE_BYTES)))

    def _use(self, memory: memoryview) -> None:
        self._bytes = memory
        self.numbers = memory.cast("d")

    def slot(self, name: _Name) -> int:
        """Return the place of a series in ``numbers``, made when it is new. What is too much shares the last."""
        with self.lock:
            found = self._slots.get(name)
            if found is None:
                number = min(len(self._slots), _MOST_SERIES - 1)
                text = json.dumps(name, ensure_ascii=False).encode()
                if number == _MOST_SERIES - 1 or len(text) > _RECORD_BYTES - _NUMBER_BYTES:
                    return (_MOST_SERIES - 1) * _NUMBERS_PER_RECORD
                start = number * _RECORD_BYTES + _NUMBER_BYTES
                self._bytes[start : start + len(text)] = text
                found = self._slots[name] = number * _NUMBERS_PER_RECORD
            return found

    def share(self, folder: Path) -> None:
        """Count in a file from now on. What was counted before is taken along. Raises OSError, and changes nothing."""
        before = [(name, self.numbers[slot]) for name, slot in self._slots.items()]
        folder.mkdir(mode=0o700, exist_ok=True)
        # The descriptor stays open, and with it the lock, for as long as the process lives.
        self._use(memoryview(mmap.mmap(_own_file(folder), _FILE_BYTES)))
        self.folder = folder
        self._slots = {name: number * _NUMBERS_PER_RECORD for number, (name, _) in enumerate(_records(self._bytes))}
        for name, slot in self._slots.items():
            if _METRICS[name[0]].kind == "gauge":
                self.numbers[slot] = 0.0
        for metric in _METRICS.values():
            metric.forget_slots()
        for name, number in before:
            self.numbers[self.slot(name)] += number

    def records(self) -> Iterator[tuple[_Name, float]]:
        return _records(self._bytes)


class _Metric:
    """One metric with its labels. ``labels`` of a call are their values, in the order of the declaration."""

    kind = ""

    def __init__(self, name: str, help: str, *labels: str) -> None:
        self.name, self.help, self.labels = name, help, labels
        self._slots: dict[_Name, int] = {}
        _METRICS[name] = self

    def forget_slots(self) -> None:
        self._slots = {}

    def _slot(self, labels: _Name) -> int:
        found = self._slots.get(labels)
        if found is None:
            assert len(labels) >= len(self.labels)
            found = self._slots[labels] = _store.slot((self.name, *labels))
        return found


class Counter(_Metric):
    """Counts up."""

    kind = "counter"

    def add(self, *labels: str) -> None:
        slot = self._slot(labels)
        with _store.lock:
            _store.numbers[slot] += 1.0


class Gauge(_Metric):
    """How many there are of something now, in this process."""

    kind = "gauge"

    def set(self, value: float, *labels: str) -> None:
        slot = self._slot(labels)
        with _store.lock:
            _store.numbers[slot] = value

    def add(self, value: float, *labels: str) -> None:
        slot = self._slot(labels)
        with _store.lock:
            _store.numbers[slot] += value


class Histogram(_Metric):
    """Counts how often something took how many seconds."""

    kind = "histogram"

    def __init__(self, name: str, help: str, *labels: str) -> None:
        super().__init__(name, help, *labels)
        self._rows: dict[_Name, tuple[list[int], int]] = {}

    def forget_slots(self) -> None:
        super().forget_slots()
        self._rows = {}

    def observe(self, seconds: float, *labels: str) -> None:
        row = self._rows.get(labels)
        if row is None:
            slots = [self._slot((*labels, str(bound))) for bound in (*_BUCKETS, "+Inf")]
            row = self._rows[labels] = (slots, self._slot((*labels, "sum")))
        slots, total = row
        slot = slots[bisect_left(_BUCKETS, seconds)]
        with _store.lock:
            _store.numbers[slot] += 1.0
            _store.numbers[total] += seconds


_METRICS: dict[str, _Metric] = {}
_store = _Store()

REQUESTS = Counter("arka_requests_total", "Answers, by route and class of status.", "route", "status")
REQUEST_SECONDS = Histogram(
    "arka_request_seconds", "Seconds until an answer was complete, or a stream began; pages are one route.", "route"
)
PROVIDER_REQUESTS = Counter(
    "arka_provider_requests_total", "Requests to providers, by class of status or 'unreachable'.", "provider", "outcome"
)
PROVIDER_SECONDS = Histogram("arka_provider_seconds", "Seconds until a provider's answer began.", "provider")
LIMITER_REFUSALS = Counter("arka_limiter_refusals_total", "Requests over a rate limit.", "area")
LIMITER_STORE_FAILURES = Counter("arka_limiter_store_failures_total", "Counts that the storage of rate limits failed.")
LIMITER_AWAY = Gauge("arka_limiter_away", "Processes that do not reach the storage of rate limits.")
LIMITER_IN_MEMORY = Gauge("arka_limiter_in_memory", "Processes that count rate limits in their own memory.")
OPEN_STREAMS = Gauge("arka_open_streams", "Answers being streamed.")
UNSETTLED = Gauge("arka_unsettled_streams", "Streams that are over and wait for the database with what they came to.")
CONNECTIONS = Gauge("arka_database_connections", "Connections to the database in use, by pool.", "pool")
BREAKERS = Gauge("arka_breakers", "Breakers that are open, or let one call try, over all processes.", "state")
TASK_RUNS = Counter("arka_task_runs_total", "Runs of background tasks, by outcome.", "task", "outcome")


class ProviderRequest:
    """Counts one request to a provider, and how long its head takes: ``status`` is set when there is an answer."""

    def __init__(self, provider: str) -> None:
        self.status: int | None = None
        self._provider = provider

    def __enter__(self) -> ProviderRequest:
        self._began = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        outcome = "unreachable" if self.status is None else CLASSES.get(self.status // 100, "other")
        PROVIDER_REQUESTS.add(self._provider, outcome)
        PROVIDER_SECONDS.observe(time.perf_counter() - self._began, self._provider)


def share(instance: Path) -> None:
    """Count in a file of the instance folder from now on. Only servers do; what a command counts interests nobody.

    Where no file is to be had, on a full disk say, the process goes on in its own memory: counts are no reason not to
    serve.
    """
    try:
        _store.share(instance / _FOLDER)
    except OSError as error:
        _log.warning("metrics are counted in the memory of this process: there is no file for them", cause=str(error))


def begin_anew(instance: Path) -> None:
    """Forget what ended processes have counted."""
    for path in (instance / _FOLDER).glob("*" + _SUFFIX):
        descriptor = os.open(path, os.O_RDWR)
        if _take(descriptor):
            path.unlink(missing_ok=True)
        os.close(descriptor)


def text() -> str:
    """Return the sums over all processes in Prometheus' text format (version 0.0.4)."""
    sums: dict[_Name, float] = {}
    processes = 0
    for living, records in _files():
        processes += living
        for name, number in records:
            # A file of an older version may hold what is no longer counted.
            metric = _METRICS.get(name[0])
            if metric is not None and (living or metric.kind != "gauge"):
                sums[name] = sums.get(name, 0.0) + number
    lines = ["# HELP arka_processes Serving processes.", "# TYPE arka_processes gauge", f"arka_processes {processes}"]
    for metric in _METRICS.values():
        lines += [f"# HELP {metric.name} {metric.help}", f"# TYPE {metric.name} {metric.kind}"]
        found = {name[1:]: number for name, number in sums.items() if name[0] == metric.name}
        lines += _histogram_lines(metric, found) if metric.kind == "histogram" else _lines(metric, found)
    return "\n".join(lines) + "\n"


def totals(counter: Counter) -> dict[tuple[str, ...], float]:
    """Return a counter's sums over all processes of the instance, by the values of its labels."""
    sums: dict[_Name, float] = {}
    for _living, records in _files():
        for name, number in records:
            if name[0] == counter.name:
                sums[name[1:]] = sums.get(name[1:], 0.0) + number
    return sums


def _lines(metric: _Metric, found: dict[_Name, float]) -> Iterator[str]:
    for labels, number in sorted(found.items()):
        yield f"{metric.name}{_braces(metric.labels, labels)} {number:.17g}"


def _histogram_lines(metric: _Metric, found: dict[_Name, float]) -> Iterator[str]:
    for labels in sorted({name[:-1] for name in found}):
        count = 0.0
        for bound in (*map(str, _BUCKETS), "+Inf"):
            count += found.get((*labels, bound), 0.0)
            yield f"{metric.name}_bucket{_braces((*metric.labels, 'le'), (*labels, bound))} {count:.17g}"
        yield f"{metric.name}_sum{_braces(metric.labels, labels)} {found.get((*labels, 'sum'), 0.0):.17g}"
        yield f"{metric.name}_count{_braces(metric.labels, labels)} {count:.17g}"


def _braces(names: _Name, values: _Name) -> str:
    pairs = ",".join(f'{name}="{_escaped(value)}"' for name, value in zip(names, values, strict=True))
    return f"{{{pairs}}}" if pairs else ""


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


# ---- Files. The lock on a file tells whether its process lives: the kernel takes it back.


def _files() -> Iterator[tuple[bool, Iterator[tuple[_Name, float]]]]:
    """Yield for each process whether it lives, and its records. A process without a file tells only of itself."""
    if _store.folder is None:
        yield True, _store.records()
        return
    for path in sorted(_store.folder.glob("*" + _SUFFIX)):
        try:
            content = path.read_bytes()
            descriptor = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            continue
        living = _is_taken(descriptor)
        os.close(descriptor)
        yield living, _records(memoryview(content))


def _own_file(folder: Path) -> int:
    """Return the descriptor of a locked file: one that an ended process has left, or a new one. Raises OSError."""
    for path in sorted(folder.glob("*" + _SUFFIX)):
        descriptor = os.open(path, os.O_RDWR)
        if _take(descriptor) and os.fstat(descriptor).st_nlink:
            return _with_room(descriptor)
        os.close(descriptor)
    draft = folder / f"{os.getpid()}-{os.urandom(4).hex()}"
    descriptor = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        _with_room(descriptor)
    except OSError:
        draft.unlink()
        raise
    # Only now do others see it, who would take it for one that is left.
    draft.rename(draft.with_suffix(_SUFFIX))
    return descriptor


def _with_room(descriptor: int) -> int:
    """Give a file the room for all that it may ever hold, and return it. Closes it and raises OSError if there is none.

    A write to a page that the disk has no room for is no error in a mapped file but SIGBUS, which ends the process.
    """
    try:
        # macOS has no such call.
        getattr(os, "posix_fallocate", _lengthen)(descriptor, 0, _FILE_BYTES)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _lengthen(descriptor: int, _start: int, length: int) -> None:
    os.ftruncate(descriptor, length)


def _take(descriptor: int) -> bool:
    """Hold a file until it is closed, unless a living process does; tell whether we do."""
    while not _locked(descriptor, fcntl.LOCK_EX):
        if _is_taken(descriptor):
            return False
        # Only a reader was there, who is as good as gone.
        fcntl.flock(descriptor, fcntl.LOCK_UN)
        time.sleep(0.001)
    return True


def _is_taken(descriptor: int) -> bool:
    """Tell whether a living process holds a file. If none does, we keep others from taking it until it is closed."""
    # Shared, so that of two who read at a moment neither takes the other for the process.
    return not _locked(descriptor, fcntl.LOCK_SH)


def _locked(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _records(memory: memoryview) -> Iterator[tuple[_Name, float]]:
    numbers = memory[: len(memory) // _RECORD_BYTES * _RECORD_BYTES].cast("d")
    for number in range(len(memory) // _RECORD_BYTES):
        start = number * _RECORD_BYTES + _NUMBER_BYTES
        name = bytes(memory[start : start + _RECORD_BYTES - _NUMBER_BYTES]).rstrip(b"\0")
        if not name:
            return
        yield tuple(json.loads(name)), numbers[number * _NUMBERS_PER_RECORD]


def _begin_in_child() -> None:
    # The file is the parent's.
    global _store
    _store = _Store()
    for metric in _METRICS.values():
        metric.forget_slots()


os.register_at_fork(after_in_child=_begin_in_child)
