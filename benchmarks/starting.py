"""How long it takes until there is a sandbox: a new one, one that was launched ahead, and forks of one."""

from __future__ import annotations

import os
import secrets
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
from measuring import LABELS, ms, timed

from pocket_dock_mcp.container.core import LiveContainer
from pocket_dock_mcp.container.pool import LivePool
from pocket_dock_mcp.engine.base import Engine
from pocket_dock_mcp.engine.connect import connect
from pocket_dock_mcp.manager.core import Manager
from pocket_dock_mcp.manager.sandbox import Owner, SandboxRequest
from pocket_dock_mcp.settings import Settings

if TYPE_CHECKING:
    from run import Bench

OWNER = Owner(session="benchmark", principal="benchmark")
FORKS = 8
FILE = 100_000_000
TIMES = 11


async def starting(bench: Bench, engine: Engine, image: str) -> None:
    """Add the rows."""
    await _cold(bench, engine)
    await _warm(bench, engine, image)
    await _forks(bench, engine, image)


async def _cold(bench: Bench, engine: Engine) -> None:
    created, closed, raw = [], [], []
    for _ in range(TIMES):
        raw.append(await _raw_start(bench, engine))
        began = time.perf_counter()
        box = await LiveContainer.create(engine, bench.launch())
        created.append(time.perf_counter() - began)
        # The rest of the agent is loaded behind that: no part of what the next one takes.
        await box.run("true")
        closed.append(await timed(box.aclose))
    create, bare = statistics.median(created), statistics.median(raw)
    bench.add(
        "create a sandbox (cold)",
        ms(create),
        against=f"{create / bare:.2f}x of engine create + start ({ms(bare)})",
        budget="<= 1.3x",
        holds=create / bare <= 1.3,
    )
    close = statistics.median(closed)
    bench.add("close a sandbox", ms(close), budget="<= 150 ms", holds=close <= 0.15)


async def _raw_start(bench: Bench, engine: Engine) -> float:
    spec = bench.raw_spec("cat")
    began = time.perf_counter()
    container = await engine.create(spec)
    stream = await engine.attach(container)
    await engine.start(container)
    elapsed = time.perf_counter() - began
    await stream.aclose()
    await engine.remove(container)
    return elapsed


async def _warm(bench: Bench, engine: Engine, image: str) -> None:
    async with LivePool(image, size=1, engine=engine) as pool:
        taken = []
        for _ in range(TIMES):
            await pool.wait_ready()
            began = time.perf_counter()
            box = await pool.claim(env={"A": "b"})
            taken.append(time.perf_counter() - began)
            await box.aclose()
    claim = statistics.median(taken)
    bench.add("create a sandbox (warm)", ms(claim), budget="<= 5 ms", holds=claim <= 0.005)


async def _forks(bench: Bench, engine: Engine, image: str) -> None:
    environ = {**os.environ, "POCKET_DOCK_ENGINE": engine.info.url}
    with tempfile.TemporaryDirectory() as state:
        settings = Settings(state_dir=Path(state), max_sandboxes=FORKS + 1, pool_mb=0)
        async with Manager(settings, lambda: connect(environ)) as manager:
            source = await manager.create(OWNER, SandboxRequest(image=image), lambda _line: None)
            await source.container.run(f"head -c {FILE} /dev/urandom > data")
            took, raw = [], []
            for _ in range(5):
                began = time.perf_counter()
                _, made = await manager.fork(OWNER, source.id, FORKS)
                took.append(time.perf_counter() - began)
                for sandbox in made:
                    await manager.kill(OWNER, sandbox.id)
                raw.append(await _raw_forks(bench, engine, source.container.container_id))
    seconds, bare = statistics.median(took), statistics.median(raw)
    bench.add(
        f"fork {FORKS} ways, 100 MB of files",
        ms(seconds),
        against=f"{seconds / bare:.2f}x of engine commit + {FORKS} create + start ({ms(bare)})",
        budget="<= 1500 ms",
        holds=seconds <= 1.5,
    )


async def _raw_forks(bench: Bench, engine: Engine, source: str) -> float:
    tag, made = f"localhost/pocket-dock-benchmark:{secrets.token_hex(4)}", []

    async def start(image: str) -> None:
        container = await engine.create(replace(bench.raw_spec("cat"), image=image))
        stream = await engine.attach(container)
        await engine.start(container)
        made.append((container, stream))

    began = time.perf_counter()
    image = await engine.commit(source, tag, labels=LABELS)
    async with anyio.create_task_group() as group:
        for _ in range(FORKS):
            group.start_soon(start, image)
    elapsed = time.perf_counter() - began
    for container, stream in made:
        await stream.aclose()
        await engine.remove(container)
    await engine.remove_image(tag)
    return elapsed
