"""What an agent does first where its modules come compiled: who the user is, and what holds in here.

The host waits for that, so it is done before all the rest is loaded. Nothing is imported for it that takes
time: neither `json` nor `typing`, which cost more than all else here together.
"""

from __future__ import annotations

import marshal
import os
import select
import sys
import zlib
from _json import encode_basestring_ascii

from . import facts, identity
from .cgroup import Cgroup

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType
    from typing import Callable, Dict, Optional

PROTOCOL, MOST = 1, 256 * 1024
"""As `wire` has them (``PROTOCOL``, ``MAX_PAYLOAD``), which imports `json`."""
FIRST = ("agent.identity", "agent.cgroup", "agent.filtered", "agent.facts", "agent.early")


class Early:
    """What there is of an agent from the beginning."""

    def __init__(self, uid: int, home: str) -> None:
        self.bounding = identity.shed_privileges()
        self.cgroup = Cgroup()
        self.user = identity.settle(facts.pick_uid(uid), home)


def begin(uid: int, home: str) -> Early:
    """Greet the host, with what holds in here in the very first frame."""
    early = Early(uid, home)
    first = {"kind": "ready", "id": 0, "protocol": PROTOCOL, "home": early.user.home, **facts.collect(early)}
    header = encoded(first).encode("ascii")
    os.write(1, b"".join((len(header).to_bytes(4, "big"), bytes(4), header)))
    return early


def wait() -> None:
    """Return when there is something to do, or the input has ended."""
    select.select([0], (), ())


def packed(modules: Optional[Callable[[], Dict[str, CodeType]]]) -> bytes:
    """Return all modules for the next agent, as `quick_argv` in ``agent/bundle.py`` takes them.

    First what this module needs, then the others: each for itself, so that each waits until it is imported.
    """
    if modules is None:
        return b""
    every = {name: marshal.dumps(code) for name, code in modules().items()}
    first = {name: every.pop(name) for name in FIRST}
    parts = (sys.version.encode(), marshal.dumps(first), zlib.compress(marshal.dumps(every)))
    answer = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    return answer if len(answer) <= MOST else b""


def encoded(value: object) -> str:
    """Return JSON of plain values."""
    if isinstance(value, str):
        return encode_basestring_ascii(value)
    if isinstance(value, dict):
        return "{%s}" % ",".join(encoded(key) + ":" + encoded(inner) for key, inner in value.items())
    if isinstance(value, (list, tuple)):
        return "[%s]" % ",".join(encoded(one) for one in value)
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return repr(value)
