"""Writes mail from the templates in ``templates/mail``. Services get this as a function and know no template."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

from flask import Flask
from jinja2 import Environment, StrictUndefined

from blueprints.times import told_in_utc
from services.mail_transport import Texts


def mail_renderer(app: Flask) -> Callable[[str, Mapping[str, object]], Texts]:
    """Return the function that fills ``mail/<name>.txt`` and ``mail/<name>.html`` with words.

    Templates have the filters of pages, the settings that pages show, and ``link("keys.show", key_id=...)`` for the
    whole address of a page. A word that was forgotten is an error.
    """
    # Pages have their own idea of a missing word; and the environment is made when it is first asked for.
    environment = functools.cache(lambda: _environment(app))

    def render(name: str, words: Mapping[str, object]) -> Texts:
        link = functools.partial(_link, app)
        # The reader is somebody else than whoever acts, and may be in another zone.
        with told_in_utc():
            text, html = (
                environment().get_template(f"mail/{name}.{kind}").render(words, link=link) for kind in ("txt", "html")
            )
        return Texts(re.sub(r"\n{3,}", "\n\n", text).strip() + "\n", html.strip() + "\n")

    return render


def _environment(app: Flask) -> Environment:
    return app.jinja_env.overlay(undefined=StrictUndefined)


def _link(app: Flask, endpoint: str, **values: object) -> str:
    """Return a page's address as people reach it; mail is written where there may be no request."""
    url = urlsplit(app.config["PUBLIC_URL"])
    adapter = app.url_map.bind(url.netloc, script_name=url.path or "/", url_scheme=url.scheme)
    return adapter.build(endpoint, values, force_external=True)
