"""What a refusal's time could tell: nothing about whether a key ever was one."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

from flask.testing import FlaskClient

from services import keys
from services.key_format import KeyFormat
from tests.people import Person

ROUNDS = 400


def test_unknown_misspelt_and_deleted_keys_take_the_same_time(
    client: FlaskClient, mint: Callable[..., keys.Minted], alice: Person
) -> None:
    """Medians of calls in turn, so that a change of the machine's mood meets all three alike."""
    deleted = mint()
    keys.delete(alice.workspace, deleted.key.id, actor=alice.actor)
    unknown = KeyFormat("arka").generate("secret", "test").reveal()
    shown = {
        "deleted": deleted.secret.reveal(),
        "unknown": unknown,
        "misspelt": unknown[:-1] + ("a" if unknown[-1] != "a" else "b"),
    }
    times: dict[str, list[float]] = {name: [] for name in shown}
    for _ in range(ROUNDS):
        for name, key in shown.items():
            began = time.perf_counter()
            status = client.get("/v1/models", headers={"Authorization": f"Bearer {key}"}).status_code
            times[name].append(time.perf_counter() - began)
            assert status == 403
    medians = {name: statistics.median(found) for name, found in times.items()}
    assert max(medians.values()) < 1.25 * min(medians.values()), medians
