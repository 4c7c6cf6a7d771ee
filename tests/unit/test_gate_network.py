"""What can be asked for as the network of a sandbox."""

from __future__ import annotations

import json

import pytest

from pocket_dock_mcp.errors import InvalidArgumentError
from pocket_dock_mcp.gate.rules import MAX_DOMAINS, parse_network
from pocket_dock_mcp.models import Network
from pocket_dock_mcp.policy import engine_network


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("none", "none"),
        ("packages", "packages"),
        ("open", "open"),
        (False, "none"),
        (True, "open"),
        (["packages"], "packages"),
        ("example.com", ("example.com",)),
        ("b.example, a.example", ("a.example", "b.example")),
        (["Example.COM.", "example.com"], ("example.com",)),
        (["*.Example.com"], ("*.example.com",)),
        (["example.com:8443", "example.com"], ("example.com", "example.com:8443")),
        (["xn--bcher-kva.example"], ("xn--bcher-kva.example",)),
        (["_dmarc.example.com"], ("_dmarc.example.com",)),
        (["192.0.2.7", "192.0.2.7:22"], ("192.0.2.7", "192.0.2.7:22")),
        (["2001:DB8::1", "[2001:db8:0::1]:8443", "[::1]"], ("[2001:db8::1]", "[2001:db8::1]:8443", "[::1]")),
        (["localhost:8000", "LocalHost"], ("localhost", "localhost:8000")),
        (("a.example",), ("a.example",)),
    ],
)
def test_a_network_has_one_spelling(said: object, meant: Network) -> None:
    network = parse_network(said)
    assert network == meant
    assert parse_network(network) == meant


@pytest.mark.parametrize(
    ("said", "says"),
    [
        (None, "must be 'none', 'packages'"),
        (7, "must be 'none'"),
        (["a.example", 7], "must be 'none'"),
        ({"a.example": 1}, "must be 'none'"),
        (b"none", "must be 'none'"),
        ("", "empty"),
        ([], "empty"),
        ([" ", ""], "empty"),
        ("opne", "must be 'none', 'packages'"),
        ("NONE", "must be 'none'"),
        (["open", "a.example"], "stands alone"),
        (["com", "a.example"], "no dot"),
        ("*.com", "whole top-level domain"),
        ("*", "first label"),
        ("a.*.example", "first label"),
        ("*a.example", "first label"),
        ("*.*.example", "first label"),
        ("*.localhost", "top-level"),
        ("https://example.com", "host alone"),
        ("example.com/path", "host alone"),
        ("user@example.com", "host alone"),
        ("example.com:0", "1 to 65535"),
        ("example.com:65536", "1 to 65535"),
        ("example.com:http", "1 to 65535"),
        ("example.com:", "1 to 65535"),
        ("exa mple.com", "no name"),
        ("example..com", "no name"),
        (".example.com", "no name"),
        ("-a.example", "no name"),
        ("a-.example", "no name"),
        ("a" * 64 + ".example", "no name"),
        (".".join(["a" * 40] * 7), "no name"),
        ("a" * 100_000 + ".example", "too long"),
        ("example.com\0", "no name"),
        ("ex\nample.com", "no name"),
        # What only looks like a name, or like another one.
        ("\u0430pple.com", "xn--pple-43d.com"),
        ("example\u3002com", "ASCII"),
        ("1.2.3.4.", "four decimal numbers"),
        ("2130706433.", "four decimal numbers"),
        ("127.1", "four decimal numbers"),
        ("0x7f.0x1", "four decimal numbers"),
        ("0x7f000001", "four decimal numbers"),
        ("0177.0.0.1", "four decimal numbers"),
        ("127.0.0.01", "four decimal numbers"),
        ("1.2.3.4.5", "four decimal numbers"),
        ("*.1.2", "four decimal numbers"),
        ("[::ffff:127.0.0.1]", "127.0.0.1"),
        ("::ffff:7f00:1", "127.0.0.1"),
        ("fe80::1%eth0", "no name"),
        ("[fe80::1%1]", "no address"),
        ("[127.0.0.1]", "no address"),
        ("[::1", "no address"),
        ("[::1]8443", "no address"),
        ("0.0.0.0", "one machine"),
        ("[::]:80", "one machine"),
        ("255.255.255.255", "one machine"),
        ("224.0.0.1", "one machine"),
        ([f"a{n}.example" for n in range(MAX_DOMAINS + 1)], "at most 100"),
    ],
)
def test_what_is_no_network_is_refused_with_the_fix(said: object, says: str) -> None:
    with pytest.raises(InvalidArgumentError) as error:
        parse_network(said)
    assert says in str(error.value)
    assert len(str(error.value)) < 700


def test_only_open_is_the_engines_own_network() -> None:
    assert [engine_network(n) for n in ("none", "packages", "open", ("a.example",))] == [
        "none",
        "none",
        "open",
        "none",
    ]


def test_a_list_goes_through_json_as_it_is() -> None:
    network = parse_network(["b.example", "a.example"])
    assert parse_network(json.loads(json.dumps(network))) == network
