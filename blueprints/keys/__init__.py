"""API keys: the list or the gate, a new key shown once, its facts, its end."""

from blueprints.keys.routes import bp

__all__ = ["bp"]
