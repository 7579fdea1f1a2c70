"""Who does something: a person at a page, an API key, a command or the portal itself."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Actor:
    """Named in the audit log and on what was made. ``user_id`` is set when a person acts."""

    kind: str  # "user", "operator" at a page of theirs, "api_key", "command", "system", or "finder" of a key
    name: str
    id: str | None = None
    address: str | None = None
    client: str | None = None

    @property
    def user_id(self) -> str | None:
        return self.id if self.kind == "user" else None


SYSTEM = Actor(kind="system", name="The portal")
