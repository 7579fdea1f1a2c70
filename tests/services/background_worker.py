"""A process that works in the background, for the tests: ``background_worker.py FILE LEASE_SECONDS``.

It shares one task with others like it, and writes a line to the file whenever it begins with it.
"""

from __future__ import annotations

import os
import sys
import time
from datetime import timedelta
from pathlib import Path

from services import leases

lines, lease_seconds = Path(sys.argv[1]), float(sys.argv[2])
leases.LEASE = timedelta(seconds=lease_seconds)

from app import create_app  # noqa: E402 - the lease is set before it is read
from services import background  # noqa: E402
from services.background import Background, Task  # noqa: E402

background._FIRST_SECONDS = (0.0, 0.1)
background._LONGEST_LOOK_SECONDS = 0.2


def work() -> None:
    with lines.open("a") as file:
        file.write(f"{os.getpid()} {time.time()}\n")
    # Longer than the lease, which has to be kept up meanwhile.
    time.sleep(1.5 * lease_seconds)
    with lines.open("a") as file:
        file.write(f"{os.getpid()} {time.time()}\n")


Background(create_app(), [Task("shared", 0.3, work)]).start()
time.sleep(60)
