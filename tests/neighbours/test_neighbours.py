"""Each neighbour really does what it says, else the tests that rely on it prove nothing."""

from __future__ import annotations

import http.client
import http.server
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import openai
import psycopg
import pytest
import redis
import urllib3

from tests.neighbours import browser as chromium
from tests.neighbours import fake_provider, network_guard, processes, provider_wire, skips
from tests.neighbours.fake_provider import FakeProvider, Fault
from tests.neighbours.network_guard import OutsideConnection
from tests.neighbours.portal import ROOT, Portal, running_portal
from tests.neighbours.postgres import Postgres, is_open_to_all
from tests.neighbours.processes import ReservedPort
from tests.neighbours.valkey import Valkey

if TYPE_CHECKING:
    from playwright.sync_api import Page

HELLO: list[Any] = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Grüße aus Köln"}]


def client_of(provider: FakeProvider, **options: Any) -> openai.OpenAI:
    given: dict[str, Any] = {"base_url": provider.openai_base_url, "api_key": provider.good_key}
    return openai.OpenAI(**(given | {"max_retries": 0, "timeout": 10.0} | options))


@pytest.fixture
def client(provider: FakeProvider) -> Iterator[openai.OpenAI]:
    with client_of(provider) as client:
        yield client


def post(provider: FakeProvider, body: object, *, path: str = "/v1/chat/completions", key: str = "") -> Any:
    """Make one plain request and return urllib3's response, its body read."""
    headers = {"Authorization": f"Bearer {key or provider.good_key}", "Content-Type": "application/json"}
    with urllib3.PoolManager(retries=False, timeout=10) as pool:
        return pool.request("POST", provider.url + path, body=json.dumps(body), headers=headers, redirect=False)


def ask(model: str = "gpt-4o", **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": HELLO, **more}


# ---- the provider as OpenAI


def test_openai_client_gets_an_answer_with_usage(client: openai.OpenAI, provider: FakeProvider) -> None:
    answer = client.chat.completions.create(model="gpt-4o", messages=HELLO)
    assert answer.choices[0].message.content == "You said: Grüße aus Köln"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (5, 5, 10)
    assert answer.id.startswith("chatcmpl-")
    [request] = provider.requests
    assert (request.method, request.path, request.key) == ("POST", "/v1/chat/completions", provider.good_key)
    assert request.json["messages"] == HELLO


def test_openai_client_reads_a_stream_and_its_usage(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model="gpt-4o", messages=HELLO, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    deltas = [choice.delta for chunk in chunks for choice in chunk.choices]
    assert "".join(delta.content or "" for delta in deltas) == "You said: Grüße aus Köln"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == 10
    assert len({chunk.id for chunk in chunks}) == 1


def test_a_stream_has_no_usage_unless_asked_for(client: openai.OpenAI) -> None:
    chunks = list(client.chat.completions.create(model="gpt-4o", messages=HELLO, stream=True))
    assert all(chunk.usage is None for chunk in chunks)
    assert chunks[-1].choices[0].finish_reason == "stop"


def test_events_come_one_by_one_while_they_are_made(client: openai.OpenAI, provider: FakeProvider) -> None:
    provider.event_delay_seconds = 0.1
    moments = [time.monotonic() for _ in client.chat.completions.create(model="gpt-4o", messages=HELLO, stream=True)]
    gaps = [later - earlier for earlier, later in itertools.pairwise(moments)]
    assert len(gaps) >= 5
    assert min(gaps) > 0.05


@pytest.mark.parametrize("stream", [False, True])
def test_a_forced_tool_is_called(client: openai.OpenAI, stream: bool) -> None:
    tool: Any = {"type": "function", "function": {"name": "say", "parameters": {"type": "object"}}}
    options: dict[str, Any] = {"model": "gpt-4o", "messages": HELLO, "tools": [tool], "tool_choice": "required"}
    if stream:
        deltas = [chunk.choices[0].delta for chunk in client.chat.completions.create(**options, stream=True)]
        parts = [call.function for delta in deltas for call in delta.tool_calls or []]
        name, arguments = parts[0].name, "".join(part.arguments for part in parts)
    else:
        call = client.chat.completions.create(**options).choices[0].message.tool_calls[0]
        name, arguments = call.function.name, call.function.arguments
    assert name == "say"
    assert json.loads(arguments) == {"text": "You said: Grüße aus Köln"}


def test_other_endpoints_answer_the_openai_client(client: openai.OpenAI) -> None:
    assert client.responses.create(model="gpt-4o", input="hello").output_text == "You said: hello"
    completion = client.completions.create(model="gpt-3.5-turbo-instruct", prompt="hello")
    assert completion.choices[0].text == "You said: hello"
    made = client.embeddings.create(model="text-embedding-3-small", input=["a", "b"], dimensions=16)
    assert [len(item.embedding) for item in made.data] == [16, 16]
    assert made.data[0].embedding != made.data[1].embedding
    assert "gpt-4o" in [model.id for model in client.models.list()]
    assert client.models.retrieve("gpt-4o").id == "gpt-4o"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("nothing")


def test_a_response_streams_its_text(client: openai.OpenAI) -> None:
    events = list(client.responses.create(model="gpt-4o", input="hello you", stream=True))
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "".join(deltas) == "You said: hello you"
    assert events[-1].type == "response.completed"


# ---- the provider as OpenRouter


def test_openrouter_sends_comments_usage_and_cost_in_a_stream(provider: FakeProvider) -> None:
    with client_of(provider, base_url=provider.openrouter_base_url, api_key=provider.openrouter_key) as client:
        chunks = list(client.chat.completions.create(model="anthropic/claude-3.5-sonnet", messages=HELLO, stream=True))
    assert chunks[0].id.startswith("gen-")
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.model_extra == {"cost": 9e-05, "is_byok": False}
    raw = post(provider, ask(stream=True), path="/api/v1/chat/completions").data
    assert raw.startswith(b": OPENROUTER PROCESSING\n\n")


def test_openrouter_tells_about_a_key_but_lists_models_to_anybody(provider: FakeProvider) -> None:
    def get(path: str, key: str) -> Any:
        headers = {"Authorization": f"Bearer {key}"}
        with urllib3.PoolManager(retries=False, timeout=10) as pool:
            return pool.request("GET", provider.openrouter_base_url + path, headers=headers)

    assert get("/key", provider.openrouter_key).json()["data"]["limit_remaining"] > 0
    assert get("/key", provider.broke_key).json()["data"]["limit_remaining"] == 0
    assert get("/key", "unknown").status == 401
    assert get("/models", "unknown").status == 200


# ---- keys


def test_an_unknown_key_is_refused_with_a_part_of_it_in_the_message(provider: FakeProvider) -> None:
    refused = post(provider, ask(), key="sk-unknown-0123456789abcdef")
    assert refused.status == 401
    assert refused.json()["error"]["code"] == "invalid_api_key"
    assert "sk-unkno" in refused.json()["error"]["message"]
    assert "cdef." in refused.json()["error"]["message"]
    assert "0123456789" not in refused.json()["error"]["message"]


def test_keys_without_credit_or_permission_are_told_so(provider: FakeProvider) -> None:
    assert post(provider, ask(), key=provider.broke_key).json()["error"]["code"] == "insufficient_quota"
    assert post(provider, ask(), key=provider.broke_key).status == 429
    assert post(provider, ask(), key=provider.broke_key, path="/api/v1/chat/completions").status == 402
    assert post(provider, ask(), key=provider.restricted_key).status == 403


def test_a_key_of_one_provider_is_unknown_to_the_other(provider: FakeProvider) -> None:
    assert post(provider, ask(), key=provider.openai_key).status == 200
    assert post(provider, ask(), key=provider.openrouter_key).status == 401
    assert post(provider, ask(), key=provider.openai_key, path="/api/v1/chat/completions").status == 401


# ---- faults


@pytest.mark.parametrize(
    ("fault", "status"),
    [
        ("400", 400),
        ("401", 401),
        ("402", 429),
        ("403", 403),
        ("404", 404),
        ("429", 429),
        ("500", 500),
        ("502", 502),
        ("503", 503),
        ("redirect", 302),
    ],
)
def test_a_status_can_be_ordered_in_three_ways(provider: FakeProvider, fault: str, status: int) -> None:
    assert post(provider, ask(f"fault-{fault}")).status == status
    provider.faults.append(fault)
    assert post(provider, ask()).status == status
    assert post(provider, ask()).status == 200
    provider.fault = fault
    assert [post(provider, ask()).status for _ in range(2)] == [status, status]


def test_one_of_the_two_providers_can_fail(provider: FakeProvider) -> None:
    provider.faults_by_path["/v1/"] = "503"
    assert post(provider, ask()).status == 503
    assert post(provider, ask(), path="/api/v1/chat/completions").status == 200


def test_a_rate_limit_says_when_to_come_back(provider: FakeProvider) -> None:
    assert post(provider, ask("fault-429:7")).headers["Retry-After"] == "7"


def test_an_unknown_fault_is_an_error_of_the_test(provider: FakeProvider) -> None:
    with pytest.raises(ValueError, match="is no fault"):
        provider.fault = "no-such-thing"
    assert set(fake_provider.SPOILT) <= set(fake_provider.FAULTS)
    assert Fault.parse("reset:100") == Fault("reset", "100")


def test_a_hanging_provider_sends_nothing_and_notices_who_leaves(provider: FakeProvider) -> None:
    with client_of(provider, timeout=0.3) as client, pytest.raises(openai.APITimeoutError):
        client.chat.completions.create(model="fault-hang", messages=HELLO)
    provider.wait_until_idle(2)
    assert [request.outcome for request in provider.requests] == ["client gone"]


def test_a_hang_ends_after_its_time_without_an_answer(provider: FakeProvider) -> None:
    with pytest.raises(urllib3.exceptions.ProtocolError):
        post(provider, ask("fault-hang:0.2"))
    assert [request.outcome for request in provider.requests] == ["cut"]


def test_a_stream_stalls_after_its_first_events(provider: FakeProvider) -> None:
    with client_of(provider, timeout=0.5) as client:
        stream = iter(client.chat.completions.create(model="fault-stall:2", messages=HELLO, stream=True))
        assert [next(stream).object for _ in range(2)] == ["chat.completion.chunk"] * 2
        with pytest.raises(openai.APITimeoutError):
            next(stream)


def test_a_slow_answer_takes_its_time(provider: FakeProvider) -> None:
    begun = time.monotonic()
    assert post(provider, ask("fault-slow:0.3")).status == 200
    assert time.monotonic() - begun > 0.25


def received_by_socket(provider: FakeProvider, model: str) -> tuple[bytes, bool]:
    """Return what came before the end, and whether the end was a reset."""
    body = json.dumps(ask(model, stream=True)).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {provider.good_key}\r\n"
    got = b""
    with socket.create_connection(("127.0.0.1", provider.port), timeout=5) as connection:
        connection.sendall(head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        try:
            while data := connection.recv(65536):
                got += data
        except ConnectionResetError:
            return got, True
    return got, False


def test_a_connection_is_reset_where_ordered(provider: FakeProvider) -> None:
    assert received_by_socket(provider, "fault-reset") == (b"", True)
    got, was_reset = received_by_socket(provider, "fault-reset:100")
    assert was_reset
    assert len(got.partition(b"\r\n\r\n")[2]) == 100


def test_a_truncated_stream_ends_as_if_all_were_well(provider: FakeProvider) -> None:
    response = post(provider, ask("fault-truncated", stream=True))
    assert response.status == 200
    assert b"[DONE]" not in response.data
    assert not response.data.endswith(b"\n\n")
    with pytest.raises(ValueError, match=r"Unterminated|Expecting|delimiter"):
        json.loads(post(provider, ask("fault-truncated")).data)


def test_other_spoilt_answers_are_what_they_say(provider: FakeProvider) -> None:
    with pytest.raises(ValueError, match=r"codec|Expecting"):
        json.loads(post(provider, ask("fault-garbage")).data)
    assert len(max(post(provider, ask("fault-big-line", stream=True)).data.split(b"\n"), key=len)) > 10_000_000
    assert "usage" not in post(provider, ask("fault-no-usage")).json()
    options = {"stream": True, "stream_options": {"include_usage": True}}
    assert b'"usage"' not in post(provider, ask("fault-no-usage", **options)).data
    assert len(post(provider, ask("fault-cookies")).headers.getlist("Set-Cookie")) == 2
    assert post(provider, ask("fault-gzip")).headers["Content-Encoding"] == "gzip"
    assert b'"error"' in post(provider, ask("fault-error-event", stream=True)).data.split(b"\n\n")[-2]


def test_who_follows_a_redirect_is_seen(provider: FakeProvider) -> None:
    location = post(provider, ask("fault-redirect")).headers["Location"]
    assert location == f"http://localhost:{provider.port}/v1/chat/completions"
    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(location, timeout=5)
    assert [request.method for request in provider.requests] == ["POST", "GET"]


def test_one_connection_carries_several_requests(provider: FakeProvider) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", provider.port, timeout=5)
    headers = {"Authorization": f"Bearer {provider.good_key}"}
    for stream in (False, True, False):
        connection.request("POST", "/v1/chat/completions", json.dumps(ask(stream=stream)), headers)
        assert connection.getresponse().read()
    connection.request("POST", "/v1/chat/completions", iter([b'{"model": "gpt-4o", ', b'"messages": []}']), headers)
    assert connection.getresponse().status == 200
    connection.close()
    assert provider.connections_made == 1


def test_odd_requests_get_a_400(provider: FakeProvider) -> None:
    bodies: list[object] = [[], {}, {"model": "gpt-4o"}, ask(tools=[3], tool_choice="required")]
    for body in bodies:
        assert post(provider, body).status == 400
    assert post(provider, {"model": "m", "input": 3}, path="/v1/embeddings").status == 400
    assert post(provider, ask(), path="/v1/nothing").status == 404


def test_many_hanging_calls_leave_room_for_others(provider: FakeProvider) -> None:
    threads = [threading.Thread(target=received_by_socket, args=(provider, "fault-hang")) for _ in range(40)]
    for thread in threads:
        thread.start()
    provider.wait_for(40)
    assert post(provider, ask()).status == 200
    assert processes.wait_until(lambda: provider.in_flight == 40, 5)
    provider.reset()
    for thread in threads:
        thread.join(5)
    assert provider.in_flight == 0


def test_an_outage_of_the_fake_provider_ends_although_its_port_is_in_use_for_a_moment(provider: FakeProvider) -> None:
    with provider.outage():
        listener = socket.create_server(("127.0.0.1", provider.port))
        threading.Timer(0.3, listener.close).start()
    assert post(provider, ask()).status == 200


def test_provider_away_and_back_on_the_same_port(provider: FakeProvider) -> None:
    with provider.outage(), pytest.raises(urllib3.exceptions.NewConnectionError):
        post(provider, ask())
    assert post(provider, ask()).status == 200


def test_provider_runs_by_itself() -> None:
    command = [sys.executable, "-m", "tests.neighbours.fake_provider", "--port", "0", "--key", "sk-mine"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        with client_of_url(url) as client:
            assert client.chat.completions.create(model="gpt-4o", messages=HELLO).choices
        process.terminate()
        assert process.wait(10) == 0


def client_of_url(url: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{url}/v1", api_key="sk-mine", max_retries=0, timeout=10)


def test_tokens_are_words() -> None:
    assert provider_wire.pieces("You said:  hello\n") == ["You", " said:", "  hello"]
    assert provider_wire.pieces("") == [""]
    assert provider_wire.tokens("You said:  hello\n") == 3


# ---- Valkey and PostgreSQL


def test_valkey_away_and_back_on_the_same_port(valkey: Valkey, redis_url: str) -> None:
    with redis.Redis.from_url(redis_url, socket_timeout=2, retry=None) as connection:
        connection.set("name", "value")
        assert connection.get("name") == b"value"
        with valkey.outage(), pytest.raises(redis.ConnectionError):
            connection.get("name")
        assert connection.get("name") is None
        connection.set("name", "value")
        valkey.empty()
        assert connection.get("name") is None


def test_postgres_databases_are_apart_and_can_be_copied(postgres: Postgres) -> None:
    first = postgres.create_database()
    with psycopg.connect(postgres.url_of(first)) as connection:
        connection.execute("CREATE TABLE word (text text)")
        connection.execute("INSERT INTO word VALUES ('Köln')")
    copy, empty = postgres.create_database(template=first), postgres.create_database()
    with psycopg.connect(postgres.url_of(copy)) as connection:
        assert connection.execute("SELECT text FROM word").fetchall() == [("Köln",)]
    with psycopg.connect(postgres.url_of(empty)) as connection, pytest.raises(psycopg.errors.UndefinedTable):
        connection.execute("SELECT text FROM word")
    for name in (first, copy, empty):
        postgres.drop_database(name)


def test_postgres_away_and_back_with_its_data(postgres: Postgres) -> None:
    name = postgres.create_database()
    with postgres.outage(), pytest.raises(psycopg.OperationalError):
        psycopg.connect(postgres.url_of(name), connect_timeout=2)
    with psycopg.connect(postgres.url_of(name)) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    postgres.drop_database(name)


def test_database_url_is_of_an_empty_database(database_url: str) -> None:
    if database_url.startswith("sqlite:///"):
        assert not Path(database_url.removeprefix("sqlite:///")).exists()
        return
    with psycopg.connect(database_url) as connection:
        tables = connection.execute("SELECT * FROM pg_tables WHERE schemaname = 'public'").fetchall()
    assert tables == []


def test_folders_closed_to_others_are_recognised(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    (closed / "inside").mkdir(parents=True)
    closed.chmod(0o700)
    assert not is_open_to_all(closed / "inside")
    assert is_open_to_all(Path("/"))


# ---- ports and processes


def test_reserved_ports_differ() -> None:
    ports = [ReservedPort() for _ in range(50)]
    assert len({port.number for port in ports}) == 50
    for port in ports:
        port.release()


def test_a_stubborn_process_and_its_children_are_ended(tmp_path: Path) -> None:
    script = "trap '' TERM; sleep 300 & echo $!; wait; sleep 300"
    with (tmp_path / "output").open("wb") as output:
        process = processes.start(["sh", "-c", script], output=output, environment=dict(os.environ), folder=tmp_path)
    assert processes.wait_until(lambda: bool((tmp_path / "output").read_text()), 5)
    child = int((tmp_path / "output").read_text())
    assert processes.stop(process, signal.SIGTERM, patience_seconds=0.3) == -signal.SIGKILL
    assert processes.wait_until(lambda: is_gone(child), 5)


def test_the_watchdog_ends_what_a_killed_test_run_leaves(tmp_path: Path) -> None:
    script = (
        "import os, sys, time; from pathlib import Path; from tests.neighbours import processes as p\n"
        "manager = p.temporary_folder('left-', Path(sys.argv[1])); folder = manager.__enter__()\n"
        "process = p.start(['sleep', '300'], output=1, environment=os.environ, folder=folder)\n"
        "print(process.pid, folder, flush=True); time.sleep(300)"
    )
    with subprocess.Popen([sys.executable, "-c", script, tmp_path], stdout=subprocess.PIPE, text=True, cwd=ROOT) as run:
        assert run.stdout is not None
        pid, _, folder = run.stdout.readline().strip().partition(" ")
        assert Path(folder).is_dir()
        run.kill()
    assert processes.wait_until(lambda: is_gone(int(pid)) and not Path(folder).exists(), 10)


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    # A process whose parent has not asked for its status yet, which in a container may be never.
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return state.strip().startswith("Z")


# ---- the network guard and the skips


def test_other_machines_are_refused_even_if_the_code_catches_it(outside_attempts: list[str]) -> None:
    with pytest.raises(OutsideConnection):
        socket.create_connection(("192.0.2.1", 443), timeout=1)
    with pytest.raises(OutsideConnection):
        socket.create_connection(("example.org", 443), timeout=1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender, pytest.raises(OutsideConnection):
        sender.sendto(b"question", ("192.0.2.53", 53))
    assert len(outside_attempts) == 3
    outside_attempts.clear()


def test_this_machine_is_recognised() -> None:
    for host in ("127.0.0.1", "127.9.8.7", "::1", "localhost", b"localhost", "a.localhost", "", None):
        assert network_guard.is_inside(host), host
    for host in ("10.0.0.1", "0.0.0.0", "example.org", "localhost.example.org", "fe80::1%eth0"):
        assert not network_guard.is_inside(host), host


def run_pytest(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a small suite with the plugin of the skips alone."""
    (folder / "test_small.py").write_text(
        "import pytest\n"
        "@pytest.mark.skip(reason='by mark')\n"
        "def test_mark(): pass\n"
        "def test_call(): pytest.skip('by call')\n"
        "@pytest.mark.xfail\n"
        "def test_expected(): assert False\n"
    )
    (folder / "test_module.py").write_text("import pytest\npytest.skip('by module', allow_module_level=True)\n")
    command = [sys.executable, "-m", "pytest", "-c", os.devnull, "--rootdir", str(folder), "-p", "no:cacheprovider"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "ARKA_"))}
    return subprocess.run(
        [*command, "-p", "tests.neighbours.skips", *arguments, str(folder)],
        cwd=ROOT,
        env=environment | variables,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_skips_are_told_with_their_reasons(tmp_path: Path) -> None:
    done = run_pytest(tmp_path, "-n", "1")
    assert done.returncode == 0, done.stdout
    [line] = [line for line in done.stdout.splitlines() if line.startswith("Skipped")]
    assert line.startswith("Skipped 3 in all.")
    assert {"1: by mark", "1: by call", "1: by module"} == set(line.partition("all. ")[2].split("; "))


@pytest.mark.parametrize("arguments", [[], ["-n", "1"]])
def test_skips_can_be_forbidden(tmp_path: Path, arguments: list[str]) -> None:
    done = run_pytest(tmp_path, *arguments, "--continue-on-collection-errors", **{skips.VARIABLE: "1"})
    assert done.returncode == 1, done.stdout
    for reason in ("by mark", "by call", "by module"):
        assert f"which {skips.VARIABLE} forbids: {reason}" in done.stdout
    assert "1 xfailed" in done.stdout
    assert "No test was skipped." in done.stdout


# ---- the browser


class Site(http.server.BaseHTTPRequestHandler):
    """Two pages: a good one, and one that breaks every rule that the page fixture watches."""

    GOOD = b"<title>Good</title><script src='/script.js'></script>"
    BAD = (
        b"<title>Bad</title><script>1</script><script src='/throws.js'></script>"
        b"<img src='http://192.0.2.1/x.png'><p style='color: red'>"
    )

    def do_GET(self) -> None:
        scripts = {"/script.js": b"document.title = 'Scripted'", "/throws.js": b"throw new Error('thrown on purpose')"}
        pages = {"/good": self.GOOD, "/bad": self.BAD}
        body = (scripts | pages).get(self.path, b"")
        self.send_response(200)
        self.send_header("Content-Type", "text/javascript" if self.path in scripts else "text/html")
        self.send_header("Content-Security-Policy", "default-src 'self'; img-src *")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


@pytest.fixture
def site() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Site)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_chromium_loads_a_page_and_runs_its_script(page: Page, site: str) -> None:
    page.goto(f"{site}/good")
    assert page.title() == "Scripted"


def test_faults_on_a_page_are_seen(page: Page, page_faults: list[str], site: str) -> None:
    page.goto(f"{site}/bad")
    told = "; ".join(page_faults)
    assert "script error: thrown on purpose" in told
    assert "request to http://192.0.2.1/x.png" in told
    assert told.count("Content Security Policy") >= 2, told
    page_faults.clear()


def test_chromium_is_looked_for_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def program(path: Path, status: int = 0) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\nexit {status}\n")
        path.chmod(0o755)
        return path

    def found() -> Path | None:
        return chromium.find_chromium.__wrapped__()

    monkeypatch.delenv(chromium.VARIABLE, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    monkeypatch.setenv("PLAYWRIGHT_BROWSERS_PATH", str(tmp_path / "downloads"))
    assert found() is None
    downloaded = program(tmp_path / "downloads/chromium-1200/chrome-linux64/chrome")
    assert found() == downloaded
    program(tmp_path / "path/chromium-browser", status=1)
    assert found() == downloaded
    on_path = program(tmp_path / "path/chromium")
    assert found() == on_path
    named = program(tmp_path / "named")
    monkeypatch.setenv(chromium.VARIABLE, str(named))
    assert found() == named
    monkeypatch.setenv(chromium.VARIABLE, str(tmp_path / "nothing"))
    with pytest.raises(FileNotFoundError, match="does not start"):
        found()


# ---- the portal


@pytest.fixture(scope="module")
def portal() -> Iterator[Portal]:
    with running_portal({"ARKA_DEMO": "0"}) as portal:
        yield portal


def test_portal_serves_takes_commands_and_comes_back(portal: Portal) -> None:
    made = portal.command("user", "create", "a@b.example", input="a long enough password\n")
    assert made.returncode == 0, made.stderr
    assert made.stdout.strip() in portal.command("workspace", "list").stdout
    assert portal.stop() == 0
    portal.start()
    with urllib.request.urlopen(f"{portal.url}/healthz", timeout=5) as response:
        assert response.status == 200


def test_a_portal_that_cannot_start_says_why() -> None:
    with pytest.raises(processes.NeighbourError, match="ARKA_THREADS"), running_portal({"ARKA_THREADS": "none"}):
        pass
