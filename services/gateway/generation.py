"""The simple form of a chat: a prompt goes in, a text comes out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from services.errors import InvalidRequest, ProviderFailed
from services.gateway import relay
from services.gateway.endpoints import ENDPOINTS
from services.json_input import read_object
from services.metering import Call

DEFAULT_MODEL = "arkabrain"


def generate(call: Call, body: bytes, headers: Mapping[str, str]) -> dict[str, Any]:
    """Answer ``{"prompt", "model"?, ...}``; other fields go into the chat as they are.

    Raises InvalidRequest, and whatever the relay raises.
    """
    chat = _as_chat(read_object(body))
    reply = relay.answer(call, ENDPOINTS["chat/completions"], orjson.dumps(chat), headers)
    assert isinstance(reply.body, bytes)
    told = orjson.loads(reply.body)
    return {
        "success": True,
        "text": _text_of(told),
        "model": call.model,
        "usage": {
            "prompt_tokens": call.input_tokens,
            "completion_tokens": call.output_tokens,
            "total_tokens": (call.input_tokens or 0) + (call.output_tokens or 0),
            "estimated": call.estimated,
        },
        "id": told.get("id"),
    }


def _as_chat(request: dict[str, Any]) -> dict[str, Any]:
    prompt, model = request.get("prompt"), request.get("model", DEFAULT_MODEL)
    if not isinstance(prompt, str) or not prompt.strip():
        raise InvalidRequest("'prompt' must be a text.", param="prompt")
    if not isinstance(model, str) or not model:
        raise InvalidRequest("'model' must be the name of a model.", param="model")
    for name in ("messages", "stream"):
        if request.get(name):
            raise InvalidRequest(f"'{name}' belongs to /v1/chat/completions.", param=name)
    rest = {name: value for name, value in request.items() if name not in ("prompt", "model", "stream", "messages")}
    return {**rest, "model": model, "messages": [{"role": "user", "content": prompt}]}


def _text_of(told: dict[str, Any]) -> str:
    try:
        text = told["choices"][0]["message"]["content"]
    except (LookupError, TypeError) as error:
        raise ProviderFailed("The provider answered with something that is no chat.") from error
    return text if isinstance(text, str) else ""
