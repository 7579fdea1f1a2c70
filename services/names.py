"""Names that people give: to themselves and to their workspaces. They stand in mail to others."""

from __future__ import annotations

import re

LENGTH = 60
# Nobody is to send advertisements in our mail by a name.
_LINK = re.compile(r"://|\bwww\.|@", re.IGNORECASE)


def fault_of(name: str, what: str) -> str | None:
    """Return what is wrong with a name, as a sentence; ``what`` says whose it is: ``a name for the workspace``."""
    if not name:
        return f"Enter {what}"
    if len(name) > LENGTH:
        return f"Use at most {LENGTH} characters"
    if not name.isprintable():
        return "Use printable characters on one line"
    if _LINK.search(name):
        return "Use a name without an address in it"
    return None
