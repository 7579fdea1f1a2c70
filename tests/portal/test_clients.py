"""Official clients work with only address and key changed."""

from __future__ import annotations

from collections.abc import Callable

import openai
import pytest

from tests.neighbours.portal import Portal

MESSAGES = [{"role": "user", "content": "Hello, world!"}]


@pytest.fixture
def storage() -> dict[str, str]:
    """What stores the data makes no difference to a client."""
    return {}


@pytest.fixture
def client(portal: Portal, new_key: Callable[..., str]) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{portal.url}/v1", api_key=new_key("client", "--test"), max_retries=0)


def test_the_openai_client_completes(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="gpt-4o", messages=MESSAGES)
    assert "Hello, world!" in (answer.choices[0].message.content or "")
    assert answer.usage is not None
    assert answer.usage.completion_tokens > 0


def test_the_openai_client_streams(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model="gpt-4o", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert "Hello, world!" in text
    assert len(chunks) > 5
    assert chunks[-1].usage is not None


def test_the_openai_client_lists_models(client: openai.OpenAI) -> None:
    assert "gpt-4o" in {model.id for model in client.models.list()}


def test_the_openai_client_raises_its_own_exceptions(portal: Portal, client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="gpt-4o", messages=[])
    assert caught.value.param == "messages"
    assert caught.value.request_id is not None
    stranger = openai.OpenAI(base_url=f"{portal.url}/v1", api_key="sk-none", max_retries=0)
    with pytest.raises(openai.AuthenticationError) as unknown:
        stranger.models.list()
    assert unknown.value.code == "authentication_required"
