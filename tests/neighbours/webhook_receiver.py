"""A real web server that takes webhooks and keeps what it is sent. It can refuse, hang, trickle and redirect."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.neighbours.processes import ReservedPort


@dataclass(frozen=True)
class Taken:
    """One request: where it went, its headers with small names, and its body."""

    path: str
    headers: dict[str, str]
    body: bytes


class WebhookReceiver:
    """Answers 204, or with the next of ``statuses``; the paths ``/hang``, ``/slow``, ``/trickle``, ``/redirect`` and
    ``/big`` do what they say."""

    def __init__(self, port: int, tls: ssl.SSLContext | None = None) -> None:
        self.port = port
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{port}"
        self.taken: list[Taken] = []
        self.statuses: list[int] = []
        self.answer = b""
        # How many requests are being answered, now and at most; kept by path.
        self.at_once: dict[str, int] = {}
        self.most_at_once: dict[str, int] = {}
        self.taking = threading.Event()
        self.go_on = threading.Event()
        self.lock = threading.Lock()
        receiver = self

        class Handler(_Handler):
            owner = receiver

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        self.go_on.set()
        self._server.shutdown()
        self._server.server_close()

    def ids(self) -> list[str]:
        return [taken.headers["webhook-id"] for taken in self.taken]


class _Handler(BaseHTTPRequestHandler):
    owner: WebhookReceiver
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        owner = self.owner
        body = self.rfile.read(int(self.headers["Content-Length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        path = self.path.partition("?")[0]
        with owner.lock:
            owner.taken.append(Taken(self.path, headers, body))
            owner.at_once[path] = owner.at_once.get(path, 0) + 1
            owner.most_at_once[path] = max(owner.most_at_once.get(path, 0), owner.at_once[path])
        owner.taking.set()
        self._at_work_on: str | None = path
        try:
            self._answer(path)
        except OSError:
            pass
        finally:
            self._no_longer_at_work()

    def do_GET(self) -> None:
        """Where a redirect would lead."""
        self.owner.taken.append(Taken(self.path, {}, b""))
        self._at_work_on = None
        self._send(200, b"")

    def _answer(self, path: str) -> None:
        owner = self.owner
        if path == "/hang":
            owner.go_on.wait(30)
        elif path == "/slow":
            time.sleep(0.2)
        elif path == "/redirect":
            self.send_response(302)
            self.send_header("Location", f"{owner.url}/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        elif path == "/trickle":
            self.wfile.write(b"HTTP/1.1 200 OK\r\n")
            while not owner.go_on.wait(0.1):
                self.wfile.write(b"X-More: 1\r\n")
                self.wfile.flush()
            return
        elif path == "/big":
            self._send(200, b"x" * 5_000_000)
            return
        with owner.lock:
            status = owner.statuses.pop(0) if owner.statuses else 204
        self._send(status, b"" if status == 204 else owner.answer)

    def _no_longer_at_work(self) -> None:
        with self.owner.lock:
            if self._at_work_on is not None:
                self.owner.at_once[self._at_work_on] -= 1
            self._at_work_on = None

    def _send(self, status: int, body: bytes) -> None:
        # Whoever reads the answer may send the next request before this thread goes on.
        self._no_longer_at_work()
        self.send_response(status)
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def running_receiver(tls: ssl.SSLContext | None = None) -> Iterator[WebhookReceiver]:
    """Yield a server that takes webhooks."""
    port = ReservedPort()
    receiver = WebhookReceiver(port.number, tls)
    try:
        yield receiver
    finally:
        receiver.stop()
        port.release()
