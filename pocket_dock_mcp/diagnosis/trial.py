"""Limits and isolation, tried in a real sandbox: what an engine says of itself counts for nothing here."""

from __future__ import annotations

import functools
import json
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from importlib import resources
from typing import Any

import anyio

from pocket_dock_mcp.beside import beside
from pocket_dock_mcp.container.core import LiveContainer
from pocket_dock_mcp.container.launch import Launch
from pocket_dock_mcp.diagnosis.auditing import gathered
from pocket_dock_mcp.diagnosis.findings import Finding
from pocket_dock_mcp.diagnosis.verdicts import Judge, Reply, disk
from pocket_dock_mcp.engine.base import STDOUT, Engine
from pocket_dock_mcp.errors import PocketDockError, StreamLostError
from pocket_dock_mcp.manager.journal import Intent, Journal
from pocket_dock_mcp.manager.sweep import INSTANCE_LABEL, NONCE_LABEL
from pocket_dock_mcp.models import MIB, Limits
from pocket_dock_mcp.settings import Settings

LIMITS = Limits(memory_bytes=64 * MIB, cpus=0.25, pids=32)
"""Small, so that going beyond them takes little of the machine."""
MORE_MEMORY_MB = 96
MORE_PIDS = 48
BURN_S = 1.0
BURNERS = 2
PROBE_S = 20.0
"""Seconds for one of the programs inside."""
CLOSE_S = 10.0
MAX_REPLY = 64 * 1024

Tell = Callable[[str], None]


async def tried(engine: Engine, image: str, settings: Settings, judge: Judge, tell: Tell) -> list[Finding]:
    """Make a sandbox, try what holds in it, and leave nothing of it.

    Raises:
        PocketDockError: there is no such sandbox, or it died.
        OSError: nothing can be written to our state directory.
    """
    tell("making a sandbox")
    async with sandbox(engine, image, settings, LIMITS) as container:
        evidence = await gathered(container, settings.confinement)
        info = evidence.inside
        found = [judge.read_back(info.unenforced), *judge.confinement(evidence)]
        if info.transport == "exec":
            detail = "Its image has no python3, which the programs that try them need."
            return [*found, untried(detail)]
        return found + await _probe(engine, container.container_id, container, judge, tell)


@asynccontextmanager
async def sandbox(
    engine: Engine, image: str, settings: Settings, limits: Limits
) -> AsyncIterator[LiveContainer]:
    """Have a sandbox, whatever does not hold in it, and leave nothing of it.

    Raises:
        PocketDockError: there is no such sandbox.
        OSError: nothing can be written to our state directory.
    """
    with _recorded(settings, engine) as (journal, intent):
        wanted = Launch(
            name=intent.name,
            image=image,
            labels={INSTANCE_LABEL: journal.instance, NONCE_LABEL: intent.nonce},
            limits=limits,
            enforce="best-effort",
            warm_python=False,
            confinement=settings.confinement,
        )
        container = await LiveContainer.create(engine, wanted)
        try:
            yield container
        finally:
            with anyio.CancelScope(shield=True), anyio.move_on_after(CLOSE_S):
                await container.aclose()
            if container.removed:
                journal.settled(intent.name)


def untried(detail: str, remedy: str = "") -> Finding:
    """Say that nothing was tried, so that nobody takes silence for a yes."""
    remedy = remedy or "POCKET_DOCK_PROFILE=minimal pocket-dock doctor"
    return Finding("limits", "warning", "Whether limits hold was not tried", detail, remedy)


@contextmanager
def _recorded(settings: Settings, engine: Engine) -> Iterator[tuple[Journal, Intent]]:
    """Note the sandbox before it is made: if we are killed, the next start of anything of ours removes it."""
    journal = Journal(settings.state_dir / "instances")
    try:
        journal.use_engine(engine.info.identity)
        yield journal, journal.intend("container", f"pocket-dock-{secrets.token_hex(8)}")
    finally:
        journal.close()


async def _probe(
    engine: Engine, container_id: str, container: LiveContainer, judge: Judge, tell: Tell
) -> list[Finding]:
    found: list[Finding] = []
    tell("trying isolation and seccomp")
    looked = await _run(container, probe="look")
    if looked is None:
        found.append(untried("The program that looks from inside did not answer."))
    else:
        found += [*judge.isolation(looked), *judge.seccomp(looked), disk(looked, engine.info)]
    tell("trying the CPU limit")
    burnt = await _run(container, probe="burn", seconds=BURN_S, workers=BURNERS)
    found.append(judge.cpus(burnt, LIMITS))
    tell("trying the limit on processes")
    found.append(judge.pids(await _forked(engine, container_id), LIMITS))
    tell("trying the memory limit")
    asked = json.dumps({"probe": "fill", "megabytes": MORE_MEMORY_MB})
    result = await container.run(program(), language="python", stdin=f"{asked}\n", timeout_s=PROBE_S)
    found.append(judge.memory(result, LIMITS.memory_bytes, MORE_MEMORY_MB * MIB))
    return found


@functools.cache
def program() -> str:
    """Return the source of the program that runs inside."""
    return resources.files("pocket_dock_mcp.diagnosis").joinpath("probe.py").read_text(encoding="utf-8")


async def _run(container: LiveContainer, **asked: Any) -> Reply | None:
    """Run a probe as a sandbox's user; None if it does not answer as it should."""
    result = await container.run(
        program(), language="python", stdin=f"{json.dumps(asked)}\n", cwd="/", timeout_s=PROBE_S
    )
    return _parsed(result.stdout) if result.ok else None


async def _forked(engine: Engine, container_id: str) -> Reply | None:
    """Start processes as somebody else than the user, who has a limit of his own below the sandbox's."""
    argv = ["python3", "-I", "-c", program()]
    asked = json.dumps({"probe": "fork", "most": MORE_PIDS})
    received = bytearray()
    try:
        with anyio.fail_after(PROBE_S):
            stream = await engine.exec(container_id, argv, user="0:0")
            try:
                async with beside(stream.send, f"{asked}\n".encode()):
                    while (piece := await stream.receive()) is not None and len(received) < MAX_REPLY:
                        if piece[0] == STDOUT:
                            received += piece[1]
            finally:
                with anyio.CancelScope(shield=True):
                    await stream.aclose()
    except (TimeoutError, StreamLostError, PocketDockError):
        return None
    return _parsed(received.decode("utf-8", "replace"))


def _parsed(text: str) -> Reply | None:
    try:
        reply = json.loads(text.strip().rpartition("\n")[2])
    except (ValueError, RecursionError):
        return None
    return reply if isinstance(reply, dict) else None
