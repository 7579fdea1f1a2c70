"""Reading the JSON of a stranger: strict, bounded, and once."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime
from itertools import islice
from typing import Any

import orjson

from services.errors import InvalidInput, InvalidRequest

DEEPEST = 64
# How much of what a stranger made up is told back.
_NAME_SHOWN = 60
_MOST_UNKNOWN = 10


def read_object(body: bytes) -> dict[str, Any]:
    """Return the JSON object in ``body``. Raises InvalidRequest for anything else, NaN and deep nesting included."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise InvalidRequest("The body is not valid JSON.", code="invalid_json") from None
    if not isinstance(value, dict):
        raise InvalidRequest("The body must be a JSON object.", code="invalid_json")
    # Only a body with that many brackets can be that deep; most have far fewer.
    if body.count(b"{") + body.count(b"[") > DEEPEST and _depth(value) > DEEPEST:
        raise InvalidRequest(f"The body is nested more than {DEEPEST} levels deep.", code="invalid_json")
    return value


def read_moment(text: str) -> datetime | None:
    """Return the UTC moment that ISO 8601 text with a zone names, None for any other text."""
    try:
        moment = datetime.fromisoformat(text)
        return None if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


class Fields:
    """Takes the values out of a JSON object by type, and collects a sentence for each that cannot be taken.

    A field that is missing or null reads as None. A field that nobody knows is a fault too: a misspelt restriction must
    not be ignored. Call ``refuse_faults`` before the values are used.
    """

    def __init__(self, value: dict[str, Any], known: Collection[str], *, within: str = "") -> None:
        self._value = value
        self._within = within
        self.faults: dict[str, str] = {}
        unknown = (name[:_NAME_SHOWN] for name in value if name not in known)
        for name in islice(unknown, _MOST_UNKNOWN):
            self.fault(name, f"There is no field “{within}{name}”")

    def fault(self, name: str, sentence: str) -> None:
        """Note what is wrong with a field, unless something is already."""
        self.faults.setdefault(self._within + name, sentence)

    def given(self, name: str) -> bool:
        """Tell whether the field is there, be it null."""
        return name in self._value

    def text(self, name: str, *, missing: str | None = None) -> str | None:
        """Return a text; ``missing`` is the sentence for one that must be given."""
        found: str | None = self._typed(name, str, "Give a text")
        if found is None and missing is not None:
            self.fault(name, missing)
        return found

    def number(self, name: str) -> int | None:
        found: int | None = self._typed(name, int, "Give a whole number")
        if isinstance(found, bool):
            self.fault(name, "Give a whole number")
            return None
        return found

    def flag(self, name: str) -> bool | None:
        found: bool | None = self._typed(name, bool, "Give true or false")
        return found

    def words(self, name: str) -> list[str] | None:
        """Return a list of texts."""
        found: list[str] | None = self._typed(name, list, "Give a list of texts")
        if found is None or all(isinstance(word, str) for word in found):
            return found
        self.fault(name, "Give a list of texts")
        return None

    def moment(self, name: str) -> datetime | None:
        """Return a moment that was given in ISO 8601 with its zone."""
        text = self.text(name)
        if text is None:
            return None
        moment = read_moment(text)
        if moment is None:
            self.fault(name, "Give a moment with its zone, like 2027-02-18T14:00:00Z")
        return moment

    def part(self, name: str, known: Collection[str]) -> Fields:
        """Return the fields of an object inside this one; its faults are told with ours, as ``name.field``."""
        found = self._typed(name, dict, "Give an object") or {}
        part = Fields(found, known, within=f"{self._within}{name}.")
        self.faults |= part.faults
        part.faults = self.faults
        return part

    def refuse_faults(self) -> None:
        """Raise InvalidInput if anything was wrong."""
        if self.faults:
            raise InvalidInput(self.faults)

    def _typed(self, name: str, kind: type, sentence: str) -> Any:
        value = self._value.get(name)
        if value is None or isinstance(value, kind):
            return value
        self.fault(name, sentence)
        return None


def _depth(value: Any) -> int:
    deepest, waiting = 0, [(value, 1)]
    while waiting:
        item, level = waiting.pop()
        deepest = max(deepest, level)
        if isinstance(item, dict):
            waiting.extend((part, level + 1) for part in item.values() if isinstance(part, dict | list))
        elif isinstance(item, list):
            waiting.extend((part, level + 1) for part in item if isinstance(part, dict | list))
    return deepest
