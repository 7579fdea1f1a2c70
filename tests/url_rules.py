"""Lets the apps of a test process share what Werkzeug compiles for each URL rule: the most of what making one takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from werkzeug.routing import Rule

Builder = Callable[..., tuple[str, str]]


@pytest.fixture(scope="session", autouse=True)
def _compiled_once() -> Iterator[None]:
    """A builder is a function of a rule's text and defaults; it is told the rule it works for at each call."""
    compiled: dict[tuple[Any, ...], Builder] = {}
    compile_builder = Rule._compile_builder

    def remembered(self: Rule, append_unknown: bool = True) -> Builder:
        key = (self.rule, tuple(self._trace), repr(self.defaults), append_unknown)
        if key not in compiled:
            compiled[key] = compile_builder(self, append_unknown)
        return compiled[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Rule, "_compile_builder", remembered)
        yield
