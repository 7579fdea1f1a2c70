"""Forms about API keys."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime, timedelta
from typing import Any

from wtforms import BooleanField, HiddenField, RadioField, SelectField, SelectMultipleField, StringField, TextAreaField
from wtforms.fields.choices import SelectChoice  # type: ignore[attr-defined] # newer than its type stubs
from wtforms.validators import DataRequired, ValidationError
from wtforms.widgets import DateInput, TimeInput

from blueprints.forms import PortalForm, stripped
from blueprints.template_tools import day, exact
from blueprints.times import current_zone, zone_name
from models import ApiKey
from models.base import now
from services import keys, restrictions, rotation, time_zones
from services.errors import InvalidInput
from services.keys import NAME_LENGTH, UNCHANGED, Unchanged
from services.permissions import PRESETS, PUBLISHABLE_SCOPES, Role, Scope, may_grant
from services.restrictions import Restrictions

ONE_BY_ONE = "one_by_one"
ON_A_DATE = "on_a_date"
NEVER = "never"
AS_IT_IS = "as_it_is"
DAYS_OFFERED = (90, 60, 30, 7)
SPENDING = ("monthly_limit_usd", "daily_limit_usd", "allow_unknown_price")

KIND_HINTS = {
    "secret": "For servers. Reads and writes within its scopes. Never put it in a web page or app.",
    "publishable": "For browsers. Read-only, no billing, works only from origins you list, if you list any.",
}
A_MOMENT = "moment"
OVERLAP_TITLES = {
    "now": "Stop it now",
    "1h": "1 hour",
    "24h": "24 hours",
    "7d": "7 days",
    A_MOMENT: "Until a moment I choose",
}
ENVIRONMENT_HINTS = {
    "live": "Calls your providers and costs what they charge.",
    "test": "Same rules and errors, answers from a simulator. No provider, no cost.",
}


class MomentForm(PortalForm):
    """A form with a moment that is entered as a date and a time in the zone of the person."""

    date = StringField("Date", filters=[stripped], widget=DateInput())
    time = StringField("Time", filters=[stripped], widget=TimeInput(), default="00:00")

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.time.label.text = f"Time, {zone_name()}"
        # The script says it after the time.
        self.time.render_kw = {"data-zone": zone_name()}

    def moment_wanted(self) -> bool:
        """Whether the choice beside them makes date and time count."""
        raise NotImplementedError

    def validate_date(self, field: StringField) -> None:
        if self.moment_wanted():
            chosen = _read(field.data or "", "%Y-%m-%d", "Choose a date, for example 2027-02-18")
            if chosen.date() < now().astimezone(current_zone()).date():
                raise ValidationError("Choose a date that is not over")

    def validate_time(self, field: StringField) -> None:
        if self.moment_wanted():
            _read((field.data or "")[:5], "%H:%M", "Choose a time of day, for example 14:00")
            if not self.date.errors and self._entered() is None:
                raise ValidationError("Clocks skip this time on that day. Choose another")

    def moment(self) -> datetime:
        """Return the moment entered. Only after the form was found valid."""
        moment = self._entered()
        assert moment is not None
        return moment

    def _entered(self) -> datetime | None:
        """Return the moment at which the person's clocks show date and time; None when they skip it."""
        text = f"{self.date.data} {(self.time.data or '')[:5]}"
        entered = datetime.strptime(text, "%Y-%m-%d %H:%M").replace(tzinfo=UTC)
        try:
            return time_zones.moment_at(entered.date(), entered.time(), current_zone())
        except OverflowError:
            # The first and last days there are have no moment in every zone.
            return None


class SettingsForm(MomentForm):
    """What a new key and a changed one have in common: name, expiry and restrictions."""

    name = StringField(
        "Name",
        [DataRequired("Enter a name for the key")],
        filters=[stripped],
        render_kw={"maxlength": NAME_LENGTH, "autocomplete": "off"},
    )
    expires = SelectField("Expires", default=str(DAYS_OFFERED[0]))
    models = TextAreaField("Models", filters=[stripped], render_kw={"rows": 2, "spellcheck": "false"})
    networks = TextAreaField("Allowed networks", filters=[stripped], render_kw={"rows": 2, "spellcheck": "false"})
    origins = TextAreaField("Browser origins", filters=[stripped], render_kw={"rows": 2, "spellcheck": "false"})
    requests_per_minute = StringField(
        "Requests per minute", filters=[stripped], render_kw={"inputmode": "numeric", "autocomplete": "off"}
    )

    monthly_limit_usd = StringField(
        "Spending per month, US dollars", filters=[stripped], render_kw={"inputmode": "decimal", "autocomplete": "off"}
    )
    daily_limit_usd = StringField(
        "Spending per day, US dollars", filters=[stripped], render_kw={"inputmode": "decimal", "autocomplete": "off"}
    )
    allow_unknown_price = BooleanField("Allow models of unknown price")

    def __init__(
        self, *, limit: int, may_limit_spending: bool, present: Restrictions = keys.NONE, **kwargs: Any
    ) -> None:
        """``limit`` is the most requests per minute that a key of the workspace can have. Who may not limit spending
        sees no such fields, and what is ``present`` stays."""
        super().__init__(**kwargs)
        self.limit = limit
        self.may_limit_spending = may_limit_spending
        self.present = present
        if not may_limit_spending:
            for name in SPENDING:
                del self[name]

    def moment_wanted(self) -> bool:
        return bool(self.expires.data == ON_A_DATE)

    def chosen_kind(self) -> str:
        """The kind of the key that is made or changed."""
        raise NotImplementedError

    def validate(self, extra_validators: Any = None) -> bool:
        """As every form, and the restrictions are checked with the rest, so that all faults are told at once."""
        valid = bool(super().validate(extra_validators))
        try:
            self.restrictions()
        except InvalidInput as error:
            self.take(error)
            return False
        return valid

    def restrictions(self) -> Restrictions:
        """Return what was entered. Raises InvalidInput."""
        number = (self.requests_per_minute.data or "").replace(",", "")
        return restrictions.read(
            self.chosen_kind(),
            models=(self.models.data or "").splitlines(),
            networks=(self.networks.data or "").splitlines(),
            origins=(self.origins.data or "").splitlines(),
            # What is no number is as wrong as one that is too small, and told in the same words.
            requests_per_minute=None if not number else int(number) if _is_number(number) else 0,
            plan_limit=self.limit,
            **self._spending(),
        )

    def _spending(self) -> dict[str, Any]:
        if self.may_limit_spending:
            return {name: self[name].data for name in SPENDING}
        kept = restrictions.as_dict(self.present)
        return {name: kept[name] for name in SPENDING}

    def restricted(self) -> bool:
        """Whether the folded part of the form has something to show."""
        fields = [self.models, self.networks, self.origins, self.requests_per_minute]
        if self.may_limit_spending:
            fields += [self[name] for name in SPENDING]
        return any(field.data or field.errors for field in fields)

    def take(self, error: InvalidInput) -> None:
        """As every form, but a fault of the expiry stands where it was chosen."""
        for name, sentence in error.fields.items():
            self.fault(self.place_of(name), sentence)

    def place_of(self, name: str) -> str:
        """The field at which a fault is told."""
        if name == "expires_at":
            return "date" if self.moment_wanted() else "expires"
        return name

    def chosen_expiry(self) -> datetime | None:
        if self.expires.data == NEVER:
            return None
        if self.moment_wanted():
            return self.moment()
        return now() + timedelta(days=int(self.expires.data))


class KeyForm(SettingsForm):
    """A new key. Choices that do not apply are ignored: scopes under a preset, a date beside another expiry."""

    kind = RadioField(
        "Type",
        choices=[SelectChoice("secret", "Secret"), SelectChoice("publishable", "Publishable")],
        default="secret",
        validate_choice=False,
    )
    environment = RadioField(
        "Environment",
        choices=[SelectChoice("live", "Live"), SelectChoice("test", "Test")],
        default="live",
        validate_choice=False,
    )
    preset = SelectField("Permissions", default=next(iter(PRESETS)), validate_choice=False)
    scopes = SelectMultipleField("Scopes", choices=[SelectChoice(scope) for scope in Scope], validate_choice=False)
    one_time_number = HiddenField(default=lambda: secrets.token_urlsafe(16))

    def __init__(self, *, limit: int, may_limit_spending: bool) -> None:
        super().__init__(limit=limit, may_limit_spending=may_limit_spending)
        self.preset.choices = _preset_choices()
        self.expires.choices = _expiry_choices()

    def offer_to(self, role: Role) -> None:
        """Offer no preset with a scope that somebody of that role may not give away."""
        self.preset.choices = _preset_choices(role)

    def chosen_kind(self) -> str:
        return str(self.kind.data)

    def validate_scopes(self, field: SelectMultipleField) -> None:
        if self.preset.data == ONE_BY_ONE and not field.data:
            raise ValidationError("Choose at least one scope")

    def settings(self) -> dict[str, Any]:
        """Return what ``keys.mint`` takes. Only after the form was found valid."""
        one_by_one = self.preset.data == ONE_BY_ONE
        return {
            "name": self.name.data,
            "kind": self.kind.data,
            "environment": self.environment.data,
            "preset": None if one_by_one else stripped(self.preset.data),
            "scopes": [stripped(scope) for scope in self.scopes.data or []] if one_by_one else None,
            "expires_at": self.chosen_expiry(),
            "restrictions": self.restrictions(),
            "one_time_number": _number_of(self.one_time_number),
        }

    def place_of(self, name: str) -> str:
        if name == "scopes":
            return "scopes" if self.preset.data == ONE_BY_ONE else "preset"
        return super().place_of(name)


class EditForm(SettingsForm):
    """What may be changed of a key: name, expiry, restrictions."""

    def __init__(self, key: ApiKey, *, limit: int, may_limit_spending: bool) -> None:
        present = keys.restrictions_of(key)
        shown = restrictions.as_dict(present)
        super().__init__(
            limit=limit,
            may_limit_spending=may_limit_spending,
            present=present,
            data={
                "name": key.name,
                "expires": AS_IT_IS,
                "models": "\n".join(key.allowed_models),
                "networks": "\n".join(key.allowed_networks),
                "origins": "\n".join(key.allowed_origins),
                "requests_per_minute": str(key.requests_per_minute or ""),
                **{name: shown[name] for name in SPENDING},
            },
        )
        self.key = key
        self.expires.choices = [SelectChoice(AS_IT_IS, _present_expiry(key)), *_expiry_choices()]

    def chosen_kind(self) -> str:
        return self.key.kind

    def settings(self) -> dict[str, Any]:
        """Return what ``keys.change`` takes. Only after the form was found valid."""
        expires_at: datetime | Unchanged | None = UNCHANGED
        if self.expires.data != AS_IT_IS:
            expires_at = self.chosen_expiry()
        return {"name": self.name.data, "expires_at": expires_at, "restrictions": self.restrictions()}


class OverlapForm(MomentForm):
    """Until when a secret that is replaced still works. What would outlive the key is not offered."""

    overlap = RadioField("How long should the current secret keep working?")
    one_time_number = HiddenField(default=lambda: secrets.token_urlsafe(16))

    def __init__(self, key: ApiKey, *, at_once: bool = True) -> None:
        offered = [
            name
            for name, span in rotation.OVERLAPS.items()
            if (span or at_once) and (key.expires_at is None or now() + span < key.expires_at)
        ]
        usual = next((name for name in ("24h", "1h") if name in offered), A_MOMENT)
        super().__init__(data={"overlap": usual})
        self.overlap.choices = [SelectChoice(name, OVERLAP_TITLES[name]) for name in [*offered, A_MOMENT]]
        self.hints = {name: _overlap_hint(name) for name in offered} | {A_MOMENT: _last_moment(key)}

    def moment_wanted(self) -> bool:
        return bool(self.overlap.data == A_MOMENT)

    def until(self) -> datetime | None:
        """Return the moment chosen, None for at once. Only after the form was found valid."""
        return self.moment() if self.moment_wanted() else rotation.moment_after(self.overlap.data)

    def number(self) -> str | None:
        """The number by which a second sending of the form is known."""
        return _number_of(self.one_time_number)

    def take(self, error: InvalidInput) -> None:
        """As every form, but a fault of a moment stands where it was entered."""
        for name, sentence in error.fields.items():
            self.fault("date" if name == "overlap" and self.moment_wanted() else name, sentence)


class ConfirmForm(PortalForm):
    """An act whose page says all there is to say; only the button is left."""


class DeleteForm(PortalForm):
    """The last question before a key ends. ``name`` must be typed only when the key is in use."""

    name = StringField(
        "Type the key’s name to confirm",
        filters=[stripped],
        render_kw={"autocomplete": "off", "spellcheck": "false"},
    )

    def __init__(self, key: ApiKey, *, name_needed: bool) -> None:
        super().__init__()
        self.key = key
        if not name_needed:
            del self.name

    def validate_name(self, field: StringField) -> None:
        # A page shows several spaces as one, so they are compared as one.
        if (field.data or "").split() != self.key.name.split():
            raise ValidationError(f"Type “{self.key.name}” exactly as it is written")


def _preset_choices(role: Role = Role.OWNER) -> list[SelectChoice]:
    """The presets that somebody of that role may give, those for both kinds apart.

    ``data-`` attributes let the script count and choose.
    """
    everywhere, secret_only = "Secret and publishable keys", "Secret keys only"
    made = [
        SelectChoice(
            name,
            preset.title,
            {"data-scopes": str(len(preset.scopes))},
            everywhere if PUBLISHABLE_SCOPES.issuperset(preset.scopes) else secret_only,
        )
        for name, preset in PRESETS.items()
        if all(may_grant(role, scope) for scope in preset.scopes)
    ]
    by_hand = SelectChoice(ONE_BY_ONE, "Choose scopes one by one", optgroup=everywhere)
    return [choice for choice in made if choice.optgroup == secret_only] + [
        *(choice for choice in made if choice.optgroup == everywhere),
        by_hand,
    ]


def _expiry_choices() -> list[SelectChoice]:
    days = [(number, day(now() + timedelta(days=number))) for number in DAYS_OFFERED]
    return [
        *(SelectChoice(str(number), f"In {number} days ({on})", {"data-day": on}) for number, on in days),
        SelectChoice(ON_A_DATE, "On a date I choose"),
        SelectChoice(NEVER, "Never"),
    ]


def _present_expiry(key: ApiKey) -> str:
    if key.expires_at is None:
        return "As it is: never"
    return f"As it is: {'expired ' if key.expires_at <= now() else ''}{day(key.expires_at)}"


def _overlap_hint(name: str) -> str:
    span = rotation.OVERLAPS[name]
    if not span:
        return "Use this if it has leaked. Programs that still use it get error 403."
    return f"Until {exact(now() + span)}"


def _last_moment(key: ApiKey) -> str:
    if key.expires_at is None:
        return f"Enter it below, in {zone_name()}."
    return f"Not after the key itself expires, {exact(key.expires_at)}. Enter it below, in {zone_name()}."


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 10


def _number_of(field: HiddenField) -> str | None:
    return stripped(field.data)[:64] or None


def _read(text: str, form: str, sentence: str) -> datetime:
    try:
        return datetime.strptime(text, form).replace(tzinfo=UTC)
    except ValueError:
        raise ValidationError(sentence) from None
