"""The portal's rate limits as a storage of ``limits``, for the limits that pages have from Flask-Limiter."""

from __future__ import annotations

from limits.storage import MovingWindowSupport, Storage

from services.rate_limits import RateLimits, StoreUnavailable

SCHEME = "portal"


class GuardedStorage(Storage, MovingWindowSupport):
    """Counts where ``/v1`` counts, in moving windows only.

    So pages and ``/v1`` share one knowledge of whether the storage is away, one way to go on without it, one count of
    its failures and one entry in the log. Raises StoreUnavailable where requests are to be refused.
    """

    STORAGE_SCHEME = [SCHEME]  # noqa: RUF012 - declared so by limits

    def __init__(self, uri: str, wrap_exceptions: bool = False, *, limits: RateLimits) -> None:
        super().__init__(uri, wrap_exceptions=wrap_exceptions)
        self._limits = limits

    @property
    def base_exceptions(self) -> type[Exception]:
        return StoreUnavailable

    def acquire_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """Count ``amount`` hits if the moving window has room for all of them."""
        return self._limits.acquire(key, limit, expiry, amount)

    def get_moving_window(self, key: str, limit: int, expiry: int) -> tuple[float, int]:
        """Return the time of the oldest hit in the window and the number of hits."""
        return self._limits.window(key, limit, expiry)

    def check(self) -> bool:
        """Tell whether the storage behind it counts now."""
        return self._limits.is_up()

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        raise NotImplementedError(_MOVING_ONLY)

    def get(self, key: str) -> int:
        raise NotImplementedError(_MOVING_ONLY)

    def get_expiry(self, key: str) -> float:
        raise NotImplementedError(_MOVING_ONLY)

    def reset(self) -> int | None:
        raise NotImplementedError(_MOVING_ONLY)

    def clear(self, key: str) -> None:
        raise NotImplementedError(_MOVING_ONLY)


_MOVING_ONLY = "the portal counts in moving windows only"
