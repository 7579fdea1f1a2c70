"""A person at a browser without JavaScript: opens pages, fills in forms, follows where the answer leads."""

from __future__ import annotations

from typing import Any

from flask import Flask
from werkzeug.test import TestResponse

from tests.pages.html import Html


class Visitor:
    """Wraps Flask's test client. CSRF is on, so a form is always read before it is sent."""

    def __init__(self, app: Flask) -> None:
        self.client = app.test_client()
        self.answer: TestResponse | None = None

    def open(self, path: str) -> Html:
        """Open a page and follow redirects."""
        return self._read(self.request("GET", path))

    def submit(self, path: str, button: tuple[str, str] | None = None, **values: Any) -> Html:
        """Open a page, fill in its form and send it; None leaves a field out, a list sends it several times."""
        return self.send(self.open(path), button, **values)

    def send(self, page: Html, button: tuple[str, str] | None = None, **values: Any) -> Html:
        """Fill in the form of a page that was read before and send it."""
        form = page.main_form
        unknown = set(values) - form.names
        assert not unknown, f"the form has no {unknown}"
        data: dict[str, Any] = {}
        for name, value in form.fields:
            data.setdefault(name, []).append(value)
        data.update(values)
        if button:
            data[button[0]] = button[1]
        sent = {name: value for name, value in data.items() if value is not None}
        return self._read(self.request("POST", form.action, data=sent))

    def post_by_hand(self, path: str, **values: Any) -> Html:
        """Send what no page offers, with a valid token."""
        return self._read(self.request("POST", path, data={"csrf_token": self.token(), **values}))

    def post_signed_out(self, path: str, **values: Any) -> Html:
        """Send what no page offers to who is not signed in, with a valid token."""
        token = dict(self.open("/sign-in").main_form.fields)["csrf_token"]
        return self._read(self.request("POST", path, data={"csrf_token": token, **values}))

    def token(self) -> str:
        """A CSRF token that holds for this browser."""
        return dict(self.open("/workspaces").forms[0].fields)["csrf_token"]

    def request(self, method: str, path: str, **more: Any) -> TestResponse:
        """Send one request and follow redirects."""
        answer = self.one_request(method, path, **more)
        while answer.status_code in (302, 303):
            answer = self.one_request("GET", answer.headers["Location"])
        return answer

    def one_request(self, method: str, path: str, **more: Any) -> TestResponse:
        """Send one request and follow nothing."""
        return self.client.open(path, method=method, **more)

    def sign_in(self, person: Any) -> Visitor:
        """Sign in with a person's e-mail address and password."""
        self.submit("/sign-in", email=person.email, password=person.password)
        assert self.path != "/sign-in", "the sign-in was refused"
        return self

    def look_at(self, person: Any) -> Visitor:
        """Choose a person's workspace to look at."""
        self.submit("/workspaces", button=("workspace", person.workspace_id))
        assert self.path == "/overview"
        return self

    @property
    def status(self) -> int:
        assert self.answer is not None
        return self.answer.status_code

    @property
    def path(self) -> str:
        """Where the last answer came from."""
        assert self.answer is not None
        return self.answer.request.path

    def _read(self, answer: TestResponse) -> Html:
        self.answer = answer
        return Html(answer.get_data(as_text=True))
