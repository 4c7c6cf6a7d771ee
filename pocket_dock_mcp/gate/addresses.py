"""Which addresses are of the internet, and which are of this host or of networks that only it can reach.

The tables are our own: what `ipaddress` calls private or global differs between releases of Python.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
from pathlib import Path

from pocket_dock_mcp.gate.domains import Address

LOOPBACK, LINK_LOCAL, PRIVATE = "loopback", "link-local", "private"
METADATA, RESERVED, OWN = "a metadata service's", "reserved", "this host's own"

_KINDS: tuple[tuple[str, str], ...] = (
    # Metadata services first: theirs lie in networks of other kinds, or in public ones.
    ("169.254.169.254/32", METADATA),
    ("169.254.170.2/32", METADATA),
    ("100.100.100.200/32", METADATA),
    ("168.63.129.16/32", METADATA),
    ("192.0.0.192/32", METADATA),
    ("fd00:ec2::/32", METADATA),
    ("fd20:ce::254/128", METADATA),
    ("127.0.0.0/8", LOOPBACK),
    ("::1/128", LOOPBACK),
    ("169.254.0.0/16", LINK_LOCAL),
    ("fe80::/10", LINK_LOCAL),
    ("10.0.0.0/8", PRIVATE),
    ("172.16.0.0/12", PRIVATE),
    ("192.168.0.0/16", PRIVATE),
    ("100.64.0.0/10", PRIVATE),
    ("fc00::/7", PRIVATE),
    ("fec0::/10", PRIVATE),
    ("0.0.0.0/8", RESERVED),
    ("192.0.0.0/24", RESERVED),
    ("192.88.99.0/24", RESERVED),
    ("198.18.0.0/15", RESERVED),
    ("224.0.0.0/4", RESERVED),
    ("240.0.0.0/4", RESERVED),
    # Teredo, benchmarks and their like, and 6to4: an IPv4 address is in some, and nobody serves there.
    ("2001::/23", RESERVED),
    ("2002::/16", RESERVED),
)
_NETWORKS = tuple((ipaddress.ip_network(network), kind) for network, kind in _KINDS)
_UNICAST = ipaddress.IPv6Network("2000::/3")
"""All that has been given out of IPv6 for the internet. The rest has some meaning or none."""
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_NONLOCAL = {
    socket.AF_INET: Path("/proc/sys/net/ipv4/ip_nonlocal_bind"),
    socket.AF_INET6: Path("/proc/sys/net/ipv6/ip_nonlocal_bind"),
}


def unmapped(address: Address) -> Address:
    """Return the IPv4 address that an IPv6 one is for the system itself."""
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return address if mapped is None else mapped


def kind(address: Address) -> str | None:
    """Return what keeps an address from being one of the internet; None where nothing does.

    Networks for documentation are none of the internet's, but of nobody else either: they pass.
    """
    address = unmapped(address)
    if address in _NAT64:
        # A network's gateway connects to the IPv4 address in it.
        address = ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    for network, name in _NETWORKS:
        if address.version == network.version and address in network:
            return name
    if isinstance(address, ipaddress.IPv6Address) and address not in _UNICAST:
        return RESERVED
    return OWN if is_own(address) else None


def is_own(address: Address) -> bool:
    """Whether this host answers at an address. Nothing is sent to find out."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    return _is_own_route(family, str(address)) or (not _binds_any(family) and _can_bind(family, str(address)))


def _is_own_route(family: socket.AddressFamily, address: str) -> bool:
    """Whether packets to it would have it for their source, too: so it is with one's own addresses only."""
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((address, 9))
            return str(probe.getsockname()[0]) == address
    except OSError:
        return False


def _can_bind(family: socket.AddressFamily, address: str) -> bool:
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))
    except OSError as error:
        # Anything else than that it is not ours leaves it open, and what is open is denied.
        return error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.EINVAL)
    return True


def _binds_any(family: socket.AddressFamily) -> bool:
    """Whether this host lets programs bind to addresses that are not its own; then binding proves nothing."""
    try:
        return _NONLOCAL[family].read_text(encoding="ascii").strip() == "1"
    except OSError:
        return False
