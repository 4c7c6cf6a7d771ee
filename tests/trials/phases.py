"""What a server may be doing when it is killed. To try another phase, add it to `PHASES`."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tests.trials.server import Server

BUSY = (
    "import threading\nfor _ in range(4): threading.Thread(target=lambda: [0 for _ in iter(int, 1)]).start()"
)
BOMB = ":(){ :|:& };:"
FILL = "head -c 20000000 /dev/urandom > fill; echo done"


@dataclass(frozen=True)
class Phase:
    """Something that a server does."""

    begin: Callable[[Server, random.Random], Awaitable[None]]
    """Begin it, and return while it is going on."""
    span_s: float
    """The server is killed at a random moment within so many seconds from then."""


async def starting(server: Server, rng: random.Random) -> None:
    """It has not done anything yet."""


async def idle(server: Server, rng: random.Random) -> None:
    await server.initialize()
    await server.call("create_sandbox")


async def creating(server: Server, rng: random.Random) -> None:
    await server.initialize()
    for _ in range(rng.choice([1, 1, 1, 3])):
        server.send("create_sandbox")


async def creating_again(server: Server, rng: random.Random) -> None:
    """As `creating`, but connected and swept already: the engine's own create is what is hit."""
    await idle(server, rng)
    server.send("create_sandbox")


async def running(server: Server, rng: random.Random) -> None:
    await idle(server, rng)
    if rng.random() < 0.5:
        server.send("run_code", code=BUSY)
    else:
        await server.call("run_command", command=rng.choice(["sleep 1000", BOMB, "yes"]), background=True)


async def several(server: Server, rng: random.Random) -> None:
    await server.initialize()
    for number in range(3):
        made = await server.call("create_sandbox", name=str(number))
        server.send("run_command", command="echo hi; sleep 1000", sandbox_id=made["sandbox_id"])


async def snapshotting(server: Server, rng: random.Random) -> None:
    await idle(server, rng)
    await server.call("run_command", command=FILL)
    server.send("snapshot", name="trial")


async def snapshotted(server: Server, rng: random.Random) -> None:
    """A snapshot is complete, and kept on purpose."""
    await idle(server, rng)
    await server.call("snapshot", name="trial")


async def deleting(server: Server, rng: random.Random) -> None:
    await idle(server, rng)
    made = await server.call("snapshot", name="trial")
    server.send("kill", snapshot_id=made["snapshot_id"])


async def from_snapshot(server: Server, rng: random.Random) -> None:
    await idle(server, rng)
    made = await server.call("snapshot", name="trial")
    server.send("create_sandbox", snapshot=made["snapshot_id"])


async def killing(server: Server, rng: random.Random) -> None:
    await server.initialize()
    made = await server.call("create_sandbox")
    server.send("kill", sandbox_id=made["sandbox_id"])


async def ending(server: Server, rng: random.Random) -> None:
    """Its client has gone, and it is just cleaning up."""
    await idle(server, rng)
    assert server.process.stdin is not None
    server.process.stdin.close()


async def files(server: Server, rng: random.Random) -> None:
    await idle(server, rng)
    for number in range(5):
        server.send("write_file", path=f"dir/{number}", content="x" * 1_000_000)
    server.send("run_command", command="head -c 50000000 /dev/zero | tr '\\0' x")


async def filling(server: Server, rng: random.Random) -> None:
    """It launches containers ahead, as many as were asked for lately."""
    await server.initialize()
    for _ in range(rng.choice([1, 2])):
        made = await server.call("create_sandbox")
        await server.call("kill", sandbox_id=made["sandbox_id"])


async def comparing(server: Server, rng: random.Random) -> None:
    """It makes a container of its own to compare with."""
    await idle(server, rng)
    await server.call("write_file", path="new", content="new")
    server.send("diff")


async def forking(server: Server, rng: random.Random) -> None:
    await idle(server, rng)
    await server.call("run_command", command=FILL)
    server.send("fork_sandbox", count=2)


async def persisting(server: Server, rng: random.Random) -> None:
    """Whether it is kept already or not yet: one of both is true, and nothing in between."""
    await server.initialize()
    server.send("create_sandbox", persist=True)


async def persisted(server: Server, rng: random.Random) -> None:
    """It is kept on purpose, with what runs in it."""
    await server.initialize()
    made = await server.call("create_sandbox", persist=True)
    await server.call("run_command", command="sleep 1000", background=True, sandbox_id=made["sandbox_id"])


async def destroying(server: Server, rng: random.Random) -> None:
    await server.initialize()
    made = await server.call("create_sandbox", persist=True)
    server.send("kill", sandbox_id=made["sandbox_id"])


PHASES: dict[str, Phase] = {
    "starting": Phase(starting, 1.2),
    "idle": Phase(idle, 0.2),
    "creating": Phase(creating, 1.0),
    "creating again": Phase(creating_again, 0.4),
    "running": Phase(running, 0.6),
    "several": Phase(several, 0.3),
    "snapshotting": Phase(snapshotting, 1.0),
    "snapshotted": Phase(snapshotted, 0.05),
    "deleting": Phase(deleting, 0.3),
    "from snapshot": Phase(from_snapshot, 0.5),
    "killing": Phase(killing, 0.3),
    "ending": Phase(ending, 0.4),
    "files": Phase(files, 0.6),
    "filling": Phase(filling, 1.2),
    "comparing": Phase(comparing, 0.8),
    "forking": Phase(forking, 1.5),
    "persisting": Phase(persisting, 0.8),
    "persisted": Phase(persisted, 0.1),
    "destroying": Phase(destroying, 0.3),
}
