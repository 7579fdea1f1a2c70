"""The header ``Idempotency-Key``: a request that is sent again does nothing twice."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from flask import request

from blueprints.v1.auth import current_call
from services.errors import InvalidRequest

HEADER = "Idempotency-Key"
REPLAYED = "Idempotent-Replayed"
LONGEST = 200


@dataclass(frozen=True, slots=True)
class OneTime:
    """What the services need to know a request again. Without the header there is no number."""

    number: str | None
    digest: bytes | None


def one_time(body: bytes) -> OneTime:
    """Read the header. The number counts for the calling key alone. Raises InvalidRequest."""
    given = request.headers.get(HEADER)
    if given is None:
        return OneTime(None, None)
    if not 1 <= len(given) <= LONGEST or not given.isprintable():
        raise InvalidRequest(f"{HEADER} must have 1 to {LONGEST} printable characters.", param=HEADER)
    digest = hashlib.sha256(b"\n".join([request.method.encode(), request.path.encode(), body]))
    return OneTime(f"{current_call().key.key_id}:{given}", digest.digest())
