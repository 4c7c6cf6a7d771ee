"""Call a server a hundred thousand times: descriptors, memory, threads, host processes and files stay flat.

    python -m tests.trials.soak --engine unix:///var/run/docker.sock --calls 100000 [--seed N] [--minutes N]

A real server over stdio gets calls of all kinds, some in parallel; sandboxes come and go. What it holds is
measured after a warm-up and again and again until the end, each time when it is idle. The bounds are below,
with their reasons.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio

from pocket_dock_mcp.engine.docker_api import DockerApiEngine
from pocket_dock_mcp.manager.sweep import NO_GRACE, sweep
from tests.trials.host import files_under, processes_about
from tests.trials.server import Server

SAMPLES = 20
WARM_UP = 0.2
"""Part of all calls in which caches fill: remembered runs and sandboxes, pages of the allocator."""
AT_ONCE = 8

_NAME = re.compile(r"pocket-dock-[0-9a-f]{16}")

BOUNDS: dict[str, float] = {
    # One more or less is a connection that is just being closed.
    "descriptors": 2,
    # Threads come from a pool that is bounded, and may grow to it late.
    "threads": 4,
    # KiB. What is remembered of ended sandboxes and runs is bounded in number and not full after the warm-up.
    "memory": 24 * 1024,
    # Monitors of containers: of the one sandbox and of what is launched ahead, as many as there were.
    "monitors": 2,
    # Files in the state directory: one journal.
    "files": 1,
    # Bytes of the journal: it is emptied when nothing is open, and otherwise has a line for each sandbox.
    "journal": 64 * 1024,
}
"""How much more of each there may be at the end than after the warm-up."""


@dataclass
class Report:
    """What came of it."""

    calls: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    samples: list[dict[str, int]] = field(default_factory=list)
    seconds: float = 0.0
    violations: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f"{self.calls.total()} calls in {self.seconds:.0f} s: {dict(self.calls.most_common())}"]
        lines += [f"errors: {dict(self.errors)}"] if self.errors else []
        for name in BOUNDS:
            values = [sample[name] for sample in self.samples]
            lines.append(f"{name}: {values}")
        return "\n".join([*lines, f"{len(self.violations)} violations", *self.violations])


class Soak:
    """One server and what is asked of it."""

    def __init__(self, server: Server, state: Path, rng: random.Random, report: Report) -> None:
        self._server = server
        self._state = state
        self._rng = rng
        self._report = report
        self._sandbox = ""
        self._number = 0
        self._names: set[str] = set()
        """Of containers, in the command lines of their monitors; those that are gone as well."""

    async def run(self, calls: int, ends: float, samples: int) -> None:
        """Make so many calls, while there is time, and measure so many times in between."""
        await self._server.initialize()
        await self._renew()
        step = max(AT_ONCE, calls // samples)
        while self._report.calls.total() < calls and time.monotonic() < ends:
            goal = self._report.calls.total() + step
            while self._report.calls.total() < goal and time.monotonic() < ends:
                await self._round()
            self._report.samples.append(await self._measure())
            print(f"{self._report.calls.total()} calls, {self._report.samples[-1]}", flush=True)

    async def _round(self) -> None:
        """Make some calls at once."""
        async with anyio.create_task_group() as group:
            for _ in range(AT_ONCE):
                group.start_soon(self._call)
        if self._rng.random() < 0.02:
            await self._renew()

    async def _call(self) -> None:
        self._number += 1
        number = self._number
        name = self._rng.choices(list(_KINDS), weights=[weight for weight, _ in _KINDS.values()])[0]
        tool, arguments = _KINDS[name][1](number)
        self._report.calls[name] += 1
        try:
            reply = await self._server.call(tool, sandbox_id=self._sandbox, **arguments)
        except (AssertionError, TimeoutError) as error:
            self._report.errors[f"{name}: {str(error)[:200]}"] += 1
            return
        wanted = {"run_code": f"'{number}'", "run_command": f"{number}\n"}.get(name)
        got = reply.get("result") if name == "run_code" else reply.get("stdout")
        if wanted is not None and got != wanted:
            self._report.violations.append(f"{name} {number}: {reply}")

    async def _renew(self) -> None:
        """End the sandbox and make another."""
        if self._sandbox:
            await self._server.call("kill", sandbox_id=self._sandbox)
        self._sandbox = (await self._server.call("create_sandbox"))["sandbox_id"]
        self._report.calls["create_sandbox"] += 1

    async def _measure(self) -> dict[str, int]:
        await self._renew()
        # What is launched ahead is there by then, and what was ended is gone.
        await anyio.sleep(3)
        proc = Path("/proc", str(self._server.process.pid))
        status = dict(
            line.split(":", 1) for line in (proc / "status").read_text(encoding="utf-8").splitlines()
        )
        journals = list((self._state / "instances").glob("*.jsonl"))
        for path in journals:
            self._names |= set(_NAME.findall(path.read_text(encoding="utf-8")))
        return {
            "descriptors": len(list((proc / "fd").iterdir())),
            "threads": int(status["Threads"]),
            "memory": int(status["VmRSS"].split()[0]),
            "monitors": len(processes_about(self._names)) if self._names else 0,
            "files": len(files_under(self._state)),
            "journal": sum(path.stat().st_size for path in journals),
        }


def _kind(tool: str, **arguments: Any) -> Any:
    def fill(number: int) -> tuple[str, Mapping[str, Any]]:
        filled = {
            name: value.replace("@", str(number)) if isinstance(value, str) else value
            for name, value in arguments.items()
        }
        return tool, filled

    return fill


_KINDS: dict[str, tuple[int, Any]] = {
    "run_command": (20, _kind("run_command", command="echo @")),
    "run_code": (10, _kind("run_code", code="str(@)")),
    "session": (10, _kind("run_code", code="x = @", session="s")),
    "flood": (1, _kind("run_command", command="head -c 300000 /dev/zero | tr '\\0' x", max_output=1024)),
    "failing": (3, _kind("run_command", command="exit 3")),
    "timeout": (1, _kind("run_command", command="sleep 5", timeout_s=0.1)),
    "background": (2, _kind("run_command", command="sleep 0.2", background=True)),
    "write": (10, _kind("write_file", path="dir/file", content="@")),
    "read": (10, _kind("read_file", path="/etc/passwd")),
    "find": (1, _kind("find_files", path="/etc", glob="*.conf", max_results=5)),
}


async def trial(
    url: str, calls: int, *, seed: int, minutes: float = 24 * 60, samples: int = SAMPLES
) -> Report:
    """Make the calls, and say what has grown."""
    report = Report()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="soak-") as scratch:
        state = Path(scratch, "state")
        environ = {
            "PATH": os.environ["PATH"],
            "HOME": scratch,
            "POCKET_DOCK_ENGINE": url,
            "POCKET_DOCK_STATE_DIR": str(state),
        }
        server = await Server.start(environ)
        try:
            await Soak(server, state, random.Random(seed), report).run(calls, began + 60 * minutes, samples)
            status = await server.close()
            if status != 0:
                report.violations.append(f"the server's exit status is {status}")
        finally:
            with anyio.CancelScope(shield=True):
                await server.kill()
        await _sweep(url, state)
        if left := files_under(state):
            report.violations.append(f"files at the end: {left}")
    report.seconds = time.monotonic() - began
    _judge(report)
    return report


async def _sweep(url: str, state: Path) -> None:
    """Remove what a busy engine had not removed by the time that a server has for ending."""
    engine = await DockerApiEngine.connect(url)
    try:
        await sweep(engine, state / "instances", grace_s=NO_GRACE)
    finally:
        await engine.aclose()


def _judge(report: Report) -> None:
    warm = report.samples[int(WARM_UP * len(report.samples)) :]
    for name, bound in BOUNDS.items():
        values = [sample[name] for sample in warm]
        if len(values) > 1 and min(values[-3:]) - min(values[:3]) > bound:
            report.violations.append(f"{name} has grown: {values}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--engine", required=True, help="unix:///path/to.sock")
    parser.add_argument("--calls", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    parser.add_argument("--minutes", type=float, default=24 * 60, help="end then, whatever was done")
    given = parser.parse_args()
    print(f"seed {given.seed}", flush=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    report = anyio.run(lambda: trial(given.engine, given.calls, seed=given.seed, minutes=given.minutes))
    print(report)
    sys.exit(1 if report.violations else 0)


if __name__ == "__main__":
    main()
