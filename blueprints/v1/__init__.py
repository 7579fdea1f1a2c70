"""The JSON API under ``/v1``: OpenAI's wire format, authenticated by an API key and by nothing else."""

from __future__ import annotations

import math

from flask import Blueprint, Response, g

from extensions import csrf, limiter
from services.rate_limits import RateState

bp = Blueprint("v1", __name__, url_prefix="/v1")

# A key in a header is no ambient credential, so there is nothing to forge.
csrf.exempt(bp)
# The gate counts by itself, in the order of its checks.
limiter.exempt(bp)


@bp.after_app_request
def add_rate_headers(response: Response) -> Response:
    """Tell the limit on every authenticated answer, under the documented names and the IETF draft's.

    https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/
    """
    rate: RateState | None = g.get("rate")
    if rate is not None:
        headers = response.headers
        headers.add("X-RateLimit-Limit", str(rate.limit))
        headers.add("X-RateLimit-Remaining", str(rate.remaining))
        headers.add("X-RateLimit-Reset", str(math.ceil(rate.reset_at)))
        headers.add("RateLimit-Policy", f'"workspace";q={rate.limit};w=60')
        headers.add("RateLimit", f'"workspace";r={rate.remaining};t={rate.retry_after}')
    return response


from blueprints.v1 import (  # noqa: E402 - the files register their routes on bp
    billing,  # noqa: F401
    cors,  # noqa: F401
    forward_auth,  # noqa: F401
    gateway,  # noqa: F401
    keys,  # noqa: F401
    me,  # noqa: F401
    models,  # noqa: F401
    providers,  # noqa: F401
    usage,  # noqa: F401
    verify,  # noqa: F401
)
