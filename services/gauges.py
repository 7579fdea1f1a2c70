"""The gauges that nobody sets when they change: every process looks at its own now and then."""

from __future__ import annotations

from sqlalchemy import Pool, QueuePool

from extensions import db
from services import metrics
from services.parts import parts


def sample() -> None:
    """Bring the gauges of this process up to date."""
    metrics.CONNECTIONS.set(parts().quick.in_use, "v1")
    metrics.CONNECTIONS.set(_in_use(db.engine.pool), "pages")
    states = list(parts().breakers.states().values())
    for state in ("open", "half_open"):
        metrics.BREAKERS.set(states.count(state), state)


def _in_use(pool: Pool) -> int:
    return pool.checkedout() if isinstance(pool, QueuePool) else 0
