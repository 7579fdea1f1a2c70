"""Flask, without what no request to ``/v1`` needs: the cookie's session and the hooks of the pages' extensions.

An API call is answered hundreds of times a second, and what guards forms and sessions can find nothing in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

from flask import Flask, Request, Response, current_app, g, request
from flask.sessions import NullSession, SecureCookieSession, SecureCookieSessionInterface
from werkzeug.routing import MapAdapter
from werkzeug.sansio.utils import get_content_length

from extensions import db
from services.gateway.stream import Stream

# The objects behind Flask's proxies. A proxy finds its object anew for each attribute, which is a good part of the time
# that a call to ``/v1`` takes. Outside of a request they raise RuntimeError, as the proxies do.
current_request: Callable[[], PortalRequest] = request._get_current_object  # type: ignore[attr-defined]
current_g: Callable[[], Any] = g._get_current_object
current_portal: Callable[[], Portal] = current_app._get_current_object  # type: ignore[attr-defined]

API = "v1"
_API_PATH = f"/{API}/"
_AS_FLASK_ASKS = {"return_rule": True}


class PortalRequest(Request):
    """A request whose body may have been taken whole (``blueprints.v1.body``)."""

    body: bytes | None = None

    @property
    def content_length(self) -> int | None:
        # As werkzeug has it, without its view of the headers in between.
        environ = self.environ
        return get_content_length(environ.get("CONTENT_LENGTH"), environ.get("HTTP_TRANSFER_ENCODING"))

    def close(self) -> None:
        # Only a form that was read can have files.
        if "files" in self.__dict__:
            super().close()


class PortalResponse(Response):
    """Hands an answer that is whole over in one piece, which the server sends with less ado than a stream, and a stream
    of a provider as it is.

    Made of a list of bytes, its length is written only then.
    """

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        # A status that may bring a Location, or no body, is for werkzeug to put right.
        plain = self.status_code == 200 or self.status_code >= 400
        if not plain or self._on_close or environ["REQUEST_METHOD"] == "HEAD":
            return super().__call__(environ, start_response)
        if isinstance(self.response, Stream):
            start_response(self.status, list(self.headers))
            return self.response
        if not self.is_sequence:
            return super().__call__(environ, start_response)
        body = b"".join(self.iter_encoded())
        headers = [header for header in self.headers if header[0] != "Content-Length"]
        start_response(self.status, [*headers, ("Content-Length", str(len(body)))])
        return [body]


class PageSessions(SecureCookieSessionInterface):
    """The signed cookie of the pages. A call to ``/v1`` has none, whatever cookies it sends: a key alone opens it."""

    _none = NullSession()

    def open_session(self, app: Flask, request: Request) -> SecureCookieSession | None:
        return self._none if request.path.startswith(_API_PATH) else super().open_session(app, request)


class _ApiAddresses(MapAdapter):
    """Finds an address that has no variable part in one look, when it was found before: ``known`` has those."""

    def __init__(self, known: dict[tuple[str, str], Any], *args: Any) -> None:
        super().__init__(*args)
        self._known = known

    def match(self, *args: Any, **options: Any) -> Any:
        if args or options != _AS_FLASK_ASKS or self.websocket:
            return super().match(*args, **options)
        place = (self.default_method, self.path_info)
        found = self._known.get(place)
        if found is None:
            found = super().match(**options)
            if found[0].rule == self.path_info:
                self._known[place] = found
        return found


class Portal(Flask):
    """A Flask app that knows which hooks are for pages only (``for_pages_only``)."""

    request_class = PortalRequest
    response_class = PortalResponse
    session_interface = PageSessions()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._for_pages = False
        self._page_hooks: list[Any] = []
        self._api_addresses: dict[tuple[str, str], Any] = {}

    @contextmanager
    def for_pages_only(self) -> Iterator[None]:
        """Let the hooks that are registered in this block leave the endpoints of ``/v1`` alone."""
        self._for_pages = True
        yield
        self._for_pages = False

    def before_request(self, f: Any) -> Any:
        self._note(f)
        return super().before_request(f)

    def after_request(self, f: Any) -> Any:
        self._note(f)
        return super().after_request(f)

    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        # No view or hook of ours is a coroutine, so there is no need to look at each of them in each request.
        return func

    def create_url_adapter(self, request: Request | None) -> MapAdapter | None:
        # Addresses of the API are the same for every host, which is looked at elsewhere.
        if request is None or not request.path.startswith(_API_PATH):
            return super().create_url_adapter(request)
        environ = request.environ
        return _ApiAddresses(
            self._api_addresses,
            self.url_map,
            environ.get("HTTP_HOST", ""),
            "/",
            "",
            environ["wsgi.url_scheme"],
            request.path,
            environ["REQUEST_METHOD"],
            environ.get("QUERY_STRING", ""),
        )

    def preprocess_request(self) -> Any:
        if current_request().blueprint != API:
            return super().preprocess_request()
        for hook in self._before_api_call:
            if (answer := hook()) is not None:
                return answer
        return None

    def do_teardown_request(self, *args: Any) -> None:
        # The one hook there is belongs to the extension that limits pages.
        if current_request().blueprint != API:
            super().do_teardown_request(*args)

    def do_teardown_appcontext(self, *args: Any) -> None:
        # The one hook there is gives back the database session, of which most calls to the API have none.
        if not current_g().get("api") or db.session.registry.has():
            super().do_teardown_appcontext(*args)

    def process_response(self, response: Response) -> Response:
        if current_request().blueprint != API:
            return super().process_response(response)
        for hook in self._after_api_call:
            response = hook(response)
        return response

    # Looked up once: nothing is registered after the first request.

    @cached_property
    def _before_api_call(self) -> list[Any]:
        hooks = [*self.before_request_funcs[None], *self.before_request_funcs[API]]
        return [hook for hook in hooks if hook not in self._page_hooks]

    @cached_property
    def _after_api_call(self) -> list[Any]:
        hooks = [*reversed(self.after_request_funcs[API]), *reversed(self.after_request_funcs[None])]
        return [hook for hook in hooks if hook not in self._page_hooks]

    def _note(self, hook: Any) -> None:
        if self._for_pages:
            self._page_hooks.append(hook)
