"""Official clients work with only address and key changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import openai
import pydantic
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


def test_the_openai_client_embeds(client: openai.OpenAI) -> None:
    made = client.embeddings.create(model="text-embedding-3-small", input=["one", "two"], dimensions=64)
    assert [len(row.embedding) for row in made.data] == [64, 64]
    assert made.data[0].embedding != made.data[1].embedding
    plain = client.embeddings.create(
        model="text-embedding-3-small", input="one", dimensions=64, encoding_format="float"
    )
    assert plain.data[0].embedding == pytest.approx(made.data[0].embedding)
    assert made.usage.total_tokens > 0


def test_the_openai_client_completes_prompts(client: openai.OpenAI) -> None:
    whole = client.completions.create(model="gpt-3.5-turbo-instruct", prompt="Hello, world!")
    assert "Hello, world!" in whole.choices[0].text
    stream = client.completions.create(model="gpt-3.5-turbo-instruct", prompt="Hello, world!", stream=True)
    assert "".join(chunk.choices[0].text for chunk in stream) == whole.choices[0].text


def test_the_openai_client_gets_responses(client: openai.OpenAI) -> None:
    whole = client.responses.create(model="gpt-4o", input="Hello, world!")
    assert "Hello, world!" in whole.output_text
    with client.responses.stream(model="gpt-4o", input="Hello, world!") as stream:
        text = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
        final = stream.get_final_response()
    assert text == final.output_text == whole.output_text
    assert final.usage is not None
    assert final.usage.output_tokens > 0


def test_the_openai_client_calls_tools_and_reads_json(client: openai.OpenAI) -> None:
    class Answer(pydantic.BaseModel):
        title: str
        stars: int

    parsed = client.chat.completions.parse(model="gpt-4o", messages=MESSAGES, response_format=Answer)
    assert isinstance(parsed.choices[0].message.parsed, Answer)
    tool = openai.pydantic_function_tool(Answer)
    called = client.chat.completions.create(model="gpt-4o", messages=MESSAGES, tools=[tool], tool_choice="required")
    calls = called.choices[0].message.tool_calls
    assert calls is not None
    assert calls[0].function.name == "Answer"
    Answer.model_validate_json(calls[0].function.arguments)


def test_the_openai_client_raises_what_is_rehearsed(client: openai.OpenAI) -> None:
    def rehearse(trigger: str, **more: Any) -> Any:
        messages = [{"role": "user", "content": f"simulate:{trigger}"}]
        return client.chat.completions.create(model="gpt-4o", messages=messages, **more)

    for trigger, error in [
        ("401", openai.AuthenticationError),
        ("403", openai.PermissionDeniedError),
        ("429:3", openai.RateLimitError),
        ("503", openai.InternalServerError),
    ]:
        with pytest.raises(error) as caught:
            rehearse(trigger)
        assert caught.value.response.headers["X-Request-Id"] == caught.value.request_id
    with pytest.raises(openai.APIStatusError) as unpaid:
        rehearse("402")
    assert unpaid.value.status_code == 402
    with pytest.raises(openai.APIError, match="broke off"):
        list(rehearse("cut", stream=True))
