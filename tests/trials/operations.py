"""Operations whose right outcome is known, for the trial of `faults`: to try another, add it to the table."""

from __future__ import annotations

import random
import secrets
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from pocket_dock_mcp.agent.exec_transport import ExecTransport
from pocket_dock_mcp.agent.transport import Program
from pocket_dock_mcp.engine.docker_api import DockerApiEngine
from pocket_dock_mcp.errors import PocketDockError
from pocket_dock_mcp.manager.core import Manager
from pocket_dock_mcp.manager.sandbox import Owner, Sandbox, SandboxRequest
from pocket_dock_mcp.manager.snapshots import Snapshot
from tests.engines import eventually
from tests.faults import FaultyProxy, Way
from tests.trials.host import slowness

LINES = 1500
"""Of the output of a run: some pieces, and none so long that it takes its time."""
EXPECTED = "".join(f"{number}\n" for number in range(1, LINES + 1))
HONEST = frozenset({"lost", "indeterminate"})


@dataclass
class Bench:
    """What an operation works on."""

    manager: Manager
    proxy: FaultyProxy
    url: str
    """Of the engine itself."""
    owner: Owner
    request: SandboxRequest
    rng: random.Random
    sandbox: Sandbox | None = None
    snapshot: Snapshot | None = None

    async def living(self) -> Sandbox:
        """Return a sandbox that answers: the same as long as it lives."""
        if self.sandbox is not None:
            try:
                found = self.manager.get(self.owner, self.sandbox.id)
                if (await found.container.run("echo alive", timeout_s=5)).stdout == "alive\n":
                    return found
            except PocketDockError:
                pass
        for old in self.manager.list_sandboxes(self.owner):
            await self.manager.kill(self.owner, old.id)
        self.sandbox = await self.manager.create(self.owner, self.request, _silent)
        return self.sandbox


def _silent(_line: str) -> None:
    """Say nothing."""


async def _nothing(_bench: Bench) -> None:
    """There is nothing to prepare."""


async def _living(bench: Bench) -> None:
    await bench.living()


_Place = tuple[int | None, dict[Way, int]]
"""A connection by its number, or the stream that is open already; and the bytes in both ways."""


@dataclass
class Operation:
    """Something that can be done while a fault happens."""

    act: Callable[[Bench], Awaitable[str]]
    """Do it, and return its outcome in a word. An AssertionError means that it is a wrong one."""
    prepare: Callable[[Bench], Awaitable[None]] = _living
    """Do what belongs to it and is to go well."""
    on_stream: bool = False
    """Whether it is done over the stream of a container that is open already."""
    seen: deque[list[_Place]] = field(default_factory=lambda: deque(maxlen=20))
    """What its latest runs without a fault have transferred."""

    def learn(self, proxy: FaultyProxy) -> None:
        """See how much is transferred, so that faults are where something happens."""
        if self.on_stream:
            busiest = max(proxy.streams, key=lambda passed: passed["down"], default=None)
            places: list[_Place] = [(None, busiest)] if busiest is not None else []
        else:
            places = [(number, passed) for number, (_head, passed) in enumerate(proxy.traffic)]
        if places:
            self.seen.append([(number, dict(passed)) for number, passed in places])

    def place(self, rng: random.Random) -> tuple[int | None, Way, int]:
        """Return a connection, a way, and how many bytes to expect there."""
        way: Way = rng.choice(["up", "down", "down"])
        if not self.seen:
            return (None if self.on_stream else 0), way, 200
        connection, passed = rng.choice(rng.choice(self.seen))
        return connection, way, passed[way]


async def connect(bench: Bench) -> str:
    engine = await DockerApiEngine.connect(bench.proxy.url)
    try:
        assert engine.info.kind in ("podman", "docker")
        return "ok"
    finally:
        await engine.aclose()


async def _alone(bench: Bench) -> None:
    kept = await bench.living()
    for other in bench.manager.list_sandboxes(bench.owner):
        if other is not kept:
            await bench.manager.kill(bench.owner, other.id)


async def create(bench: Bench) -> str:
    sandbox = await bench.manager.create(bench.owner, bench.request, _silent)
    assert bench.manager.get(bench.owner, sandbox.id) is sandbox
    bench.sandbox = bench.sandbox or sandbox
    return "ok"


async def run(bench: Bench) -> str:
    assert bench.sandbox is not None
    result = await bench.sandbox.container.run(f"seq 1 {LINES}; exit 7", timeout_s=5)
    if result.status in HONEST:
        assert result.exit_code is None, result
        assert EXPECTED.startswith(result.stdout.partition("\ufffd")[0][:10]) or result.stdout, result
        return result.status
    assert result.status == "nonzero", result
    assert (result.exit_code, result.stdout) == (7, EXPECTED), f"{result.status} with a wrong output"
    return "ok"


async def files(bench: Bench) -> str:
    assert bench.sandbox is not None
    content = secrets.token_bytes(bench.rng.choice([10, 3000, 100_000]))
    written = await bench.sandbox.container.write_file("file", content)
    assert written.size == len(content)
    read = await bench.sandbox.container.read_file("file")
    assert read.data == content, "another content"
    return "ok"


async def listing(bench: Bench) -> str:
    assert bench.sandbox is not None
    entries, more = await bench.sandbox.container.list_files("/etc")
    assert {"passwd", "group", "hostname"} <= {entry.name for entry in entries}
    assert not more
    return "ok"


async def _snapshot_prepare(bench: Bench) -> None:
    await _living(bench)
    for old in await bench.manager.list_snapshots(bench.owner):
        await bench.manager.delete_snapshot(bench.owner, old.id)


async def snapshot(bench: Bench) -> str:
    assert bench.sandbox is not None
    _, made = await bench.manager.snapshot(bench.owner, bench.sandbox.id, "")
    direct = await DockerApiEngine.connect(bench.url)
    try:
        assert (await direct.image(made.tag)).id == made.image_id, "another image"
        await bench.manager.delete_snapshot(bench.owner, made.id)
    finally:
        await direct.aclose()
    assert made.id not in [kept.id for kept in await bench.manager.list_snapshots(bench.owner)]
    return "ok"


async def kill(bench: Bench) -> str:
    sandbox = bench.manager.get(bench.owner, bench.sandbox.id if bench.sandbox else None)
    await bench.manager.kill(bench.owner, sandbox.id)
    direct = await DockerApiEngine.connect(bench.url)

    async def is_stopped() -> bool:
        found = await direct.containers("pocket-dock.nonce")
        return not any(state.name == sandbox.container.name and state.status == "running" for state in found)

    try:
        # Whatever was answered: its lease is closed.
        await eventually(is_stopped, within=5 * slowness())
    finally:
        await direct.aclose()
    return "ok"


async def execs(bench: Bench) -> str:
    """A command as it is run where the image has no python3."""
    assert bench.sandbox is not None
    container: Any = bench.sandbox.container
    transport = ExecTransport(
        container._engine,
        container._running.id,
        container._transport._link._stream,
        container._transport.facts,
        {},
    )
    received = bytearray()
    process = await transport.start(
        Program("shell", f"seq 1 {LINES}; exit 7", timeout_s=4), lambda _stream, data: received.extend(data)
    )
    end = await process.wait()
    if end.ended_by == "timeout":
        return "timeout"
    assert (end.exit_code, bytes(received)) == (7, EXPECTED.encode()), f"{end}, {len(received)} bytes"
    return "ok"


OPERATIONS: dict[str, Operation] = {
    "connect": Operation(connect, _nothing),
    "create": Operation(create, _alone),
    "run": Operation(run, on_stream=True),
    "files": Operation(files, on_stream=True),
    "listing": Operation(listing, on_stream=True),
    "snapshot": Operation(snapshot, _snapshot_prepare),
    "kill": Operation(kill),
    "exec": Operation(execs),
}
