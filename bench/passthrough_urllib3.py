"""The floor with the client that most people take: a bare Flask app that swaps the key and forwards with urllib3."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

import urllib3
from flask import Flask, Response, request

_URL = os.environ["BENCH_PROVIDER"] + "/chat/completions"
_HEADERS = {"Authorization": f"Bearer {os.environ['BENCH_PROVIDER_KEY']}", "Content-Type": "application/json"}
_MOST_AT_ONCE = 1200

app = Flask(__name__)
pool = urllib3.PoolManager(maxsize=_MOST_AT_ONCE, retries=False)


@app.post("/v1/chat/completions")
def chat() -> Response:
    body = request.get_data(cache=False)
    streamed = bool(json.loads(body).get("stream"))
    answer = pool.request("POST", _URL, body=body, headers=_HEADERS, preload_content=not streamed)
    content = _pieces(answer) if streamed else answer.data
    return Response(content, answer.status, content_type=answer.headers.get("Content-Type"))


def _pieces(answer: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
    try:
        while piece := answer.read1(65536):
            yield piece
    finally:
        answer.release_conn()


@app.get("/healthz")
def healthz() -> str:
    return "ok"
