"""Plans: data in one place, granted at once."""

from __future__ import annotations

from pathlib import Path

import pytest
from flask import Flask

from config import ROOT
from extensions import db
from models import AuditEvent
from services import workspaces
from services.errors import InvalidInput, NotFound
from services.parts import parts
from services.plans import PlanTable
from tests.people import Person, make_person

TABLE = PlanTable.read(ROOT / "services" / "plans.toml")


def test_the_contract_s_plans() -> None:
    told = {p.name: (p.price, p.api_access, p.requests_per_minute) for p in TABLE.plans.values()}
    assert told["starter"] == ("free", False, 0)
    assert told["agency"] == ("$699 per month", True, 1000)
    assert told["enterprise"][:2] == ("custom", True)
    assert TABLE.first_with_api_access.name == "agency"


def test_an_operator_can_add_a_plan(tmp_path: Path) -> None:
    path = tmp_path / "plans.toml"
    more = '\n[team]\ntitle = "Team"\nprice = "$99"\napi_access = true\nrequests_per_minute = 60\n'
    path.write_text((ROOT / "services" / "plans.toml").read_text() + more)
    assert PlanTable.read(path).plan_named("team").requests_per_minute == 60


@pytest.mark.parametrize(
    "text", ["", "no toml", "[agency]\ntitle='A'", "[starter]\ntitle='S'\nprice=''\napi_access=true"]
)
def test_a_broken_table_is_refused_in_words(tmp_path: Path, text: str) -> None:
    path = tmp_path / "plans.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"plans\.toml"):
        PlanTable.read(path)


def test_a_plan_that_left_the_table_gives_no_access() -> None:
    assert not TABLE.plan_named("forgotten").api_access


def test_the_operator_s_figure_goes_before_the_plan_s(app: Flask, alice: Person) -> None:
    workspaces.set_plan(alice.workspace, "enterprise", requests_per_minute=5000, actor=alice.actor)
    assert parts().plans.requests_per_minute(alice.workspace) == 5000
    workspaces.set_plan(alice.workspace, "agency", requests_per_minute=None, actor=alice.actor)
    assert parts().plans.requests_per_minute(alice.workspace) == 1000


@pytest.mark.parametrize(
    ("plan", "limit"), [("gold", None), ("starter", 10), ("agency", 0), ("agency", -5), ("agency", 10**9)]
)
def test_a_plan_that_makes_no_sense_is_refused(app: Flask, alice: Person, plan: str, limit: int | None) -> None:
    with pytest.raises(InvalidInput):
        workspaces.set_plan(alice.workspace, plan, requests_per_minute=limit, actor=alice.actor)
    assert alice.workspace.plan == "agency"


def test_a_change_of_plan_is_in_the_audit_log(app: Flask, alice: Person) -> None:
    workspaces.set_plan(alice.workspace, "starter", requests_per_minute=None, actor=alice.actor)
    entry = db.session.query(AuditEvent).order_by(AuditEvent.id.desc()).first()
    assert entry is not None
    assert entry.details == {"from": "agency", "to": "starter", "requests_per_minute": None}


def test_slugs_are_unique_and_readable(app: Flask) -> None:
    slugs = [make_person(email).slug for email in ("jo.Weber@a.example", "jo_weber@b.example", "jo-weber@c.example")]
    assert slugs == ["jo-weber", "jo-weber-2", "jo-weber-3"]
    assert make_person("---@d.example").slug == "workspace"


def test_an_unknown_slug_is_not_found(app: Flask) -> None:
    with pytest.raises(NotFound):
        workspaces.get_by_slug("nobody")
