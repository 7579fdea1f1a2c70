"""A true HTTP server that speaks as OpenAI under ``/v1`` and as OpenRouter under ``/api/v1``.

    with running_provider() as provider:
        call(provider.openai_base_url, provider.good_key)
        assert provider.requests[0].json["model"] == "gpt-4o"

It answers with an echo of the last user message. A test orders what goes wrong:

- ``provider.fault = "500"``: every answer, until it is set to None;
- ``provider.faults.append("429:7")``: the next answer only, in the order appended;
- ``provider.faults_by_path["/api/v1/"] = "503"``: every answer under a path, so that one of the two providers fails;
- a model named ``fault-500`` (or ``anyone/fault-500``): this answer. This works from another process too.

What may be written after the colon is optional: seconds, a number of bytes or events, an address. See FAULTS.

As with the real ones, ``GET /v1/models`` answers a key that is out of credit, and OpenRouter's ``GET models`` answers
without any key: neither proves that a key can be used. OpenRouter's ``GET key`` tells the limit of a key if it has one,
never the credit of the account. OpenAI's keys can lack the scope to list models, or be restricted to some models; its
reasoning models refuse ``max_tokens``, and answer 400 when their tokens do not last for thinking.

``python -m tests.neighbours.fake_provider --port 0`` prints the address and serves until it is stopped.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import json
import signal
import socket
import socketserver
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast

from tests.neighbours import processes
from tests.neighbours import provider_wire as wire
from tests.neighbours.processes import ReservedPort
from tests.neighbours.provider_wire import Answer, Flavour, Question

GOOD_KEY = "sk-good-8Qz4mVt2Lk9RfXw7Yb3NcH6Jd1Gs5PaE0uTi"
OPENAI_KEY = "sk-proj-3hWc9Kx5Zr1Tn7Bv0Qf8Lm2Ys6Dp4Gj9EoUaIi"
OPENROUTER_KEY = "sk-or-v1-9f2c4b7e1d8a6053c9e2b4f7a1d6083e5c7b9f2a4d8e1063b5c7f9a2"
BROKE_KEY = "sk-broke-5Tg1Xn8Wq3Zc7Vb2Mk9Lr4Hd6Jf0PsYaEuOi"
RESTRICTED_KEY = "sk-restricted-2Lp7Ks4Dh9Gf1Qw6Er3Ty8Ui5Oa0ZxCv"
LISTLESS_KEY = "sk-listless-7Hn3Xc9Vb5Mk1Qw8Er4Ty2Ui6Op0AsDf"
UNLIMITED_KEY = "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"

FAULTS = {
    "hang": "no byte for these seconds (else provider.hang_seconds), then the connection is closed",
    "stall": "after these events (else 2) of a stream nothing more, as with hang",
    "slow": "these seconds (else 0.3) before each event, or before a whole answer",
    "reset": "TCP reset after these bytes that follow the headers; without a number before any byte",
    "400": "the request is refused as wrong",
    "401": "the key is refused, as if it were unknown",
    "402": "no credit, as OpenRouter says it; as OpenAI it is 429 insufficient_quota",
    "403": "the key lacks a permission",
    "404": "the model is unknown",
    "429": "rate limit with Retry-After of these seconds (else 20), or without one: 429:none",
    "500": "server error",
    "502": "an HTML page of the network in front",
    "503": "overloaded",
    "garbage": "status 200 and a JSON content type, but no JSON; in a stream one event is none",
    "truncated": "half of the answer although HTTP ends well; a stream without [DONE]",
    "error-event": "a stream that ends with an error event",
    "big-line": "one line of these bytes (else 10,000,000)",
    "redirect": "302 to this address, else to the same path under the name localhost",
    "no-usage": "an answer without usage",
    "cookies": "two Set-Cookie headers",
    "gzip": "an answer in gzip coding, although nobody asked for it",
    "drip": "the headers, then a byte of a whole answer every so many seconds (else 0.05)",
    "error-body": "status 200 and a body that holds nothing but an error",
    "no-stream-options": "a request with stream_options is refused as wrong",
    "hang-up": "a good answer, after which the connection is closed without a word",
}
MODEL_PREFIX = "fault-"
_PORT_SECONDS = 5.0
ENDPOINTS = {
    "chat/completions": wire.chat,
    "completions": wire.completions,
    "embeddings": wire.embeddings,
    "responses": wire.responses,
}
SPOILT = {
    "garbage": wire.garbled,
    "truncated": wire.truncated,
    "error-event": wire.with_error_event,
    "cookies": wire.with_cookies,
    "gzip": wire.zipped,
    "error-body": wire.error_in_body,
}


@dataclass(frozen=True)
class Fault:
    """What shall go wrong, from text such as ``reset:100``. Raises ValueError for a name that FAULTS lacks."""

    name: str
    argument: str = ""

    @classmethod
    def parse(cls, text: str) -> Fault:
        name, _, argument = text.partition(":")
        if name not in FAULTS:
            raise ValueError(f"{name!r} is no fault of the fake provider; it has {', '.join(FAULTS)}")
        return cls(name, argument)

    def number(self, default: float) -> float:
        return float(self.argument) if self.argument else default


@dataclass
class Received:
    """A request that reached the provider. Names of headers are in small letters."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    received_at: float = field(default_factory=time.time)
    # "open", then "answered", "cut" (by a fault, or by a reset of the provider) or "client gone".
    outcome: str = "open"

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def key(self) -> str | None:
        scheme, _, token = self.headers.get("authorization", "").partition(" ")
        return token.strip() or None if scheme.lower() == "bearer" else None

    @property
    def flavour(self) -> Flavour:
        return "openrouter" if self.path.startswith("/api/v1/") else "openai"

    @property
    def endpoint(self) -> str:
        """The path after the version, such as ``chat/completions``; empty when there is no version."""
        path = self.path.partition("?")[0]
        for prefix in ("/api/v1/", "/v1/"):
            if path.startswith(prefix):
                return path.removeprefix(prefix)
        return ""


class FakeProvider:
    """The server and what a test may order and read. Every attribute may be changed while it runs.

    Keys that begin with ``sk-proj-`` are OpenAI's alone, with ``sk-or-`` OpenRouter's alone; all others go for both.
    """

    def __init__(
        self,
        *,
        keys: tuple[str, ...] = (GOOD_KEY, OPENAI_KEY, OPENROUTER_KEY, LISTLESS_KEY, UNLIMITED_KEY),
        out_of_credit: tuple[str, ...] = (BROKE_KEY,),
        restricted: tuple[str, ...] = (RESTRICTED_KEY,),
        port: int = 0,
    ) -> None:
        self._given_keys = (frozenset(keys), frozenset(out_of_credit), frozenset(restricted))
        self._lock = threading.Lock()
        self._reserved = None if port else ReservedPort()
        self._server: _Server | None = None
        self.port = self._reserved.number if self._reserved else port
        self.url = f"http://127.0.0.1:{self.port}"
        self.openai_base_url = f"{self.url}/v1"
        self.openrouter_base_url = f"{self.url}/api/v1"
        self.good_key, self.openai_key, self.openrouter_key = GOOD_KEY, OPENAI_KEY, OPENROUTER_KEY
        self.broke_key, self.restricted_key = BROKE_KEY, RESTRICTED_KEY
        self.listless_key, self.unlimited_key = LISTLESS_KEY, UNLIMITED_KEY
        self.epoch = 0
        self._set_defaults()

    def _set_defaults(self) -> None:
        self.keys, self.out_of_credit, self.restricted = (set(keys) for keys in self._given_keys)
        # May call models, but not list them; 401 is what OpenAI says to that.
        self.listless = {LISTLESS_KEY}
        # OpenRouter's keys without a limit of their own.
        self.unlimited = {UNLIMITED_KEY}
        # The models that a key of OpenAI is restricted to.
        self.models_of: dict[str, set[str]] = {}
        # What else OpenRouter tells of a key.
        self.facts_of: dict[str, dict[str, Any]] = {}
        self.requests: list[Received] = []
        self.errors: list[BaseException] = []
        self.faults: list[str] = []
        self.faults_by_path: dict[str, str] = {}
        self._fault: str | None = None
        self.connections_made = 0
        self.event_delay_seconds = 0.0
        self.answer_delay_seconds = 0.0
        # Whether each event tells when it was sent: "sent_at", by the machine's monotonic clock.
        self.tells_times = False
        self.hang_seconds = 30.0
        self.keeps_requests = True

    @property
    def fault(self) -> str | None:
        return self._fault

    @fault.setter
    def fault(self, text: str | None) -> None:
        if text is not None:
            Fault.parse(text)
        self._fault = text

    @property
    def in_flight(self) -> int:
        """How many requests are being answered at this moment."""
        return sum(request.outcome == "open" for request in list(self.requests))

    @property
    def connections_open(self) -> int:
        """How many connections it has now."""
        return len(self._server.connections) if self._server is not None else 0

    def wait_for(self, count: int, timeout_seconds: float = 10.0) -> list[Received]:
        """Wait until this many requests have come since the last reset, and return them. Raises TimeoutError."""
        if not processes.wait_until(lambda: len(self.requests) >= count, timeout_seconds):
            raise TimeoutError(f"{len(self.requests)} of {count} requests came within {timeout_seconds} s")
        return list(self.requests)

    def wait_until_idle(self, timeout_seconds: float = 10.0) -> None:
        """Wait until no request is being answered. Raises TimeoutError."""
        if not processes.wait_until(lambda: self.in_flight == 0, timeout_seconds):
            raise TimeoutError(f"{self.in_flight} requests still in flight after {timeout_seconds} s")

    def reset(self) -> None:
        """Forget requests, faults and settings, and cut off what is still waiting."""
        self.epoch += 1
        with contextlib.suppress(TimeoutError):
            self.wait_until_idle(2)
        self._set_defaults()

    # ---- running

    def start(self) -> None:
        """Listen on ``port``; does nothing when it runs."""
        if self._server is None:
            self._server = self._listening()
            threading.Thread(target=self._server.serve_forever, args=(0.05,), name="fake provider", daemon=True).start()

    def _listening(self) -> _Server:
        deadline = time.monotonic() + _PORT_SECONDS
        while True:
            try:
                return _Server(self)
            except OSError as error:
                # It was seen in use for a moment, once in many whole runs. By whom is not known.
                if error.errno != errno.EADDRINUSE or time.monotonic() >= deadline:
                    raise
                time.sleep(0.02)

    def stop(self) -> None:
        """Stop listening and close every connection; ``start`` listens on the same port again."""
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()
            server.hang_up()

    def close(self) -> None:
        self.stop()
        if self._reserved:
            self._reserved.release()

    @contextlib.contextmanager
    def outage(self) -> Iterator[None]:
        """Refuse connections for the length of a ``with`` block."""
        self.stop()
        try:
            yield
        finally:
            self.start()

    # ---- answering

    def answer_to(self, request: Received) -> tuple[Answer, Fault | None]:
        """Return the answer and, when part of it is how it is sent, the fault."""
        refusal = self._refusal(request)
        if refusal is not None:
            return refusal, None
        body, fault = self._question(request)
        return self._answer(request, body, fault), fault

    def _refusal(self, request: Received) -> Answer | None:
        """Return what a key is told that may not do this, or None."""
        flavour, key = request.flavour, request.key
        if (flavour, request.method, request.endpoint) == ("openrouter", "GET", "models"):
            return None
        if key is None:
            return wire.no_key(flavour)
        if key in self.restricted and (flavour, request.endpoint) != ("openrouter", "key"):
            return wire.restricted(flavour, "api.model.read" if request.method == "GET" else "model.request")
        if key in self.listless and (flavour, request.method) == ("openai", "GET"):
            return wire.restricted(flavour, "api.model.read", status=401)
        if key in self.out_of_credit:
            return wire.no_credit(flavour) if request.method == "POST" else None
        other = "sk-or-" if flavour == "openai" else "sk-proj-"
        return None if key in self.keys and not key.startswith(other) else wire.wrong_key(flavour, key)

    def _question(self, request: Received) -> tuple[wire.Json | None, Fault | None]:
        """Return the JSON object of the request, if there is one, and the fault ordered for it."""
        body = None
        with contextlib.suppress(ValueError, RecursionError):
            body = request.json
        body = body if isinstance(body, dict) else None
        return body, self._fault_for(request, str((body or {}).get("model", "")))

    def _fault_for(self, request: Received, model: str) -> Fault | None:
        name = model.rpartition("/")[2]
        if name.startswith(MODEL_PREFIX):
            return Fault.parse(name.removeprefix(MODEL_PREFIX))
        with self._lock:
            if self.faults:
                return Fault.parse(self.faults.pop(0))
        ordered = [text for path, text in self.faults_by_path.items() if request.path.startswith(path)]
        text = ordered[0] if ordered else self._fault
        return Fault.parse(text) if text else None

    def _answer(self, request: Received, body: wire.Json | None, fault: Fault | None) -> Answer:
        refused = self._ordered_refusal(request, str((body or {}).get("model", "")), fault)
        if refused is not None:
            return refused
        answer = self._good_answer(request, body, fault)
        spoil = SPOILT.get(fault.name) if fault and answer.status == 200 else None
        return spoil(answer) if spoil else answer

    def _ordered_refusal(self, request: Received, model: str, fault: Fault | None) -> Answer | None:
        flavour = request.flavour
        name = fault.name if fault else ""
        answers: dict[str, Callable[[], Answer]] = {
            "400": lambda: wire.error_answer(flavour, 400, "Invalid value for 'temperature'.", param="temperature"),
            "401": lambda: wire.wrong_key(flavour, request.key or ""),
            "402": lambda: wire.no_credit(flavour),
            "403": lambda: wire.restricted(flavour, "model.request"),
            "404": lambda: wire.no_such_model(flavour, model),
            "429": lambda: wire.rate_limited(flavour, fault.argument if fault and fault.argument else "20"),
            "500": lambda: wire.broken_inside(flavour),
            "502": wire.bad_gateway,
            "503": lambda: wire.overloaded(flavour),
            "redirect": lambda: self._redirect(request, fault.argument if fault else ""),
        }
        return answers[name]() if name in answers else None

    def _redirect(self, request: Received, address: str) -> Answer:
        # By default another host that leads back here: a client that follows it shows up in ``requests``.
        location = address or f"http://localhost:{self.port}{request.path}"
        return Answer(302).with_headers(("Location", location))

    def _good_answer(self, request: Received, body: wire.Json | None, fault: Fault | None) -> Answer:
        flavour, endpoint = request.flavour, request.endpoint
        if request.method == "GET":
            return self._good_get(request)
        if request.method != "POST" or endpoint not in ENDPOINTS:
            return wire.no_such_path(flavour, request.method, request.path)
        if body is None:
            return wire.unreadable(flavour)
        if not isinstance(body.get("model"), str):
            return wire.no_model(flavour)
        refused = self._refused_model(request, body)
        if refused is not None:
            return refused
        name = fault.name if fault else ""
        if name == "no-stream-options" and "stream_options" in body:
            return wire.error_answer(flavour, 400, "Unknown parameter: 'stream_options'.", param="stream_options")
        text = "x" * int(fault.number(10_000_000)) if fault and name == "big-line" else None
        try:
            return ENDPOINTS[endpoint](Question(flavour, body, text, with_usage=name != "no-usage"))
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
            # A field of a type that this small model does not expect.
            return wire.error_answer(flavour, 400, "Invalid type for a field of the request.", code="invalid_type")

    def _refused_model(self, request: Received, body: wire.Json) -> Answer | None:
        """Return what OpenAI says of a model that the key may not use, or that needs other words; or None."""
        if request.flavour != "openai":
            return None
        allowed = self.models_of.get(request.key or "")
        if allowed is not None and body["model"] not in allowed:
            return wire.model_not_allowed(body["model"])
        return wire.not_for_reasoning(body) if request.endpoint == "chat/completions" else None

    def _good_get(self, request: Received) -> Answer:
        flavour, endpoint = request.flavour, request.endpoint
        if endpoint == "models":
            return wire.models(flavour, self.models_of.get(request.key or ""))
        if endpoint.startswith("models/"):
            return wire.model(flavour, endpoint.removeprefix("models/"))
        if endpoint == "key" and flavour == "openrouter":
            key = request.key or ""
            used_up = key in self.out_of_credit or key in self.restricted
            facts = {"limit": None, "limit_remaining": None} if key in self.unlimited else {}
            return wire.key_facts(key, has_credit=not used_up, **facts, **self.facts_of.get(key, {}))
        return wire.no_such_path(flavour, request.method, request.path)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 512

    def __init__(self, provider: FakeProvider) -> None:
        self.provider = provider
        self.stopping = False
        self.connections: set[socket.socket] = set()
        self.to_reset: set[socket.socket] = set()
        super().__init__(("127.0.0.1", provider.port), _Handler)

    def server_bind(self) -> None:
        # Without HTTPServer's question to the name server.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = "127.0.0.1", self.server_address[1]

    def hang_up(self) -> None:
        self.stopping = True
        for connection in list(self.connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        processes.wait_until(lambda: not self.connections, 2)

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections.add(request)
        self.provider.connections_made += 1
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        if request in self.to_reset:
            self.to_reset.discard(request)
            self.close_request(request)
        else:
            super().shutdown_request(request)
        self.connections.discard(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exception()
        if error is not None and not isinstance(error, ConnectionError):
            self.provider.errors.append(error)


class _Cut(ConnectionError):
    """The answer ends here, on order or because the provider was reset."""


class _ClientGone(ConnectionError):
    """The other side closed the connection before the end."""


class _Handler(BaseHTTPRequestHandler):
    """One connection, which may carry several requests."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    @property
    def owner(self) -> _Server:
        return cast(_Server, self.server)

    def log_message(self, format: str, *arguments: Any) -> None:
        pass

    def version_string(self) -> str:
        return "cloudflare"

    def _handle(self) -> None:
        provider = self.owner.provider
        self._epoch = provider.epoch
        self._bytes_left: int | None = None
        request = Received(self.command, self.path, self._headers(), self._body())
        if provider.keeps_requests:
            provider.requests.append(request)
        try:
            answer, fault = provider.answer_to(request)
            self._deliver(answer, fault)
            request.outcome = "answered"
            self.close_connection = self.close_connection or (fault is not None and fault.name == "hang-up")
        except _Cut:
            request.outcome = "cut"
            self.close_connection = True
        except ConnectionError:
            request.outcome = "client gone"
            self.close_connection = True
        except BaseException:
            request.outcome = "cut"
            raise

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = do_OPTIONS = _handle  # noqa: N815 - names given by http.server

    # ---- reading

    def _headers(self) -> dict[str, str]:
        headers: dict[str, str] = {}
        for name, value in self.headers.items():
            low = name.lower()
            headers[low] = f"{headers[low]}, {value}" if low in headers else value
        return headers

    def _body(self) -> bytes:
        if "chunked" in self.headers.get("Transfer-Encoding", "").lower():
            return b"".join(self._chunks())
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass

    # ---- writing

    def _deliver(self, answer: Answer, fault: Fault | None) -> None:
        provider = self.owner.provider
        name = fault.name if fault else ""
        delay = fault.number(0.3) if fault and name == "slow" else provider.event_delay_seconds
        if fault and name == "reset":
            self._bytes_left = int(fault.number(0))
            if not fault.argument:
                self._reset()
        if fault and name == "hang":
            self._wait(fault.number(provider.hang_seconds))
            raise _Cut
        self._wait(provider.answer_delay_seconds + (delay if answer.events is None else 0))
        self._send_head(answer)
        if fault and name == "drip" and answer.events is None:
            self._drip(answer.body, fault.number(0.05))
        elif answer.events is None:
            self._write(answer.body)
        else:
            self._send_events(answer.events, delay, int(fault.number(2)) if fault and name == "stall" else None)

    def _send_head(self, answer: Answer) -> None:
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.content_type)
        if answer.events is None:
            self.send_header("Content-Length", str(len(answer.body)))
        elif self.request_version == "HTTP/1.0":
            self.close_connection = True
        else:
            self.send_header("Transfer-Encoding", "chunked")
        for name, value in (*self._usual_headers(), *answer.headers):
            self.send_header(name, value)
        self.end_headers()

    def _usual_headers(self) -> wire.Headers:
        """What the real ones send beside: some of it says whose account it is."""
        return (
            ("x-request-id", wire.random_id("req_", 32)),
            ("openai-organization", "org-of-the-fake-account"),
            ("openai-processing-ms", "12"),
            ("openai-version", "2020-10-01"),
            ("x-ratelimit-limit-requests", "10000"),
            ("x-ratelimit-remaining-requests", "9999"),
            ("CF-RAY", "8f0fa4eca4c0fa4e-FRA"),
        )

    def _send_events(self, events: tuple[bytes, ...], delay: float, stall_after: int | None) -> None:
        for number, event in enumerate(events):
            if number == stall_after:
                self._wait(self.owner.provider.hang_seconds)
                raise _Cut
            self._wait(delay)
            self._write_chunk(_with_time(event) if self.owner.provider.tells_times else event)
        if self.request_version != "HTTP/1.0":
            self._write(b"0\r\n\r\n")

    def _drip(self, body: bytes, seconds: float) -> None:
        for place in range(len(body)):
            self._wait(seconds)
            self._write(body[place : place + 1])

    def _write_chunk(self, data: bytes) -> None:
        self._write(data if self.request_version == "HTTP/1.0" else b"%x\r\n%b\r\n" % (len(data), data))

    def _write(self, data: bytes) -> None:
        if self.command == "HEAD":
            return
        if self._bytes_left is None:
            self.connection.sendall(data)
            return
        self.connection.sendall(data[: self._bytes_left])
        self._bytes_left -= len(data)
        if self._bytes_left <= 0:
            # A moment, so that what was sent is read before the reset.
            self._wait(0.05)
            self._reset()

    def _reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.owner.to_reset.add(self.connection)
        raise _Cut

    def _wait(self, seconds: float) -> None:
        """Wait. Raises _ClientGone when the other side hangs up, _Cut when the provider is reset or stopped."""
        until = time.monotonic() + seconds
        while True:
            if self.owner.stopping or self.owner.provider.epoch != self._epoch:
                raise _Cut
            if self._client_is_gone():
                raise _ClientGone
            left = until - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(left, 0.02))

    def _client_is_gone(self) -> bool:
        try:
            return not self.connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False


@contextlib.contextmanager
def running_provider(**options: Any) -> Iterator[FakeProvider]:
    """Yield a started provider; the options are those of ``FakeProvider``."""
    provider = FakeProvider(**options)
    provider.start()
    try:
        yield provider
    finally:
        provider.close()


def _with_time(event: bytes) -> bytes:
    return event.replace(b"data: {", b'data: {"sent_at": %f, ' % time.monotonic(), 1)


def main() -> None:
    parser = argparse.ArgumentParser(description="A server that speaks as OpenAI and OpenRouter.")
    parser.add_argument("--port", type=int, default=0, help="0 picks a free one")
    parser.add_argument("--key", action="append", help="a key to accept, may be repeated; default: " + GOOD_KEY)
    parser.add_argument("--event-delay", type=float, default=0.0, help="seconds before each event of a stream")
    parser.add_argument("--tell-times", action="store_true", help='"sent_at" in each event of a stream')
    parser.add_argument("--answer-delay", type=float, default=0.0, help="seconds before each answer")
    given = parser.parse_args()
    # SIGTERM is to end it as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    options = {"keys": tuple(given.key)} if given.key else {}
    with running_provider(port=given.port, **options) as provider, contextlib.suppress(KeyboardInterrupt):
        provider.event_delay_seconds = given.event_delay
        provider.answer_delay_seconds = given.answer_delay
        provider.tells_times = given.tell_times
        # It may run for long, and nobody could read them.
        provider.keeps_requests = False
        print(provider.url, flush=True)
        signal.pause()


if __name__ == "__main__":
    main()
