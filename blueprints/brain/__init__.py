"""ARKAbrain: which model a prompt would get, and why."""

from blueprints.brain.routes import bp

__all__ = ["bp"]
