"""The other sandbox of the same user: by what is broadcast, by its name, and through what is on loopback."""

import socket

from kernel import check, finish, is_routed, report

NOWHERE = {
    "ENETUNREACH",
    "EADDRNOTAVAIL",
    "EACCES",
    "EPERM",
    "EINVAL",
    "EAI",
    "ECONNREFUSED",
    "ENODEV",
    "timeout",
}


def told(family, place, *options):
    """Say something to everybody, where there is a way."""
    with socket.socket(family, socket.SOCK_DGRAM) as speaker:
        for level, name, value in options:
            speaker.setsockopt(level, name, value)
        speaker.sendto(b"x", place)
    return "ok sent"


def connected(host, port):
    """Connect to a name or an address."""
    try:
        socket.create_connection((host, port), 2).close()
    except socket.gaierror:
        return "EAI"
    except TimeoutError:
        return "timeout"
    return "ok connected"


if is_routed():
    report("a route to other sandboxes", "there is one", False)
    finish()
broadcast = (socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
check("broadcast", lambda: told(socket.AF_INET, ("255.255.255.255", 5353), broadcast), NOWHERE)
check("mDNS", lambda: told(socket.AF_INET, ("224.0.0.251", 5353)), NOWHERE)
for index, name in socket.if_nameindex():
    if name != "lo":
        report("an interface " + name, name, False)
        continue
    check("IPv6 link-local", lambda: told(socket.AF_INET6, ("ff02::fb", 5353, 0, index)), NOWHERE)
for host in (
    "listening",
    "sandbox",
    "localhost",
    "127.0.0.1",
    "172.17.0.2",
    "172.17.0.3",
    "10.88.0.2",
    "10.88.0.3",
):
    check("the other at " + host, lambda host=host: connected(host, 47003), NOWHERE)
finish()
