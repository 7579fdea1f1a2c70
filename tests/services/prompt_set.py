"""The labelled prompts as requests."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from typing import Any

from config import ROOT

_PROSE = "The river was slow that year, and the people of the town had time to look at it. "


@dataclass(frozen=True)
class Labelled:
    """A request, and the task a careful reader would give it."""

    task: str
    text: str
    request: dict[str, Any]


def labelled(part: str) -> list[Labelled]:
    """Return the prompts of ``train`` or ``held_out``."""
    content = tomllib.loads((ROOT / "tests" / "services" / "brain_prompts.toml").read_text())
    tables = [table for name, table in content.items() if name.startswith(part)]
    return [_labelled(task, entry) for table in tables for task, entries in table.items() for entry in entries]


def _labelled(task: str, entry: str | dict[str, Any]) -> Labelled:
    given = {"text": entry} if isinstance(entry, str) else entry
    filler = given.get("filler", 0)
    text = given["text"] + ("\n\n" + (_PROSE * (filler // len(_PROSE) + 1))[:filler] if filler else "")
    messages = [{"role": "system", "content": given["system"]}] if "system" in given else []
    for earlier in given.get("earlier", []):
        messages += [{"role": "user", "content": earlier}, {"role": "assistant", "content": "Here it is."}]
    messages.append({"role": "user", "content": text})
    return Labelled(task, given["text"], {"model": "arkabrain", "messages": messages})
