"""Answers as OpenAI and OpenRouter write them, built from the JSON of a request. Knows nothing of sockets."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
import secrets
import string
import struct
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

Flavour = Literal["openai", "openrouter"]
Json = dict[str, Any]
Headers = tuple[tuple[str, str], ...]

OPENAI_MODELS = (
    "gpt-4o",
    "gpt-4o-mini",
    "gpt-4.1",
    "gpt-4.1-mini",
    "gpt-5",
    "gpt-5-mini",
    "o3",
    "o4-mini",
    "gpt-3.5-turbo-instruct",
    "text-embedding-3-small",
    "text-embedding-3-large",
)
OPENROUTER_MODELS = (
    "openai/gpt-4o",
    "openai/gpt-4o-mini",
    "openai/gpt-5",
    "anthropic/claude-3.5-sonnet",
    "anthropic/claude-sonnet-4",
    "google/gemini-2.5-pro",
    "google/gemini-2.5-flash",
    "meta-llama/llama-3.3-70b-instruct",
    "mistralai/mistral-small-3.2-24b-instruct:free",
    "deepseek/deepseek-chat-v3.1",
)
MODELS_CREATED = 1_715_367_049
DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True)
class Answer:
    """A response before it is sent: one body, or (``events``) a stream of server-sent events."""

    status: int = 200
    body: bytes = b""
    events: tuple[bytes, ...] | None = None
    content_type: str = "application/json"
    headers: Headers = ()

    def with_headers(self, *headers: tuple[str, str]) -> Answer:
        return replace(self, headers=self.headers + headers)


@dataclass(frozen=True)
class Question:
    """A request to be answered well. ``text`` is what the model says; None: an echo of the request."""

    flavour: Flavour
    body: Json
    text: str | None = None
    with_usage: bool = True

    @property
    def model(self) -> str:
        return str(self.body["model"])

    @property
    def streams(self) -> bool:
        return self.body.get("stream") is True


def dump(value: object) -> bytes:
    # As the providers do: characters beyond ASCII as they are, so that a chunk may end inside one.
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def json_answer(value: object, status: int = 200) -> Answer:
    return Answer(status, dump(value))


def stream_answer(events: Iterable[bytes]) -> Answer:
    return Answer(events=tuple(events), content_type="text/event-stream; charset=utf-8")


def event(data: Json, name: str | None = None) -> bytes:
    return (b"event: " + name.encode() + b"\n" if name else b"") + b"data: " + dump(data) + b"\n\n"


def random_id(prefix: str, length: int = 29) -> str:
    alphabet = string.ascii_letters + string.digits
    return prefix + "".join(secrets.choice(alphabet) for _ in range(length))


def pieces(text: str) -> list[str]:
    """Split a text into what this model calls tokens: words with the space before them."""
    return re.findall(r"\s*\S+", text) or [text]


def tokens(text: str) -> int:
    """Count the tokens that this model bills for a text."""
    return len(re.findall(r"\S+", text))


# ---- what the model reads and says


def plain_text(content: object) -> str:
    """Return the text of a message's content: a string, or a list of parts of which some are text."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    parts = [part for part in content if isinstance(part, Mapping)]
    texts = [str(part["text"]) if "text" in part else f"[{part.get('type', 'part')}]" for part in parts]
    return " ".join(texts) if parts else " ".join(str(item) for item in content)


def messages_of(body: Json) -> list[tuple[str, str]]:
    """Return (role, text) of every message, whichever of the three input forms the request uses."""
    given = body.get("messages", body.get("input", body.get("prompt", "")))
    if isinstance(given, list) and given and all(isinstance(item, Mapping) for item in given):
        return [(str(item.get("role", "user")), plain_text(item.get("content"))) for item in given]
    return [("user", plain_text(given))]


def said(question: Question) -> str:
    """Return what the model says: an echo of the last user message, as JSON if that was asked for."""
    if question.text is not None:
        return question.text
    users = [text for role, text in messages_of(question.body) if role == "user"]
    echo = f"You said: {users[-1] if users else ''}"
    wanted = question.body.get("response_format")
    if isinstance(wanted, Mapping) and str(wanted.get("type", "")).startswith("json"):
        return json.dumps({"echo": echo}, ensure_ascii=False)
    return echo


def prompt_tokens(body: Json) -> int:
    return sum(tokens(text) for _, text in messages_of(body))


def forced_tool(body: Json) -> str | None:
    """Return the name of the function that the request forces the model to call, or None."""
    choice, tools = body.get("tool_choice"), body.get("tools")
    if isinstance(choice, Mapping):
        return str(choice.get("function", {}).get("name"))
    if choice == "required" and isinstance(tools, list) and tools:
        return str(tools[0]["function"]["name"])
    return None


def usage_of(question: Question, completion: int) -> Json:
    prompt = prompt_tokens(question.body)
    usage: Json = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
    }
    if question.flavour == "openrouter":
        usage |= {"cost": round(prompt * 3e-06 + completion * 1.5e-05, 9), "is_byok": False}
    return usage


# ---- POST chat/completions


def chat(question: Question) -> Answer:
    fault = _lacks(question.body, "messages")
    if fault is not None:
        return fault
    return _chat_stream(question) if question.streams else _chat_whole(question)


def _chat_head(question: Question, kind: str) -> Json:
    created = int(time.time())
    head: Json = {"object": kind, "created": created, "model": question.model}
    if question.flavour == "openrouter":
        return {"id": random_id(f"gen-{created}-", 20), "provider": "Fake"} | head
    extra = {"service_tier": "default", "system_fingerprint": "fp_" + secrets.token_hex(5)}
    return {"id": random_id("chatcmpl-")} | head | extra


def _chat_whole(question: Question) -> Answer:
    text, tool = said(question), forced_tool(question.body)
    message: Json = {"role": "assistant", "content": None if tool else text, "refusal": None}
    if tool:
        message["tool_calls"] = [_tool_call(tool, text)]
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "tool_calls" if tool else "stop"}
    answer = _chat_head(question, "chat.completion") | {"choices": [choice]}
    if question.with_usage:
        answer["usage"] = usage_of(question, tokens(text))
    return json_answer(answer)


def _tool_call(name: str, text: str) -> Json:
    return {
        "id": random_id("call_", 24),
        "type": "function",
        "function": {"name": name, "arguments": json.dumps({"text": text}, ensure_ascii=False)},
    }


def _chat_stream(question: Question) -> Answer:
    head = _chat_head(question, "chat.completion.chunk")
    text, tool = said(question), forced_tool(question.body)
    wants_usage = _wants_stream_usage(question)
    # OpenAI writes "usage": null into every other chunk when the last one will carry it.
    empty_usage = {"usage": None} if wants_usage and question.flavour == "openai" else {}

    def chunk(delta: Json, finish_reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return event(head | {"choices": [choice]} | empty_usage)

    events = [b": OPENROUTER PROCESSING\n\n"] if question.flavour == "openrouter" else []
    events += [chunk({"role": "assistant", "content": None if tool else "", "refusal": None})]
    events += [chunk(delta) for delta in (_tool_deltas(tool, text) if tool else _text_deltas(text))]
    events += [chunk({}, "tool_calls" if tool else "stop")]
    if wants_usage:
        events += [event(head | {"choices": [], "usage": usage_of(question, tokens(text))})]
    return stream_answer([*events, DONE])


def _wants_stream_usage(question: Question) -> bool:
    """OpenAI gives usage in a stream when asked to, OpenRouter always."""
    options = question.body.get("stream_options")
    asked = isinstance(options, Mapping) and options.get("include_usage") is True
    return question.with_usage and (asked or question.flavour == "openrouter")


def _text_deltas(text: str) -> list[Json]:
    return [{"content": piece} for piece in pieces(text)]


def _tool_deltas(name: str, text: str) -> list[Json]:
    call = _tool_call(name, text)
    arguments = call["function"]["arguments"]
    call["function"]["arguments"] = ""
    first = {"tool_calls": [{"index": 0} | call]}
    rest = [{"tool_calls": [{"index": 0, "function": {"arguments": piece}}]} for piece in pieces(arguments)]
    return [first, *rest]


# ---- POST completions, embeddings, responses


def completions(question: Question) -> Answer:
    fault = _lacks(question.body, "prompt")
    if fault is not None:
        return fault
    text = said(question)
    head: Json = {"id": random_id("cmpl-"), "object": "text_completion", "created": int(time.time())}
    head["model"] = question.model
    usage = {"usage": usage_of(question, tokens(text))}

    def choice(part: str, finish_reason: str | None) -> Json:
        return {"choices": [{"text": part, "index": 0, "logprobs": None, "finish_reason": finish_reason}]}

    if not question.streams:
        return json_answer(head | choice(text, "stop") | (usage if question.with_usage else {}))
    events = [event(head | choice(piece, None)) for piece in pieces(text)] + [event(head | choice("", "stop"))]
    if _wants_stream_usage(question):
        events += [event(head | {"choices": []} | usage)]
    return stream_answer([*events, DONE])


def embeddings(question: Question) -> Answer:
    fault = _lacks(question.body, "input")
    if fault is not None:
        return fault
    given = question.body["input"]
    texts = [given] if isinstance(given, str) else list(given)
    size = int(question.body.get("dimensions") or 8)
    if not 1 <= size <= 4096:
        raise ValueError("dimensions")
    as_base64 = question.body.get("encoding_format") == "base64"
    data = []
    for index, text in enumerate(texts):
        vector = _vector(str(text), size)
        shown = base64.b64encode(struct.pack(f"<{size}f", *vector)).decode() if as_base64 else vector
        data.append({"object": "embedding", "index": index, "embedding": shown})
    answer: Json = {"object": "list", "data": data, "model": question.model}
    if question.with_usage:
        count = sum(tokens(str(text)) for text in texts)
        answer["usage"] = {"prompt_tokens": count, "total_tokens": count}
    return json_answer(answer)


def _vector(text: str, size: int) -> list[float]:
    """Return numbers from -1 to 1 that depend on nothing but the text."""
    digest = hashlib.shake_256(text.encode()).digest(size)
    return [(byte - 127.5) / 127.5 for byte in digest]


def responses(question: Question) -> Answer:
    fault = _lacks(question.body, "input")
    if fault is not None:
        return fault
    return _response_stream(question) if question.streams else json_answer(_response(question, said(question)))


def _response(question: Question, text: str) -> Json:
    content = {"type": "output_text", "text": text, "annotations": []}
    message = {
        "type": "message",
        "id": "msg_" + secrets.token_hex(24),
        "status": "completed",
        "role": "assistant",
        "content": [content],
    }
    answer: Json = {
        "id": "resp_" + secrets.token_hex(24),
        "object": "response",
        "created_at": int(time.time()),
        "status": "completed",
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "model": question.model,
        "output": [message],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "metadata": {},
    }
    if question.with_usage:
        answer["usage"] = _response_usage(question, text)
    return answer


def _response_usage(question: Question, text: str) -> Json:
    usage = usage_of(question, tokens(text))
    return {
        "input_tokens": usage["prompt_tokens"],
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": usage["completion_tokens"],
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage["total_tokens"],
    }


def _response_stream(question: Question) -> Answer:
    """A response as events: created, the text in deltas, done, completed. This form has no ``[DONE]``."""
    whole = _response(question, said(question))
    message = whole["output"][0]
    text = message["content"][0]["text"]
    begun = whole | {"status": "in_progress", "output": [], "usage": None}
    where = {"item_id": message["id"], "output_index": 0, "content_index": 0}
    steps: list[tuple[str, Json]] = [("response.created", {"response": begun})]
    steps += [("response.output_item.added", {"output_index": 0, "item": message | {"content": []}})]
    steps += [("response.output_text.delta", where | {"delta": piece, "logprobs": []}) for piece in pieces(text)]
    steps += [("response.output_text.done", where | {"text": text, "logprobs": []})]
    steps += [("response.output_item.done", {"output_index": 0, "item": message})]
    steps += [("response.completed", {"response": whole})]
    return stream_answer(
        event({"type": name, "sequence_number": number} | data, name) for number, (name, data) in enumerate(steps)
    )


def _lacks(body: Json, field: str) -> Answer | None:
    if field in body:
        return None
    message = f"Missing required parameter: '{field}'."
    return error_answer("openai", 400, message, code="missing_required_parameter", param=field)


# ---- GET models, models/{id}, key


def models(flavour: Flavour, allowed: set[str] | None = None) -> Answer:
    if flavour == "openai":
        names = [name for name in OPENAI_MODELS if allowed is None or name in allowed]
        return json_answer({"object": "list", "data": [_openai_model(name) for name in names]})
    return json_answer({"data": [_openrouter_model(name) for name in OPENROUTER_MODELS]})


def model(flavour: Flavour, name: str) -> Answer:
    if flavour == "openai":
        return json_answer(_openai_model(name)) if name in OPENAI_MODELS else no_such_model(flavour, name)
    return json_answer({"data": _openrouter_model(name)}) if name in OPENROUTER_MODELS else no_such_model(flavour, name)


def _openai_model(name: str) -> Json:
    return {"id": name, "object": "model", "created": MODELS_CREATED, "owned_by": "system"}


def _openrouter_model(name: str) -> Json:
    return {
        "id": name,
        "canonical_slug": name,
        "name": name.replace("/", ": "),
        "created": MODELS_CREATED,
        "description": "A model of the fake provider.",
        "context_length": 128_000,
        "architecture": {"modality": "text->text", "input_modalities": ["text"], "output_modalities": ["text"]},
        "pricing": {"prompt": "0.000003", "completion": "0.000015", "request": "0", "image": "0"},
        "top_provider": {"context_length": 128_000, "max_completion_tokens": 16_384, "is_moderated": False},
        "per_request_limits": None,
        "supported_parameters": ["max_tokens", "temperature", "tools", "response_format"],
    }


def key_facts(key: str, *, has_credit: bool, **more: Any) -> Answer:
    """OpenRouter's ``GET key``. It answers 200 for a key without credit too and says so in the figures.

    The figures are those of the key's own limit; for a key without one they say nothing.
    """
    used = 1.25 if has_credit else 10.0
    data = {
        "label": f"{key[:12]}...{key[-3:]}",
        "limit": 10.0,
        "limit_reset": None,
        "limit_remaining": 10.0 - used,
        "usage": used,
        "usage_daily": used,
        "usage_weekly": used,
        "usage_monthly": used,
        "byok_usage": 0,
        "include_byok_in_limit": False,
        "is_free_tier": False,
        "is_management_key": False,
        "is_provisioning_key": False,
        "rate_limit": {"requests": -1, "interval": "10s", "note": "This field is deprecated and safe to ignore."},
    }
    return json_answer({"data": data | more})


# ---- errors


def error_answer(
    flavour: Flavour,
    status: int,
    message: str,
    *,
    kind: str = "invalid_request_error",
    code: str | None = None,
    param: str | None = None,
    metadata: Json | None = None,
) -> Answer:
    if flavour == "openrouter":
        error: Json = {"message": message, "code": status} | ({"metadata": metadata} if metadata else {})
        return json_answer({"error": error, "user_id": "user_2fakefakefakefakefakefake"}, status)
    return json_answer({"error": {"message": message, "type": kind, "param": param, "code": code}}, status)


def masked(key: str) -> str:
    """Return a key as OpenAI repeats it in its error messages: the first 8 and the last 4 characters are legible."""
    return key if len(key) <= 12 else key[:8] + "*" * (len(key) - 12) + key[-4:]


def no_key(flavour: Flavour) -> Answer:
    if flavour == "openrouter":
        return error_answer(flavour, 401, "No auth credentials found")
    return error_answer(
        flavour,
        401,
        "You didn't provide an API key. You need to provide your API key in an Authorization header using Bearer auth "
        "(i.e. Authorization: Bearer YOUR_KEY). You can obtain an API key from "
        "https://platform.openai.com/account/api-keys.",
    )


def wrong_key(flavour: Flavour, key: str) -> Answer:
    if flavour == "openrouter":
        return error_answer(flavour, 401, "User not found.")
    return error_answer(
        flavour,
        401,
        f"Incorrect API key provided: {masked(key)}. You can find your API key at "
        "https://platform.openai.com/account/api-keys.",
        code="invalid_api_key",
    )


def no_credit(flavour: Flavour) -> Answer:
    if flavour == "openrouter":
        message = "Insufficient credits. Add more using https://openrouter.ai/settings/credits"
        return error_answer(flavour, 402, message)
    return error_answer(
        flavour,
        429,
        "You exceeded your current quota, please check your plan and billing details. For more "
        "information on this error, read the docs: https://platform.openai.com/docs/guides/error-codes/api-errors.",
        kind="insufficient_quota",
        code="insufficient_quota",
    )


def restricted(flavour: Flavour, scope: str, *, status: int = 403) -> Answer:
    """The key lacks a scope. OpenAI says that with 403 or, as often, with 401 and without a code."""
    if flavour == "openrouter":
        message = "Key limit exceeded (total limit). Manage it using https://openrouter.ai/settings/keys"
        return error_answer(flavour, 403, message)
    return error_answer(
        flavour,
        status,
        f"You have insufficient permissions for this operation. Missing scopes: {scope}. Check that you "
        "have the correct role in your organization (Reader, Writer, Owner) and project (Member, Owner), and if you're "
        "using a restricted API key, that it has the necessary scopes.",
        code="missing_scope" if status == 403 else None,
    )


def rate_limited(flavour: Flavour, retry_after_seconds: str) -> Answer:
    """The rate is limited. ``none`` as the seconds leaves Retry-After out."""
    if flavour == "openrouter":
        metadata = {"headers": {"X-RateLimit-Limit": "20", "X-RateLimit-Remaining": "0"}, "provider_name": None}
        answer = error_answer(flavour, 429, "Rate limit exceeded: free-models-per-min.", metadata=metadata)
    else:
        answer = error_answer(
            flavour,
            429,
            "Rate limit reached for gpt-4o in organization org-fake on requests per min (RPM): Limit 3, "
            f"Used 3, Requested 1. Please try again in {retry_after_seconds}s. Visit "
            "https://platform.openai.com/account/rate-limits to learn more.",
            kind="requests",
            code="rate_limit_exceeded",
        )
    return answer if retry_after_seconds == "none" else answer.with_headers(("Retry-After", retry_after_seconds))


def no_such_model(flavour: Flavour, name: str) -> Answer:
    if flavour == "openrouter":
        return error_answer(flavour, 404, f"No endpoints found for {name}.")
    message = f"The model `{name}` does not exist or you do not have access to it."
    return error_answer(flavour, 404, message, code="model_not_found")


def model_not_allowed(name: str) -> Answer:
    """What OpenAI says when the key's project may not use the model."""
    message = f"Project `proj_fake` does not have access to model `{name}`"
    return error_answer("openai", 403, message, code="model_not_found")


def not_for_reasoning(body: Json) -> Answer | None:
    """Return what a reasoning model of OpenAI does not take, or None. Below 64 tokens it ends before it has spoken."""
    if not re.match(r"o\d|gpt-5", body["model"]):
        return None
    if "max_tokens" in body:
        message = (
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
        )
        return error_answer("openai", 400, message, code="unsupported_parameter", param="max_tokens")
    most = body.get("max_completion_tokens")
    if isinstance(most, int) and most < 64:
        message = (
            "Could not finish the message because max_tokens or model output limit was reached. Please try again with "
            "higher max_tokens."
        )
        return error_answer("openai", 400, message)
    return None


def no_such_path(flavour: Flavour, method: str, path: str) -> Answer:
    return error_answer(flavour, 404, f"Invalid URL ({method} {path})")


def unreadable(flavour: Flavour) -> Answer:
    return error_answer(
        flavour,
        400,
        "We could not parse the JSON body of your request. (HINT: This likely means you aren't using "
        "your HTTP library correctly. The OpenAI API expects a JSON payload, but what was sent was not valid JSON.)",
    )


def no_model(flavour: Flavour) -> Answer:
    return error_answer(flavour, 400, "you must provide a model parameter")


def broken_inside(flavour: Flavour) -> Answer:
    if flavour == "openrouter":
        return error_answer(flavour, 500, "Internal Server Error")
    message = "The server had an error while processing your request. Sorry about that!"
    return error_answer(flavour, 500, message, kind="server_error")


def bad_gateway() -> Answer:
    """What the network in front of either provider says when the provider itself is away: HTML."""
    head = b"<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\r\n"
    rest = b"<center><h1>502 Bad Gateway</h1></center>\r\n<hr><center>cloudflare</center>\r\n</body>\r\n</html>\r\n"
    return Answer(502, head + rest, content_type="text/html")


def overloaded(flavour: Flavour) -> Answer:
    if flavour == "openrouter":
        return error_answer(flavour, 503, "No allowed providers are available for the selected model.")
    message = "The engine is currently overloaded, please try again later"
    return error_answer(flavour, 503, message, kind="server_error", code="overloaded")


# ---- answers spoilt on purpose


def truncated(answer: Answer) -> Answer:
    """Half of the answer, ending inside an event or a JSON value, although HTTP says that all is well."""
    if answer.events is None:
        return replace(answer, body=answer.body[: len(answer.body) // 2])
    kept = max(1, len(answer.events) // 2)
    last = answer.events[kept]
    return replace(answer, events=(*answer.events[:kept], last[: len(last) // 2]))


def garbled(answer: Answer) -> Answer:
    """Not JSON, although the content type says so; in a stream, the second event."""
    if answer.events is None:
        return replace(answer, body=b'{"id": "chatcmpl-x", "choices": [{"index": 0, <html>\xff\xfe')
    return replace(answer, events=(answer.events[0], b'data: {"id": \xff not json\n\n', *answer.events[2:]))


def with_error_event(answer: Answer) -> Answer:
    """A stream that the provider ends early with an error event, as OpenRouter does. Others are left alone."""
    if answer.events is None:
        return answer
    error = {"code": "server_error", "message": "Provider disconnected unexpectedly"}
    choice = {"index": 0, "delta": {"content": ""}, "finish_reason": "error"}
    kept = answer.events[: max(1, len(answer.events) // 2)]
    data: Json = {"id": "gen-fake", "object": "chat.completion.chunk", "error": error, "choices": [choice]}
    return replace(answer, events=(*kept, event(data)))


def error_in_body(answer: Answer) -> Answer:
    """What OpenRouter answers when a model fails after it has begun. Streams are left alone."""
    if answer.events is not None:
        return answer
    error = {"code": 502, "message": "Provider returned error"}
    return json_answer({"error": error, "user_id": "user_2fakefakefakefakefakefake"})


def zipped(answer: Answer) -> Answer:
    if answer.events is not None:
        body = gzip.compress(b"".join(answer.events))
        halves = (body[: len(body) // 2], body[len(body) // 2 :])
        return replace(answer, events=halves).with_headers(("Content-Encoding", "gzip"))
    return replace(answer, body=gzip.compress(answer.body)).with_headers(("Content-Encoding", "gzip"))


def with_cookies(answer: Answer) -> Answer:
    return answer.with_headers(
        ("Set-Cookie", "__cf_bm=fake-cookie-of-the-provider; path=/; HttpOnly; Secure; SameSite=None"),
        ("Set-Cookie", "_cfuvid=another-fake-cookie; path=/; HttpOnly; Secure"),
    )
