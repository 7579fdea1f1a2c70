"""Structured logs on standard error, cleaned of secrets by field name and by pattern before they are written."""

from __future__ import annotations

import contextlib
import logging
import re
import sys
from collections.abc import Callable, MutableMapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import orjson
import structlog

_HIDDEN = "[hidden]"
_NOT_OURS = ("method", "path", "address")
_SECRET_FIELDS = re.compile(r"password|secret|token|authorization|api_key$|cookie|credential", re.IGNORECASE)
# Our keys under any prefix, and those of providers.
_KEY = re.compile(r"\b(?:[a-z][a-z0-9]{1,15}_(?:sk|pk)_(?:test_)?[0-9A-Za-z]{8,}|sk-[0-9A-Za-z_-]{8,})")
_WEBHOOK_SECRET = re.compile(r"\bwhsec_[0-9A-Za-z+/=_-]{8,}")
# These, bearer tokens, and passwords inside addresses.
_SECRET_PATTERNS = (
    _KEY,
    _WEBHOOK_SECRET,
    re.compile(r"(?i)(?<=bearer )\S+"),
    # PostgreSQL quotes the whole row that it could not store.
    re.compile(r"\$argon2\S+"),
    re.compile(r"(?<=/setup/)[0-9A-Za-z_-]+"),
    # The token of a mailed link, whatever page it opens: 32 random bytes, and what was typed behind it.
    re.compile(r"(?<=/)[0-9A-Za-z_-]{43,}"),
    re.compile(r"(?i)(?<=/invitations/)[0-9A-Za-z_-]+"),
    re.compile(r"(?i)(?<=%2finvitations%2f)[0-9A-Za-z_-]+"),
    re.compile(r"(?<=://)[^/\s:@]*:[^/\s@]+(?=@)"),
)


# A moment as structlog tells it, and the end of the line.
_LINE = orjson.OPT_UTC_Z | orjson.OPT_APPEND_NEWLINE

_requests = structlog.get_logger("request")
_plain_requests = False


def configure(log_format: str, log_level: str = "info") -> None:
    """Send this process's log, and that of every library in it, to standard error as one line an entry.

    ``log_level`` is the least weight that is written. Libraries stay at info even when it is debug: theirs tells what
    passes through them, addresses with everything in them for example.
    """
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
        # After the traceback has become text, so that it is cleaned as well.
        hide_secrets,
    ]
    renderer: Any = (
        structlog.processors.JSONRenderer() if log_format == "json" else structlog.dev.ConsoleRenderer(colors=False)
    )
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared[:3],
            *shared[4:],
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = _StandardError()
    handler.addFilter(_is_ours_or_weighty)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    global _plain_requests
    _plain_requests = log_format == "json" and log_level in ("debug", "info")
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(log_level.upper())
    # Its progress is of no interest at every start.
    logging.getLogger("alembic").setLevel(logging.WARNING)


def write_request(fields: dict[str, Any], *, quiet: bool = False) -> None:
    """Write the line of one request, at debug level when it is ``quiet``.

    What structlog and logging make of an entry costs a sixth of a whole call to ``/v1``, so this one line is made
    here, where it is plain JSON at info level. It is cleaned as every other is: of its fields only the method and the
    path are a caller's words, and the address may be a proxy's.
    """
    if quiet or not _plain_requests:
        (_requests.debug if quiet else _requests.info)("request", **fields)
        return
    for name in _NOT_OURS:
        fields[name] = _cleaned(fields[name])
    fields |= {"event": "request", "logger": "request", "level": "info", "timestamp": datetime.now(UTC)}
    try:
        sys.stderr.write(orjson.dumps(fields, option=_LINE).decode())
    except (OSError, ValueError):
        return


@lru_cache(maxsize=1024)
def _cleaned(text: str | None) -> str | None:
    cleaned: str | None = clean(text)
    return cleaned


def _is_ours_or_weighty(record: logging.LogRecord) -> bool:
    # structlog hands on its entry as a dict, a library its words.
    return record.levelno >= logging.INFO or isinstance(record.msg, dict)


class _StandardError(logging.Handler):
    """Writes each entry to what standard error is at that moment. An entry that cannot be written is dropped:
    the library's own complaint about it would show the entry as it was before it was cleaned."""

    def emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(self.format(record) + "\n")


def hide_secrets(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Replace what must not be written: the values of fields named like a secret, and what looks like one."""
    for name, value in event.items():
        event[name] = _HIDDEN if _SECRET_FIELDS.search(name) and value is not None else clean(value)
    return event


def hide_keys(text: str) -> str:
    """Return a text of a stranger's without what looks like an API key or a provider key, to be kept or told back."""
    return _KEY.sub(_HIDDEN, text) if "sk-" in text or "_sk_" in text or "_pk_" in text else text


def each_text(value: Any, change: Callable[[str], str]) -> Any:
    """Return a value of JSON with every text in it changed, the names of fields too."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {change(name): each_text(item, change) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [each_text(item, change) for item in value]
    return value


def clean(value: Any) -> Any:
    """Return the value with every text in it cleaned."""
    if isinstance(value, str):
        for pattern in _SECRET_PATTERNS:
            value = pattern.sub(_HIDDEN, value)
        return value
    if isinstance(value, dict):
        return {
            name: _HIDDEN if isinstance(name, str) and _SECRET_FIELDS.search(name) else clean(item)
            for name, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [clean(item) for item in value]
    return value
