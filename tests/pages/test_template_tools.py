"""Words for moments and numbers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from blueprints import template_tools as tools
from blueprints.guards import local_path
from blueprints.presenters import scope_groups
from services import custom_scopes
from services.permissions import SCOPE_MEANINGS, Scope
from tests.people import Person

AT = datetime(2026, 11, 20, 14, 5, 11, tzinfo=UTC)


@pytest.mark.parametrize(
    ("ago", "words"),
    [
        (timedelta(0), "just now"),
        (timedelta(seconds=-5), "just now"),
        (timedelta(seconds=59), "just now"),
        (timedelta(minutes=1), "1 minute ago"),
        (timedelta(minutes=59, seconds=59), "59 minutes ago"),
        (timedelta(hours=1), "1 hour ago"),
        (timedelta(hours=14), "14 hours ago"),
        (timedelta(hours=15), "yesterday"),
        (timedelta(days=1, hours=14), "yesterday"),
        (timedelta(days=2), "2 days ago"),
        (timedelta(days=29), "29 days ago"),
        (timedelta(days=30), "21 Oct 2026"),
    ],
)
def test_the_past_is_told_relatively(ago: timedelta, words: str) -> None:
    assert tools.relative(AT - ago, AT) == words


def test_deadlines_are_told_exactly_and_in_utc() -> None:
    in_tokyo = datetime(2026, 11, 27, 23, 0, tzinfo=timezone(timedelta(hours=9)))
    assert tools.exact(in_tokyo) == "Fri 27 Nov 2026, 14:00 UTC"
    assert tools.soon(in_tokyo) == "27 Nov, 14:00 UTC"
    assert tools.day(in_tokyo) == "27 Nov 2026"
    assert tools.precise(in_tokyo) == "27 Nov 2026, 14:00:00 UTC"
    assert tools.iso(in_tokyo) == "2026-11-27T14:00:00Z"


def test_retry_moments_are_never_too_early() -> None:
    moment = tools.retry_moment(42)
    assert moment >= datetime.now(UTC) + timedelta(seconds=41)
    assert moment.second == 0


def test_numbers() -> None:
    assert tools.thousands(182440) == "182,440"
    assert tools.plural(1, "key") == "1 key"
    assert tools.plural(0, "key") == "0 keys"
    assert tools.plural(1204, "key") == "1,204 keys"


def test_bars_have_a_height_each_and_nought_is_marked() -> None:
    found = tools.bars([0, 1, 500, 1000])
    assert [bar.height for bar in found] == [1.0, 1.0, 9.5, 19.0]
    assert [bar.empty for bar in found] == [True, False, False, False]
    assert all(bar.y + bar.height == tools.BAR_FIELD_HEIGHT for bar in found)
    assert {bar.height for bar in tools.bars([0] * 7)} == {1.0}


def test_names_in_narrow_columns() -> None:
    assert tools.short_name("mira@northwind.example") == "mira"
    assert tools.short_name("the console") == "the console"
    assert tools.short_name("@odd") == "@odd"


@pytest.mark.parametrize("path", ["/keys", "/keys?page=2", "/keys/key_1#facts", "/", "/%2F%2Fevil.example"])
def test_local_paths_pass(path: str) -> None:
    assert local_path(path) == path


@pytest.mark.parametrize("path", [None, "", "keys", "//x", "/\\x", "/a\x00", "/a\x7f", "https://x", "/a b", "\t/a"])
def test_others_do_not(path: str | None) -> None:
    assert local_path(path) is None


def test_every_scope_is_offered_once_reading_before_writing(alice: Person) -> None:
    own = custom_scopes.define(alice.workspace, "emails:send", "Send e-mails.", actor=alice.actor)
    groups = scope_groups(alice.workspace)
    offered = [scope.name for group in groups for scope in group.scopes]
    assert sorted(offered) == sorted([*Scope, own.name])
    meanings = {**{scope.value: meaning for scope, meaning in SCOPE_MEANINGS.items()}, own.name: own.meaning}
    assert all(scope.meaning == meanings[scope.name] for group in groups for scope in group.scopes)
    for group in groups:
        actions = [scope.name.partition(":")[2] == "read" for scope in group.scopes]
        assert actions == sorted(actions, reverse=True)


@pytest.mark.parametrize(
    ("nano_usd", "words"),
    [
        (None, "unknown"),
        (0, "$0.00"),
        (1, "$0.000000001"),
        (4_100_000, "$0.0041"),
        (10_000_000, "$0.01"),
        (41_000_000, "$0.041"),
        (500_000_000, "$0.50"),
        (999_999_999, "$1.00"),
        (318_400_000_000, "$318.40"),
        (1_204_500_000_000, "$1,204.50"),
        (-4_100_000, "−$0.0041"),
    ],
)
def test_money(nano_usd: int | None, words: str) -> None:
    assert tools.money(nano_usd) == words


@pytest.mark.parametrize(
    ("part", "whole", "words"),
    [(0, 0, "0"), (0, 9, "0"), (9, 9, "100"), (1, 100_000, "0.1"), (99_999, 100_000, "99.9"), (992, 1000, "99.2")],
)
def test_a_share_is_nothing_or_everything_only_if_it_is(part: int, whole: int, words: str) -> None:
    assert tools.percent(part, whole) == f"{words}\u2009%"


@pytest.mark.parametrize(("number", "words"), [(999_999, "999,999"), (40_000_000, "40 M"), (2_500_000_000, "2.5 G")])
def test_numbers_on_an_axis_are_short(number: int, words: str) -> None:
    assert tools.compact(number) == words


def test_a_bar_is_never_longer_than_its_field() -> None:
    assert [tools.share(part, 10, 100) for part in (0, 5, 10, 99)] == [0, 50, 100, 100]
    assert tools.share(1, 0, 100) == 0
