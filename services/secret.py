"""A secret that refuses to be printed."""

from __future__ import annotations

import hmac
from typing import Any, Never


class Secret:
    """Wraps a key, password or token. ``str`` and ``repr`` show nothing; only ``reveal`` gives the value.

    Two secrets are compared in constant time. A secret cannot be pickled or used as a dictionary key.
    """

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the value. Every use of this is a place to look at."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(...)"

    __str__ = __repr__

    def __format__(self, _spec: str) -> str:
        return repr(self)

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._value.encode("utf-8", "replace"), other._value.encode("utf-8", "replace"))

    __hash__ = None  # type: ignore[assignment]

    def __reduce_ex__(self, _protocol: Any) -> Never:
        raise TypeError("a secret cannot be pickled")
