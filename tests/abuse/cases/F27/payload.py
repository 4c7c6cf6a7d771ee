"""Arguments with bits above those that the kernel looks at: a filter that compares all 64 takes them for others."""

import os

from kernel import DGRAM, RAW, SEQPACKET, STREAM, UNKNOWN_FAMILY, call, check, denied, finish

HIGH = 1 << 32
NEWUSER, NEWNET, SIGCHLD = 0x10000000, 0x40000000, 17
NONBLOCK, CLOEXEC = 0o4000, 0o2000000

for name, family, kind, protocol in (
    ("vsock", 40, STREAM, 0),
    ("ALG", 38, SEQPACKET, 0),
    ("packet", 17, RAW, 0x0300),
    ("netlink generic", 16, RAW, 16),
    ("netlink netfilter", 16, DGRAM, 12),
):
    for bits in (HIGH, HIGH * 0xFFFFFFFF):
        denied(
            *("socket", family | bits, kind, protocol),
            label="socket %s, high bits %x" % (name, bits >> 32),
            allowed=UNKNOWN_FAMILY,
        )
    denied(
        "socket",
        family,
        kind | NONBLOCK | CLOEXEC,
        protocol,
        label="socket %s with flags" % name,
        allowed=UNKNOWN_FAMILY,
    )
# The family is one that is allowed; what is asked of it is hidden above.
denied("socket", 16, RAW, 16 | HIGH, label="socket netlink generic, high bits", allowed=UNKNOWN_FAMILY)
denied(
    "socket",
    16,
    RAW | HIGH,
    16,
    label="socket netlink generic, high bits of the type",
    allowed=UNKNOWN_FAMILY,
)


def cloned(flags):
    """Fork into a new namespace."""
    child = call("clone", flags | SIGCHLD, 0, 0, 0, 0)
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    return "ok cloned"


check("clone user, high bits", lambda: cloned(NEWUSER | HIGH))
check("clone user with other flags", lambda: cloned(NEWUSER | NEWNET | 0x200))
denied("unshare", NEWUSER | 0x400, label="unshare user and files")
denied("ptrace", HIGH, 0, 0, 0, label="ptrace, high bits")
denied("keyctl", HIGH, -3, 0, 0, 0, label="keyctl, high bits")
denied("personality", 0x0040000 | HIGH, label="personality, high bits")
finish()
