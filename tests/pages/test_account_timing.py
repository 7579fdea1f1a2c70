"""What the answers for people who are not signed in could tell about an address: nothing, by words, status or time."""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask

from extensions import db, limiter
from models import User
from models.base import now, transaction
from services import accounts, mailed_links, passwords
from services.secret import Secret
from tests.pages.visitor import Visitor
from tests.people import Person, make_person

LEAST_ROUNDS, MOST_ROUNDS = 8, 40
MOST_SECONDS = 0.015
# What one password check takes on two quiet cores.
CHECK_SECONDS = 0.04
UNKNOWN = "ghost{}@people.example"


@pytest.fixture
def addresses(app: Flask, alice: Person, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """An address of each kind; ``{}`` stands for a number that makes it new in each round. Nothing is limited."""
    monkeypatch.setattr(limiter, "enabled", False)
    monkeypatch.setattr(mailed_links, "MOST_AN_HOUR", 1000)
    closed, without = make_person("closed@people.example"), make_person("sso@people.example")
    accounts.close(db.session.get_one(User, closed.user_id), alice.actor)
    with transaction() as session:
        session.get_one(User, without.user_id).password_hash = ""
        session.add(
            User(
                id="usr_unconfirmed",
                email="asked@people.example",
                password_hash="",
                is_operator=False,
                created_at=now(),
            )
        )
    return {
        "known": alice.email,
        "unknown": UNKNOWN,
        "closed": closed.email,
        "without a password": without.email,
        "unconfirmed": "asked@people.example",
    }


@pytest.mark.alone
def test_sign_in_answers_alike(visitor: Visitor, addresses: dict[str, str]) -> None:
    form = visitor.open("/sign-in").main_form
    token = dict(form.fields)["csrf_token"]

    def ask(email: str) -> tuple[int, str]:
        data = {"csrf_token": token, "email": email, "password": "a wrong password it is"}
        answer = visitor.one_request("POST", "/sign-in", data=data)
        return answer.status_code, answer.get_data(as_text=True)

    assert_alike(addresses, ask)


@pytest.mark.alone
@pytest.mark.parametrize("page", ["/sign-up", "/reset"])
def test_asking_for_a_link_is_answered_alike(visitor: Visitor, addresses: dict[str, str], page: str) -> None:
    token = dict(visitor.open(page).main_form.fields)["csrf_token"]

    def ask(email: str) -> tuple[int, str]:
        answer = visitor.one_request("POST", page, data={"csrf_token": token, "email": email})
        return answer.status_code, answer.headers.get("Location", "")

    assert_alike(addresses, ask)


def assert_alike(addresses: dict[str, str], ask: Callable[[str], tuple[int, str]]) -> None:
    """Ask in turn, so that a change of the machine's mood meets all alike.

    What else the machine does only adds to the times, so the quicker ones tell. How slow it is just now is measured by
    a password check in each round, and the allowance grows with it: a check that was left out is still seen.
    """
    times: dict[str, list[float]] = {kind: [] for kind in addresses}
    checks: list[float] = []
    for number in range(MOST_ROUNDS):
        said = set()
        for kind, pattern in addresses.items():
            email = pattern.format(number)
            took, (status, words) = timed(lambda email=email: ask(email))
            times[kind].append(took)
            said.add((status, re.sub(r'name="csrf_token" value="[^"]*"', "", words.replace(email, "..."))))
        assert len(said) == 1
        checks.append(timed(lambda: passwords.matches(Secret("any password"), None))[0])
        if number >= LEAST_ROUNDS and spread(times) < allowed(checks):
            return
    assert spread(times) < allowed(checks), {kind: typical(found) for kind, found in times.items()}


def timed(act: Callable[[], Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    answer = act()
    return time.perf_counter() - began, answer


def typical(found: list[float]) -> float:
    """The median of the quicker half. The first round only warms up."""
    return statistics.median(sorted(found[1:])[: len(found) // 2])


def spread(times: dict[str, list[float]]) -> float:
    """Return how far the typical times of the kinds lie apart."""
    found = [typical(values) for values in times.values()]
    return max(found) - min(found)


def allowed(checks: list[float]) -> float:
    """Return 15 ms, and more in proportion on a machine that is slower than ours at rest."""
    return MOST_SECONDS * max(1.0, typical(checks) / CHECK_SECONDS)
