"""The metadata services of clouds. Where a route is there nothing is sent: that it is there is enough.

Where there is one, whoever answers proves nothing: transparent proxies take connections to any address.
"""

import socket

from kernel import check, finish, resolved

NOWHERE = {"ENETUNREACH", "EADDRNOTAVAIL", "EAFNOSUPPORT"}
PLACES = (
    (socket.AF_INET, "169.254.169.254"),
    (socket.AF_INET, "169.254.170.2"),
    (socket.AF_INET, "100.100.100.200"),
    (socket.AF_INET, "192.0.0.192"),
    (socket.AF_INET6, "fd00:ec2::254"),
    (socket.AF_INET6, "fd20:ce::254"),
)


def route(family, address):
    """Ask for a route."""
    socket.socket(family, socket.SOCK_DGRAM).connect((address, 80))
    return "ok there is a route"


for family, address in PLACES:
    check("a route to " + address, lambda family=family, address=address: route(family, address), NOWHERE)
for name in ("metadata.google.internal", "metadata", "instance-data", "169.254.169.254.nip.io"):
    check("the name " + name, lambda name=name: resolved(name), {"EAI"})
finish()
