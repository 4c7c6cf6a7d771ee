"""Serving MCP over standard input and output, until the input ends or a signal comes.

Hosts close our input, send SIGTERM 2 s later and SIGKILL soon after; whichever comes, no sandbox is left:
end of input and signals are handled here, and SIGKILL by the lease that every sandbox hangs on.
"""

from __future__ import annotations

import logging
import os
import signal
import sys

import anyio
from mcp.server.stdio import stdio_server

from pocket_dock_mcp.manager.access import Connect
from pocket_dock_mcp.manager.core import Manager
from pocket_dock_mcp.server.app import create_server
from pocket_dock_mcp.server.eras import serve_messages
from pocket_dock_mcp.settings import Settings

logger = logging.getLogger(__name__)


async def serve_stdio(settings: Settings, connect: Connect) -> None:
    """Serve one client on this process's standard streams."""
    async with Manager(settings, connect) as manager, anyio.create_task_group() as group:
        await group.start(_end_on_signal, manager)
        async with stdio_server() as (read, write):
            await serve_messages(create_server(manager, settings), read, write)
        group.cancel_scope.cancel()


async def _end_on_signal(manager: Manager, *, task_status: anyio.abc.TaskStatus[None]) -> None:
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        task_status.started()
        async for number in signals:
            await manager.aclose()
            sys.stderr.flush()
            # Not an exception: the SDK's reader sits in a thread that only the end of input would wake.
            os._exit(128 + number)
