"""The JSON API under ``/v1``: OpenAI's wire format, authenticated by an API key and by nothing else."""

from __future__ import annotations

import math
from functools import lru_cache

from flask import Blueprint, Response

from blueprints.portal import current_g
from extensions import csrf, limiter
from services.gate import Verdict
from services.rate_limits import WINDOW_SECONDS

bp = Blueprint("v1", __name__, url_prefix="/v1")

# A key in a header is no ambient credential, so there is nothing to forge.
csrf.exempt(bp)
# The gate counts by itself, in the order of its checks.
limiter.exempt(bp)


@bp.after_app_request
def add_rate_headers(response: Response) -> Response:
    """Tell the limit on every authenticated answer, under the documented names and the IETF draft's.

    ``RateLimit-Policy`` names every limit that counts the call, ``RateLimit`` and the others tell the tighter one.
    https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/
    """
    verdict: Verdict | None = current_g().get("verdict")
    if verdict is not None and verdict.rate is not None:
        rate, headers = verdict.rate, response.headers
        headers.add("X-RateLimit-Limit", str(rate.limit))
        headers.add("X-RateLimit-Remaining", str(rate.remaining))
        headers.add("X-RateLimit-Reset", str(math.ceil(rate.reset_at)))
        headers.add("RateLimit-Policy", policy(verdict.limits))
        # A refusal has told its seconds already; a moment later it may be one less.
        seconds = verdict.details.get("retry_after") or rate.retry_after
        headers.add("RateLimit", f'"{verdict.tightest}";r={rate.remaining};t={seconds}')
    return response


@lru_cache(maxsize=1024)
def policy(limits: tuple[tuple[str, int], ...]) -> str:
    """Return the limits as ``RateLimit-Policy`` names them, such as ``"key";q=60;w=60, "workspace";q=1000;w=60``."""
    return ", ".join(f'"{name}";q={limit};w={WINDOW_SECONDS}' for name, limit in limits)


from blueprints.v1 import (  # noqa: E402 - the files register their routes on bp
    audit,  # noqa: F401
    billing,  # noqa: F401
    cors,  # noqa: F401
    forward_auth,  # noqa: F401
    gateway,  # noqa: F401
    keys,  # noqa: F401
    me,  # noqa: F401
    members,  # noqa: F401
    models,  # noqa: F401
    openapi,  # noqa: F401
    providers,  # noqa: F401
    usage,  # noqa: F401
    verify,  # noqa: F401
    webhooks,  # noqa: F401
)
