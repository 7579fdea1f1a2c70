"""The file in which the operator declares further OpenAI-compatible servers. ``docs/providers.md`` shows one."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from services.gateway.providers import Provider

# Names that already mean something where a provider's name could stand.
RESERVED = frozenset({"arkabrain", "auto", "openai", "openrouter", "simulator"})
_NAME = re.compile(r"[a-z][a-z0-9-]{0,39}")
_TITLE_LENGTH = 60
_MODEL_LENGTH = 200
_FIELDS = {"name", "title", "base_url", "models", "needs_key", "usage_on_streams", "where_to_find_key"}


def read_providers(path: Path, read_url: Callable[[str], str]) -> tuple[Provider, ...]:
    """Return the providers that the file declares.

    ``read_url`` checks an address. Raises ValueError with all that is wrong, a sentence each.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"is not valid TOML: {error}") from None
    tables = content.pop("provider", [])
    if content or not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise ValueError("must hold tables [[provider]] and nothing else")
    names = [table.get("name") for table in tables]
    faults: list[str] = []
    found = []
    for number, table in enumerate(tables):
        reader = _Reader(table, read_url)
        if table.get("name") in names[:number]:
            reader.fault("has the name of an earlier one")
        found.append(reader.provider())
        faults += [f"provider {table.get('name') or number + 1!r} {fault}" for fault in reader.faults]
    if faults:
        raise ValueError("cannot be used: " + ". ".join(faults))
    return tuple(found)


class _Reader:
    def __init__(self, table: dict[str, Any], read_url: Callable[[str], str]) -> None:
        self._table = table
        self._read_url = read_url
        self.faults: list[str] = []

    def fault(self, sentence: str) -> None:
        self.faults.append(sentence)

    def provider(self) -> Provider:
        """Return the provider; what it holds is of no use when there were faults."""
        for name in sorted(self._table.keys() - _FIELDS):
            self.fault(f"has a field “{name[:40]}” that means nothing")
        name = self._name()
        return Provider(
            name,
            self._text("title", name, _TITLE_LENGTH),
            self._base_url(),
            keys_url=self._text("where_to_find_key", "", _MODEL_LENGTH),
            needs_key=self._switch("needs_key"),
            usage_on_request=self._switch("usage_on_streams"),
            declared=True,
            models=self._models(),
        )

    def _name(self) -> str:
        name = self._table.get("name")
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            self.fault("needs a name of up to 40 small letters, digits and hyphens, a letter first")
            return ""
        if name in RESERVED:
            self.fault("has a name that is taken")
        return name

    def _text(self, field: str, default: str, longest: int) -> str:
        text = self._table.get(field, default)
        if not isinstance(text, str) or len(text) > longest or not text.isprintable():
            self.fault(f"needs a {field} of up to {longest} characters in one line")
            return ""
        return text.strip() or default

    def _base_url(self) -> str:
        url = self._table.get("base_url")
        try:
            if not isinstance(url, str):
                raise ValueError("must be an http or https address")
            return self._read_url(url)
        except ValueError as error:
            self.fault(f"has a base_url that {error}")
            return ""

    def _switch(self, field: str) -> bool:
        value = self._table.get(field, True)
        if not isinstance(value, bool):
            self.fault(f"needs {field} to be true or false")
        return value is True

    def _models(self) -> frozenset[str]:
        models = self._table.get("models", [])
        fine = isinstance(models, list) and all(
            isinstance(name, str) and 0 < len(name) <= _MODEL_LENGTH and name.isprintable() for name in models
        )
        if not fine:
            self.fault("needs models to be a list of names")
            return frozenset()
        return frozenset(models)
