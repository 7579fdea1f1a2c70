"""Requests to providers: kept-alive connections, verified certificates, bounded waits, no redirects."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import urllib3
from urllib3.exceptions import HTTPError, NewConnectionError, SSLError
from urllib3.exceptions import TimeoutError as TooLate

from services.secret import Secret

_CONNECTIONS_PER_PROVIDER = 256
_CHUNK_BYTES = 64 * 1024
_USER_AGENT = "arka-portal"


class Unreachable(Exception):
    """No answer, or a broken one. ``reason`` is a public half-sentence without address or key."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


@dataclass(frozen=True, slots=True)
class Answer:
    """A provider's answer whose body has not been read yet. Close it, or read it to its end."""

    status: int
    content_type: str
    retry_after: str | None
    _response: urllib3.BaseHTTPResponse

    def read(self, most: int | None = None) -> bytes:
        """Return the body, at most ``most`` bytes of it. Raises Unreachable when it breaks off."""
        try:
            return self._response.read(most, decode_content=True)
        except (HTTPError, OSError) as error:
            raise Unreachable(_reason(error)) from error
        finally:
            self.close()

    def chunks(self) -> Iterator[bytes]:
        """Yield the body's bytes as they arrive. Raises Unreachable when it breaks off."""
        try:
            while chunk := self._response.read1(_CHUNK_BYTES):
                yield chunk
        except (HTTPError, OSError) as error:
            raise Unreachable(_reason(error)) from error

    def close(self) -> None:
        """Give the connection back, or drop it when there is more to come on it."""
        if not getattr(self._response, "isclosed", lambda: True)():
            self._response.close()
        self._response.release_conn()


class Upstream:
    """The connection pools of one process."""

    def __init__(self, *, connect_seconds: float, read_seconds: float) -> None:
        self._timeout = urllib3.Timeout(connect=connect_seconds, read=read_seconds)
        self._pool = urllib3.PoolManager(maxsize=_CONNECTIONS_PER_PROVIDER, block=False, retries=False)

    def send(
        self, method: str, url: str, key: Secret, body: bytes | None = None, *, read_seconds: float | None = None
    ) -> Answer:
        """Send a request with the provider key and return the answer's head.

        ``read_seconds`` shortens the wait for an answer. Raises Unreachable.
        """
        headers = {
            "Authorization": f"Bearer {key.reveal()}",
            "User-Agent": _USER_AGENT,
            # Bytes are passed on as they come, so they must not come compressed.
            "Accept-Encoding": "identity",
        }
        if body is not None:
            headers["Content-Type"] = "application/json"
        timeout = self._timeout if read_seconds is None else urllib3.Timeout(connect=read_seconds, read=read_seconds)
        try:
            response = self._pool.request(
                method, url, body=body, headers=headers, preload_content=False, redirect=False, timeout=timeout
            )
        except (HTTPError, OSError) as error:
            raise Unreachable(_reason(error)) from error
        return Answer(
            response.status,
            response.headers.get("Content-Type", "application/json"),
            response.headers.get("Retry-After"),
            response,
        )


def _reason(error: Exception) -> str:
    # A refused connection is one of the library's time-outs, too.
    if isinstance(error, TooLate) and not isinstance(error, NewConnectionError):
        return "it did not answer in time"
    if isinstance(error, SSLError):
        return "its certificate could not be verified"
    return "the connection failed"
