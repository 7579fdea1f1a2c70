"""Metrics add up over processes, outlive them, and are written as Prometheus reads them."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from config import ROOT
from services import metrics
from tests.neighbours.small_disk import small_disk

# Counts as it is told, line by line; answers "text" with the sums.
WORKER = """
import json, sys
from pathlib import Path
from services import logs, metrics
logs.configure("json")
for line in sys.stdin:
    name, *arguments = json.loads(line)
    if name == "share":
        answer = metrics.share(Path(arguments[0]))
    elif name == "text":
        answer = metrics.text()
    else:
        metric, act = name.split(".")
        answer = getattr(getattr(metrics, metric), act)(*arguments)
    print(json.dumps(answer), flush=True)
"""


class Worker:
    """A process that counts."""

    def __init__(self, folder: Path | None) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", WORKER],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        if folder is not None:
            self.do("share", str(folder))

    def do(self, name: str, *arguments: object) -> object:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps([name, *arguments]) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def numbers(self) -> dict[str, float]:
        return numbers_in(str(self.do("text")))

    def kill(self) -> str:
        """End it as a power cut would, and return what it wrote to standard error."""
        self._process.send_signal(signal.SIGKILL)
        return self._process.communicate(timeout=10)[1]


def numbers_in(text: str) -> dict[str, float]:
    """Read the text format, each line of which has to be one."""
    found = {}
    for line in text.splitlines():
        if line.startswith("# HELP ") or re.fullmatch(r"# TYPE arka_[a-z_]+ (counter|gauge|histogram)", line):
            continue
        match = re.fullmatch(r'(arka_[a-z_]+(?:\{(?:[a-z]+="(?:[^"\\]|\\.)*",?)+\})?) (\S+)', line)
        assert match, line
        assert match[1] not in found
        found[match[1]] = float(match[2])
    return found


@pytest.fixture
def start(tmp_path: Path) -> object:
    workers = []

    def start(folder: Path | None = tmp_path) -> Worker:
        workers.append(Worker(folder))
        return workers[-1]

    yield start
    for worker in workers:
        worker.kill() if worker._process.poll() is None else None


Start = Callable[..., Worker]
FIVE_HUNDREDS = 'arka_requests_total{route="/v1/me",status="5xx"}'


def test_any_process_tells_the_sum_over_all(start: Start) -> None:
    first, second = start(), start()
    for worker, times in ((first, 3), (second, 4)):
        for _ in range(times):
            worker.do("REQUESTS.add", "/v1/me", "5xx")
        worker.do("OPEN_STREAMS.add", times)
        worker.do("PROVIDER_SECONDS.observe", times / 100, "openai")
    for worker in (first, second):
        numbers = worker.numbers()
        assert numbers[FIVE_HUNDREDS] == 7
        assert numbers["arka_open_streams"] == 7
        assert numbers["arka_processes"] == 2
        assert numbers['arka_provider_seconds_count{provider="openai"}'] == 2
        assert numbers['arka_provider_seconds_sum{provider="openai"}'] == pytest.approx(0.07)
        buckets = [
            numbers[f'arka_provider_seconds_bucket{{provider="openai",le="{le}"}}'] for le in (0.025, 0.05, "+Inf")
        ]
        assert buckets == [0, 2, 2]


def test_what_a_killed_process_counted_stays_and_what_was_so_in_it_goes(start: Start, tmp_path: Path) -> None:
    first, second = start(), start()
    first.do("REQUESTS.add", "/v1/me", "5xx")
    first.do("OPEN_STREAMS.add", 5)
    first.kill()
    numbers = second.numbers()
    assert (numbers[FIVE_HUNDREDS], numbers["arka_processes"]) == (1, 1)
    assert numbers.get("arka_open_streams", 0) == 0
    # The next one goes on in its file.
    third = start()
    third.do("REQUESTS.add", "/v1/me", "5xx")
    third.do("REQUESTS.add", "/", "2xx")
    numbers = second.numbers()
    assert (numbers[FIVE_HUNDREDS], numbers['arka_requests_total{route="/",status="2xx"}']) == (2, 1)
    assert numbers["arka_open_streams"] == 0
    assert len(list((tmp_path / "metrics").iterdir())) == 2


def test_a_server_that_starts_begins_anew_and_leaves_the_living_alone(start: Start, tmp_path: Path) -> None:
    living, dead = start(), start()
    for worker in (living, dead):
        worker.do("REQUESTS.add", "/v1/me", "5xx")
    dead.kill()
    metrics.begin_anew(tmp_path)
    assert living.numbers()[FIVE_HUNDREDS] == 1
    metrics.begin_anew(tmp_path / "nowhere")


def test_a_process_without_a_file_tells_of_itself_and_takes_its_counts_along(start: Start, tmp_path: Path) -> None:
    worker = start(None)
    worker.do("REQUESTS.add", "/v1/me", "5xx")
    assert worker.numbers()[FIVE_HUNDREDS] == 1
    worker.do("share", str(tmp_path))
    worker.do("REQUESTS.add", "/v1/me", "5xx")
    assert worker.numbers()[FIVE_HUNDREDS] == 2
    assert [path.stat().st_mode & 0o777 for path in (tmp_path / "metrics").iterdir()] == [0o600]


def test_more_series_than_there_is_room_for_harm_nobody(start: Start) -> None:
    worker = start()
    worker.do("REQUESTS.add", "x" * 300, "5xx")
    for number in range(4200):
        worker.do("REQUESTS.add", str(number), "2xx")
    worker.do("REQUESTS.add", "/v1/me", "5xx")
    numbers = worker.numbers()
    assert numbers['arka_requests_total{route="4000",status="2xx"}'] == 1
    assert len(numbers) < 4200


@pytest.mark.parametrize("found", ["nothing", "a file without room"])
def test_on_a_full_disk_a_process_counts_in_its_own_memory_and_says_so_once(
    start: Start, tmp_path: Path, found: str
) -> None:
    with small_disk(tmp_path / "metrics", kilobytes=64):
        if found != "nothing":
            with (tmp_path / "metrics" / "1-0.numbers").open("wb") as left:
                left.truncate(4096 * 256)
        worker = start()
        for number in range(600):
            worker.do("REQUESTS.add", str(number), "2xx")
        assert worker.numbers()['arka_requests_total{route="599",status="2xx"}'] == 1
        # Nothing is left of the try.
        assert len(list((tmp_path / "metrics").iterdir())) == (0 if found == "nothing" else 1)
        assert worker.kill().count("metrics are counted in the memory of this process") == 1


def test_a_file_has_the_room_for_all_its_series_from_the_start(start: Start, tmp_path: Path) -> None:
    start()
    (file,) = (tmp_path / "metrics").iterdir()
    assert file.stat().st_blocks * 512 >= file.stat().st_size == 4096 * 256


def test_a_label_is_escaped(start: Start) -> None:
    worker = start()
    worker.do("REQUESTS.add", 'a"b\\c\nd', "2xx")
    assert 'arka_requests_total{route="a\\"b\\\\c\\nd",status="2xx"} 1' in str(worker.do("text")).splitlines()


def test_processes_that_start_together_get_a_file_each(tmp_path: Path) -> None:
    code = f"""
import multiprocessing, os
from pathlib import Path
from services import metrics
for attempt in range(20):
    together, children = multiprocessing.Barrier(8), []
    for _ in range(8):
        children.append(os.fork())
        if children[-1] == 0:
            together.wait(20)
            metrics.share(Path({str(tmp_path)!r}) / str(attempt))
            together.wait(20)
            os._exit(0)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 8
    assert len(list((Path({str(tmp_path)!r}) / str(attempt) / "metrics").iterdir())) == 8
"""
    for attempt in range(20):
        (tmp_path / str(attempt)).mkdir()
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60)


def test_who_reads_takes_nobody_else_who_reads_for_a_process(start: Start, tmp_path: Path) -> None:
    living, dead = start(), start()
    dead.kill()
    with contextlib.ExitStack() as stack:
        for file in (tmp_path / "metrics").iterdir():
            # Another reader, in the midst of it: the living process's file gives it no lock.
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(stack.enter_context(file.open("rb")), fcntl.LOCK_SH | fcntl.LOCK_NB)
        assert living.numbers()["arka_processes"] == 1


@pytest.mark.parametrize("act", ["a process starts", "the server starts"])
def test_a_reader_keeps_nobody_from_a_file_that_is_left(start: Start, tmp_path: Path, act: str) -> None:
    start().kill()
    (file,) = (tmp_path / "metrics").iterdir()
    with file.open("rb") as reader:
        fcntl.flock(reader, fcntl.LOCK_SH)
        # Much longer than a reader takes, and than a process takes to start.
        leaving = threading.Timer(2, fcntl.flock, (reader, fcntl.LOCK_UN))
        leaving.start()
        if act == "a process starts":
            assert start().numbers()["arka_processes"] == 1
        else:
            metrics.begin_anew(tmp_path)
        leaving.join()
    assert list((tmp_path / "metrics").iterdir()) == ([file] if act == "a process starts" else [])


def test_a_forked_child_does_not_count_in_its_parent_s_file(tmp_path: Path) -> None:
    code = f"""
import os
from pathlib import Path
from services import metrics
metrics.share(Path({str(tmp_path)!r}))
metrics.REQUESTS.add("/", "2xx")
if os.fork() == 0:
    metrics.REQUESTS.add("/", "2xx")
    os._exit(0)
os.wait()
print(metrics.text(), end="")
"""
    printed = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert numbers_in(printed)['arka_requests_total{route="/",status="2xx"}'] == 1
    assert os.getpid()
