"""What handles to runs do at moments that nobody chooses: call back, and let go of output."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from pocket_dock_mcp.agent.transport import Process
from pocket_dock_mcp.spool import Spool

logger = logging.getLogger(__name__)


def let_go(process: Process | None, spools: Mapping[int, Spool]) -> None:
    """Have a run forgotten when it has ended, and its output at once."""
    if process is not None:
        process.forget()
    for spool in spools.values():
        spool.close()


def call_back(callback: Callable[..., None], *args: object) -> None:
    """Call back. What is wrong with the callback is its owner's business, and must not end the sandbox."""
    try:
        callback(*args)
    except Exception:
        logger.exception("a callback of a run failed")
