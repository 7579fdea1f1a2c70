"""OpenID Connect: what the portal says to an identity provider, and what it believes of the answer.

The authorization code flow with PKCE, state and nonce (OpenID Connect Core 1.0, RFC 7636, RFC 9700). Nothing of an
ID token counts before its signature, issuer, audience, times and nonce were checked.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import threading
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote_plus, urlencode, urlsplit

import orjson
import structlog
from joserfc import jwk, jwt
from joserfc.errors import InvalidKeyIdError, JoseError, SecurityWarning

from services.gateway.connections import Connections, Origin
from services.gateway.wire import Response
from services.identity_claims import LEEWAY_SECONDS, Claims, IdentityRefused, ProviderAway
from services.secret import Secret

# Providers go on calling Ed25519 by its older name.
warnings.filterwarnings("ignore", message="EdDSA is deprecated", category=SecurityWarning)

# Signed with a key of which the provider alone has the secret half. Never "none", and no HMAC.
ALGORITHMS = ["RS256", "ES256", "EdDSA", "Ed25519"]
_KEPT_SECONDS = 3600.0
# Keys are asked for again when a token names an unknown one, but not more often than this.
_LEAST_PAUSE_SECONDS = 30.0
_CONNECT_SECONDS = 3.0
# For one request to the provider, answer and all.
_TOTAL_SECONDS = 5.0
_MOST_BYTES = 1_000_000
_LONGEST_SUBJECT = 255

_log = structlog.get_logger("oidc")


@dataclass(frozen=True, slots=True)
class OidcSettings:
    """What the operator has set. ``domains`` are those whose addresses may make an account by it, none: all."""

    issuer: str
    client_id: str
    client_secret: Secret
    name: str
    redirect_uri: str
    domains: tuple[str, ...] = ()
    # Whether an address that the provider calls verified is enough to enter the account that has it.
    trusted: bool = False
    # Whether the provider's second factor stands for ours.
    second_factor: bool = False


class OidcProvider:
    """The identity provider of the settings. Its addresses and keys are fetched when needed, and kept an hour."""

    def __init__(self, settings: OidcSettings) -> None:
        self.settings = settings
        self._connections = Connections(connect_seconds=_CONNECT_SECONDS)
        self._lock = threading.Lock()
        self._metadata = _Kept()
        self._keys = _Kept()

    @property
    def name(self) -> str:
        """What the button calls it."""
        return self.settings.name

    def authorization_url(
        self, *, state: str, nonce: str, verifier: str, again: bool = False, dated: bool = False
    ) -> str:
        """Return where to send the browser. ``again`` asks the provider to have the person sign in anew, and ``dated``
        to say when they did (OpenID Connect Core 1.0, 3.1.2.1).

        Raises ProviderAway.
        """
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("=")
        asked = {
            "response_type": "code",
            "client_id": self.settings.client_id,
            "redirect_uri": self.settings.redirect_uri,
            "scope": "openid email",
            "state": state,
            "nonce": nonce,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        if again:
            asked["prompt"] = "login"
        if dated:
            asked["max_age"] = "0"
        endpoint = self._endpoint("authorization_endpoint")
        return endpoint + ("&" if urlsplit(endpoint).query else "?") + urlencode(asked)

    def claims(self, code: str, *, nonce: str, verifier: str) -> Claims:
        """Exchange the code for what the provider says of the person. Raises ProviderAway, IdentityRefused."""
        tokens = self._exchange(code, verifier)
        claims = self._checked(str(tokens.get("id_token", "")), nonce)
        if "email" not in claims and "userinfo_endpoint" in self._discovered():
            claims = {**self._userinfo(str(tokens.get("access_token", "")), claims["sub"]), **claims}
        email = claims.get("email")
        # Some providers send the word instead of the value.
        verified = claims.get("email_verified") in (True, "true")
        email = email if isinstance(email, str) and verified else None
        return Claims(self.settings.issuer, claims["sub"], email, _seconds(claims.get("auth_time")))

    # ---- what the provider answers

    def _exchange(self, code: str, verifier: str) -> dict[str, Any]:
        asked = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self.settings.redirect_uri,
            "code_verifier": verifier,
        }
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        methods = self._discovered().get("token_endpoint_auth_methods_supported") or ["client_secret_basic"]
        if "client_secret_basic" in methods:
            told = f"{quote_plus(self.settings.client_id)}:{quote_plus(self.settings.client_secret.reveal())}"
            headers["Authorization"] = "Basic " + base64.b64encode(told.encode()).decode()
        else:
            asked |= {"client_id": self.settings.client_id, "client_secret": self.settings.client_secret.reveal()}
        status, answer = self._ask("POST", self._endpoint("token_endpoint"), urlencode(asked).encode(), headers)
        if status == 200:
            return answer
        if 400 <= status < 500 and status != 429:
            # A code that was used or is too old; or the operator's client is set wrongly, which is for the log.
            _log.warning("identity provider refused the code", status=status, error=str(answer.get("error"))[:100])
            raise IdentityRefused
        raise _away(f"token endpoint answered {status}")

    def _userinfo(self, access_token: str, subject: str) -> dict[str, Any]:
        status, answer = self._ask(
            "GET", self._endpoint("userinfo_endpoint"), b"", {"Authorization": f"Bearer {access_token}"}
        )
        # The answer may belong to somebody else's token: OpenID Connect Core 5.3.2.
        if status != 200 or answer.get("sub") != subject:
            return {}
        return {name: answer[name] for name in ("email", "email_verified") if name in answer}

    def _checked(self, id_token: str, nonce: str) -> dict[str, Any]:
        """Return the claims of an ID token after every check. Raises IdentityRefused."""
        try:
            claims = dict(self._decoded(id_token).claims)
            registry = jwt.JWTClaimsRegistry(
                leeway=LEEWAY_SECONDS,
                iss={"essential": True, "value": self.settings.issuer},
                sub={"essential": True},
                aud={"essential": True, "value": self.settings.client_id},
                exp={"essential": True},
                iat={"essential": True},
            )
            registry.validate(claims)
        except (JoseError, ValueError, TypeError, KeyError) as error:
            _log.warning("id token refused", error=type(error).__name__)
            raise IdentityRefused from None
        if fault := _other_fault(claims, self.settings.client_id, nonce):
            _log.warning("id token refused", error=fault)
            raise IdentityRefused
        return claims

    def _decoded(self, id_token: str) -> jwt.Token:
        try:
            return jwt.decode(id_token, self._key_set(), algorithms=ALGORITHMS)
        except (InvalidKeyIdError, ValueError):
            # The provider may have changed its keys since.
            self._keys.expire(_LEAST_PAUSE_SECONDS)
            return jwt.decode(id_token, self._key_set(), algorithms=ALGORITHMS)

    def _key_set(self) -> jwk.KeySet:
        answer = self._fetched(self._keys, self._endpoint("jwks_uri"))
        # Others beside them may be of kinds that nobody here knows.
        keys = answer.get("keys", [])
        known = [key for key in keys if isinstance(key, dict) and key.get("kty") in ("RSA", "EC", "OKP")]
        return jwk.KeySet.import_key_set({"keys": known})

    def _discovered(self) -> dict[str, Any]:
        metadata = self._fetched(self._metadata, self.settings.issuer.rstrip("/") + "/.well-known/openid-configuration")
        if metadata.get("issuer") != self.settings.issuer:
            self._metadata.forget()
            raise _away("the provider calls itself by another name")
        return metadata

    def _endpoint(self, name: str) -> str:
        url = str(self._discovered().get(name, ""))
        parts = urlsplit(url)
        # An address without encryption only where the issuer itself has none, which the settings allow on loopback.
        if not parts.hostname or (parts.scheme != "https" and parts.scheme != urlsplit(self.settings.issuer).scheme):
            raise _away(f"no usable {name}")
        return url

    # ---- requests

    def _fetched(self, kept: _Kept, url: str) -> dict[str, Any]:
        with self._lock:
            if (found := kept.fresh()) is not None:
                return found
            try:
                status, answer = self._ask("GET", url, b"", {})
                if status != 200:
                    raise _away(f"{urlsplit(url).path} answered {status}")
            except ProviderAway:
                # What was known an hour ago is better than nobody getting in.
                if (found := kept.stale()) is not None:
                    return found
                raise
            kept.keep(answer)
            return answer

    def _ask(self, method: str, url: str, body: bytes, headers: Mapping[str, str]) -> tuple[int, dict[str, Any]]:
        """Send one request and read a JSON object. Redirects are not followed. Raises ProviderAway."""
        until = time.monotonic() + _TOTAL_SECONDS
        origin, path = Origin.of(url)
        target = path + (f"?{query}" if (query := urlsplit(url).query) else "")
        sent = {
            "Host": origin.name,
            "Accept": "application/json",
            "Connection": "close",
            "Content-Length": str(len(body)),
            **headers,
        }
        head = f"{method} {target} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in sent.items())
        try:
            connection = self._connections.open(origin, _TOTAL_SECONDS)
            try:
                connection.wait_seconds, connection.until = _TOTAL_SECONDS, until
                connection.send(head.encode("latin-1") + b"\r\n", body)
                response = connection.answer(method)
                content = _whole(response)
            finally:
                connection.close()
            answer = orjson.loads(content)
        except (OSError, ValueError) as error:
            raise _away(type(error).__name__) from error
        return response.status, answer if isinstance(answer, dict) else {}


def _whole(response: Response) -> bytes:
    """Return the body. Raises ValueError for one that is longer than any answer of a provider."""
    content = b""
    for piece in response.pieces():
        content += piece
        if len(content) > _MOST_BYTES:
            raise ValueError("too long")
    return content


class _Kept:
    """An answer of the provider, and when it was given."""

    def __init__(self) -> None:
        self._answer: dict[str, Any] | None = None
        self._at = 0.0

    def fresh(self) -> dict[str, Any] | None:
        return self._answer if time.monotonic() - self._at < _KEPT_SECONDS else None

    def stale(self) -> dict[str, Any] | None:
        return self._answer

    def keep(self, answer: dict[str, Any]) -> None:
        self._answer, self._at = answer, time.monotonic()

    def expire(self, least_age_seconds: float) -> None:
        """Have it fetched again, unless it was just now."""
        if time.monotonic() - self._at >= least_age_seconds:
            self._at = -_KEPT_SECONDS

    def forget(self) -> None:
        self._answer = None


def _other_fault(claims: Mapping[str, Any], client_id: str, nonce: str) -> str | None:
    """Return what else is wrong with the claims of a token, in a word for the log."""
    audience, subject = claims["aud"], claims["sub"]
    if isinstance(audience, list) and len(audience) > 1 and claims.get("azp") != client_id:
        return "azp"
    if not isinstance(subject, str) or not 0 < len(subject) <= _LONGEST_SUBJECT:
        return "sub"
    if not isinstance(claims.get("nonce"), str) or not hmac.compare_digest(claims["nonce"].encode(), nonce.encode()):
        return "nonce"
    return None


def _seconds(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _away(cause: str) -> ProviderAway:
    _log.warning("identity provider away", cause=cause)
    return ProviderAway()
