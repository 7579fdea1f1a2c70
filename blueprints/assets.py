"""Style sheets, script and icons: read once at start, compressed, under an address that changes with the content.

Bootstrap's style sheet comes out of the installed Bootstrap-Flask package; nothing is loaded from another host.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.resources
import mimetypes
from dataclasses import dataclass
from pathlib import Path

from flask import Blueprint, Flask, Response, current_app, request, url_for

from blueprints.guards import public
from services.errors import NotFound

bp = Blueprint("assets", __name__)

_OURS = ("portal.css", "portal.js", "passkeys.js", "icons.svg", "mark.svg")
_BOOTSTRAP = "static/bootstrap5/css/bootstrap.min.css"


@dataclass(frozen=True, slots=True)
class Asset:
    """A file to serve, plain and compressed."""

    content: bytes
    compressed: bytes
    version: str
    content_type: str


def init_app(app: Flask) -> None:
    """Read the files, serve them, and let templates name them with ``asset("portal.css")``."""
    found = {name: _read(name, (Path(app.root_path) / "static" / name).read_bytes()) for name in _OURS}
    bootstrap = importlib.resources.files("flask_bootstrap").joinpath(_BOOTSTRAP)
    found["bootstrap.min.css"] = _read("bootstrap.min.css", bootstrap.read_bytes())
    app.extensions["assets"] = found
    app.register_blueprint(bp)
    app.jinja_env.globals["asset"] = lambda name: url_for("assets.show", version=found[name].version, name=name)


@bp.get("/assets/<version>/<name>")
@public("style, script and icons are the same for everybody")
def show(version: str, name: str) -> Response:
    asset: Asset | None = current_app.extensions["assets"].get(name)
    if asset is None:
        raise NotFound
    return _response(asset, current=version == asset.version)


def _read(name: str, content: bytes) -> Asset:
    kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
    charset = "" if kind == "image/svg+xml" else "; charset=utf-8"
    return Asset(content, gzip.compress(content, mtime=0), hashlib.sha256(content).hexdigest()[:12], kind + charset)


def _response(asset: Asset, *, current: bool) -> Response:
    small = "gzip" in request.headers.get("Accept-Encoding", "")
    response = Response(asset.compressed if small else asset.content, content_type=asset.content_type)
    response.headers["Vary"] = "Accept-Encoding"
    if small:
        response.headers["Content-Encoding"] = "gzip"
    # An old address gets the present content, but must not keep it.
    response.headers["Cache-Control"] = "public, max-age=31536000, immutable" if current else "no-cache"
    return response
