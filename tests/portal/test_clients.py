"""Official clients work with only address and key changed, with the simulator and with a provider behind it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.neighbours.fake_provider import FakeProvider
from tests.neighbours.portal import ROOT, Portal, running_portal
from tests.portal.calls import PASSWORD

MESSAGES: list[Any] = [{"role": "user", "content": "Hello, world!"}]
NODE = ROOT / "tests" / "clients" / "node"


@pytest.fixture(scope="module")
def portal(_provider_server: FakeProvider) -> Iterator[Portal]:
    """One for all clients; they leave nothing behind that another could trip over."""
    _provider_server.start()
    settings = {"ARKA_DEMO": "0", "ARKA_OPENAI_BASE_URL": _provider_server.openai_base_url}
    with running_portal(settings, workers=2) as portal:
        yield portal


@pytest.fixture(scope="module")
def keys(portal: Portal, _provider_server: FakeProvider) -> dict[str, str]:
    """A test key, which the simulator answers; a live key, which the provider answers."""

    def run(*command: str, input: str = "") -> str:
        done = portal.command(*command, input=input + "\n")
        assert done.returncode == 0, done.stderr
        return done.stdout.removesuffix("\n")

    run("user", "create", "alice@northwind.example", input=PASSWORD)
    run("workspace", "set-plan", "alice", "agency")
    run("provider", "set", "--workspace", "alice", "openai", input=_provider_server.openai_key)
    create = ("key", "create", "--workspace", "alice", "--name")
    return {"simulated": run(*create, "simulated", "--test"), "live": run(*create, "live")}


@pytest.fixture(params=["simulated", "live"])
def key(request: pytest.FixtureRequest, keys: dict[str, str], provider: FakeProvider) -> str:
    return keys[request.param]


@pytest.fixture
def client(portal: Portal, key: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{portal.url}/v1", api_key=key, max_retries=0)


def test_the_openai_client_for_python_works_unchanged(portal: Portal, client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="gpt-4o", messages=MESSAGES)
    assert "Hello, world!" in (answer.choices[0].message.content or "")
    assert answer.usage is not None
    assert answer.usage.completion_tokens > 0

    stream = client.chat.completions.create(
        model="gpt-4o", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert "Hello, world!" in text
    assert len(chunks) > 3
    assert chunks[-1].usage is not None

    assert client.embeddings.create(model="text-embedding-3-small", input="Hello, world!").data[0].embedding
    assert "Hello, world!" in client.responses.create(model="gpt-4o", input="Hello, world!").output_text
    assert client.completions.create(model="gpt-3.5-turbo-instruct", prompt="Hello, world!").choices[0].text
    assert "gpt-4o" in {model.id for model in client.models.list()}

    stranger = openai.OpenAI(base_url=f"{portal.url}/v1", api_key="sk-none", max_retries=0)
    with pytest.raises(openai.AuthenticationError) as unknown:
        stranger.models.list()
    assert unknown.value.code == "authentication_required"


def test_a_stream_of_responses_comes_as_the_client_expects(client: openai.OpenAI) -> None:
    events = list(client.responses.create(model="gpt-4o", input="Hello, world!", stream=True))
    assert events[0].type == "response.created"
    assert events[-1].type == "response.completed"
    assert "Hello, world!" in events[-1].response.output_text


def test_the_openai_client_raises_its_own_exceptions(portal: Portal, keys: dict[str, str]) -> None:
    client = openai.OpenAI(base_url=f"{portal.url}/v1", api_key=keys["simulated"], max_retries=0)
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="gpt-4o", messages=[])
    assert caught.value.param == "messages"
    assert caught.value.request_id is not None


def test_langchain_works_unchanged(portal: Portal, key: str) -> None:
    langchain_openai = pytest.importorskip("langchain_openai")
    chat = langchain_openai.ChatOpenAI(model="gpt-4o", base_url=f"{portal.url}/v1", api_key=key, max_retries=0)
    assert "Hello, world!" in chat.invoke("Hello, world!").content
    pieces = list(chat.stream("Hello, world!"))
    assert "Hello, world!" in "".join(piece.content for piece in pieces)
    assert len(pieces) > 3


@pytest.fixture(scope="session")
def node_client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Node program, with OpenAI's client for Node installed beside it as the lock file says."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("Node.js and npm are missing: apt install nodejs npm")
    folder = tmp_path_factory.mktemp("node") / "client"
    shutil.copytree(NODE, folder, ignore=shutil.ignore_patterns("node_modules"))
    done = subprocess.run(["npm", "ci", "--no-progress"], cwd=folder, capture_output=True, text=True, timeout=120)
    if done.returncode != 0:
        pytest.skip(f"npm could not install OpenAI's client for Node: {done.stderr[-500:]}")
    return folder / "client.mjs"


def test_the_openai_client_for_node_works_unchanged(portal: Portal, key: str, node_client: Path) -> None:
    settings = {"PATH": os.environ["PATH"], "BASE_URL": f"{portal.url}/v1", "API_KEY": key}
    done = subprocess.run(["node", str(node_client)], env=settings, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert "Hello from Node" in told["whole"]
    assert "Hello from Node" in told["streamed"]
    assert told["usage"]["completion_tokens"] > 0
    assert "gpt-4o" in told["models"]
    assert told["dimensions"] > 0
    assert "Hello from Node" in told["response"]
    assert told["refusal"]["status"] == 400


def test_curl_works_unchanged(portal: Portal, key: str) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is missing: apt install curl")
    body = json.dumps({"model": "gpt-4o", "messages": MESSAGES, "stream": True})
    command = ["curl", "-sS", "-N", f"{portal.url}/v1/chat/completions", "-H", f"Authorization: Bearer {key}"]
    command += ["-H", "Content-Type: application/json", "-d", body]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("data: {")
    assert done.stdout.endswith("data: [DONE]\n\n")
