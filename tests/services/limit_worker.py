"""A process of its own that uses rate limits: ``python -m tests.services.limit_worker``.

The first argument names a function below, the others are its arguments. It prints its answer as JSON.
"""

import json
import os
import resource
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from services.rate_limits import RateLimits, StoreUnavailable, storage_from_uri

NOBODY = 65534


def hit(uri, name, limit, threads, attempts, start_at):
    """Wait until ``start_at``, then try ``attempts`` hits in each thread. Answers how many were allowed."""
    time.sleep(max(0.0, float(start_at) - time.time()))
    return _hit(RateLimits(storage_from_uri(uri)), name, int(limit), int(threads), int(attempts))


def hit_two(uri, name, own, shared, threads, attempts, start_at):
    """As ``hit``, with a limit of its own beside the shared one. Answers how many were allowed by both."""
    limits = RateLimits(storage_from_uri(uri))
    time.sleep(max(0.0, float(start_at) - time.time()))
    asked = [(f"{name} own", int(own)), (name, int(shared))]

    def work(_):
        return sum(all(state.allowed for state in limits.hit_all(asked)) for _ in range(int(attempts)))

    with ThreadPoolExecutor(int(threads)) as pool:
        return sum(pool.map(work, range(int(threads))))


def hit_after_fork(uri, name, limit, threads, attempts):
    """Fork twice while the file is open and in use, then hit in all three processes. Answers how many were allowed."""
    limits = RateLimits(storage_from_uri(uri))
    busy = threading.Event()
    done = threading.Event()

    def keep_busy():
        while not done.is_set():
            limits.hit("somebody else", 1_000_000)
            busy.set()
            # A loop without any pause would leave no other thread a chance to take the file.
            time.sleep(0.0005)

    neighbour = threading.Thread(target=keep_busy, daemon=True)
    neighbour.start()
    busy.wait()
    children = [_fork(lambda: _hit(limits, name, int(limit), int(threads), int(attempts))) for _ in range(2)]
    allowed = _hit(limits, name, int(limit), int(threads), int(attempts))
    allowed += sum(_answer_of(child) for child in children)
    done.set()
    neighbour.join()
    return allowed


def orphan_after_fork(uri, name, limit):
    """Hit in a forked child whose parent has closed the file, while others open and close it. Answers what remains."""
    limits = RateLimits(storage_from_uri(uri))
    limits.hit(name, int(limit))

    def outlive():
        limits.hit(name, int(limit))
        for _ in range(3):
            other = storage_from_uri(uri)
            RateLimits(other).peek(name, int(limit))
            other.close()
        return limits.hit(name, int(limit)).remaining

    child = _fork(outlive)
    limits._storage.close()
    return _answer_of(child)


def hit_as_nobody(uri):
    """Hit as a user who may not write. Answers the exception's name."""
    if os.getuid() == 0:
        os.setuid(NOBODY)
    return _outcome(RateLimits(storage_from_uri(uri)))


def hit_on_a_full_disk(uri):
    """Hit until no file may grow any more, then let files grow again. Answers the last outcome of both."""
    limits = RateLimits(storage_from_uri(uri))
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, most))
    for number in range(5_000):
        full = _outcome(limits, f"name {number}")
        if full != "allowed":
            break
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    return [full, _outcome(limits)]


def hit_around_damage(uri, folder, limit, attempts):
    """Hit until a damaged file has been put aside, then make ``attempts`` more. Answers how many of these passed."""
    limits = RateLimits(storage_from_uri(uri))
    limits.hit("before", 1_000_000)
    Path(folder, f"ready-{os.getpid()}").touch()
    deadline = time.monotonic() + 30
    while not Path(folder, "limits.db.damaged").exists() and time.monotonic() < deadline:
        limits.hit("before", 1_000_000)
    return _hit(limits, "after", int(limit), 1, int(attempts))


def _outcome(limits, name="name"):
    try:
        return "allowed" if limits.hit(name, 1_000).allowed else "refused"
    except StoreUnavailable as error:
        return type(error).__name__


def _hit(limits, name, limit, threads, attempts):
    def work(_):
        return sum(limits.hit(name, limit).allowed for _ in range(attempts))

    with ThreadPoolExecutor(threads) as pool:
        return sum(pool.map(work, range(threads)))


def _fork(work):
    reader, writer = os.pipe()
    if os.fork():
        os.close(writer)
        return reader
    os.write(writer, json.dumps(work()).encode())
    os._exit(0)


def _answer_of(reader):
    with os.fdopen(reader) as pipe:
        answer = pipe.read()
    os.wait()
    return json.loads(answer)


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]](*sys.argv[2:])))
