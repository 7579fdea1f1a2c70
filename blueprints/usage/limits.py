"""The workspace's spending limits: owners and admins change them."""

from __future__ import annotations

from flask import flash, redirect, render_template, url_for
from werkzeug.wrappers import Response
from wtforms import BooleanField, StringField

from blueprints.forms import PortalForm, stripped
from blueprints.guards import current_actor, current_workspace, recently_proved, role_required
from blueprints.usage import bp
from models import Workspace
from services import spending
from services.errors import InvalidInput
from services.money import as_usd
from services.restrictions import read_amounts


class LimitsForm(PortalForm):
    """Spending limits in dollars; an empty field lifts one."""

    monthly_limit_usd = StringField(
        "Spending per month, US dollars", filters=[stripped], render_kw={"inputmode": "decimal", "autocomplete": "off"}
    )
    daily_limit_usd = StringField(
        "Spending per day, US dollars", filters=[stripped], render_kw={"inputmode": "decimal", "autocomplete": "off"}
    )
    allow_unknown_price = BooleanField("Allow models of unknown price")

    def __init__(self, workspace: Workspace) -> None:
        super().__init__(
            data={
                "monthly_limit_usd": _usd(workspace.monthly_limit_nano_usd),
                "daily_limit_usd": _usd(workspace.daily_limit_nano_usd),
                "allow_unknown_price": workspace.allow_unknown_price,
            }
        )

    def amounts(self) -> dict[str, int | None]:
        """Return both limits in nano-dollars. Raises InvalidInput."""
        faults: dict[str, str] = {}
        names = ("monthly_limit_usd", "daily_limit_usd")
        found = read_amounts({name: self[name].data for name in names}, faults)
        if faults:
            raise InvalidInput(faults)
        return found


@bp.route("/usage/limits", methods=["GET", "POST"])
@role_required("admin")
@recently_proved
def limits() -> str | Response | tuple[str, int]:
    workspace = current_workspace()
    form = LimitsForm(workspace)
    if form.validate_on_submit():
        try:
            amounts = form.amounts()
        except InvalidInput as error:
            form.take(error)
        else:
            spending.set_limits(
                workspace,
                daily_nano_usd=amounts["daily_limit_usd"],
                monthly_nano_usd=amounts["monthly_limit_usd"],
                allow_unknown_price=bool(form.allow_unknown_price.data),
                actor=current_actor(),
            )
            flash("The spending limits are saved.")
            return redirect(url_for("usage.limits"), 303)
    own = [one for one in spending.standing(workspace) if one.owner_id == workspace.id]
    rows = [(one, f"${as_usd(one.spent_nano_usd)} of ${as_usd(one.limit_nano_usd)}") for one in own]
    return render_template("usage/limits.html", form=form, rows=rows), 422 if form.errors else 200


def _usd(nano_usd: int | None) -> str:
    return "" if nano_usd is None else as_usd(nano_usd)
