"""Whether the time of a refusal tells somebody else's id from a random one.

    python -m tests.trials.timing --engine unix:///run/podman/podman.sock --count 300

Alice has sandboxes in every state: live, kept and held by this server, kept and held by another one, stopped,
ended; and runs and snapshots. Bob asks for them over HTTP, and for random ids, in random order. For each tool
and state the two distributions are compared by the rank test of Mann and Whitney: 0.5 is the chance that a
foreign id takes longer than a random one if nothing can be told. Each random id is used once.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import secrets
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio

from pocket_dock_mcp.testing import FakeEngine
from tests.engines import Target
from tests.raw import RawClient, raw_client
from tests.servers import environment, http_server

STATES = ("live", "kept", "held elsewhere", "stopped", "ended")
NOISE = 0.62
"""A chance beyond which (or below one minus it) the times differ by what somebody could make use of."""

Arguments = Callable[[str], dict[str, Any]]
ABOUT_SANDBOXES: dict[str, Arguments] = {
    "run_code": lambda some: {"sandbox_id": some, "code": "1", "language": "shell"},
    "run_command": lambda some: {"sandbox_id": some, "command": "true"},
    "write_file": lambda some: {"sandbox_id": some, "path": "a", "content": "a"},
    "edit_file": lambda some: {"sandbox_id": some, "path": "a", "edits": [{"old": "a", "new": "b"}]},
    "read_file": lambda some: {"sandbox_id": some, "path": "a"},
    "find_files": lambda some: {"sandbox_id": some, "path": "."},
    "snapshot": lambda some: {"sandbox_id": some},
    "fork_sandbox": lambda some: {"sandbox_id": some, "count": 1},
    "diff": lambda some: {"sandbox_id": some},
    "kill": lambda some: {"sandbox_id": some},
}
ABOUT_RUNS: dict[str, Arguments] = {
    "wait_run": lambda some: {"run_id": some, "wait_s": 0},
    "read_output": lambda some: {"run_id": some},
    "kill": lambda some: {"run_id": some},
}
ABOUT_SNAPSHOTS: dict[str, Arguments] = {
    "create_sandbox": lambda some: {"snapshot": some},
    "kill": lambda some: {"snapshot_id": some},
}


@dataclass(frozen=True)
class Compared:
    """What was measured of one tool and one kind of id."""

    tool: str
    what: str
    foreign_ms: float
    """Median."""
    random_ms: float
    chance: float
    """That a foreign id takes longer than a random one."""
    p: float
    """The probability of a difference as large, or larger, if there is none."""

    def differs(self, comparisons: int) -> bool:
        """Whether the times differ, given how many such comparisons are made, by what is of any use."""
        return self.p * comparisons < 0.01 and not 1 - NOISE < self.chance < NOISE


def compared(tool: str, what: str, foreign: list[float], unknown: list[float]) -> Compared:
    """Compare two samples."""
    chance, p = rank_test(foreign, unknown)
    medians = (statistics.median(foreign) * 1000, statistics.median(unknown) * 1000)
    return Compared(tool, what, *medians, chance, p)


def rank_test(first: list[float], second: list[float]) -> tuple[float, float]:
    """Return the chance that one of `first` is larger than one of `second`, and the two-sided p of that.

    Mann and Whitney's, with the normal approximation, for samples of a size that is right for that.
    """
    together = sorted([(value, 0) for value in first] + [(value, 1) for value in second])
    ranks = sum(rank for rank, (_, which) in enumerate(together, start=1) if which == 0)
    n, m = len(first), len(second)
    u = ranks - n * (n + 1) / 2
    z = (u - n * m / 2) / math.sqrt(n * m * (n + m + 1) / 12)
    return u / (n * m), math.erfc(abs(z) / math.sqrt(2))


def _random(like: str) -> str:
    return like.partition("-")[0] + "-" + secrets.token_hex(16)


async def trial(target: Target, image: str, home: Path, count: int) -> list[Compared]:
    """Measure each tool and state `count` times with a foreign id, and with random ones."""
    environ = {
        **environment(target, home, image),
        "POCKET_DOCK_MAX_SANDBOXES": "8",
        "POCKET_DOCK_MEMORY_MB": "64",
        "POCKET_DOCK_POOL_MB": "0",
    }
    async with (
        http_server(target, environ, principals=["alice", "bob"]) as server,
        raw_client(server, "alice") as alice,
        raw_client(server, "bob") as bob,
        _elsewhere(target, environ) as elsewhere,
    ):
        has = await _everything(alice, elsewhere)
        try:
            return [
                await _measure(bob, tool, what, some, arguments, count)
                for what, some, tools in has
                for tool, arguments in tools.items()
            ]
        finally:
            for what, some, tools in has:
                if tools is ABOUT_SNAPSHOTS:
                    await alice.call("kill", snapshot_id=some)
                elif tools is ABOUT_SANDBOXES and what != "ended":
                    await (elsewhere or alice).call("kill", sandbox_id=some)


@asynccontextmanager
async def _elsewhere(target: Target, environ: dict[str, str]) -> AsyncIterator[RawClient | None]:
    """Have Alice be a client of another server with the same records; a fake engine has but one."""
    if target.is_fake:
        yield None
        return
    async with (
        http_server(target, environ, principals=["alice"]) as server,
        raw_client(server, "alice") as client,
    ):
        yield client


async def _everything(
    alice: RawClient, elsewhere: RawClient | None
) -> list[tuple[str, str, dict[str, Arguments]]]:
    found: list[tuple[str, str, dict[str, Arguments]]] = []
    for state in STATES:
        if state in ("held elsewhere", "stopped") and elsewhere is None:
            continue
        maker = elsewhere if state == "held elsewhere" and elsewhere is not None else alice
        ttl_s = 1 if state == "stopped" else 3600
        box = (await _called(maker, "create_sandbox", persist=state not in ("live", "ended"), ttl_s=ttl_s))[
            "sandbox_id"
        ]
        if state == "stopped":
            await _stopped(maker, box)
        else:
            run = await _called(maker, "run_command", sandbox_id=box, command="echo hi")
            found.append((f"run, {state}", run["run_id"], ABOUT_RUNS))
        if state == "live":
            snapshot = (await _called(maker, "snapshot", sandbox_id=box))["snapshot_id"]
            found.append(("snapshot", snapshot, ABOUT_SNAPSHOTS))
        if state == "ended":
            await _called(maker, "kill", sandbox_id=box)
        found.append((state, box, ABOUT_SANDBOXES))
    return found


async def _stopped(alice: RawClient, box: str) -> None:
    with anyio.fail_after(60):
        while True:
            listed = (await _called(alice, "list_sandboxes"))["sandboxes"]
            if any(one["sandbox_id"] == box and one["status"] == "stopped" for one in listed):
                return
            await anyio.sleep(0.2)


async def _called(client: RawClient, tool: str, **arguments: Any) -> dict[str, Any]:
    result = json.loads(await client.call(tool, **arguments))["result"]
    assert not result.get("isError"), result
    return dict(result["structuredContent"])


async def _measure(
    bob: RawClient, tool: str, what: str, some: str, arguments: Arguments, count: int
) -> Compared:
    times: dict[bool, list[float]] = {True: [], False: []}
    order = [True, False] * count
    random.shuffle(order)
    for is_foreign in order:
        wanted = arguments(some if is_foreign else _random(some))
        began = time.perf_counter()
        answer = await bob.call(tool, **wanted)
        times[is_foreign].append(time.perf_counter() - began)
        assert b"not_found" in answer, answer
    return compared(tool, what, times[True], times[False])


async def _main(target: Target, image: str, count: int) -> int:
    with tempfile.TemporaryDirectory() as home:
        found = await trial(target, image, Path(home), count)
    print(f"{'tool':16}{'id of':22}{'foreign':>10}{'random':>10}{'chance':>8}{'p':>8}")
    for one in found:
        mark = "  DIFFERS" if one.differs(len(found)) else ""
        times = f"{one.foreign_ms:7.2f} ms{one.random_ms:7.2f} ms"
        print(f"{one.tool:16}{one.what:22}{times}{one.chance:8.3f}{one.p:8.3f}{mark}")
    return 1 if any(one.differs(len(found)) for one in found) else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="tests.trials.timing", description=__doc__)
    parser.add_argument("--engine", default="fake", metavar="URL", help="default: one in memory")
    parser.add_argument("--image", default="minimal", help="profile or image of the sandboxes")
    parser.add_argument("--count", type=int, default=300)
    given = parser.parse_args()
    is_fake = given.engine == "fake"
    chosen = Target("fake" if is_fake else "real", "" if is_fake else given.engine)
    wanted = FakeEngine.IMAGE if is_fake else given.image
    sys.exit(anyio.run(_main, chosen, wanted, given.count))
