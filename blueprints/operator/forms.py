"""The operator's forms."""

from __future__ import annotations

from typing import Any

from wtforms import HiddenField, SelectField, StringField, TextAreaField

from blueprints.forms import PortalForm, stripped
from models import Workspace
from services.access_requests import WORDS_LENGTH
from services.customers import REASON_LENGTH
from services.errors import InvalidInput
from services.parts import parts
from services.workspaces import MOST_REQUESTS_PER_MINUTE, PLAN_WORDS_LENGTH


class LimitForm(PortalForm):
    """A form with a limit of its own for one workspace, and words about its plan."""

    requests_per_minute = StringField(
        "Requests per minute", filters=[stripped], render_kw={"inputmode": "numeric", "autocomplete": "off"}
    )
    words = StringField(
        "About the plan", filters=[stripped], render_kw={"maxlength": PLAN_WORDS_LENGTH, "autocomplete": "off"}
    )

    def limit(self) -> int | None:
        """Return the limit entered, None for what the plan gives. Raises InvalidInput."""
        text = (self.requests_per_minute.data or "").replace(",", "")
        if not text:
            return None
        if not text.isascii() or not text.isdigit() or len(text) > len(str(MOST_REQUESTS_PER_MINUTE)):
            raise InvalidInput({"requests_per_minute": f"Give a number from 1 to {MOST_REQUESTS_PER_MINUTE:,}."})
        return int(text)


class GrantForm(LimitForm):
    """Which plan is granted says the button."""

    answer = TextAreaField("Message to who has asked", filters=[stripped], render_kw={"rows": 3})


class DeclineForm(PortalForm):
    """The reason goes out by mail."""

    # No name that the other form of the page has: each reads what was sent.
    why = TextAreaField("Why", filters=[stripped], render_kw={"rows": 3, "maxlength": WORDS_LENGTH})


class ReasonForm(PortalForm):
    """An act on a customer's data, which has a reason."""

    reason = StringField("Reason", filters=[stripped], render_kw={"maxlength": REASON_LENGTH, "autocomplete": "off"})


class PlanForm(LimitForm, ReasonForm):
    """Any plan of the table. ``confirmed`` names the plan that a downgrade was confirmed for."""

    plan = SelectField("Plan", validate_choice=False)
    confirmed = HiddenField()

    def __init__(self, workspace: Workspace, **kwargs: Any) -> None:
        limit = workspace.requests_per_minute
        present = {
            "plan": workspace.plan,
            "requests_per_minute": "" if limit is None else str(limit),
            "words": workspace.plan_words or "",
        }
        super().__init__(data=present, **kwargs)
        self.plan.choices = [(plan.name, f"{plan.title}, {plan.price}") for plan in parts().plans.plans.values()]
