"""Which model would be chosen for a prompt, and why; and the rules in full. No provider is called."""

from __future__ import annotations

from dataclasses import dataclass

from flask import Blueprint, render_template
from wtforms import TextAreaField
from wtforms.validators import DataRequired, Length

from blueprints.forms import PortalForm, stripped
from blueprints.guards import current_workspace, role_required
from services import provider_keys
from services.errors import InvalidRequest
from services.gateway import brain
from services.gateway.brain import Decision
from services.gateway.brain_rules import EMBEDDINGS, Rules
from services.gateway.routing import usable
from services.parts import parts

bp = Blueprint("brain", __name__, url_prefix="/playground")

# A request may be far longer; to see what a prompt leads to, its beginning does.
_MOST_CHARACTERS = 100_000
_TOO_LONG = f"Enter at most {_MOST_CHARACTERS:,} characters"
_ROWS = [{"rows": 2, "spellcheck": "false"}, {"rows": 6, "spellcheck": "false"}]
_ENDPOINT = "chat/completions"


class PromptForm(PortalForm):
    """A prompt to try, kept as it was typed."""

    system = TextAreaField(
        "System message (optional)", [Length(max=_MOST_CHARACTERS, message=_TOO_LONG)], render_kw=_ROWS[0]
    )
    prompt = TextAreaField(
        "Prompt",
        [DataRequired("Enter a prompt"), Length(max=_MOST_CHARACTERS, message=_TOO_LONG)],
        filters=[stripped],
        render_kw=_ROWS[1],
    )


@dataclass(frozen=True, slots=True)
class Try:
    """A prompt that was tried. ``refusal`` says why a call would be refused now; ``decision`` is then what it would be
    if every provider of the rules were connected.
    """

    decision: Decision
    refusal: str = ""


@bp.route("/route", methods=["GET", "POST"])
@role_required("viewer")
def route() -> str | tuple[str, int]:
    form = PromptForm()
    tried = _try(form.prompt.data or "", form.system.data or "") if form.validate_on_submit() else None
    titles = {name: provider.title for name, provider in parts().providers.items()}
    rules = parts().brain
    page = render_template(
        "brain/route.html",
        form=form,
        tried=tried,
        rules=rules,
        tasks=_tasks(rules),
        titles=titles,
        aliases=brain.ALIASES,
    )
    return page, 422 if form.is_submitted() and tried is None else 200


def _try(prompt: str, system: str) -> Try:
    messages = [{"role": "system", "content": system}] if system.strip() else []
    request = {"messages": [*messages, {"role": "user", "content": prompt}]}
    connected = usable(provider_keys.connected(current_workspace().id), parts().providers)
    try:
        return Try(brain.consider(request, _ENDPOINT, connected))
    except InvalidRequest as error:
        return Try(brain.consider(request, _ENDPOINT, brain.known_providers()), error.message)


def _tasks(rules: Rules) -> list[str]:
    """Return the tasks that are told from a text."""
    return [name for name in rules.tasks if name != EMBEDDINGS]
