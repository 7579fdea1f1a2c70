"""What commands share: who acts, secrets from standard input, and refusals as one sentence."""

from __future__ import annotations

import errno
import getpass
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import wraps
from types import FrameType
from typing import Any, NoReturn

import click
from sqlalchemy import exc as database_errors

from services.actor import Actor
from services.errors import PortalError
from services.money import read_usd
from services.secret import Secret

_SPAN = re.compile(r"(\d{1,5})([mhdw])")
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
# As PostgreSQL says it.
_NO_SUCH_TABLE = "42P01"
_BEFORE_AT = re.compile(r"[^\s\"']*@")
# By which systems and terminals end a command. Ctrl-C is an exception anyway.
_ENDS = (signal.SIGTERM, signal.SIGHUP)


class Span(click.ParamType[timedelta]):
    """A span of time such as ``90m``, ``12h``, ``30d`` or ``4w``."""

    name = "span"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        match = _SPAN.fullmatch(str(value))
        if match is None or int(match[1]) == 0:
            self.fail(f"{value!r} is not a span of time; write it like 90m, 12h, 30d or 4w.", param, ctx)
        return timedelta(**{_UNITS[match[2]]: int(match[1])})


class Dollars(click.ParamType[int]):
    """An amount such as ``12.50``, in nano-dollars."""

    name = "usd"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            return read_usd(value)
        except ValueError as error:
            self.fail(f"{error}.", param, ctx)


def actor() -> Actor:
    """Return whom the audit log names: the person at the shell, as the system knows them."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        name = "unknown"
    return Actor(kind="command", name=f"{name} (command)")


def secret_from_input(what: str) -> Secret:
    """Read a secret: asked for without echo at a terminal, else the first line of standard input."""
    if sys.stdin.isatty():
        return Secret(getpass.getpass(f"{what}: "))
    return Secret(sys.stdin.readline().rstrip("\r\n"))


def print_once(secret: Secret) -> None:
    """Print a key alone on standard output, within the act that makes it: one that nobody has read is not left working.

    Raises click.ClickException.
    """
    try:
        if sys.stdout is None:
            # Who started us has closed it, and click would say nothing.
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        click.echo(secret.reveal())
    except OSError as error:
        _forget_output()
        raise click.ClickException(
            f"The key cannot be written to standard output: {error.strerror}. Nothing was changed."
        ) from error


def _forget_output() -> None:
    """Python would try once more at its end to write what it has kept, and complain in its own way."""
    if sys.stdout is not None:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())


@contextmanager
def tidy_end() -> Iterator[None]:
    """Let a signal that asks a command to end do so as an exception does, so that what was begun is cleared away.

    One that is ignored, as under ``nohup``, goes on to be ignored.
    """
    before = {number: signal.getsignal(number) for number in _ENDS}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, _end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(number: int, _frame: FrameType | None) -> NoReturn:
    # As a shell tells of a process that a signal has ended.
    raise SystemExit(128 + number)


def refusals_told(function: Callable[..., Any]) -> Callable[..., Any]:
    """Turn a refusal into its sentence on standard error and exit status 1."""

    @wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except PortalError as error:
            raise click.ClickException(error.message) from error
        except database_errors.DBAPIError as error:
            raise click.ClickException(_told_of(error.orig)) from error

    return wrapped


def _told_of(error: BaseException | None) -> str:
    """Return what to say of a fault that the database's driver has raised."""
    # PostgreSQL quotes the statement in further lines.
    words = str(error).partition("\n")[0].rstrip(".")
    if getattr(error, "sqlstate", None) == _NO_SUCH_TABLE or words.startswith("no such table"):
        return "The database does not have all the portal's tables. Run `flask --app app db upgrade` first."
    # A password with a sign that has to be written otherwise in an address is taken for a part of the server's name.
    return f"The database (ARKA_DATABASE_URL) cannot be used: {_BEFORE_AT.sub('...@', words)}."
