"""Who passkeys are made for: the portal under its public address, and under no other."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from services.hosts import is_ip_address


@dataclass(frozen=True, slots=True)
class RelyingParty:
    """The portal as browsers name it to a passkey (WebAuthn level 3, "relying party")."""

    id: str
    origin: str
    name: str


def relying_party(public_url: str, name: str) -> RelyingParty | None:
    """Return who passkeys are made for under this address.

    None where browsers allow no passkeys: over plain HTTP, except on ``localhost``, and under an IP address.
    """
    url = urlsplit(public_url)
    host = (url.hostname or "").encode("idna").decode()
    local = host == "localhost" or host.endswith(".localhost")
    if not host or is_ip_address(host) or not (url.scheme == "https" or (url.scheme == "http" and local)):
        return None
    usual = {"https": 443, "http": 80}[url.scheme]
    port = f":{url.port}" if url.port not in (None, usual) else ""
    return RelyingParty(host, f"{url.scheme}://{host}{port}", name)
