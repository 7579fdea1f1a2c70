"""Webhook endpoints and their deliveries, for owners and admins."""

from __future__ import annotations

from flask import Blueprint, flash, make_response, redirect, render_template, request, url_for
from werkzeug.wrappers import Response

from blueprints.guards import current_actor, current_workspace, recently_proved, role_required
from blueprints.webhooks.forms import ConfirmForm, EndpointForm, OverlapForm, event_groups
from blueprints.webhooks.views import DeliveryView, EndpointView, delivery_views
from services import webhook_deliveries, webhooks
from services.errors import AlreadyDone, InvalidInput, InvalidRequest
from services.webhooks import Minted

bp = Blueprint("webhooks", __name__, url_prefix="/webhooks")

ROWS_ON_A_PAGE = 50
MOST_PAGES = 1000

Answer = str | Response | tuple[str, int]


@bp.get("")
@role_required("admin")
def index() -> str:
    found = webhooks.of_workspace(current_workspace())
    return render_template("webhooks/index.html", views=[EndpointView(endpoint) for endpoint in found])


@bp.route("/new", methods=["GET", "POST"])
@role_required("admin")
@recently_proved
def new() -> Answer:
    workspace, form = current_workspace(), EndpointForm()
    if form.validate_on_submit():
        try:
            minted = webhooks.create(workspace, actor=current_actor(), one_time_number=form.number(), **form.settings())
        except InvalidInput as error:
            form.take(error)
        except AlreadyDone as error:
            return _already_shown(error.object_id)
        else:
            return _shown_once(minted)
    page = render_template("webhooks/new.html", form=form, groups=event_groups())
    return page, 422 if form.errors else 200


@bp.get("/<endpoint_id>")
@role_required("admin")
def show(endpoint_id: str) -> str:
    endpoint = webhooks.get(current_workspace(), endpoint_id)
    page = min(MOST_PAGES, max(1, request.args.get("page", 1, type=int)))
    found, more = webhook_deliveries.page(endpoint, limit=ROWS_ON_A_PAGE, offset=(page - 1) * ROWS_ON_A_PAGE)
    view = EndpointView(endpoint)
    return render_template("webhooks/show.html", view=view, deliveries=delivery_views(found), page=page, more=more)


@bp.route("/<endpoint_id>/edit", methods=["GET", "POST"])
@role_required("admin")
@recently_proved
def edit(endpoint_id: str) -> Answer:
    endpoint = webhooks.get(current_workspace(), endpoint_id)
    form = EndpointForm(endpoint)
    if form.validate_on_submit():
        try:
            webhooks.change(current_workspace(), endpoint_id, actor=current_actor(), **form.settings())
        except InvalidInput as error:
            form.take(error)
        else:
            flash("The endpoint is saved.")
            return redirect(url_for("webhooks.show", endpoint_id=endpoint_id), 303)
    page = render_template("webhooks/edit.html", form=form, view=EndpointView(endpoint), groups=event_groups())
    return page, 422 if form.errors else 200


@bp.route("/<endpoint_id>/rotate", methods=["GET", "POST"])
@role_required("admin")
@recently_proved
def rotate(endpoint_id: str) -> Answer:
    workspace = current_workspace()
    view, form = EndpointView(webhooks.get(workspace, endpoint_id)), OverlapForm()
    if form.validate_on_submit():
        try:
            minted = webhooks.rotate_secret(
                workspace,
                endpoint_id,
                actor=current_actor(),
                overlap=form.overlap.data or "",
                one_time_number=form.number(),
            )
        except InvalidInput as error:
            form.take(error)
        except AlreadyDone as error:
            return _already_shown(error.object_id)
        else:
            return _shown_once(minted, rotated=True)
    return render_template("webhooks/rotate.html", form=form, view=view), 422 if form.errors else 200


@bp.route("/<endpoint_id>/disable", methods=["GET", "POST"])
@role_required("admin")
def disable(endpoint_id: str) -> Answer:
    endpoint, form = webhooks.get(current_workspace(), endpoint_id), ConfirmForm()
    if form.validate_on_submit():
        webhooks.disable(current_workspace(), endpoint_id, actor=current_actor())
        flash("The endpoint is disabled. Nothing is sent to it.")
        return redirect(url_for("webhooks.show", endpoint_id=endpoint_id), 303)
    page = render_template("webhooks/disable.html", form=form, view=EndpointView(endpoint))
    return page, 422 if form.errors else 200


@bp.post("/<endpoint_id>/enable")
@role_required("admin")
def enable(endpoint_id: str) -> Response:
    webhooks.enable(current_workspace(), endpoint_id, actor=current_actor())
    flash("The endpoint is enabled. It is told of what happens from now on.")
    return redirect(url_for("webhooks.show", endpoint_id=endpoint_id), 303)


@bp.route("/<endpoint_id>/delete", methods=["GET", "POST"])
@role_required("admin")
@recently_proved
def delete(endpoint_id: str) -> Answer:
    endpoint, form = webhooks.get(current_workspace(), endpoint_id), ConfirmForm()
    view = EndpointView(endpoint)
    if form.validate_on_submit():
        name = view.name
        webhooks.delete(current_workspace(), endpoint_id, actor=current_actor())
        flash(f"The endpoint “{name}” is deleted.")
        return redirect(url_for("webhooks.index"), 303)
    return render_template("webhooks/delete.html", form=form, view=view), 422 if form.errors else 200


@bp.post("/<endpoint_id>/test")
@role_required("admin")
def test(endpoint_id: str) -> Response:
    try:
        delivery = webhook_deliveries.send_test(current_workspace(), endpoint_id)
    except InvalidRequest as error:
        flash(error.message, "warn")
        return redirect(url_for("webhooks.show", endpoint_id=endpoint_id), 303)
    flash("A test is on its way. Load this page again to see what came of it.")
    return redirect(url_for("webhooks.delivery", endpoint_id=endpoint_id, delivery_id=delivery.id), 303)


@bp.get("/<endpoint_id>/deliveries/<delivery_id>")
@role_required("admin")
def delivery(endpoint_id: str, delivery_id: str) -> str:
    endpoint = webhooks.get(current_workspace(), endpoint_id)
    found: DeliveryView = delivery_views([webhook_deliveries.get(endpoint, delivery_id)])[0]
    return render_template("webhooks/delivery.html", view=EndpointView(endpoint), found=found)


@bp.post("/<endpoint_id>/deliveries/<delivery_id>/redeliver")
@role_required("admin")
def redeliver(endpoint_id: str, delivery_id: str) -> Response:
    try:
        webhook_deliveries.redeliver(current_workspace(), endpoint_id, delivery_id, actor=current_actor())
    except InvalidRequest as error:
        flash(error.message, "warn")
    else:
        flash("The delivery is sent again. Load this page again to see what came of it.")
    return redirect(url_for("webhooks.delivery", endpoint_id=endpoint_id, delivery_id=delivery_id), 303)


def _shown_once(minted: Minted, *, rotated: bool = False) -> Response:
    """Show a signing secret; nothing between here and the reader may keep it."""
    view = EndpointView(minted.endpoint)
    page = render_template("webhooks/shown_once.html", view=view, secret=minted.secret.reveal(), rotated=rotated)
    answer = make_response(page)
    answer.headers["Cache-Control"] = "no-store"
    return answer


def _already_shown(endpoint_id: str) -> str:
    return render_template(
        "webhooks/already_shown.html", view=EndpointView(webhooks.get(current_workspace(), endpoint_id))
    )
