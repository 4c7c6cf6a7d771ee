"""Which names and addresses a sandbox may reach, whatever way they are spelt."""

from __future__ import annotations

import ipaddress
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocket_dock_mcp.gate.addresses import (
    LINK_LOCAL,
    LOOPBACK,
    METADATA,
    OWN,
    PRIVATE,
    RESERVED,
    is_own,
    kind,
)
from pocket_dock_mcp.gate.domains import is_name, literal
from pocket_dock_mcp.gate.rules import NOT_ALLOWED, PORT_NOT_ALLOWED, Rules
from pocket_dock_mcp.gate.targets import Target, parse_authority, parse_url


@pytest.mark.parametrize(
    ("address", "what"),
    [
        ("127.0.0.1", LOOPBACK),
        ("127.255.255.254", LOOPBACK),
        ("::1", LOOPBACK),
        ("::ffff:127.0.0.1", LOOPBACK),
        ("64:ff9b::7f00:1", LOOPBACK),
        ("169.254.1.1", LINK_LOCAL),
        ("fe80::1", LINK_LOCAL),
        ("::ffff:169.254.7.7", LINK_LOCAL),
        ("169.254.169.254", METADATA),
        ("169.254.170.2", METADATA),
        ("::ffff:169.254.169.254", METADATA),
        ("64:ff9b::a9fe:a9fe", METADATA),
        ("fd00:ec2::254", METADATA),
        ("fd20:ce::254", METADATA),
        ("168.63.129.16", METADATA),
        ("100.100.100.200", METADATA),
        ("192.0.0.192", METADATA),
        ("10.0.0.1", PRIVATE),
        ("172.16.0.1", PRIVATE),
        ("172.31.255.255", PRIVATE),
        ("192.168.1.1", PRIVATE),
        ("100.64.0.1", PRIVATE),
        ("100.127.255.255", PRIVATE),
        ("fc00::1", PRIVATE),
        ("fdff::1", PRIVATE),
        ("fec0::1", PRIVATE),
        ("::ffff:10.1.2.3", PRIVATE),
        ("0.0.0.0", RESERVED),
        ("0.1.2.3", RESERVED),
        ("::", RESERVED),
        ("::127.0.0.1", RESERVED),
        ("192.0.0.8", RESERVED),
        ("192.88.99.1", RESERVED),
        ("198.18.0.1", RESERVED),
        ("224.0.0.1", RESERVED),
        ("ff02::1", RESERVED),
        ("240.0.0.1", RESERVED),
        ("255.255.255.255", RESERVED),
        ("2001::1", RESERVED),
        ("2001:2::1", RESERVED),
        ("2002:7f00:1::", RESERVED),
        ("2002:808:808::1", RESERVED),
        ("64:ff9b:1::1", RESERVED),
        ("100::1", RESERVED),
        ("5f00::1", RESERVED),
        ("4000::1", RESERVED),
        ("8.8.8.8", None),
        ("100.63.255.255", None),
        ("172.32.0.1", None),
        ("198.51.100.9", None),
        ("203.0.113.9", None),
        ("64:ff9b::808:808", None),
        ("2606:4700::1111", None),
        ("2001:db8::7", None),
    ],
)
def test_what_keeps_an_address_from_being_one_of_the_internet(address: str, what: str | None) -> None:
    assert kind(ipaddress.ip_address(address)) == what


@given(st.ip_addresses())
def test_what_passes_is_global_or_for_documentation(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    if kind(address) is None:
        four = ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF) if address.version == 6 else address
        examples = ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32", "3fff::/20")
        known = any(address in ipaddress.ip_network(network) for network in examples)
        is_translated = address in ipaddress.ip_network("64:ff9b::/96") and four.is_global
        assert address.is_global or known or is_translated


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_is_the_same_in_every_disguise(address: ipaddress.IPv4Address) -> None:
    for prefix in ("::ffff:", "64:ff9b::"):
        disguised = ipaddress.IPv6Address(f"{prefix}{address}")
        assert kind(disguised) == kind(address)


def test_addresses_of_this_host_are_its_own() -> None:
    own = {str(entry[4][0]).partition("%")[0] for entry in socket.getaddrinfo(socket.gethostname(), None)}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            # Nothing is sent. It tells which address would be the source.
            probe.connect(("203.0.113.1", 9))
            own.add(probe.getsockname()[0])
        except OSError:
            pass  # a machine without a network has no such address
    assert own
    for address in own:
        assert is_own(ipaddress.ip_address(address)), address
        assert kind(ipaddress.ip_address(address)) is not None
    assert not is_own(ipaddress.ip_address("203.0.113.7"))
    assert not is_own(ipaddress.ip_address("2001:db8::7"))
    assert is_own(ipaddress.ip_address("127.0.0.1"))
    assert OWN == "this host's own"


LISTED = Rules.of_domains(
    ["a.example", "b.example:8443", "*.c.example", "203.0.113.7", "[2001:db8::7]:22", "127.0.0.1:8000"]
)


@pytest.mark.parametrize(
    "authority",
    [
        "a.example:443",
        "a.example:80",
        "A.Example:443",
        "a.example.:443",
        "b.example:8443",
        "x.c.example:443",
        "y.x.c.example:80",
        "203.0.113.7:80",
        "[::ffff:203.0.113.7]:80",
        "[::ffff:cb00:7107]:80",
        "[2001:DB8:0:0::7]:22",
        "127.0.0.1:8000",
    ],
)
def test_what_is_listed_is_allowed(authority: str) -> None:
    target = parse_authority(authority)
    assert target is not None
    assert LISTED.refusal(target) is None


@pytest.mark.parametrize(
    ("authority", "reason"),
    [
        ("a.example:8443", PORT_NOT_ALLOWED),
        ("b.example:443", PORT_NOT_ALLOWED),
        ("[2001:db8::7]:443", PORT_NOT_ALLOWED),
        ("127.0.0.1:80", PORT_NOT_ALLOWED),
        ("evil.example:443", NOT_ALLOWED),
        ("c.example:443", NOT_ALLOWED),
        ("xc.example:443", NOT_ALLOWED),
        ("a.example.evil.example:443", NOT_ALLOWED),
        ("evil-a.example:443", NOT_ALLOWED),
        ("x.a.example:443", NOT_ALLOWED),
        ("a.example..:443", NOT_ALLOWED),
        (".a.example:443", NOT_ALLOWED),
        (".c.example:443", NOT_ALLOWED),
        ("..c.example:443", NOT_ALLOWED),
        ("x%2ec.example:443", NOT_ALLOWED),
        ("a.example%00.c.example:443", NOT_ALLOWED),
        ("localhost:8000", NOT_ALLOWED),
        ("127.1:8000", NOT_ALLOWED),
        ("2130706433:8000", NOT_ALLOWED),
        ("0x7f000001:8000", NOT_ALLOWED),
        ("0177.0.0.1:8000", NOT_ALLOWED),
        ("127.0.0.01:8000", NOT_ALLOWED),
        ("127.0.0.2:8000", NOT_ALLOWED),
        ("[::1]:8000", NOT_ALLOWED),
        ("0:8000", NOT_ALLOWED),
        ("0.0.0.0:8000", NOT_ALLOWED),
        ("metadata.google.internal:80", NOT_ALLOWED),
    ],
)
def test_whatever_is_not_listed_is_denied(authority: str, reason: str) -> None:
    target = parse_authority(authority)
    assert target is not None
    assert LISTED.refusal(target) == reason


@pytest.mark.parametrize(
    "authority",
    [
        "a.example",
        "a.example:",
        "a.example:0",
        "a.example:65536",
        "a.example:+443",
        "a.example:443:443",
        "a.example:443/",
        "user@a.example:443",
        "evil.example:443@a.example:443",
        "a.example\\@evil.example:443",
        ":443",
        ".:443",
        "[a.example]:443",
        "[127.0.0.1]:443",
        "[::1:443",
        "[fe80::1%25eth0]:443",
        "http://a.example:443",
        "a" * 300 + ".example:443",
        "",
    ],
)
def test_what_is_no_authority_is_none(authority: str) -> None:
    assert parse_authority(authority) is None


@pytest.mark.parametrize(
    ("url", "wanted", "path"),
    [
        ("http://a.example", Target("a.example", 80), "/"),
        ("HTTP://A.example:8080/x?y=//z", Target("a.example", 8080), "/x?y=//z"),
        ("http://a.example?q", Target("a.example", 80), "/?q"),
        ("https://[2001:db8::7]/", Target("2001:db8::7", 443), "/"),
    ],
)
def test_a_url_is_read_as_servers_read_it(url: str, wanted: Target, path: str) -> None:
    read = parse_url(url)
    assert read is not None
    assert (read.target, read.path) == (wanted, path)


@pytest.mark.parametrize(
    "url",
    [
        "/",
        "*",
        "a.example:80",
        "ftp://a.example/",
        "http:/a.example/",
        "http:///a.example/",
        "http://user:password@a.example/",
        "http://a.example#x@evil.example/",
        "http://a.example\\.evil.example/",
        "http://a.example:80:80/",
        "http:a.example",
        "//a.example/",
    ],
)
def test_what_could_be_read_in_two_ways_is_no_url(url: str) -> None:
    assert parse_url(url) is None


@given(st.text(alphabet=".-0123456789abcdefx:[]%@/\\", max_size=40))
def test_nothing_that_the_system_takes_for_an_address_passes_for_a_name(text: str) -> None:
    target = parse_authority(f"{text}:80")
    if target is None or target.address is not None:
        return
    if is_name(target.host):
        with pytest.raises(OSError, match=r"."):
            # What programs have done with 0x7f.1 and its like for decades.
            socket.inet_aton(target.host)
    assert literal(target.host) is None
