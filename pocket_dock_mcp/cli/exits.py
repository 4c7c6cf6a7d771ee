"""What `pocket-dock` exits with. Scripts rely on these numbers."""

from __future__ import annotations

from pocket_dock_mcp.errors import ConfigError, EngineTimeoutError, EngineUnavailableError, PocketDockError

OK = 0
FAILED = 1
"""It was not done; or it was looked for problems and there are some."""
USAGE = 2
"""The command line or an environment variable is wrong; nothing was tried."""
ENGINE_DOWN = 3
"""No container engine answers."""
INTERRUPTED = 130
"""Ctrl-C, as shells count it."""

TABLE = (
    f"exit status: {OK} ok; {FAILED} failed, or problems were found; {USAGE} wrong usage or settings; "
    f"{ENGINE_DOWN} no container engine answers; {INTERRUPTED} interrupted"
)


def status_of(error: PocketDockError) -> int:
    """Return what a command that fails with this error exits with."""
    if isinstance(error, ConfigError):
        return USAGE
    if isinstance(error, (EngineUnavailableError, EngineTimeoutError)):
        return ENGINE_DOWN
    return FAILED
