"""Which networks there are, by all that the kernel tells. Nothing is sent: a UDP socket that is connected only looks up a route."""

import os
import socket

from kernel import check, finish, report

NOWHERE = {"ENETUNREACH", "EADDRNOTAVAIL", "EAFNOSUPPORT"}

names = [name for _, name in socket.if_nameindex()]
report("interfaces", str(names), names == ["lo"])
names = sorted(line.split(":")[0].strip() for line in open("/proc/net/dev").readlines()[2:])
report("interfaces in /proc/net/dev", str(names), names == ["lo"])
routes = open("/proc/net/route").readlines()[1:]
report("IPv4 routes", str(routes), not routes)
if os.path.exists("/proc/net/ipv6_route"):
    lines = open("/proc/net/ipv6_route").readlines()
    routes = [line for line in lines if line.split()[-1] != "lo"]
    report("IPv6 routes", str(routes), not routes)
if os.path.exists("/proc/net/arp"):
    report("neighbours", "", len(open("/proc/net/arp").readlines()) <= 1)


def route(family, address):
    """Ask for a route."""
    socket.socket(family, socket.SOCK_DGRAM).connect((address, 9))
    return "ok there is a route"


for address in (
    "192.0.2.1",
    "198.51.100.7",
    "10.0.0.1",
    "172.17.0.1",
    "192.168.0.1",
    "224.0.0.251",
    "255.255.255.255",
):
    check(
        "a route to " + address, lambda address=address: route(socket.AF_INET, address), NOWHERE | {"EACCES"}
    )
for address in ("2001:db8::1", "fe80::1", "ff02::fb", "fd00::1"):
    check(
        "a route to " + address, lambda address=address: route(socket.AF_INET6, address), NOWHERE | {"EINVAL"}
    )
finish()
