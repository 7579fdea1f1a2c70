"""``flask serve``: bring the database up to date, start the production server, and keep it running."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from types import FrameType

import click
import flask_migrate
from flask.cli import with_appcontext

import config
from commands.tools import refusals_told
from extensions import db
from services import accounts, first_start, instance_lock, schema

_START_SECONDS = 30
# A server that dies at once, time after time, is started again more and more slowly.
_RESTART_PAUSES = (0.2, 1, 2, 5, 10)
_STEADY_SECONDS = 60


def command(settings: config.Settings) -> click.Command:
    """Return the command for these settings."""

    @click.command("serve")
    @with_appcontext
    @refusals_told
    def serve() -> None:
        """Start the portal: upgrade the database, serve, and show how to begin."""
        _refuse_taken_port(settings)
        try:
            with instance_lock.serving(settings.instance_path) as lock:
                _bring_up_to_date()
                sys.exit(_Server(settings, lock).run(lambda: _welcome(settings)))
        except instance_lock.InUse:
            raise click.ClickException("A restore is under way. Start the portal when it is done.") from None

    return serve


class _Server:
    """The server process: started, watched and started again when it dies, stopped when we are told to stop."""

    def __init__(self, settings: config.Settings, lock: int) -> None:
        self._settings = settings
        # The server holds it as well, so that no restore begins while a worker is left.
        self._lock = lock
        self._process: subprocess.Popen[bytes] | None = None
        self._stopping = threading.Event()
        self._forced = False

    def run(self, welcome: Callable[[], str]) -> int:
        """Serve until told to stop, greet once it answers, and return the exit status."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._stop)
        failures, greeted = 0, False
        while not self._stopping.is_set():
            began = time.monotonic()
            self._process = subprocess.Popen(
                [sys.executable, "-m", "server", str(os.getpid())], cwd=config.ROOT, pass_fds=(self._lock,)
            )
            if not greeted and self._wait_until_up():
                click.echo(welcome())
                greeted = True
            status = self._process.wait()
            if self._stopping.is_set():
                break
            if not greeted:
                click.echo("The server did not start; the lines above say why.", err=True)
                return status or 1
            failures = 0 if time.monotonic() - began > _STEADY_SECONDS else failures + 1
            pause = _RESTART_PAUSES[min(failures, len(_RESTART_PAUSES)) - 1] if failures else 0
            click.echo(f"The server ended with status {status}; it is started again in {pause} s.", err=True)
            self._stopping.wait(pause)
        return 1 if self._forced else 0

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        """Let the server finish what is in flight; told a second time, end it at once."""
        self._forced = self._stopping.is_set()
        self._stopping.set()
        if self._process is not None and self._process.poll() is None:
            # Its workers end with it.
            self._process.send_signal(signal.SIGKILL if self._forced else signal.SIGTERM)

    def _wait_until_up(self) -> bool:
        assert self._process is not None
        url = f"http://{_local_address(self._settings.host)}:{self._settings.port}/healthz"
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None and not self._stopping.is_set():
            try:
                with urllib.request.urlopen(url, timeout=2):
                    return True
            except (urllib.error.URLError, OSError):
                time.sleep(0.05)
        return False


def _bring_up_to_date() -> None:
    """Upgrade the database, unless a newer version has: then this one serves on, as it does in a rolling upgrade."""
    with db.engine.connect() as connection:
        found = schema.revision_of(connection)
    db.engine.dispose()
    if found is None or schema.is_known(found):
        flask_migrate.upgrade()
        return
    click.echo(
        f"Note: a newer version of the portal has changed the database (it is at {found}, which is unknown here). "
        "This one serves on; bring it to the same version soon.",
        err=True,
    )


def _refuse_taken_port(settings: config.Settings) -> None:
    """The server itself would share a port with another one instead of failing."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError as error:
            raise click.ClickException(
                f"Cannot listen on {settings.host} port {settings.port} ({error.strerror}). "
                "Choose another port with ARKA_PORT."
            ) from None


def _local_address(host: str) -> str:
    """Return the address at which a server on ``host`` is reached from this machine."""
    local = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"[{local}]" if ":" in local else local


def _welcome(settings: config.Settings) -> str:
    """Return what the operator is told. The demo is made only now, when its key is sure to be seen."""
    demo_key = first_start.make_demo() if settings.demo else None
    set_up_token = accounts.set_up_token()
    lines = ["", f"{settings.brand} portal is running at {settings.public_url}", ""]
    if set_up_token is not None:
        lines += ["Make the operator's account with this one-time link:", ""]
        lines += [f"  {settings.public_url}/setup/{set_up_token.reveal()}", ""]
    else:
        lines += ["Sign in:", "", f"  {settings.public_url}/sign-in", ""]
    if demo_key is not None:
        lines += ['Try the API. The demo\'s test key is shown only now; add "stream": true to stream:', ""]
        lines += [
            f"  curl {settings.public_url}/v1/chat/completions \\",
            f'    -H "Authorization: Bearer {demo_key.reveal()}" \\',
            '    -H "Content-Type: application/json" \\',
            """    -d '{"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello, world!"}]}'""",
            "",
        ]
    return "\n".join([*lines, "Stop it with Ctrl-C."])
