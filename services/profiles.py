"""A person's own settings: the name that others see, the zone of moments and days, light or dark."""

from __future__ import annotations

from models import User
from models.base import transaction
from services import names, time_zones
from services.errors import InvalidInput

THEMES = ("light", "dark")


def change(user: User, *, name: str, time_zone: str, theme: str | None) -> None:
    """Change all of it. An empty name means the address, no theme the system's. Raises InvalidInput."""
    name = name.strip()
    faults = {}
    if name and (fault := names.fault_of(name, "your name")):
        faults["name"] = fault
    if time_zone != user.time_zone and not time_zones.known(time_zone):
        faults["time_zone"] = "Choose a time zone"
    if theme is not None and theme not in THEMES:
        faults["theme"] = "Choose an appearance"
    if faults:
        raise InvalidInput(faults)
    with transaction() as session:
        user.name, user.time_zone, user.theme = name or None, time_zone, theme
        session.flush()
