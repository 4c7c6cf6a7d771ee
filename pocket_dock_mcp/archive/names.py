"""What may be in a stream: names, targets of links, and why something is left out."""

from __future__ import annotations

from . import frames

MAX_DEPTH = 256
"""Directories below each other; each is held open."""
STAGE_PREFIX, STAGE_SUFFIX = b".pocket-dock-", b".part"

LINK_OUT, DEVICE, SOCKET, FIFO, CLOSED, GONE, CHANGED, BITS, DEEP, STAGE, HARD_LINK, SPARSE, ODD, TIME = (
    range(1, 15)
)
REASONS = {
    LINK_OUT: "a link that is absolute, or may lead out of the tree: left out",
    DEVICE: "a device: left out",
    SOCKET: "a socket: left out",
    FIFO: "a FIFO: left out",
    CLOSED: "not readable: left out",
    GONE: "gone while it was read: left out",
    CHANGED: "changed while it was read: it may be neither the old nor the new one",
    BITS: "its setuid, setgid or sticky bits were dropped",
    DEEP: "more than %d directories deep: left out" % MAX_DEPTH,
    STAGE: "of a transfer under way or broken off: left out",
    HARD_LINK: "a hard link that this image's tar does not turn into a file: left out",
    TIME: "its time is one that cannot be set there: it has another",
    ODD: "more is in it than its size says, as in /proc: left out",
    SPARSE: "a sparse file in a form of tar's own: left out",
}
"""What each code says. Those with bits, changed or with another time are transferred all the same."""


def check_name(name: bytes) -> None:
    """Raise `BadStreamError` for what is no name of one entry of a directory."""
    if not 0 < len(name) <= frames.MAX_NAME or name in (b".", b"..") or b"/" in name or b"\0" in name:
        raise frames.BadStreamError("name")


def stays_inside(target: bytes, depth: int) -> bool:
    """Whether a link in a directory `depth` levels below the tree's top cannot lead out of the tree.

    Steps up are allowed at its beginning only: there they are taken from where the link really is. Behind a
    name they would begin wherever that, being a link itself, has led.
    """
    if not target or len(target) > frames.MAX_TARGET or target.startswith(b"/") or b"\0" in target:
        return False
    parts = [part for part in target.split(b"/") if part not in (b"", b".")]
    up = 0
    while up < len(parts) and parts[up] == b"..":
        up += 1
    return up <= depth and b".." not in parts[up:]


def is_stage(name: bytes) -> bool:
    """Whether it is the name of what a transfer under way writes to."""
    return name.startswith(STAGE_PREFIX) and name.endswith(STAGE_SUFFIX)


def parted(path: bytes) -> bytes:
    """Return the name that a source goes under, or nothing if it is its content that is meant.

    That is so if the path ends in a slash, in ``.`` or in ``..``, as it is for cp and rsync.
    """
    name = path.rpartition(b"/")[2]
    return b"" if name in (b"", b".", b"..") else name
