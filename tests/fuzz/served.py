"""The server as it is, on a fake engine, for what fuzzes it from outside: ``python -m tests.fuzz.served``.

It serves standard input and output. At the end it says on standard error, in one line of JSON, what is left.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from importlib import resources

import anyio

from pocket_dock_mcp.manager.sweep import INSTANCE_LABEL
from pocket_dock_mcp.server.stdio import serve_stdio
from pocket_dock_mcp.settings import Settings
from pocket_dock_mcp.testing import FakeEngine

END = "left: "
IMAGE = FakeEngine.IMAGE
_FOUND = {"found": [], "more": False, "stopped": False, "skipped": 0, "binary": 0, "unreadable": 0}
ANSWERS = {"find.py": json.dumps(_FOUND), "inventory.py": '["end", {}]'}
"""What programs of ours say that nothing can run here."""


async def main() -> None:
    """Serve until the input ends."""
    engine = FakeEngine()
    engine.script("print(6 * 7)", stdout="42\n")
    engine.script("hang", stdout="early\n", hang=True)

    for name, said in ANSWERS.items():
        source = resources.files("pocket_dock_mcp.agent.inside").joinpath(name).read_text(encoding="utf-8")
        engine.script(source, stdout=said)

    async def connect() -> FakeEngine:
        return engine

    await serve_stdio(Settings.from_environ(os.environ), connect)
    left = await engine.containers(INSTANCE_LABEL)
    print(END + json.dumps([state.name for state in left]), file=sys.stderr, flush=True)


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    anyio.run(main)
