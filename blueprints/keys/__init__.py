"""API keys: the list or the gate, a new key shown once, its facts, its changes, its end."""

from blueprints.keys import refusals, rotation, routes
from blueprints.keys.common import bp

__all__ = ["bp", "refusals", "rotation", "routes"]
