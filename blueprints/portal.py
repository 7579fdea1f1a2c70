"""Flask, without what no request to ``/v1`` needs: the cookie's session and the hooks of the pages' extensions.

An API call is answered hundreds of times a second, and what guards forms and sessions can find nothing in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

from flask import Flask, Request, Response, request
from flask.sessions import SecureCookieSession, SecureCookieSessionInterface

API = "v1"
_API_PATH = f"/{API}/"


class PortalResponse(Response):
    """Hands an answer that is whole over in one piece, which the server sends with less ado than a stream."""

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if not self.is_sequence or self._on_close or environ["REQUEST_METHOD"] == "HEAD":
            return super().__call__(environ, start_response)
        app_iter, status, headers = self.get_wsgi_response(environ)
        start_response(status, headers)
        return [b"".join(app_iter)]


class PageSessions(SecureCookieSessionInterface):
    """The signed cookie of the pages. A call to ``/v1`` has none, whatever cookies it sends: a key alone opens it."""

    def open_session(self, app: Flask, request: Request) -> SecureCookieSession | None:
        return None if request.path.startswith(_API_PATH) else super().open_session(app, request)


class Portal(Flask):
    """A Flask app that knows which hooks are for pages only (``for_pages_only``)."""

    response_class = PortalResponse
    session_interface = PageSessions()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._for_pages = False
        self._page_hooks: list[Any] = []

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

    def preprocess_request(self) -> Any:
        if request.blueprint != API:
            return super().preprocess_request()
        for hook in self._before_api_call:
            if (answer := hook()) is not None:
                return answer
        return None

    def process_response(self, response: Response) -> Response:
        if request.blueprint != API:
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
