"""What the rows of the benchmark are measured with."""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import anyio

from pocket_dock_mcp.container.core import LiveContainer
from pocket_dock_mcp.engine.base import Engine

LABELS = {"pocket-dock.benchmark": "1"}
"""Of all that is made for it."""
INITIALIZE = (
    b'{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25",'
    b'"capabilities":{},"clientInfo":{"name":"benchmark","version":"0"}}}\n'
)
Action = Callable[[], Coroutine[Any, Any, object]]


async def one_exec(engine: Engine, box: LiveContainer) -> None:
    """What it takes to know the output and the exit code of a command by an engine exec."""
    stream = await engine.exec(box._running.id, ["echo", "hi"], user=str(box.uid))
    while await stream.receive() is not None:
        pass
    await stream.state()
    await stream.aclose()


async def eight_runs(box: LiveContainer) -> None:
    for _ in range(8):
        await box.run("echo hi")


async def overrun(box: LiveContainer, code: str) -> float:
    """Seconds between a run's time limit and its result, with all its processes gone."""
    began, limit = time.perf_counter(), 0.3
    result = await box.run(code, timeout_s=limit)
    assert result.timed_out, result
    return time.perf_counter() - began - limit


async def all_at_once(count: int, action: Action) -> None:
    async with anyio.create_task_group() as group:
        for _ in range(count):
            group.start_soon(action)


async def answer_time(arguments: list[str], env: dict[str, str]) -> float:
    """Seconds from the start of a server to its answer to `initialize`."""
    began = time.perf_counter()
    async with await anyio.open_process([sys.executable, *arguments], env=env, stderr=None) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        await process.stdin.send(INITIALIZE)
        await process.stdout.receive()
        elapsed = time.perf_counter() - began
        await process.stdin.aclose()
        await process.wait()
    return elapsed


async def timed(action: Action) -> float:
    began = time.perf_counter()
    await action()
    return time.perf_counter() - began


async def p50(action: Action, count: int) -> float:
    await action()
    return statistics.median([await timed(action) for _ in range(count)])


async def best(action: Action, count: int) -> float:
    return min([await timed(action) for _ in range(count)])


def server_pid() -> int:
    """The only child process: the server."""
    return int(Path("/proc/self/task", str(os.getpid()), "children").read_text().split()[0])


def resident(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) * 1024


def ms(seconds: float) -> str:
    return f"{seconds * 1000:.2f} ms" if seconds < 0.1 else f"{seconds * 1000:.0f} ms"


def mb(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
