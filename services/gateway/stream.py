"""A streamed answer on its way to the caller."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from services import metrics, stopping
from services.errors import PortalError, ProviderFailed
from services.gateway import faults, sse
from services.gateway.endpoints import Seen
from services.gateway.upstream import Unreachable
from services.metering import Call
from services.secret import Secret


class Stream:
    """The bytes of a streamed answer. Knows no request: it works with what it was given.

    A failure after the first byte becomes a last event with an ``error`` object, never a normal end. However it ends,
    also when the caller hangs up, ``close`` runs once, ``count`` is told what was seen, and then ``settle`` the error's
    code or None. ``end_turn`` runs whenever something was read and before it is passed on, which may take long.
    """

    def __init__(
        self,
        chunks: Iterator[bytes],
        call: Call,
        reader: sse.StreamReader,
        *,
        close_source: Callable[[], None],
        count: Callable[[Seen], None],
        key: Secret | None = None,
        end_turn: Callable[[], None] = lambda: None,
    ) -> None:
        self._chunks = chunks
        self._call = call
        self._reader = reader
        self._close_source = close_source
        self._count = count
        self._key = key
        self._end_turn = end_turn
        self._over = False
        self._settled = False
        self.settle: Callable[[str | None], None] = lambda code: None
        metrics.OPEN_STREAMS.add(1)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self._over:
            raise StopIteration
        reader = self._reader
        try:
            ready = self._next_ready()
        except StopIteration:
            return self._last(None if reader.finished else self._cut_off())
        except stopping.Stopping as error:
            return self._last(error)
        except Unreachable as error:
            return self._last(self._cut_off(error.reason))
        if reader.finished:
            # The caller may stop reading at the end mark, so the row has to be complete before it goes out.
            unsettled = self._settle_once(None if reader.seen.error is None else "provider_error")
            if unsettled is not None:
                return self._last(unsettled)
        return ready

    def _next_ready(self) -> bytes:
        reader = self._reader
        if not reader.finished:
            stopping.check()
        try:
            while not (ready := reader.feed(next(self._chunks))):
                pass
        finally:
            # Whoever is next finds the interpreter free, once this thread hands over what it has read.
            self._end_turn()
        return ready

    def _cut_off(self, reason: str = "it stopped before its end") -> PortalError:
        if stopping.time_is_up():
            return stopping.Stopping()
        if self._reader.seen.error is not None:
            return faults.broken_stream(self._reader.seen.error, self._key)
        return ProviderFailed(f"The provider's answer broke off: {reason}.", code="provider_unreachable")

    def _last(self, failure: PortalError | None) -> bytes:
        """End the stream: settle first, so that the row is there when the caller sees the end."""
        self._end()
        failure = self._settle_once(failure.code if failure else None) or failure
        if failure is None:
            raise StopIteration
        # The empty lines end a line and an event that the provider began.
        return b"\n\n" + sse.event({"error": faults.as_event(failure, self._call.request_id)})

    def close(self) -> None:
        """Give back the provider's connection and settle the usage row."""
        if self._over:
            return
        self._end()
        self._settle_once("caller_hung_up")

    def _end(self) -> None:
        self._over = True
        metrics.OPEN_STREAMS.add(-1)
        self._close_source()

    def _settle_once(self, code: str | None) -> PortalError | None:
        """Complete the usage row; return what kept it from being completed, and then it can be tried again."""
        if self._settled:
            return None
        self._count(self._reader.seen)
        try:
            self.settle(code)
        except PortalError as error:
            return error
        self._settled = True
        return None
