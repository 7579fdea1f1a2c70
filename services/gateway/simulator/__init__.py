"""What answers test keys: the same shapes as a provider's, made here, deterministic, at no cost.

``docs/simulator.md`` says what callers can rely on, and the words in a prompt that rehearse failures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

from services.errors import InvalidRequest, NotFound
from services.gateway.simulator.chat import ChatSimulation
from services.gateway.simulator.completions import CompletionSimulation
from services.gateway.simulator.embeddings import EmbeddingSimulation
from services.gateway.simulator.responses import ResponseSimulation

PROVIDER = "simulator"
# The models a test key is shown: those of the product's guides, and those that ARKAbrain chooses; it may ask for any.
MODELS = {
    "gpt-4o": "openai",
    "gpt-4o-mini": "openai",
    "gpt-4-turbo": "openai",
    "o1-mini": "openai",
    "o4-mini": "openai",
    "text-embedding-3-small": "openai",
    "text-embedding-3-large": "openai",
    "anthropic/claude-3.5-sonnet": "openrouter",
    "anthropic/claude-sonnet-4.5": "openrouter",
    "google/gemini-pro-1.5": "openrouter",
    "google/gemini-2.5-pro": "openrouter",
    "meta-llama/llama-3.1-70b-instruct": "openrouter",
    "deepseek/deepseek-chat": "openrouter",
}


class Simulation(Protocol):
    """An answer that is ready to be told, whole or as a stream."""

    input_tokens: int
    output_tokens: int

    def complete(self) -> dict[str, Any]:
        """Return the whole answer as one object."""

    def stream(self) -> Iterator[bytes]:
        """Yield the answer as server-sent events. One that the prompt asked to be cut ends without the last event."""


_MAKERS: dict[str, Callable[[dict[str, Any], int], Simulation]] = {
    "chat/completions": ChatSimulation,
    "completions": CompletionSimulation,
    "embeddings": EmbeddingSimulation,
    "responses": ResponseSimulation,
}


def simulate(endpoint: str, request: dict[str, Any], created: int) -> Simulation:
    """Answer a request to ``chat/completions``, ``completions``, ``embeddings`` or ``responses``.

    ``created`` is the present Unix time. Raises InvalidRequest when the request makes no sense, and any PortalError
    that the prompt asks to rehearse.
    """
    if not isinstance(request.get("model"), str) or not request["model"]:
        raise InvalidRequest("You must provide a 'model' parameter.", param="model")
    maker = _MAKERS.get(endpoint)
    if maker is None:
        raise NotFound("There is no such endpoint.")
    return maker(request, created)
