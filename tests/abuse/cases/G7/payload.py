"""The engine, our own server and what they go by: sockets, ports, tokens."""

import os
import socket

from kernel import check, finish, is_routed, report

REFUSED = {"ECONNREFUSED", "ENETUNREACH", "EHOSTUNREACH", "EADDRNOTAVAIL", "ENOENT", "EACCES", "EPERM"}
SOCKETS = (
    "/var/run/docker.sock", "/run/docker.sock", "/run/podman/podman.sock", "/var/run/podman/podman.sock",
    "/run/containerd/containerd.sock", "/run/user/1000/podman/podman.sock", "{{home}}/run/podman.sock",
)  # fmt: skip


def connected(host, port):
    """Connect, where there is a route at all."""
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect((host, port))
    if is_routed() and host != "127.0.0.1":
        return "ok there is a route"
    with socket.socket() as client:
        client.settimeout(2)
        client.connect((host, port))
    return "ok connected"


def by_file(path):
    """Connect to a unix socket."""
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
    return "ok connected"


for host in ("127.0.0.1", "172.17.0.1", "10.88.0.1"):
    for port in (2375, 2376, 8000, 8080, 22):
        check("%s:%d" % (host, port), lambda host=host, port=port: connected(host, port), REFUSED)
for path in SOCKETS:
    check(path, lambda path=path: by_file(path), REFUSED)
names = [
    name for name in os.environ if name.startswith(("POCKET_DOCK", "DOCKER_", "CONTAINER_HOST", "CANARY"))
]
report("names in the environment", str(names), not names)
report("the way home", "{{home}}", not os.path.exists("{{home}}"))
for pid in filter(str.isdigit, os.listdir("/proc")):
    try:
        environ = open("/proc/%s/environ" % pid, "rb").read()
    except OSError:
        continue
    found = [
        line.split(b"=")[0]
        for line in environ.split(b"\0")
        if line.startswith((b"POCKET_DOCK", b"CANARY", b"DOCKER_AUTH"))
    ]
    if found:
        report("environment of process " + pid, str(found), False)
finish()
