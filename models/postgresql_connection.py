"""A connection to PostgreSQL that waits for no answer for ever."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import errors


class WaitedTooLong(psycopg.OperationalError):
    """The server said nothing for so long that the connection was given up. What it was doing may yet be done."""

    may_yet_be_done = True


class BoundedConnection(psycopg.Connection[Any]):
    """A connection that gives up when one exchange with the server takes too long. None: it never does."""

    longest_wait: float | None = None

    def require_utf8(self) -> None:
        """Raise psycopg.OperationalError, and close it, when the database cannot hold every text."""
        encoding = self.info.parameter_status("server_encoding")
        # A pooler between may not tell.
        if encoding not in ("UTF8", None):
            self.close()
            raise psycopg.OperationalError(f"its encoding is {encoding}, make it anew with ENCODING 'UTF8'")

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        if timeout is not None or self.longest_wait is None:
            return super().wait(gen, interval, timeout)
        try:
            return super().wait(gen, interval, self.longest_wait)
        except errors._WaitTimeout:
            # Its answer may come yet, and would be taken for that to the next question.
            self.close()
            raise WaitedTooLong("the database did not answer in time") from None
