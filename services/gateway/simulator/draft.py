"""What the simulator says: a sentence that quotes the prompt, or JSON of the form that was asked for."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson

from services.errors import InvalidRequest
from services.gateway.prompts import Prompt
from services.gateway.simulator.filled import filled

_QUOTED_CHARACTERS = 200
_READ_CHARACTERS = 2000
_CHARACTERS_PER_TOKEN = 4


@dataclass(frozen=True, slots=True)
class Draft:
    """An answer as words, one token each. ``tool`` is the function they are the arguments of."""

    words: list[str]
    # The length that was asked for has cut it.
    cut_short: bool
    tool: str | None = None

    @property
    def text(self) -> str:
        return "".join(self.words)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a request wants to have: JSON of a schema (None: no JSON), or a call of a function of that name."""

    schema: Any = None
    tool: str | None = None


def draft(text: str, most: int | None, wanted: Wanted | None = None) -> Draft:
    """Answer the user's last message in at most that many tokens."""
    wanted = wanted or Wanted()
    answer = _reply_to(text)
    if wanted.schema is not None:
        answer = json.dumps(filled(wanted.schema, answer), ensure_ascii=False)
    words = re.findall(r"\s*\S+", answer)
    kept = words[:most]
    return Draft(kept, len(kept) < len(words), wanted.tool)


def input_tokens(prompt: Prompt) -> int:
    """Count a token for every four characters, and one for every message."""
    return math.ceil(prompt.characters / _CHARACTERS_PER_TOKEN) + prompt.messages + prompt.tokens


def whole_number(request: dict[str, Any], name: str, *, most: int | None = None) -> int | None:
    """Return a number from 1 that a request may give. Raises InvalidRequest for anything else."""
    value = request.get(name)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InvalidRequest(f"'{name}' must be a whole number above 0.", param=name)
    if most is not None and value > most:
        raise InvalidRequest(f"'{name}' must not be above {most}.", param=name)
    return value


def fingerprint(endpoint: str, request: dict[str, Any]) -> str:
    """Return letters and digits that are the same for the same request, streamed or not."""
    asked = {name: value for name, value in request.items() if name not in ("stream", "stream_options")}
    told = orjson.dumps([endpoint, asked], option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(told).hexdigest()


def wanted_tool(
    choice: Any, tools: Any, named: Callable[[dict[str, Any]], Any], parameters: Callable[[dict[str, Any]], Any]
) -> Wanted | None:
    """Return the function that must be called: the chosen one, or the first when any is required.

    ``named`` and ``parameters`` read a tool's name and schema, which chat and responses keep in different places.
    """
    functions = {
        name: parameters(tool)
        for tool in (tools if isinstance(tools, list) else [])
        if isinstance(tool, dict) and isinstance(name := named(tool), str)
    }
    name = named(choice) if isinstance(choice, dict) else next(iter(functions), None) if choice == "required" else None
    if not isinstance(name, str) or name not in functions:
        return None
    return Wanted(functions[name] if functions[name] is not None else {"type": "object"}, name)


def _reply_to(text: str) -> str:
    quoted = " ".join(text[:_READ_CHARACTERS].split())
    if len(quoted) > _QUOTED_CHARACTERS:
        quoted = quoted[:_QUOTED_CHARACTERS] + "…"
    return f"This answer comes from the simulator; no provider was called. You wrote: {quoted}"
