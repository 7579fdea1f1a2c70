"""An OpenID Connect provider: a real HTTP server on loopback that signs with keys of its own.

It checks what a provider has to: the client, its secret, the redirect address, PKCE, and that a code is used once. What
it puts into a token can be changed by the test, to see that the portal does not believe it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import parse_qs, parse_qsl, unquote_plus, urlencode, urlsplit

from joserfc import jwk, jwt

CLIENT_ID, CLIENT_SECRET = "portal client", "secret: of the portal & more"
_KINDS: dict[str, Any] = {
    "ES256": lambda kid: jwk.ECKey.generate_key("P-256", {"kid": kid}),
    "RS256": lambda kid: jwk.RSAKey.generate_key(2048, {"kid": kid}),
    "EdDSA": lambda kid: jwk.OKPKey.generate_key("Ed25519", {"kid": kid}),
}


@dataclass
class Person:
    """Who is signed in at the provider."""

    subject: str = "person-1"
    email: str | None = "erin@new.example"
    email_verified: object = True


@dataclass
class OidcProvider:
    """The provider as a test sees it. ``claims`` and ``header`` are put over what it would say itself."""

    url: str = ""
    algorithm: str = "ES256"
    person: Person = field(default_factory=Person)
    claims: dict[str, Any] = field(default_factory=dict)
    header: dict[str, Any] = field(default_factory=dict)
    # "none" signs nothing, "hmac" signs with the client's secret, "forged" with a key that nobody published.
    signature: str = ""
    # Whether the address is told at the userinfo endpoint alone.
    email_by_userinfo: bool = False
    metadata: dict[str, Any] = field(default_factory=dict)
    # Status that every endpoint answers with instead.
    fault: int | None = None
    delay_seconds: float = 0.0
    # Where the portal listens, when that is not where its settings say.
    back_to: str = ""
    requests: list[str] = field(default_factory=list)
    asked: dict[str, str] = field(default_factory=dict)
    codes: dict[str, dict[str, str]] = field(default_factory=dict)
    tokens: dict[str, Person] = field(default_factory=dict)
    key: Any = None

    def change_key(self) -> None:
        """Sign with a fresh key from now on, and publish that alone."""
        self.key = _KINDS[self.algorithm](secrets.token_hex(4))

    def approve(self, url: str) -> str:
        """Open the page to which the portal has sent the browser, and return the address it leads back to."""
        try:
            with _opener.open(url, timeout=10):
                raise AssertionError("the provider did not lead back")
        except urllib.error.HTTPError as answer:
            if answer.code != 302:
                raise AssertionError(f"the provider answered {answer.code}: {answer.read()!r}") from None
            return str(answer.headers["Location"])

    def document(self) -> dict[str, Any]:
        endpoints = {f"{name}_endpoint": f"{self.url}/{name}" for name in ("authorization", "token", "userinfo")}
        return {"issuer": self.url, "jwks_uri": f"{self.url}/jwks", **endpoints, **self.metadata}

    def id_token(self, nonce: str, auth_time: str | None = None) -> str:
        now = int(time.time())
        claims: dict[str, Any] = {
            "iss": self.url,
            "sub": self.person.subject,
            "aud": CLIENT_ID,
            "iat": now,
            "exp": now + 300,
            "nonce": nonce,
        }
        if self.person.email and not self.email_by_userinfo:
            claims |= {"email": self.person.email, "email_verified": self.person.email_verified}
        if auth_time:
            claims["auth_time"] = int(auth_time)
        claims = {name: value for name, value in {**claims, **self.claims}.items() if value is not None}
        header = {"alg": self.algorithm, "kid": self.key.kid, **self.header}
        if self.signature == "none":
            return ".".join([_encoded({"alg": "none"}), _encoded(claims), ""])
        if self.signature == "hmac":
            shared = jwk.OctKey.import_key(CLIENT_SECRET.ljust(32, "x"))
            return jwt.encode({"alg": "HS256", "kid": self.key.kid}, claims, shared)
        key = _KINDS[self.algorithm](self.key.kid) if self.signature == "forged" else self.key
        return jwt.encode(header, claims, key, algorithms=[self.algorithm])


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_args: Any) -> None:
        return None


_opener = urllib.request.build_opener(_NoRedirect)


def _encoded(value: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


class _Handler(BaseHTTPRequestHandler):
    provider: ClassVar[OidcProvider]

    def do_GET(self) -> None:
        self._answer({})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._answer({name: values[0] for name, values in parse_qs(body.decode()).items()})

    def _answer(self, form: dict[str, str]) -> None:
        provider, url = self.provider, urlsplit(self.path)
        provider.requests.append(url.path)
        time.sleep(provider.delay_seconds)
        if provider.fault is not None:
            self._send(provider.fault, {})
        elif url.path == "/.well-known/openid-configuration":
            self._send(200, provider.document())
        elif url.path == "/jwks":
            self._send(200, {"keys": [provider.key.as_dict(private=False)]})
        elif url.path == "/authorization":
            self._authorize(dict(parse_qsl(url.query)))
        elif url.path == "/token":
            self._token(form)
        elif url.path == "/userinfo":
            self._userinfo()
        else:
            self._send(404, {})

    def _authorize(self, asked: dict[str, str]) -> None:
        right = (asked["response_type"], asked["client_id"], asked["code_challenge_method"])
        if right != ("code", CLIENT_ID, "S256") or not {"openid", "email"} <= set(asked["scope"].split()):
            return self._send(400, {"error": "invalid_request"})
        self.provider.asked = asked
        code = secrets.token_hex(8)
        # Who is asked to say when signs in now; what the test says instead is put over it.
        self.provider.codes[code] = asked | ({"auth_time": str(int(time.time()))} if "max_age" in asked else {})
        self.send_response(302)
        back = self.provider.back_to + urlsplit(asked["redirect_uri"]).path if self.provider.back_to else ""
        answer = urlencode({"code": code, "state": asked["state"]})
        self.send_header("Location", f"{back or asked['redirect_uri']}?{answer}")
        self.send_header("Content-Length", "0")
        self.end_headers()
        return None

    def _token(self, form: dict[str, str]) -> None:
        kind, _, told = self.headers.get("Authorization", "").partition(" ")
        name, _, secret = base64.b64decode(told).decode().partition(":") if kind == "Basic" else ("", "", "")
        if (unquote_plus(name), unquote_plus(secret)) != (CLIENT_ID, CLIENT_SECRET):
            return self._send(401, {"error": "invalid_client"})
        asked = self.provider.codes.pop(form.get("code", ""), None)
        digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).decode().rstrip("=")
        if not asked or asked["code_challenge"] != challenge or asked["redirect_uri"] != form["redirect_uri"]:
            return self._send(400, {"error": "invalid_grant"})
        token = secrets.token_hex(8)
        self.provider.tokens[token] = self.provider.person
        id_token = self.provider.id_token(asked["nonce"], asked.get("auth_time"))
        return self._send(200, {"access_token": token, "token_type": "Bearer", "id_token": id_token})

    def _userinfo(self) -> None:
        person = self.provider.tokens[self.headers["Authorization"].removeprefix("Bearer ")]
        told = {"email": person.email, "email_verified": person.email_verified}
        self._send(200, {"sub": person.subject, **told})

    def _send(self, status: int, answer: dict[str, Any]) -> None:
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_args: Any) -> None:
        """Nothing is logged."""


def settings_of(provider: OidcProvider) -> dict[str, str]:
    """The settings of a portal whose people sign in at the provider."""
    return {
        "ARKA_OIDC_ISSUER": provider.url,
        "ARKA_OIDC_CLIENT_ID": CLIENT_ID,
        "ARKA_OIDC_CLIENT_SECRET": CLIENT_SECRET,
        "ARKA_OIDC_NAME": "Northwind ID",
    }


@contextmanager
def running_oidc_provider(algorithm: str = "ES256") -> Iterator[OidcProvider]:
    """Yield a provider that listens."""
    provider = OidcProvider(algorithm=algorithm)
    provider.change_key()
    handler = type("Handler", (_Handler,), {"provider": provider})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    provider.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield provider
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
