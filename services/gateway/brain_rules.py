"""The rules of ARKAbrain, read from their file and checked as a whole. ``brain.toml`` says how they are written."""

from __future__ import annotations

import functools
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.gateway.brain_words import Entry, Lexicon

ENDPOINTS = ("chat/completions", "completions", "embeddings", "responses")
ABILITIES = ("images", "tools")
# Not told from the text: a request to that endpoint is of that task.
EMBEDDINGS = "embeddings"
_USUAL_ENDPOINTS = ["chat/completions", "responses"]
_LARGEST_WEIGHT = 10.0


class RulesError(ValueError):
    """The end of a sentence that says what is wrong with the rules."""


@dataclass(frozen=True, slots=True)
class Model:
    """A model under the name by which a caller asks for it, and what it can do."""

    name: str
    provider: str
    context_tokens: int
    endpoints: tuple[str, ...]
    can: tuple[str, ...]
    # Fields of a request that it does not take.
    refuses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Signal:
    """Words that speak for a task. Each different one adds ``weight``, at most ``most`` of them."""

    name: str
    weight: float
    most: int
    words: tuple[str, ...]
    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class Task:
    """What a prompt can be about, with the models for it, the first choice first."""

    name: str
    meaning: str
    models: tuple[Model, ...]
    signals: tuple[Signal, ...]


@dataclass(frozen=True, slots=True)
class Rules:
    """All of it. ``tasks`` are in the order that decides between equals; the first is for what shows no other sign.

    ``signals`` are those of all tasks with the task's name, in the order of the lexicon's lists.
    """

    threshold: float
    shares: Mapping[str, float]
    long_context_characters: int
    budget_output_tokens: int
    tasks: Mapping[str, Task]
    models: Mapping[str, Model]
    signals: Sequence[tuple[str, Signal]]
    lexicon: Lexicon

    @property
    def providers(self) -> frozenset[str]:
        return frozenset(model.provider for model in self.models.values())


def read(path: Path) -> Rules:
    """Read a file of rules. Raises RulesError, the end of a sentence that begins with the setting's name."""
    try:
        return _parsed(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise RulesError(f"names {path.name}, which cannot be read: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise RulesError(f"names {path.name}, which is no TOML: {error}") from None
    except RulesError as error:
        raise RulesError(f"names {path.name}, in which {error}") from None


@functools.lru_cache(maxsize=4)
def _parsed(text: str) -> Rules:
    return _rules(_Table(tomllib.loads(text), ""))


class _Table:
    """A TOML table whose values are taken out by type; what is left at the end is a mistake."""

    def __init__(self, content: Any, place: str) -> None:
        if not isinstance(content, dict):
            raise RulesError(f"{place} must be a table")
        self._left = dict(content)
        self._place = place

    def named(self, name: str) -> str:
        return f"{self._place}.{name}" if self._place else name

    def take(self, name: str, kind: type, otherwise: Any = None) -> Any:
        value = self._left.pop(name, otherwise)
        wanted = (int, float) if kind is float else kind
        if not isinstance(value, wanted) or isinstance(value, bool):
            raise RulesError(f"{self.named(name)} must be {_KINDS[kind]}")
        return value

    def positive(self, name: str, kind: type, otherwise: Any = None, *, most: float = 1e9) -> Any:
        value = self.take(name, kind, otherwise)
        if not 0 < value <= most:
            raise RulesError(f"{self.named(name)} must be above 0 and up to {most:g}")
        return value

    def text(self, name: str) -> str:
        """Return a text that an HTTP header can carry."""
        value: str = self.take(name, str)
        if not value.strip() or not value.isascii() or not value.isprintable():
            raise RulesError(f"{self.named(name)} must be a text of printable ASCII characters")
        return value

    def words(self, name: str, otherwise: Any = None, *, known: Sequence[str] = ()) -> tuple[str, ...]:
        values = self.take(name, list, otherwise)
        for value in values:
            if not isinstance(value, str) or not value.strip():
                raise RulesError(f"{self.named(name)} must be a list of texts")
            if known and value not in known:
                raise RulesError(f"{self.named(name)} names {value!r}, which is none of {', '.join(known)}")
        return tuple(values)

    def tables(self, name: str) -> dict[str, _Table]:
        found = self.take(name, dict)
        return {inner: _Table(content, f"{self.named(name)}.{inner}") for inner, content in found.items()}

    def end(self) -> None:
        for name in self._left:
            raise RulesError(f"{self.named(name)} means nothing")


_KINDS = {str: "a text", int: "a whole number", float: "a number", list: "a list", dict: "a table"}


def _rules(top: _Table) -> Rules:
    shares = _Table(top.take("shares", dict), "shares")
    lengths = _Table(top.take("lengths", dict), "lengths")
    models = {name: _model(name, table) for name, table in top.tables("models").items()}
    tasks = {name: _task(name, table, models) for name, table in top.tables("tasks").items()}
    for needed in ("long_context", "budget", EMBEDDINGS):
        if needed not in tasks:
            raise RulesError(f"there is no task {needed!r}")
    signals = [(task.name, signal) for task in tasks.values() for signal in task.signals]
    rules = Rules(
        threshold=top.positive("threshold", float),
        shares={where: shares.positive(where, float, most=1.0) for where in ("last", "earlier", "system")},
        long_context_characters=lengths.positive("long_context_characters", int),
        budget_output_tokens=lengths.positive("budget_output_tokens", int),
        tasks=tasks,
        models=models,
        signals=signals,
        lexicon=_lexicon(top.words("openings", []), [signal for _, signal in signals]),
    )
    for table in (shares, lengths, top):
        table.end()
    return rules


def _lexicon(openings: Sequence[str], signals: Sequence[Signal]) -> Lexicon:
    try:
        return Lexicon(openings, [signal.entries for signal in signals])
    except ValueError as error:
        raise RulesError(f"openings {error}") from None


def _model(name: str, table: _Table) -> Model:
    if not name.isascii() or not name.isprintable() or " " in name:
        raise RulesError(f"{name!r} is not the name of a model")
    model = Model(
        name=name,
        provider=table.text("provider"),
        context_tokens=table.positive("context_tokens", int),
        endpoints=table.words("endpoints", _USUAL_ENDPOINTS, known=ENDPOINTS),
        can=table.words("can", [], known=ABILITIES),
        refuses=table.words("refuses", []),
    )
    table.end()
    return model


def _task(name: str, table: _Table, models: Mapping[str, Model]) -> Task:
    if not re.fullmatch(r"[a-z][a-z_]{1,30}", name):
        raise RulesError(f"{name!r} is not the name of a task: small letters and _")
    chosen = table.words("models")
    for model in chosen:
        if model not in models:
            raise RulesError(f"{table.named('models')} names {model!r}, which [models] does not describe")
    if not chosen:
        raise RulesError(f"{table.named('models')} is empty")
    signals = table.take("signals", list, [])
    made = Task(
        name=name,
        meaning=table.text("meaning"),
        models=tuple(models[model] for model in chosen),
        signals=tuple(_signal(_Table(one, table.named(f"signals[{at}]"))) for at, one in enumerate(signals, 1)),
    )
    table.end()
    return made


def _signal(table: _Table) -> Signal:
    words = table.words("words")
    if not words:
        raise RulesError(f"{table.named('words')} is empty")
    try:
        entries = tuple(Entry(word) for word in words)
    except ValueError as error:
        raise RulesError(f"{table.named('words')} {error}") from None
    signal = Signal(
        name=table.text("name"),
        weight=float(table.positive("weight", float, most=_LARGEST_WEIGHT)),
        most=table.positive("most", int, 1, most=10),
        words=words,
        entries=entries,
    )
    table.end()
    return signal
