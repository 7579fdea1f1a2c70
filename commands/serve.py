"""``flask serve``: bring the database up to date, fork the workers, and become the process that watches over them.

This process loads the portal but uses none of it: its children do. So the workers need not load it once more, inherit
no connection that two would share, and what is left in the end is light.
"""

from __future__ import annotations

import contextlib
import contextvars
import http.client
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NoReturn
from urllib.parse import urlsplit

import click
from flask import Flask, current_app

import config
from commands import watcher
from commands.tools import refusals_told
from extensions import db
from services import accounts, first_start, instance_lock, listening, metrics, schema, stopping
from services.child import end_with

if TYPE_CHECKING:
    from services.worker import Worker

_LOOK_SECONDS = 0.03


def command(settings: config.Settings) -> click.Command:
    """Return the command for these settings."""

    @click.command("serve")
    @refusals_told
    def serve() -> None:
        """Start the portal: upgrade the database, serve, and show how to begin."""
        app = current_app._get_current_object()  # type: ignore[attr-defined]
        with _obstacles_told(settings):
            address = listening.address_of(settings.host)
            # No restore begins while a worker is left: they all inherit the lock.
            with (
                listening.claimed(address, settings.port) as claim,
                instance_lock.serving(settings.instance_path) as lock,
            ):
                os.set_inheritable(lock, True)
                own = os.getpid()
                status = _wait_for(_fork(lambda: _bring_up_to_date(app, own)))
                if status:
                    sys.exit(status)
                _serve(app, settings, address, claim, own)

    return serve


@contextlib.contextmanager
def _obstacles_told(settings: config.Settings) -> Iterator[None]:
    """Turn what keeps the portal from starting here into a sentence that names the setting."""
    try:
        yield
    except instance_lock.InUse:
        raise click.ClickException("A restore is under way. Start the portal when it is done.") from None
    except instance_lock.Unwritable as error:
        raise click.ClickException(str(error)) from None
    except listening.NoAddress as error:
        raise click.ClickException(
            f"Cannot listen on {settings.host} ({error}). "
            "ARKA_HOST must be an address of this machine, or a name that leads to one."
        ) from None
    except listening.PortTaken as error:
        raise click.ClickException(
            f"Cannot listen on {settings.host} port {settings.port} ({error}). Choose another port with ARKA_PORT."
        ) from None


def worker_of(settings: config.Settings, address: str) -> Worker:
    """Return a worker for these settings that listens on this address."""
    # granian is nothing for the other commands.
    from services.worker import Worker

    return Worker(
        host=address,
        port=settings.port,
        threads=settings.threads,
        drain_seconds=settings.drain_seconds,
        stop_seconds=settings.stop_seconds,
    )


def _serve(app: Flask, settings: config.Settings, address: str, claim: int, own: int) -> NoReturn:
    """Fork the workers, and let the watcher take the place of this process."""
    worker = worker_of(settings, address)
    metrics.begin_anew(settings.instance_path)
    read, write = os.pipe()

    def work() -> None:
        # So that the pipe ends with the watcher, and the next portal need not wait for calls of this one.
        os.close(write)
        os.close(claim)
        worker.run(app, own, read)

    # The watcher heeds what comes meanwhile.
    signal.pthread_sigmask(signal.SIG_BLOCK, watcher.STOP_SIGNALS)
    workers = [_fork(work) for _ in range(settings.workers)]
    greeter = _fork(lambda: _greet(app, settings, address, own))
    for number in (claim, read, write):
        os.set_inheritable(number, True)
    seconds = [str(settings.drain_seconds + stopping.DOOR_SECONDS), str(settings.stop_seconds)]
    numbers = [str(number) for number in (claim, read, write, greeter, *workers)]
    os.execv(sys.executable, [sys.executable, "-I", "-S", watcher.__file__, *seconds, address, *numbers])


def _fork(act: Callable[[], None]) -> int:
    """Do something in a child, and return its id. It sees nothing of this process's contexts, and then ends."""
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        contextvars.Context().run(act)
        status = 0
    except click.ClickException as refusal:
        refusal.show()
    except KeyboardInterrupt:
        # The parent is told as well.
        pass
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _wait_for(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _greet(app: Flask, settings: config.Settings, address: str, own: int) -> None:
    """Wait until the portal answers, and tell the operator how to begin."""
    end_with(own, signal.SIGKILL)
    while not _is_up(_local(address), settings.port):
        time.sleep(_LOOK_SECONDS)
    with app.app_context():
        click.echo(refusals_told(_welcome)(settings))


def _is_up(address: str, port: int) -> bool:
    connection = http.client.HTTPConnection(address, port, timeout=2)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _bring_up_to_date(app: Flask, own: int) -> None:
    """Upgrade the database, unless a newer version has: then this one serves on, as it does in a rolling upgrade."""
    end_with(own, signal.SIGTERM)
    with app.app_context():
        refusals_told(_upgrade)()


def _upgrade() -> None:
    with db.engine.connect() as connection:
        found = schema.revision_of(connection)
    db.engine.dispose()
    if found == schema.head():
        return
    if found is None or schema.is_known(found):
        import flask_migrate

        flask_migrate.upgrade()
        return
    click.echo(
        f"Note: a newer version of the portal has changed the database (it is at {found}, which is unknown here). "
        "This one serves on; bring it to the same version soon.",
        err=True,
    )


def _local(address: str) -> str:
    """Return the address at which a server on this one is reached from this machine."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address, address)


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
    address = urlsplit(settings.public_url)
    if address.scheme == "http" and not all(map(config.is_loopback, (address.hostname or "", settings.host))):
        lines += [
            "Note: over plain HTTP, passwords and sign-in cookies can be read on the way, and /v1 refuses calls from",
            "other machines. Put a proxy with TLS in front and set ARKA_PUBLIC_URL to its address.",
            "",
        ]
    return "\n".join([*lines, "Stop it with Ctrl-C."])
