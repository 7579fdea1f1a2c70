"""``GET /v1/usage`` and ``GET /v1/usage/calls``: what calls came to, and the calls themselves.

A publishable key stands in web pages for everybody to read, so it is told of no money and of no caller's address.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, date, datetime, timedelta
from typing import Any

from flask import Response, request

from blueprints.v1 import bp
from blueprints.v1.auth import bearer_required, current_call
from blueprints.v1.caller import current_workspace
from blueprints.v1.objects import json_response, moment
from blueprints.v1.paging import cursor_after, place_in
from models import Workspace
from models.base import now
from services import keys, usage
from services.errors import InvalidRequest, NotFound
from services.json_input import read_moment
from services.money import as_usd
from services.permissions import Scope
from services.usage import DAY, HOUR, PLAYGROUND, Figures, Period, Wanted

GROUPS = ("day", "hour", "key", "model", "provider")
USUAL_DAYS = 30
MOST_DAYS, MOST_HOURS = 366, 31 * 24
USUAL_CALLS, MOST_CALLS = 50, 100
_FILTERS = ("from", "to", "key", "model", "provider")
_LONGEST = 200
_MOST_DIGITS = 18


@bp.get("/usage")
@bearer_required(Scope.USAGE_READ)
def show_usage() -> Response:
    _refuse_unknown((*_FILTERS, "group_by"))
    workspace, wanted = current_workspace(), _wanted()
    group = request.args.get("group_by", "day")
    if group not in GROUPS:
        raise InvalidRequest(f"Give one of {', '.join(GROUPS)}.", param="group_by")
    period = _period(HOUR if group == "hour" else DAY)
    report = usage.report(workspace, period, wanted)
    if group in ("day", "hour"):
        data = [{group: _part(part.start, group), **_figures(part.figures)} for part in report.parts]
    elif group == "key":
        data = _by_key(workspace, report.by_key)
    else:
        by_name = report.by_model if group == "model" else report.by_provider
        data = [{group: name, **_figures(figures)} for name, figures in _ordered(by_name)]
    return json_response(
        {**_head("usage", period, wanted), "group_by": group, "total": _figures(report.total), "data": data}
    )


@bp.get("/usage/calls")
@bearer_required(Scope.USAGE_READ)
def list_calls() -> Response:
    _refuse_unknown((*_FILTERS, "limit", "cursor"))
    workspace, wanted, period = current_workspace(), _wanted(), _period(DAY)
    try:
        found, has_more = usage.page(workspace, period, wanted, limit=_limit(), before=_before())
    except NotFound:
        raise _no_cursor() from None
    return json_response(
        {
            **_head("list", period, wanted),
            "data": [_call(call) for call in found],
            "has_more": has_more,
            "next_cursor": cursor_after(str(found[-1].id)) if has_more else None,
        }
    )


def _head(kind: str, period: Period, wanted: Wanted) -> dict[str, Any]:
    filters = {"key": wanted.key_id, "model": wanted.model, "provider": wanted.provider}
    return {"object": kind, "from": moment(period.start), "to": moment(period.end), "filter": filters}


def _figures(figures: Figures) -> dict[str, Any]:
    return {
        "requests": figures.requests,
        "failed": figures.failed,
        "rate_limited": figures.limited,
        "input_tokens": figures.input_tokens,
        "cached_input_tokens": figures.cached_input_tokens,
        "output_tokens": figures.output_tokens,
        "cost_usd": _usd(figures.cost_nano_usd),
        "unknown_cost_calls": figures.unknown,
        "estimated_calls": figures.estimated,
    }


def _by_key(workspace: Workspace, by_key: dict[str | None, Figures]) -> list[dict[str, Any]]:
    names = keys.names_of(workspace, [key_id for key_id in by_key if key_id])
    return [
        {"key": key_id or PLAYGROUND, "name": names.get(key_id or "", "Playground"), **_figures(figures)}
        for key_id, figures in _ordered(by_key)
    ]


def _ordered(by_name: dict[str | None, Figures]) -> list[tuple[str | None, Figures]]:
    return sorted(by_name.items(), key=lambda item: (-item[1].requests, item[0] or ""))


def _part(begin: datetime, group: str) -> str | None:
    return f"{begin:%Y-%m-%d}" if group == "day" else moment(begin)


def _call(call: Any) -> dict[str, Any]:
    private = current_call().key.kind == "publishable"
    return {
        "request_id": call.request_id,
        "started_at": moment(call.started_at),
        "key": call.api_key_id or PLAYGROUND,
        "environment": call.environment,
        "endpoint": call.endpoint,
        "requested_model": call.requested_model,
        "model": call.model,
        "provider": call.provider,
        "route_reason": call.route_reason,
        "status": call.status,
        "code": call.code,
        "streamed": call.streamed,
        "duration_ms": call.duration_ms,
        "input_tokens": call.input_tokens,
        "cached_input_tokens": call.cached_input_tokens,
        "output_tokens": call.output_tokens,
        "estimated": call.estimated,
        "cost_usd": _usd(call.cost_nano_usd),
        "price_version": call.price_version,
        "address": None if private else call.address,
        "client": None if private else call.client,
    }


def _usd(nano_usd: int | None) -> str | None:
    """Return dollars as text; None where the cost is unknown or not this key's to know."""
    return None if nano_usd is None or current_call().key.kind == "publishable" else as_usd(nano_usd)


# ---- What is asked for


def _refuse_unknown(known: Collection[str]) -> None:
    """A misspelt filter must not be ignored. Raises InvalidRequest."""
    for name, values in request.args.lists():
        if name not in known:
            raise InvalidRequest(f"There is no parameter '{name[:60]}'.", param=name[:60])
        if len(values) > 1:
            raise InvalidRequest(f"Give '{name}' once.", param=name)


def _wanted() -> Wanted:
    given = [request.args.get(name) or None for name in ("key", "model", "provider")]
    for name, value in zip(("key", "model", "provider"), given, strict=True):
        if value is not None and len(value) > _LONGEST:
            raise InvalidRequest(f"Use at most {_LONGEST} characters.", param=name)
    return Wanted(*given)


def _period(step: timedelta) -> Period:
    """Read ``from`` and ``to``; without them, the last 30 days with today. Raises InvalidRequest."""
    tomorrow = now().replace(hour=0, minute=0, second=0, microsecond=0) + DAY
    end = _moment("to") or tomorrow
    start = _moment("from") or end - USUAL_DAYS * DAY
    if start >= end:
        raise InvalidRequest("'from' must be before 'to'.", param="from")
    most = MOST_HOURS * HOUR if step == HOUR else MOST_DAYS * DAY
    if end - start > most:
        raise InvalidRequest(f"Ask for at most {most.days} days at once.", param="from")
    return Period(start, end, step)


def _moment(name: str) -> datetime | None:
    """Return a UTC day's beginning or a moment with its zone, None when nothing is given. Raises InvalidRequest."""
    text = request.args.get(name)
    if text is None:
        return None
    found = _day(text) or read_moment(text)
    # Days are counted from it and to it.
    if found is None or not 1971 <= found.year <= 9990:
        raise InvalidRequest("Give a day like 2026-11-20, or a moment like 2026-11-20T14:00:00Z.", param=name)
    return found


def _day(text: str) -> datetime | None:
    try:
        day = date.fromisoformat(text)
    except ValueError:
        return None
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def _limit() -> int:
    text = request.args.get("limit", str(USUAL_CALLS))
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(MOST_CALLS)) and 1 <= int(text) <= MOST_CALLS):
        raise InvalidRequest(f"Give a number from 1 to {MOST_CALLS}.", param="limit")
    return int(text)


def _before() -> int | None:
    cursor = request.args.get("cursor")
    if cursor is None:
        return None
    try:
        place = place_in(cursor)
    except ValueError:
        raise _no_cursor() from None
    if not (place.isdigit() and len(place) <= _MOST_DIGITS):
        raise _no_cursor()
    return int(place)


def _no_cursor() -> InvalidRequest:
    return InvalidRequest("This cursor is none of ours. Begin without one.", param="cursor")
