"""What answers test keys: the same shapes as a provider's, made here, deterministic, at no cost.

``docs/simulator.md`` says what callers can rely on, and the words in a prompt that rehearse failures.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from services.errors import NotFound
from services.gateway.simulator import chat

PROVIDER = "simulator"
MODELS = chat.MODELS


class Simulation(Protocol):
    """An answer that is ready to be told, whole or as a stream."""

    input_tokens: int
    output_tokens: int

    def complete(self) -> dict[str, Any]:
        """Return the whole answer as one object."""

    def stream(self) -> Iterator[bytes]:
        """Yield the answer as server-sent events. One that the prompt asked to be cut ends without the last event."""


_MAKERS = {"chat/completions": chat.Simulation}


def simulate(endpoint: str, request: dict[str, Any], created: int) -> Simulation:
    """Answer a request to ``chat/completions``, ``completions``, ``embeddings`` or ``responses``.

    ``created`` is the present Unix time. Raises InvalidRequest when the request makes no sense, and any PortalError
    that the prompt asks to rehearse.
    """
    maker = _MAKERS.get(endpoint)
    if maker is None:
        raise NotFound("There is no such endpoint.")
    return maker(request, created)
