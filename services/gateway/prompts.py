"""The text of a request, wherever its shape keeps it. Never fails: what has an unknown shape has no text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

_MOST_EARLIER = 3
_SYSTEM_ROLES = ("system", "developer")
_IMAGE_PARTS = ("image_url", "input_image", "image")


@dataclass(slots=True)
class Prompt:
    """What was said. ``last`` is the user's last message, ``earlier`` those before it, the latest first, a few."""

    last: str = ""
    earlier: list[str] = field(default_factory=list)
    system: str = ""
    # Of all that was said, by whomever.
    characters: int = 0
    messages: int = 0
    # Given as token numbers instead of text.
    tokens: int = 0
    has_images: bool = False
    has_tools: bool = False


def read(endpoint: str, request: dict[str, Any]) -> Prompt:
    """Return what a request to one of the gateway's endpoints says."""
    prompt = Prompt()
    if endpoint in ("completions", "embeddings"):
        _read_texts(prompt, request.get("prompt" if endpoint == "completions" else "input"))
    else:
        prompt.has_tools = bool(request.get("tools") or request.get("functions"))
        instructions = request.get("instructions")
        if endpoint == "responses" and isinstance(instructions, str):
            _take(prompt, "system", instructions)
        _read_messages(prompt, request.get("input" if endpoint == "responses" else "messages"))
    return prompt


def text_of(content: Any) -> str:
    """Return the text of a message's content: a text, or a list of parts of which some are text."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    texts = [text for part in content if isinstance(text := _text_of_part(part), str)]
    return texts[0] if len(texts) == 1 else "\n".join(texts)


def _text_of_part(part: Any) -> Any:
    return part.get("text") if isinstance(part, dict) else part


def _read_messages(prompt: Prompt, messages: Any) -> None:
    if isinstance(messages, str):
        _take(prompt, "user", messages)
        return
    for message in _objects(messages):
        content = message.get("content", message.get("output"))
        prompt.has_images = prompt.has_images or _shows_image(content)
        _take(prompt, message.get("role"), text_of(content))


def _take(prompt: Prompt, role: Any, text: str) -> None:
    prompt.messages += 1
    prompt.characters += len(text)
    if role in _SYSTEM_ROLES:
        prompt.system = f"{prompt.system}\n{text}" if prompt.system else text
    elif role == "user":
        if prompt.last:
            prompt.earlier = [prompt.last, *prompt.earlier][:_MOST_EARLIER]
        prompt.last = text


def _read_texts(prompt: Prompt, texts: Any) -> None:
    """A text, several, or token numbers in place of one or several."""
    texts = [texts] if isinstance(texts, str) else texts
    if not isinstance(texts, list):
        return
    for text in texts:
        if isinstance(text, str):
            prompt.messages += 1
            prompt.characters += len(text)
            prompt.last = text
        elif isinstance(text, list):
            prompt.tokens += len(text)
        elif isinstance(text, int):
            prompt.tokens += 1


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    return (item for item in value if isinstance(item, dict)) if isinstance(value, list) else iter(())


def _shows_image(content: Any) -> bool:
    return any(part.get("type") in _IMAGE_PARTS for part in _objects(content))
