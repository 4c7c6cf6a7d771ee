"""Packets made by hand, and frames that never pass the network stack."""

from kernel import DGRAM, RAW, finish, sockets

PACKET, INET, INET6, XDP = 17, 2, 10, 44
ICMP, ICMP6, ANY = 1, 58, 255
ALL = 0x0300

sockets(
    ("packet, raw", PACKET, RAW, ALL),
    ("packet, cooked", PACKET, DGRAM, ALL),
    ("packet, obsolete", PACKET, 10, ALL),
    ("IPv4 raw ICMP", INET, RAW, ICMP),
    ("IPv4 raw", INET, RAW, ANY),
    ("IPv6 raw ICMP", INET6, RAW, ICMP6),
    ("IPv6 raw", INET6, RAW, ANY),
    ("XDP", XDP, RAW, 0),
)
finish()
