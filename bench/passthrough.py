"""The floor: a bare Flask app that swaps the key and forwards with http.client. It checks and counts nothing."""

from __future__ import annotations

import http.client
import json
import os
import threading
from collections.abc import Iterator
from urllib.parse import urlsplit

from flask import Flask, Response, request

_PROVIDER = urlsplit(os.environ["BENCH_PROVIDER"])
_HEADERS = {"Authorization": f"Bearer {os.environ['BENCH_PROVIDER_KEY']}", "Content-Type": "application/json"}
_kept = threading.local()

app = Flask(__name__)


def _connect() -> http.client.HTTPConnection:
    return http.client.HTTPConnection(_PROVIDER.hostname or "", _PROVIDER.port, timeout=60)


@app.post("/v1/chat/completions")
def chat() -> Response:
    body = request.get_data(cache=False)
    if json.loads(body).get("stream"):
        return _stream(body)
    if not hasattr(_kept, "connection"):
        _kept.connection = _connect()
    connection = _kept.connection
    connection.request("POST", _PROVIDER.path + "/chat/completions", body, _HEADERS)
    answer = connection.getresponse()
    return Response(answer.read(), answer.status, content_type=answer.getheader("Content-Type"))


def _stream(body: bytes) -> Response:
    connection = _connect()
    connection.request("POST", _PROVIDER.path + "/chat/completions", body, _HEADERS)
    answer = connection.getresponse()

    def pieces() -> Iterator[bytes]:
        try:
            while piece := answer.read1(65536):
                yield piece
        finally:
            connection.close()

    return Response(pieces(), answer.status, content_type=answer.getheader("Content-Type"))


@app.get("/healthz")
def healthz() -> str:
    return "ok"
