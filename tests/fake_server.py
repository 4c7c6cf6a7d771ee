"""The server, on a `FakeEngine` of its own: takes the command line of `pocket-dock-mcp`."""

from __future__ import annotations

from pocket_dock_mcp.__main__ import parse, run
from pocket_dock_mcp.engine.base import Engine
from pocket_dock_mcp.testing import FakeEngine
from tests.behaviours import teach


async def connect() -> Engine:
    """Return an engine in memory that knows what the contract tests do."""
    engine = FakeEngine()
    teach(engine)
    return engine


if __name__ == "__main__":
    run(parse(None), connect)
