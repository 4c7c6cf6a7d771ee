"""Runs under test, and what they say."""

from __future__ import annotations

import anyio

from pocket_dock_mcp.container.run import AsyncRun


async def said(run: AsyncRun, text: str, within: float = 30) -> None:
    """Wait until it has written this to standard output."""
    with anyio.fail_after(within):
        while True:
            with run.listening() as news:
                if text in run.result().stdout:
                    return
                await news.wait()
