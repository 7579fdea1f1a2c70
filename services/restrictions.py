"""Where a key may be used from and for what: models, networks, browser origins, requests per minute, spending."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from services.errors import InvalidInput
from services.money import as_usd, read_usd

MOST_ENTRIES = 50
MOST_REQUESTS_PER_MINUTE = 1_000_000
_LONGEST_MODEL = 200

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class Restrictions:
    """What narrows a key. An empty list and None mean: not restricted. Made by ``read``, which checks it."""

    models: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    requests_per_minute: int | None = None
    daily_limit_nano_usd: int | None = None
    monthly_limit_nano_usd: int | None = None
    # Under a spending limit, models of unknown price are refused unless this is set.
    allow_unknown_price: bool = False

    @property
    def limits_spending(self) -> bool:
        return self.daily_limit_nano_usd is not None or self.monthly_limit_nano_usd is not None


def read(
    kind: str,
    *,
    models: Sequence[str] = (),
    networks: Sequence[str] = (),
    origins: Sequence[str] = (),
    requests_per_minute: int | None = None,
    plan_limit: int,
    daily_limit_usd: Any = None,
    monthly_limit_usd: Any = None,
    allow_unknown_price: bool = False,
) -> Restrictions:
    """Check what a customer entered and bring it into one spelling.

    The spending limits are texts or numbers of dollars; an empty text and None mean none. Raises InvalidInput with a
    sentence for each field, named as the parameters here.
    """
    faults: dict[str, str] = {}
    found: dict[str, tuple[str, ...]] = {}
    for name, values, spell in (
        ("models", models, _spell_model),
        ("networks", networks, _spell_network),
        ("origins", origins, _spell_origin),
    ):
        try:
            found[name] = tuple(dict.fromkeys(spell(value.strip()) for value in values if value.strip()))
            if len(found[name]) > MOST_ENTRIES:
                raise ValueError(f"Give at most {MOST_ENTRIES} entries")
        except ValueError as error:
            faults[name] = str(error)
    if found.get("origins") and kind != "publishable":
        faults["origins"] = "Origins are for publishable keys. A secret key is never used in a browser"
    if requests_per_minute is not None and not 1 <= requests_per_minute <= max(plan_limit, 1):
        faults["requests_per_minute"] = f"Give a number from 1 to the plan's {plan_limit:,}"
    amounts = read_amounts({"daily_limit_usd": daily_limit_usd, "monthly_limit_usd": monthly_limit_usd}, faults)
    if faults:
        raise InvalidInput(faults)
    return Restrictions(
        found["models"],
        found["networks"],
        found["origins"],
        requests_per_minute,
        amounts["daily_limit_usd"],
        amounts["monthly_limit_usd"],
        allow_unknown_price,
    )


def read_amounts(given: Mapping[str, Any], faults: dict[str, str]) -> dict[str, int | None]:
    """Return spending limits in nano-dollars by name, None for an empty one; adds a sentence for each wrong one."""
    found: dict[str, int | None] = dict.fromkeys(given)
    for name, value in given.items():
        if value is None or value == "":
            continue
        try:
            found[name] = read_usd(value)
        except ValueError as error:
            faults[name] = str(error)
    return found


@lru_cache(maxsize=4096)
def network_of(address: str) -> str:
    """Return whose address it is for a limit: an IPv4 address, or the 64 bits that one customer of a network has."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    return str(ipaddress.ip_network((parsed, 64), strict=False)) if parsed.version == 6 else address


def is_loopback(address: str) -> bool:
    """Tell whether a request comes from this machine: by loopback, or a Unix socket, which has no address."""
    return address.removeprefix("::ffff:").startswith("127.") or address in ("::1", "")


def address_allowed(address: str, networks: Sequence[str]) -> bool:
    """Tell whether an address lies in one of the networks; an IPv4 address in IPv6 clothes counts as IPv4."""
    if not networks:
        return True
    try:
        found: Address = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        found = found.ipv4_mapped
    return any(found in _network(network) for network in networks)


def origin_allowed(origin: str | None, origins: Sequence[str]) -> bool:
    """Tell whether a browser's origin is on the list. Origins are compared whole (RFC 6454, section 6.2).

    Without a list every origin may; a caller that is no browser sends none, and is not let in where there is a list.
    """
    return not origins or (origin is not None and origin in origins)


def model_allowed(model: str, models: Sequence[str]) -> bool:
    return not models or model in models


def widened(inner: Restrictions, outer: Restrictions) -> dict[str, str]:
    """Return a sentence for each field in which ``inner`` lets through what ``outer`` does not; empty when in none."""
    faults = {}
    if outer.models and not (inner.models and set(inner.models) <= set(outer.models)):
        faults["models"] = f"Name models out of those of the key that asks: {', '.join(outer.models)}"
    if outer.networks and not (inner.networks and all(_lies_in(network, outer.networks) for network in inner.networks)):
        faults["networks"] = f"Name networks within those of the key that asks: {', '.join(outer.networks)}"
    if outer.origins and not (inner.origins and set(inner.origins) <= set(outer.origins)):
        faults["origins"] = f"Name origins out of those of the key that asks: {', '.join(outer.origins)}"
    most = outer.requests_per_minute
    if most is not None and (inner.requests_per_minute is None or inner.requests_per_minute > most):
        faults["requests_per_minute"] = f"Give a number from 1 to {most:,}, which the key that asks has itself"
    for name in ("daily_limit", "monthly_limit"):
        own, asked = getattr(outer, f"{name}_nano_usd"), getattr(inner, f"{name}_nano_usd")
        if own is not None and (asked is None or asked > own):
            faults[f"{name}_usd"] = f"Give at most {as_usd(own)} US dollars, the limit of the key that asks"
    if outer.limits_spending and inner.allow_unknown_price and not outer.allow_unknown_price:
        faults["allow_unknown_price"] = "The key that asks may not call models of unknown price itself"
    return faults


def as_dict(restrictions: Restrictions) -> Mapping[str, object]:
    """Return what the API and the audit log show."""
    return {
        "models": list(restrictions.models),
        "networks": list(restrictions.networks),
        "origins": list(restrictions.origins),
        "requests_per_minute": restrictions.requests_per_minute,
        "daily_limit_usd": _usd(restrictions.daily_limit_nano_usd),
        "monthly_limit_usd": _usd(restrictions.monthly_limit_nano_usd),
        "allow_unknown_price": restrictions.allow_unknown_price,
    }


def _usd(nano_usd: int | None) -> str | None:
    return None if nano_usd is None else as_usd(nano_usd)


def _lies_in(text: str, networks: Sequence[str]) -> bool:
    inner = _network(text)
    # Of one version, which the types cannot tell.
    outers: list[Any] = [outer for outer in map(_network, networks) if outer.version == inner.version]
    # Collapsed, because two neighbours may hold together what neither holds alone.
    return any(inner.subnet_of(outer) for outer in ipaddress.collapse_addresses(outers))


@lru_cache(maxsize=4096)
def _network(text: str) -> Network:
    return ipaddress.ip_network(text)


def _spell_model(text: str) -> str:
    if len(text) > _LONGEST_MODEL or not text.isprintable() or " " in text:
        raise ValueError(f"“{text[:60]}” is not the name of a model. Write it like gpt-4o")
    return text


def _spell_network(text: str) -> str:
    try:
        # Strict: bits beyond the mask are a slip of the pen that would widen what was meant.
        # A zone, as in fe80::1%eth0, means something on one machine only; Python takes any text for one.
        network = ipaddress.ip_network(text.replace("%", " "))
    except ValueError:
        raise ValueError(f"“{text[:60]}” is not a network. Write it like 203.0.113.0/24") from None
    return str(network)


def _spell_origin(text: str) -> str:
    """Write an origin as browsers do (https://html.spec.whatwg.org/#ascii-serialisation-of-an-origin)."""
    try:
        url = urlsplit(text.lower())
        port = f":{url.port}" if url.port is not None and (url.scheme, url.port) not in _USUAL_PORTS else ""
        host = _spell_host(url.hostname or "")
    except ValueError:
        raise ValueError(_NO_ORIGIN.format(text[:60])) from None
    bare = url.path in ("", "/") and url.username is None and "?" not in text and "#" not in text
    if url.scheme not in ("http", "https") or not bare:
        raise ValueError(_NO_ORIGIN.format(text[:60]))
    return f"{url.scheme}://{host}{port}"


_NO_ORIGIN = "“{}” is not an origin. Write it like https://shop.example"
_USUAL_PORTS = {("http", 80), ("https", 443)}


def _spell_host(host: str) -> str:
    """Raises ValueError."""
    if ":" in host:
        if "%" in host:
            raise ValueError(host)
        return f"[{ipaddress.IPv6Address(host).compressed}]"
    letters = host.replace("-", "").replace(".", "")
    if not (0 < len(host) <= 253 and letters.isascii() and letters.isalnum() and ".." not in host):
        raise ValueError(host)
    return host
