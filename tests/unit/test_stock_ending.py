"""A stock that is given up while one of its containers has just been launched."""

from __future__ import annotations

from typing import Any, cast

import anyio
import pytest

from pocket_dock_mcp.container.launch import Launch, Running
from pocket_dock_mcp.container.stock import Ready, Stock
from pocket_dock_mcp.testing import FakeEngine

pytestmark = pytest.mark.anyio


class Silent:
    """A transport that never answers, and knows whether it was closed."""

    def __init__(self) -> None:
        self.asked = anyio.Event()
        self.is_closed = False

    async def stats(self) -> Any:
        self.asked.set()
        await anyio.sleep_forever()

    async def aclose(self) -> None:
        self.is_closed = True


async def test_what_was_launched_and_not_yet_looked_at_is_ended() -> None:
    transport, engine = Silent(), FakeEngine()

    async def make() -> Ready:
        return Ready(engine, Launch("name", "image", {}), Running("id", cast("Any", transport), ()))

    stock = Stock(make)
    stock.target = 1
    async with anyio.create_task_group() as group:
        group.start_soon(stock.run)
        with anyio.fail_after(10):
            await transport.asked.wait()
        with anyio.move_on_after(0):
            await stock.aclose()

    assert transport.is_closed, "its lease would hold until somebody collects garbage"
