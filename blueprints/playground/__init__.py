"""Ask a model by hand, and the way to the first call of one's own program."""

from blueprints.playground.routes import bp

__all__ = ["bp"]
