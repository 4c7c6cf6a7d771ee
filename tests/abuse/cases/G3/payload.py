"""A service of the host, on its loopback and wherever a container may find it; none may be reached."""

import socket

from kernel import check, finish, is_routed

PORT = {{port}}
HOSTS = (
    "127.0.0.1",
    "127.1.2.3",
    "0.0.0.0",
    "::1",
    "::",
    "::ffff:127.0.0.1",
    "localhost",
    "172.17.0.1",
    "10.88.0.1",
    "10.0.2.2",
    "169.254.1.2",
    "host.docker.internal",
    "host.containers.internal",
    "gateway.docker.internal",
)
LOOPBACK = HOSTS[:6]
REFUSED = {"ECONNREFUSED", "ENETUNREACH", "EAI", "EADDRNOTAVAIL", "EHOSTUNREACH"}


def connected(host):
    """Connect, where there is a route at all."""
    flags = socket.AI_NUMERICHOST if is_routed() else 0
    try:
        family, _, _, _, place = socket.getaddrinfo(host, PORT, type=socket.SOCK_STREAM, flags=flags)[0]
    except socket.gaierror:
        return "EAI"
    socket.socket(family, socket.SOCK_DGRAM).connect(place)
    if is_routed() and host not in LOOPBACK:
        return "ok there is a route"
    with socket.socket(family) as client:
        client.settimeout(2)
        client.connect(place)
    return "ok connected"


def abstract():
    """Connect to a socket that belongs to a network namespace, and not to a file system."""
    with socket.socket(socket.AF_UNIX) as client:
        client.connect("\0{{socket}}")
    return "ok connected"


for host in HOSTS:
    check("a port of the host at " + host, lambda host=host: connected(host), REFUSED)
check("an abstract socket of the host", abstract, REFUSED)
finish()
