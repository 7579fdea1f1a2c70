"""The plan table and the gate: which workspaces may have and use API keys."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from models import Workspace
from services.errors import PlanRequired

FIRST_PLAN = "starter"


@dataclass(frozen=True, slots=True)
class Plan:
    """A row of ``plans.toml``. ``requests_per_minute`` is 0 without API access."""

    name: str
    title: str
    price: str
    api_access: bool
    requests_per_minute: int


class PlanTable:
    """The plans of this portal by name."""

    def __init__(self, plans: Mapping[str, Plan]) -> None:
        self.plans = dict(plans)

    @classmethod
    def read(cls, path: Path) -> PlanTable:
        """Read the table. Raises ValueError with the end of a sentence when it cannot be used."""
        try:
            rows = tomllib.loads(path.read_text(encoding="utf-8"))
            plans = {name: _plan(name, row) for name, row in rows.items()}
        except (OSError, tomllib.TOMLDecodeError, KeyError, TypeError) as error:
            raise ValueError(f"names the plan table {path.name}, which cannot be read: {error!r}") from None
        except UnicodeDecodeError:
            raise ValueError(f"names the plan table {path.name}, which is not text in UTF-8") from None
        if FIRST_PLAN not in plans:
            raise ValueError(f"names the plan table {path.name} without {FIRST_PLAN!r}, on which workspaces begin")
        if not any(plan.api_access for plan in plans.values()):
            raise ValueError(f"names the plan table {path.name}, in which no plan has API access")
        return cls(plans)

    def plan_named(self, name: str) -> Plan:
        """Return the plan; one that has left the table gives no API access."""
        return self.plans.get(name) or Plan(name, name.capitalize(), "", api_access=False, requests_per_minute=0)

    def plan_of(self, workspace: Workspace) -> Plan:
        return self.plan_named(workspace.plan)

    def has_api_access(self, workspace: Workspace) -> bool:
        return self.plan_of(workspace).api_access

    def require_api_access(self, workspace: Workspace) -> None:
        """Raise PlanRequired unless the workspace may have API keys."""
        if not self.has_api_access(workspace):
            raise PlanRequired(f"API keys come with the {self.first_with_api_access.title} plan.")

    @property
    def first_with_api_access(self) -> Plan:
        """The cheapest plan with API access, which the gate offers."""
        return next(plan for plan in self.plans.values() if plan.api_access)

    def requests_per_minute(self, workspace: Workspace) -> int:
        """Return the workspace's limit: the operator's figure for it, or the plan's."""
        return workspace.requests_per_minute or self.plan_of(workspace).requests_per_minute


def _plan(name: str, row: Mapping[str, object]) -> Plan:
    access = bool(row["api_access"])
    limit = row["requests_per_minute"] if access else 0
    if not isinstance(limit, int) or (access and limit < 1):
        raise TypeError(f"requests_per_minute of plan {name}")
    return Plan(name, str(row["title"]), str(row["price"]), access, limit)
