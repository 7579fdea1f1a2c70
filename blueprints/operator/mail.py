"""The outbox: what waits, what was sent, what has failed."""

from __future__ import annotations

from flask import flash, redirect, render_template, request, url_for
from werkzeug.wrappers import Response

from blueprints.guards import current_person, operator_actor, operator_required, recently_proved
from blueprints.operator import bp
from services import outbox


@bp.get("/mail", endpoint="mail")
@operator_required
def show() -> str:
    status = request.args.get("status", "")
    return render_template(
        "operator/mail.html",
        page=outbox.messages(status, request.args.get("page", 1, type=int)),
        counts=outbox.counts(),
        status=status if status in outbox.STATES else "",
        state_of=outbox.state_of,
        as_files=outbox.kept_as_files(),
    )


@bp.get("/mail/<message_id>")
@operator_required
def show_message(message_id: str) -> str:
    message = outbox.get(message_id)
    return render_template(
        "operator/message.html",
        message=message,
        state=outbox.state_of(message),
        as_files=outbox.kept_as_files(),
        text=outbox.readable_text(message, current_person().email),
        link_left_out=outbox.LINK_LEFT_OUT,
    )


@bp.post("/mail/<message_id>/try-again")
@operator_required
@recently_proved
def try_again(message_id: str) -> Response:
    if outbox.try_again(message_id, actor=operator_actor()):
        flash("The message waits to be sent again.")
    return redirect(url_for("operator.show_message", message_id=message_id), 303)
