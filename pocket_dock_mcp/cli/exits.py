"""What `pocket-dock` exits with. Scripts rely on these numbers."""

from __future__ import annotations

from pocket_dock_mcp.errors import (
    ConfigError,
    EngineTimeoutError,
    EngineUnavailableError,
    HostPathError,
    InvalidArgumentError,
    PocketDockError,
)

OK = 0
FAILED = 1
"""It was not done; or it was looked for problems and there are some."""
USAGE = 2
"""The command line or an environment variable is wrong; nothing was tried."""
ENGINE_DOWN = 3
"""No container engine answers."""
TIMED_OUT = 124
"""Of `run` and `shell`: a limit of the run was reached, on its time or its output."""
NOT_RUN = 125
"""Of `run` and `shell`: it is not known how the program ended, mostly because it has not begun."""
SIGNALLED = 128
"""And the number of the signal that ended us, or a program that `run` has run."""
INTERRUPTED = 130
"""Ctrl-C, as shells count it."""

TABLE = (
    f"exit status: {OK} ok; {FAILED} failed, or problems were found; {USAGE} wrong usage or settings; "
    f"{ENGINE_DOWN} no container engine answers; {INTERRUPTED} interrupted, {SIGNALLED}+n ended by signal n. "
    f"run and shell exit with the program's own, and with {TIMED_OUT} when a limit of the run was reached "
    f"and {NOT_RUN} when the program has not run or its end is not known"
)
PROGRAM_TABLE = (
    f"exit status: the program's own; {SIGNALLED}+n if signal n ended it; {TIMED_OUT} if a limit on its time "
    f"or output was reached; {NOT_RUN} if it has not run, or its end is not known: wrong usage, no engine, "
    "no such sandbox. 124 and 125 are always explained on standard error; a program may use them, too."
)


def status_of(error: PocketDockError) -> int:
    """Return what a command that fails with this error exits with."""
    if isinstance(error, (ConfigError, InvalidArgumentError, HostPathError)):
        return USAGE
    if isinstance(error, (EngineUnavailableError, EngineTimeoutError)):
        return ENGINE_DOWN
    return FAILED
