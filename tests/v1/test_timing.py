"""What a refusal's time could tell: nothing about whether a key ever was one."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import pytest
from flask.testing import FlaskClient

from services import keys
from services.key_format import KeyFormat
from tests.people import Person

ROUNDS = 400
MEASUREMENTS = 4
MOST = 1.25


@pytest.mark.alone
def test_unknown_misspelt_and_deleted_keys_take_the_same_time(
    client: FlaskClient, mint: Callable[..., keys.Minted], alice: Person
) -> None:
    deleted = mint()
    keys.delete(alice.workspace, deleted.key.id, actor=alice.actor)
    unknown = KeyFormat("arka").generate("secret", "test").reveal()
    shown = {
        "deleted": deleted.secret.reveal(),
        "unknown": unknown,
        "misspelt": unknown[:-1] + ("a" if unknown[-1] != "a" else "b"),
    }
    # A neighbour of the machine may get in the way of one measurement, but a difference shows in each.
    for _ in range(MEASUREMENTS):
        medians = measured(client, shown)
        if max(medians.values()) < MOST * min(medians.values()):
            return
    raise AssertionError(medians)


def measured(client: FlaskClient, shown: dict[str, str]) -> dict[str, float]:
    """Medians of calls in turn, so that a change of the machine's mood meets all three alike."""
    times: dict[str, list[float]] = {name: [] for name in shown}
    names = list(shown)
    for number in range(ROUNDS):
        # Nobody always comes after the same one.
        for name in names[number % 3 :] + names[: number % 3]:
            began = time.perf_counter()
            status = client.get("/v1/models", headers={"Authorization": f"Bearer {shown[name]}"}).status_code
            times[name].append(time.perf_counter() - began)
            assert status == 403
    return {name: statistics.median(found) for name, found in times.items()}
