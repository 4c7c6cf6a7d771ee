"""The server as it is, on a fake engine, for what fuzzes it from outside: ``python -m tests.fuzz.served``.

Without arguments it serves standard input and output, else as the command line says. At the end of its input,
and when it gets SIGUSR1, it says on standard error, in one line of JSON, what is left and how long its event
loop was held up.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Coroutine
from importlib import resources
from typing import Any

import anyio

from pocket_dock_mcp.__main__ import parse, run
from pocket_dock_mcp.engine.base import Engine
from pocket_dock_mcp.manager.sweep import INSTANCE_LABEL
from pocket_dock_mcp.server.stdio import serve_stdio
from pocket_dock_mcp.settings import Settings
from pocket_dock_mcp.testing import FakeEngine

END = "left: "
IMAGE = FakeEngine.IMAGE
_FOUND = {"found": [], "more": False, "stopped": False, "skipped": 0, "binary": 0, "unreadable": 0}
ANSWERS = {"find.py": json.dumps(_FOUND), "inventory.py": '["end", {}]'}
"""What programs of ours say that nothing can run here."""
_BEAT_S = 0.005


class Watch:
    """How long the event loop is held up by what it does, in processor time: others may have the machine."""

    def __init__(self) -> None:
        self.longest = 0.0
        """Seconds, since this was last asked for."""

    async def watch(self) -> None:
        """Look again and again, for ever."""
        while True:
            wall, used = time.monotonic(), time.thread_time()
            await asyncio.sleep(_BEAT_S)
            late = time.monotonic() - wall - _BEAT_S
            self.longest = max(self.longest, min(late, time.thread_time() - used))


class Served:
    """An engine, and what is told of it."""

    def __init__(self) -> None:
        self.engine = FakeEngine()
        self.watch = Watch()
        self._tasks: set[asyncio.Task[None]] = set()
        self.engine.script("print(6 * 7)", stdout="42\n")
        self.engine.script("hang", stdout="early\n", hang=True)
        for name, said in ANSWERS.items():
            source = (
                resources.files("pocket_dock_mcp.agent.inside").joinpath(name).read_text(encoding="utf-8")
            )
            self.engine.script(source, stdout=said)

    async def connect(self) -> Engine:
        """Return the engine; from now on the loop is watched."""
        if not self._tasks:
            loop = asyncio.get_running_loop()
            self._spawn(self.watch.watch())
            loop.add_signal_handler(signal.SIGUSR1, lambda: self._spawn(self.tell()))
        return self.engine

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)  # noqa: TID251  # it outlives the call in which it begins
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def tell(self) -> None:
        """Say what is left."""
        left = await self.engine.containers(INSTANCE_LABEL)
        held_up, self.watch.longest = self.watch.longest, 0.0
        told = {"left": [state.name for state in left], "held_up_s": round(held_up, 4)}
        print(END + json.dumps(told), file=sys.stderr, flush=True)


async def _serve_stdio(served: Served) -> None:
    await serve_stdio(Settings.from_environ(os.environ), served.connect)
    await served.tell()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        run(parse(None), Served().connect)
    else:
        logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
        anyio.run(_serve_stdio, Served())
