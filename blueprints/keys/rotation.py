"""Pages of a rotation: a new secret, who still uses the previous one, its end."""

from __future__ import annotations

from flask import flash, redirect, render_template, url_for
from werkzeug.wrappers import Response

from blueprints.guards import current_actor, current_workspace, recently_proved, role_required
from blueprints.keys.common import Answer, bp, extended, has_api_access, managed, shown_once, view_of
from blueprints.keys.forms import OverlapForm
from models import ApiKey
from models.base import now
from services import keys, rotation
from services.errors import AlreadyDone, InvalidInput


@bp.route("/<key_id>/rotate", methods=["GET", "POST"])
@role_required("developer")
@recently_proved
def rotate(key_id: str) -> Answer:
    key = extended(key_id)
    form = OverlapForm(key)
    if not form.is_submitted() and not has_api_access():
        return redirect(url_for("keys.index"), 303)
    if form.validate_on_submit():
        try:
            minted = rotation.rotate(
                current_workspace(),
                key.id,
                actor=current_actor(),
                until=form.until(),
                one_time_number=form.number(),
            )
        except InvalidInput as error:
            form.take(error)
        except AlreadyDone as error:
            made = keys.get_any(current_workspace(), error.object_id)
            return render_template("keys/already_shown.html", key=made, rotated=True)
        else:
            return shown_once(minted, rotated=True)
    page = render_template("keys/rotate.html", form=form, view=view_of(key), now=now())
    return page, 422 if form.errors else 200


@bp.get("/<key_id>/rotation")
@role_required("viewer")
def overlap(key_id: str) -> Answer:
    key = keys.get(current_workspace(), key_id)
    if rotation.previous_secret(key) is None:
        return _over(key)
    return _overlap_page(key, OverlapForm(key, at_once=False))


@bp.post("/<key_id>/rotation")
@role_required("developer")
@recently_proved
def more_time(key_id: str) -> Answer:
    key = extended(key_id)
    if rotation.previous_secret(key) is None:
        return _over(key)
    form = OverlapForm(key, at_once=False)
    if form.validate_on_submit():
        until = form.until()
        try:
            if until is not None:
                rotation.extend(current_workspace(), key.id, until, actor=current_actor())
        except InvalidInput as error:
            form.take(error)
        else:
            flash(f"The previous secret of “{key.name}” has another end.")
            return redirect(url_for("keys.overlap", key_id=key.id), 303)
    return _overlap_page(key, form), 422


@bp.post("/<key_id>/rotation/finish")
@role_required("developer")
@recently_proved
def finish(key_id: str) -> Response:
    key = managed(key_id)
    if rotation.previous_secret(key) is not None:
        rotation.finish(current_workspace(), key.id, actor=current_actor())
        flash(f"The rotation of “{key.name}” is finished. Its previous secret no longer works.")
    return redirect(url_for("keys.show", key_id=key.id), 303)


def _overlap_page(key: ApiKey, form: OverlapForm) -> str:
    form.overlap.label.text = "How long should the previous secret keep working, from now on?"
    return render_template("keys/rotation.html", form=form, view=view_of(key))


def _over(key: ApiKey) -> Response:
    """Lead to the key's page, and say when the previous secret ended if that is still known."""
    ended = [secret.ends_at for secret in key.secrets[1:] if secret.ends_at is not None]
    if ended:
        moment = f"{max(ended):%Y-%m-%d %H:%M} UTC"
        flash(f"The previous secret of “{key.name}” stopped working at {moment}.")
    return redirect(url_for("keys.show", key_id=key.id), 303)
