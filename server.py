"""A worker process that is started afresh, because another has died: ``python -m server WATCHER WORD ADDRESS``.

``WATCHER`` is the process that started it (``commands/watcher.py``), ``WORD`` the pipe through which that tells its
workers to stop, ``ADDRESS`` where they listen.
"""

from __future__ import annotations

import os
import sys

from app import create_app, load_settings
from commands.serve import worker_of


def main() -> None:
    """Serve until told to stop."""
    watcher, word, address = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    settings = load_settings()
    worker_of(settings, address).run(create_app(settings), watcher, word)
    # Nothing waits for the threads that are left.
    os._exit(0)


if __name__ == "__main__":
    main()
