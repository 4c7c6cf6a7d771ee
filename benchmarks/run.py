"""Measures what the design promises, each against what it is to beat, on the same engine in one run.

    python benchmarks/run.py                                  # on the engine that the server would use
    python benchmarks/run.py --engine URL --engine URL        # on these
    python benchmarks/run.py --engine URL --write             # into benchmarks/results.md

The reference of most rows is one engine exec: what a sandbox costs per call without an agent in it.
"""

from __future__ import annotations

import argparse
import itertools
import os
import platform
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import anyio
from mcp import Client, StdioServerParameters
from measuring import (
    LABELS,
    all_at_once,
    answer_time,
    best,
    eight_runs,
    mb,
    ms,
    one_exec,
    overrun,
    p50,
    resident,
    server_pid,
    timed,
)
from starting import starting

from pocket_dock_mcp import __version__
from pocket_dock_mcp.agent.agent_transport import AgentTransport
from pocket_dock_mcp.container.core import LiveContainer
from pocket_dock_mcp.container.launch import Launch
from pocket_dock_mcp.engine.base import Engine
from pocket_dock_mcp.engine.connect import connect
from pocket_dock_mcp.images import ImageStore
from pocket_dock_mcp.models import MIB, ContainerSpec, Limits

RESULTS = Path(__file__).with_name("results.md")

BIG = 100 * MIB
FLOOD = 1024 * MIB
FORK_BOMB = "f() { f | f & }; f; while :; do :; done"  # to go on without another fork
PANDAS = "import pandas, numpy; pandas.Series(numpy.arange(10)).sum()"
DAEMONS = "setsid sleep 600 & trap '' TERM; sleep 600"
BARE_SERVER = "from mcp.server.mcpserver import MCPServer; MCPServer('bare').run()"


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    what: str
    value: str
    against: str
    budget: str
    holds: bool | None
    """None where there is no budget."""


class Bench:
    """All rows on one engine."""

    def __init__(self, engine: Engine, image: str) -> None:
        self._engine = engine
        self._image = image
        self._count = 0
        self.rows: list[Row] = []
        self.exec_s = 0.0

    def launch(self) -> Launch:
        self._count += 1
        name = f"pocket-dock-benchmark-{os.getpid()}-{self._count}"
        return Launch(name=name, image=self._image, labels=LABELS)

    def add(
        self, what: str, value: str, *, against: str = "", budget: str = "", holds: bool | None = None
    ) -> None:
        self.rows.append(Row(what, value, against, budget, holds))
        print(f"  {what}: {value}  {against}", file=sys.stderr, flush=True)

    def add_against_exec(self, what: str, seconds: float, *, most_ms: float, least_ratio: float) -> None:
        ratio = self.exec_s / seconds
        self.add(
            what,
            ms(seconds),
            against=f"{ratio:.0f}x faster than one exec",
            budget=f"<= {most_ms:g} ms, >= {least_ratio:g}x",
            holds=seconds * 1000 <= most_ms and ratio >= least_ratio,
        )

    async def run(self) -> None:
        async with await LiveContainer.create(self._engine, self.launch()) as box:
            memory = (await box.info()).memory_bytes or 0
            self.add("idle sandbox, memory", mb(memory), budget="<= 12 MB", holds=memory <= 12e6)
            await self.calls(box)
            await self.files(box)
            await self.endings(box)
            await self.flood(box)
        await self.sixteen()
        await starting(self, self._engine, self._image)
        await self.over_mcp()
        await self.frames()

    # -- one sandbox ------------------------------------------------------------------------------

    async def calls(self, box: LiveContainer) -> None:
        self.exec_s = await p50(lambda: one_exec(self._engine, box), 15)
        self.add("one engine exec of `echo hi`", ms(self.exec_s))
        self.add_against_exec(
            'run("echo hi")', await p50(lambda: box.run("echo hi"), 300), most_ms=2, least_ratio=30
        )
        self.add_against_exec(
            'run("2+2", language="python")',
            await p50(lambda: box.run("2+2", language="python"), 200),
            most_ms=5,
            least_ratio=15,
        )
        transport = box._transport
        assert isinstance(transport, AgentTransport)
        ping = await p50(lambda: transport._link.call("ping", deadline=5), 500)
        self.add("ping of the agent", ms(ping))
        rate = 64 * 8 / await timed(lambda: all_at_once(64, lambda: eight_runs(box)))
        self.add(
            "64 concurrent clients in one sandbox", f"{rate:.0f} runs/s", budget=">= 400/s", holds=rate >= 400
        )
        await self.sessions(box)

    async def sessions(self, box: LiveContainer) -> None:
        seconds = await p50(lambda: box.run(":", session="benchmark"), 500)
        self.add("a builtin in a shell session", ms(seconds), budget="<= 0.5 ms", holds=seconds <= 0.0005)
        seconds = await p50(lambda: box.run("1", language="python", session="benchmark"), 500)
        self.add("an expression in a Python session", ms(seconds))

    async def sixteen(self) -> None:
        """Many runs at once in many sandboxes."""
        boxes = [await LiveContainer.create(self._engine, self.launch()) for _ in range(16)]
        try:
            for box in boxes:
                await box.run("true")
            turns = itertools.cycle(boxes)
            rate = 64 * 8 / await timed(lambda: all_at_once(64, lambda: eight_runs(next(turns))))
        finally:
            for box in boxes:
                await box.aclose()
        self.add(
            "64 concurrent clients in 16 sandboxes",
            f"{rate:.0f} runs/s",
            budget=">= 400/s",
            holds=rate >= 400,
        )

    async def frames(self) -> None:
        """Large modules: from the warm interpreter, in a session, and in a fresh interpreter."""
        image = (await ImageStore(self._engine).ensure("agent", print)).id
        env = {**os.environ, "POCKET_DOCK_ENGINE": self._engine.info.url}
        server = StdioServerParameters(command=sys.executable, args=["-m", "pocket_dock_mcp"], env=env)
        async with Client(server) as client:
            made = await client.call_tool("create_sandbox", {"profile": image, "memory_mb": 1024, "cpus": 2})
            assert not made.is_error, made.content
            fresh = await p50(
                lambda: client.call_tool("run_command", {"command": f"python3 -c '{PANDAS}'"}), 9
            )
            warm = await p50(lambda: client.call_tool("run_code", {"code": PANDAS}), 50)
            in_session = {"code": PANDAS, "session": "benchmark"}
            session = await p50(lambda: client.call_tool("run_code", in_session), 100)
        self.add(
            "import pandas, numpy, over MCP stdio",
            ms(warm),
            against=f"{fresh / warm:.0f}x faster than a fresh interpreter ({ms(fresh)})",
            budget="<= 25 ms, >= 12x",
            holds=warm <= 0.025 and fresh / warm >= 12,
        )
        self.add("the same in a session", ms(session), budget="<= 6 ms", holds=session <= 0.006)

    async def files(self, box: LiveContainer) -> None:
        small, big = os.urandom(4096), os.urandom(BIG)
        for what, action in (
            ("write 4 KiB", lambda: box.write_file("small", small)),
            ("read 4 KiB", lambda: box.read_file("small")),
        ):
            seconds = await p50(action, 200)
            self.add(what, ms(seconds), budget="<= 1 ms", holds=seconds <= 0.001)
        for what, action, raw in (
            ("write 100 MiB", lambda: box.write_file("big", big), await self.raw_in(big)),
            ("read 100 MiB", lambda: box.read_file("big"), await self.raw_out()),
        ):
            speed = BIG / await best(action, 3) / 1e6
            self.add(
                what,
                f"{speed:.0f} MB/s",
                against=f"{speed / raw:.2f} of the raw stream ({raw:.0f} MB/s)",
                budget=">= 200 MB/s, >= 0.6",
                holds=speed >= 200 and speed / raw >= 0.6,
            )
        await box.run("rm -f big small")

    async def endings(self, box: LiveContainer) -> None:
        for what, code in (("timeout of daemons", DAEMONS), ("timeout of a fork bomb", FORK_BOMB)):
            over = [await overrun(box, code) for _ in range(7)]
            self.add(
                f"kill after the {what}, worst of 7",
                ms(max(over)),
                budget="<= 200 ms",
                holds=max(over) <= 0.2,
            )

    async def flood(self, box: LiveContainer) -> None:
        before = resident(os.getpid())
        seconds = await timed(lambda: box.run(f"head -c {FLOOD} /dev/zero", timeout_s=300))
        grown, speed = resident(os.getpid()) - before, FLOOD / seconds / 1e6
        self.add(
            "1 GiB of output",
            f"{speed:.0f} MB/s, +{mb(grown)}",
            budget=">= 200 MB/s, <= 16 MiB",
            holds=speed >= 200 and grown <= 16 * MIB,
        )

    # -- containers -------------------------------------------------------------------------------

    def raw_spec(self, command: str) -> ContainerSpec:
        argv = ("/bin/sh", "-c", command)
        return ContainerSpec(
            name=self.launch().name, image=self._image, argv=argv, labels=LABELS, limits=Limits()
        )

    async def raw_out(self) -> float:
        """MB/s out of a container through nothing but its attached stream."""
        container = await self._engine.create(self.raw_spec(f"read x; head -c {BIG} /dev/zero"))
        stream = await self._engine.attach(container)
        await self._engine.start(container)
        began = time.perf_counter()
        await stream.send(b"\n")
        while await stream.receive() is not None:
            pass
        elapsed = time.perf_counter() - began
        await self._engine.remove(container)
        return BIG / elapsed / 1e6

    async def raw_in(self, data: bytes) -> float:
        """MB/s into a container through nothing but its attached stream."""
        container = await self._engine.create(self.raw_spec(f"head -c {BIG} >/dev/null; echo done; cat"))
        stream = await self._engine.attach(container)
        await self._engine.start(container)
        began = time.perf_counter()
        for at in range(0, BIG, 256 * 1024):
            await stream.send(data[at : at + 256 * 1024])
        await stream.receive()
        elapsed = time.perf_counter() - began
        await stream.aclose()
        await self._engine.remove(container)
        return BIG / elapsed / 1e6

    # -- the server -------------------------------------------------------------------------------

    async def over_mcp(self) -> None:
        env = {**os.environ, "POCKET_DOCK_ENGINE": self._engine.info.url}
        server = StdioServerParameters(command=sys.executable, args=["-m", "pocket_dock_mcp"], env=env)
        async with Client(server) as client:
            made = await client.call_tool("create_sandbox", {"profile": self._image})
            assert not made.is_error, made.content
            arguments = {"code": "2+2"}
            seconds = await p50(lambda: client.call_tool("run_code", arguments), 200)
            self.add_against_exec('run_code("2+2") over MCP stdio', seconds, most_ms=6, least_ratio=15)
            memory = resident(server_pid())
            self.add("server, resident memory", mb(memory), budget="<= 90 MB", holds=memory <= 90e6)
        ours = [await answer_time(["-m", "pocket_dock_mcp"], env) for _ in range(5)]
        bare = [await answer_time(["-c", BARE_SERVER], env) for _ in range(5)]
        start, least = statistics.median(ours), statistics.median(bare)
        self.add(
            "start to `initialize` answered",
            ms(start),
            against=f"{start / least:.2f}x of a bare SDK server ({ms(least)})",
            budget="<= 1.15x",
            holds=start / least <= 1.15,
        )


def table(title: str, rows: list[Row]) -> str:
    lines = [f"## {title}", "", "| what | measured | against | budget | |", "|---|---|---|---|---|"]
    marks = {None: "", True: "holds", False: "**over**"}
    lines += [f"| {r.what} | {r.value} | {r.against} | {r.budget} | {marks[r.holds]} |" for r in rows]
    return "\n".join(lines) + "\n"


def machine() -> str:
    load = ", ".join(f"{value:.2f}" for value in os.getloadavg())
    return (
        f"pocket-dock-mcp {__version__}, {time.strftime('%Y-%m-%d')}, Python {platform.python_version()}, "
        f"Linux {platform.release()}, {os.cpu_count()} cores, load average at the start: {load}.\n"
    )


async def main(engines: list[str], write: bool) -> None:
    parts = [
        "# Benchmarks\n",
        "Made by `benchmarks/run.py`; times are medians unless said otherwise.\n",
        machine(),
    ]
    for given in engines or [""]:
        environ = {
            **os.environ,
            **({"POCKET_DOCK_ENGINE": given} if given else {}),
        }
        engine = await connect(environ)
        try:
            image = await ImageStore(engine).ensure("minimal", lambda line: print(line, file=sys.stderr))
            bench = Bench(engine, image.id)
            title = f"{engine.info.kind.capitalize()} {engine.info.version}"
            print(title, file=sys.stderr)
            await bench.run()
        finally:
            await engine.aclose()
        parts.append(table(title, bench.rows))
    report = "\n".join(parts)
    print(report)
    if write:
        RESULTS.write_text(report)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--engine",
        action="append",
        default=[],
        metavar="URL",
        help="an engine to measure (repeatable)",
    )
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS.name}")
    options = parser.parse_args()
    anyio.run(main, options.engine, options.write)
