"""What a worker weighs does not depend on how long it has served."""

from __future__ import annotations

import os
import re
import signal
import sys
from pathlib import Path

import pytest

from tests.neighbours.portal import running_portal
from tests.neighbours.processes import wait_until
from tests.portal.test_first_start import workers_of

# glibc reserves so much for each place of its own that threads take memory from, at a multiple of it.
PLACE_BYTES = 64 * 2**20


def places(pid: int) -> int:
    """Return from how many places, beside the process's own, the threads of a process take their memory."""
    maps = Path(f"/proc/{pid}/maps").read_text()
    # What is in use, and behind it what is only reserved.
    found = re.findall(r"^(\w+)-(\w+) rw-p .* 0 *\n\2-(\w+) ---p .* 0 *$", maps, re.MULTILINE)
    spans = [(int(begin, 16), int(end, 16)) for begin, _, end in found]
    return sum(begin % PLACE_BYTES == 0 and end - begin == PLACE_BYTES for begin, end in spans)


def threads(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/task"))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="told by /proc")
def test_what_one_thread_of_a_worker_gives_back_is_there_for_the_others() -> None:
    with running_portal({"ARKA_DEMO": "0"}, workers=1, from_nothing=True) as portal:
        # The one that greets ends.
        assert wait_until(lambda: len(workers_of(portal)) == 1, 10)
        (forked,) = workers_of(portal)
        assert wait_until(lambda: threads(forked) > 20, 10)
        assert places(forked) == 0
        os.kill(forked, signal.SIGKILL)
        assert wait_until(lambda: workers_of(portal) not in ([], [forked]), 20)
        started_again = workers_of(portal)[0]
        assert wait_until(lambda: threads(started_again) > 20, 20)
        assert places(started_again) == 0
