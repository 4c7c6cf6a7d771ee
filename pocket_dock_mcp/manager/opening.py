"""The ports that were asked for with a sandbox: opened when a process begins to hold it."""

from __future__ import annotations

import logging

import anyio

from pocket_dock_mcp.errors import PortError
from pocket_dock_mcp.manager.ending import Ender
from pocket_dock_mcp.manager.sandbox import Sandbox

logger = logging.getLogger(__name__)


async def opened(sandbox: Sandbox, ender: Ender | None = None) -> Sandbox:
    """Open a sandbox's ports and return it.

    Args:
        sandbox: one that is held since just now.
        ender: ends a new one whose ports cannot be opened. Without it the sandbox was there before, and is
            more than its ports: what cannot be opened, since another process serves it perhaps, is not.

    Raises:
        PortError: a new one's port cannot be opened.
    """
    for wanted in sandbox.request.ports:
        try:
            await sandbox.container.open_port(wanted.port, host_port=wanted.host_port, address=wanted.address)
        except BaseException as error:
            if ender is not None:
                with anyio.CancelScope(shield=True):
                    await ender.end(sandbox, "its ports could not be opened")
                raise
            if not isinstance(error, PortError):
                raise
            logger.info("%s: a port is not open: %s", sandbox.id, error)
    return sandbox


async def open_all(sandboxes: list[Sandbox], ender: Ender) -> None:
    """Open the ports of new sandboxes: of all, or there are none."""
    try:
        for sandbox in sandboxes:
            await opened(sandbox, ender)
    except BaseException:
        with anyio.CancelScope(shield=True):
            for sandbox in sandboxes:
                await ender.end(sandbox, "its ports could not be opened")
        raise
