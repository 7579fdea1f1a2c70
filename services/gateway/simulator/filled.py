"""A value that fits a JSON schema, as far as a simulator must: types, properties, enums, references."""

from __future__ import annotations

from typing import Any

_DEEPEST = 10
_MOST_VALUES = 1000
_MOST_ITEMS = 5
_FORMATS = {
    "date": "2026-01-01",
    "date-time": "2026-01-01T00:00:00Z",
    "time": "00:00:00Z",
    "email": "simulated@example.com",
    "uri": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
}


def filled(schema: Any, text: str) -> Any:
    """Return a value for the schema; its first text is ``text``. Of a schema without end, a part is filled in."""
    return _Filler(schema, text).value(schema, 0)


class _Filler:
    def __init__(self, root: Any, text: str) -> None:
        self._root = root
        self._texts = iter([text])
        self._left = _MOST_VALUES

    def value(self, schema: Any, depth: int) -> Any:
        self._left -= 1
        if not isinstance(schema, dict) or depth > _DEEPEST or self._left < 0:
            return None
        if "const" in schema:
            return schema["const"]
        for name in ("enum", "anyOf", "oneOf", "allOf"):
            choices = schema.get(name)
            if isinstance(choices, list) and choices:
                return choices[0] if name == "enum" else self.value(choices[0], depth + 1)
        if isinstance(schema.get("$ref"), str):
            return self.value(self._referred(schema["$ref"]), depth + 1)
        return self._of_type(schema, depth)

    def _of_type(self, schema: dict[str, Any], depth: int) -> Any:
        kind = _type_of(schema)
        if kind == "object":
            properties = schema.get("properties")
            known = properties if isinstance(properties, dict) else {}
            return {name: self.value(inner, depth + 1) for name, inner in known.items() if self._left > 0}
        if kind == "array":
            return [self.value(schema.get("items"), depth + 1) for _ in range(_items(schema))]
        if kind in ("integer", "number"):
            least = schema.get("minimum")
            return least if isinstance(least, int | float) and not isinstance(least, bool) else 0
        if kind == "boolean":
            return False
        return self._text(schema) if kind == "string" else None

    def _text(self, schema: dict[str, Any]) -> str:
        known = _FORMATS.get(str(schema.get("format")))
        return known or next(self._texts, "simulated")

    def _referred(self, reference: str) -> Any:
        found = self._root
        for step in reference.removeprefix("#").strip("/").split("/"):
            if step:
                found = found.get(step) if isinstance(found, dict) else None
        return found


def _type_of(schema: dict[str, Any]) -> Any:
    kind = schema.get("type")
    if isinstance(kind, list):
        return next((name for name in kind if name != "null"), "null")
    return kind or ("object" if "properties" in schema else "array" if "items" in schema else "string")


def _items(schema: dict[str, Any]) -> int:
    least = schema.get("minItems")
    return min(max(least, 1), _MOST_ITEMS) if isinstance(least, int) else 1
