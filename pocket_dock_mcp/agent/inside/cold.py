"""Python without the warm interpreter: a new one for each run, which takes the agent's own text for its
beginning, so that code runs in it just as in the other.
"""

from __future__ import annotations

import os
import socket
import sys
from typing import List, NoReturn

from . import dialects

ONCE, SERVE = "once", "serve"
SCRIPT = 60
REPORT, CONTROL = dialects.REPORT_FD, dialects.CONTROL_FD
"""Descriptors that it finds what it needs at."""


def command(how: str) -> List[str]:
    """Return the command that begins such an interpreter."""
    with open("/proc/self/cmdline", "rb") as file:
        words = file.read().split(b"\0")
    return [sys.executable or "python3", "-c", os.fsdecode(words[words.index(b"-c") + 1]), how]


def main(how: str) -> NoReturn:
    sys.argv[:] = [""]
    for fd in (SCRIPT, REPORT, CONTROL):
        try:
            os.set_inheritable(fd, False)
        except OSError:
            # It has two of the three.
            pass
    # Here and not above: the agent itself needs neither.
    from . import interpreter, zygote

    zygote.forget_agent()
    if how == SERVE:
        status = interpreter.serve(socket.socket(fileno=CONTROL), REPORT)
    else:
        with open(SCRIPT, "rb") as file:
            source = file.read()
        status = interpreter.run_once(source, REPORT)
    os._exit(status & 0xFF)
