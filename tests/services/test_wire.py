"""Answers of providers are read strictly, and the same wherever the network cuts them."""

from __future__ import annotations

import http.client
import io
from collections.abc import Callable

import pytest

from services.gateway.wire import Malformed, Response

WHOLE = {
    "with a length": b"HTTP/1.1 200 OK\r\nContent-Type: a/b\r\nContent-Length: 5\r\n\r\nhello",
    "in chunks": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\n\r\n",
    "with a trailer": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n5\r\nhello\r\n0\r\nX: y\r\n\r\n",
    "until the end": b"HTTP/1.1 200 OK\r\n\r\nhello",
    "in HTTP/1.0": b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhello",
    "that says it closes": b"HTTP/1.1 200 OK\r\nConnection: Close\r\nContent-Length: 5\r\n\r\nhello",
    "after an interim one": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 429 \r\nContent-Length: 0\r\n\r\n",
    "without a body": b"HTTP/1.1 204 No Content\r\n\r\n",
    "with bare line feeds": b"HTTP/1.1 200 OK\nContent-Length: 5\nX-A: b\n\nhello",
}
BROKEN = {
    "nothing": b"",
    "no HTTP": b"SSH-2.0-OpenSSH\r\n\r\n",
    "no status": b"HTTP/1.1 OK\r\n\r\n",
    "half a head": b"HTTP/1.1 200 OK\r\nContent-Le",
    "a short body": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell",
    "a negative length": b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    "another coding": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "a chunk without a size": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\r\nhello\r\n0\r\n\r\n",
    "a size with a sign": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n+5\r\nhello\r\n0\r\n\r\n",
    "a chunk that is longer": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhello\r\n0\r\n\r\n",
    "no last chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    "a name with a space": b"HTTP/1.1 200 OK\r\nContent-Length : 5\r\n\r\nhello",
    "an endless head": b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 20_000,
    "an endless size": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"0" * 20_000,
}


def arriving(content: bytes, cut: int = 65536) -> Callable[[int], bytes]:
    """Give the content in steps of ``cut`` bytes."""
    stream = io.BytesIO(content)
    return lambda most: stream.read(min(most, cut))


def read(content: bytes, cut: int = 65536) -> tuple[int, bytes, Response]:
    response = Response(arriving(content, cut), "POST")
    return response.status, b"".join(response.pieces()), response


@pytest.mark.parametrize("content", WHOLE.values(), ids=WHOLE)
def test_an_answer_is_read_as_the_standard_library_reads_it_wherever_it_is_cut(content: bytes) -> None:
    class Socket:
        def makefile(self, _mode: str) -> io.BytesIO:
            return io.BytesIO(content)

    other = http.client.HTTPResponse(Socket(), method="POST")  # type: ignore[arg-type]
    other.begin()
    expected = other.status, other.read()
    for cut in range(1, len(content) + 1):
        status, body, response = read(content, cut)
        assert (status, body) == expected
        assert response.complete
        assert response.will_close == bool(other.will_close)


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_what_is_no_whole_answer_is_an_error_wherever_it_is_cut(content: bytes) -> None:
    for cut in (1, 7, 65536):
        with pytest.raises(Malformed):
            read(content, cut)


def test_a_connection_is_kept_only_when_nothing_came_after_the_answer() -> None:
    whole = WHOLE["with a length"]
    assert read(whole)[2].leaves_connection
    assert not read(whole + b"HTTP/1.1 200 OK\r\n")[2].leaves_connection
    assert not read(WHOLE["until the end"])[2].leaves_connection
    assert not read(WHOLE["that says it closes"])[2].leaves_connection
    half = Response(arriving(WHOLE["in chunks"], 60), "POST")
    next(half.pieces())
    assert not half.leaves_connection


def test_several_headers_of_a_name_and_one_in_lines_are_told_as_one() -> None:
    head = b"HTTP/1.1 200 OK\r\nA: b\r\na: c\r\n d\r\nContent-Length: 5, 5\r\n\r\nhello"
    _, body, response = read(head)
    assert (response.header("a"), body) == ("b, c d", b"hello")


def test_a_chunk_is_passed_on_as_soon_as_it_is_here() -> None:
    parts = iter([b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"4\r\none!\r\n4\r\ntw"])
    pieces = Response(lambda _most: next(parts), "POST").pieces()
    assert [next(pieces), next(pieces)] == [b"one!", b"tw"]


def test_chunks_that_came_together_are_passed_on_together() -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    response = Response(arriving(head + b"1\r\na\r\n2\r\nbc\r\n3\r\ndef\r\n4\r\ngh"), "POST")
    pieces = response.pieces()
    assert [next(pieces), next(pieces)] == [b"abcdef", b"gh"]
