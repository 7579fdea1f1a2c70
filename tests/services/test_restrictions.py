"""Restrictions: networks and origins agree with the standard library; slips are refused in words."""

from __future__ import annotations

import ipaddress
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services import restrictions
from services.errors import InvalidInput
from services.restrictions import address_allowed, model_allowed, origin_allowed


def read(kind: str = "secret", **values: Any) -> restrictions.Restrictions:
    return restrictions.read(kind, plan_limit=1000, **values)


def network_of(address: Any, prefix: int) -> Any:
    return ipaddress.ip_network((address, prefix), strict=False)


NETWORKS = st.one_of(
    st.builds(network_of, st.ip_addresses(v=4), st.integers(0, 32)),
    st.builds(network_of, st.ip_addresses(v=6), st.integers(0, 128)),
)


@st.composite
def addresses_near(draw: st.DrawFn, networks: list[Any]) -> Any:
    """An address in one of the networks, at its edge, just beyond it, or anywhere."""
    if not networks or draw(st.booleans()):
        return draw(st.ip_addresses())
    network = draw(st.sampled_from(networks))
    first, last = int(network.network_address), int(network.broadcast_address)
    number = draw(st.sampled_from([first - 1, first, last, last + 1]) | st.integers(first, last))
    most = 2**network.max_prefixlen - 1
    return (ipaddress.IPv4Address, ipaddress.IPv6Address)[network.version == 6](min(max(number, 0), most))


@given(st.data(), st.lists(NETWORKS, max_size=4))
def test_an_address_is_allowed_as_the_standard_library_says(data: st.DataObject, networks: list[Any]) -> None:
    address = data.draw(addresses_near(networks))
    found = read(networks=[str(network) for network in networks]).networks
    # An IPv4 address in IPv6 clothes is the IPv4 address, whichever way it is written.
    bare = getattr(address, "ipv4_mapped", None) or address
    expected = not networks or any(bare in network for network in networks if network.version == bare.version)
    assert address_allowed(str(address), found) == expected


@given(st.ip_addresses(v=4), st.integers(0, 32))
def test_an_ipv4_address_in_ipv6_clothes_is_the_ipv4_address(address: Any, prefix: int) -> None:
    network = str(ipaddress.ip_network((address, prefix), strict=False))
    assert address_allowed(f"::ffff:{address}", [network])


@pytest.mark.parametrize("address", ["", "unknown", "127.0.0.1:80", "localhost", "1.2.3", "\0"])
def test_what_is_no_address_is_not_allowed_where_there_is_a_list(address: str) -> None:
    assert not address_allowed(address, ["0.0.0.0/0"])


@pytest.mark.parametrize(
    "network", ["10.0.0.0/99", "10.0.0.1/8", "300.1.1.1", "10.0.0", "::1/200", "x", "10.0.0.0/8/8"]
)
def test_what_is_no_network_is_named(network: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        read(networks=["203.0.113.0/24", network])
    assert caught.value.fields == {"networks": f"“{network}” is not a network. Write it like 203.0.113.0/24"}


@pytest.mark.parametrize(
    ("entered", "kept"),
    [
        (" https://Shop.Example/ ", "https://shop.example"),
        ("https://shop.example:443", "https://shop.example"),
        ("http://localhost:3000", "http://localhost:3000"),
        ("http://[::1]:8080", "http://[::1]:8080"),
    ],
)
def test_an_origin_has_one_spelling(entered: str, kept: str) -> None:
    assert read("publishable", origins=[entered]).origins == (kept,)
    assert origin_allowed(kept, [kept])


HOSTS = st.sampled_from(
    ["shop.example", "a.shop.example", "shop.example.", "localhost", "127.0.0.1", "[::1]", "[2001:db8::1]",
     "[2001:DB8:0:0::1]", "xn--bcher-kva.example", "shop-2.example"]
)  # fmt: skip
PORTS = st.sampled_from(["", ":", ":80", ":443", ":0443", ":3000", ":1", ":65535"])
ADDRESSES = st.builds(
    "{}://{}{}{}".format, st.sampled_from(["http", "https"]), HOSTS, PORTS, st.sampled_from(["", "/"])
)


def truth_of(address: str) -> tuple[str, str, int]:
    """Scheme, host and port as the standard library reads them: two addresses with the same are one origin."""
    url = urlsplit(address)
    host = url.hostname or ""
    host = ipaddress.ip_address(host).compressed if ":" in host else host
    return url.scheme, host, url.port or {"http": 80, "https": 443}[url.scheme]


def as_browsers_write(address: str) -> str:
    """https://html.spec.whatwg.org/multipage/browsers.html#ascii-serialisation-of-an-origin"""
    scheme, host, port = truth_of(address)
    usual = {"http": 80, "https": 443}[scheme] == port
    return f"{scheme}://" + (f"[{host}]" if ":" in host else host) + ("" if usual else f":{port}")


@given(ADDRESSES, ADDRESSES, st.booleans())
def test_an_origin_is_allowed_as_the_standard_library_says(entered: str, visited: str, loud: bool) -> None:
    kept = read("publishable", origins=[entered.upper() if loud else entered]).origins
    assert kept == (as_browsers_write(entered),)
    assert origin_allowed(as_browsers_write(visited), kept) == (truth_of(entered) == truth_of(visited))


@pytest.mark.parametrize(
    "origin",
    ["shop.example", "https://", "https://shop.example/path", "https://a@shop.example", "ftp://shop.example",
     "https://*.shop.example", "null", "https://shop.example?x", "https://shop..example", "https://shop.example:99999",
     "http://[::1", "http://[1:2]", "https://shop.example#x", "https://shop.example?", "https://:443", "https://a b"],
)  # fmt: skip
def test_what_is_no_origin_is_named(origin: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        read("publishable", origins=[origin])
    assert list(caught.value.fields) == ["origins"]


@pytest.mark.parametrize(
    "other", ["http://shop.example", "https://shop.example:8443", "https://a.shop.example", "null", None]
)
def test_origins_are_compared_whole(other: str | None) -> None:
    assert not origin_allowed(other, ["https://shop.example"])


def test_without_a_list_everything_is_allowed() -> None:
    assert address_allowed("203.0.113.9", [])
    assert origin_allowed(None, [])
    assert model_allowed("gpt-4o", [])
    assert not model_allowed("gpt-4o-mini", ["gpt-4o"])


@pytest.mark.parametrize("limit", [0, -1, 1001])
def test_a_key_s_rate_is_below_the_plan_s(limit: int) -> None:
    with pytest.raises(InvalidInput, match="1 to the plan"):
        read(requests_per_minute=limit)


def test_all_slips_are_named_at_once() -> None:
    with pytest.raises(InvalidInput) as caught:
        read(networks=["x"], origins=["https://a.example"], models=["two words"], requests_per_minute=0)
    assert set(caught.value.fields) == {"networks", "origins", "models", "requests_per_minute"}


@pytest.mark.parametrize("zone", ["eth0", "a b", "a\u00a0b", "a\0b"])
def test_an_address_with_a_zone_is_no_network_and_no_origin(zone: str) -> None:
    """It means something on one machine only, and Python takes any text for one."""
    for name, value in (("networks", f"fe80::1%{zone}/128"), ("origins", f"https://[fe80::1%{zone}]")):
        with pytest.raises(InvalidInput) as refused:
            read("publishable", **{name: [value]})
        assert set(refused.value.fields) == {name}
