"""Containers of pools whose process died between creating and starting them.

One that was started ends with its lease. One that was not has no lease yet, and a pool has no
journal: so each says on a label who made it, and whoever comes next removes those whose maker is dead.

A label alone proves nothing: an image that somebody commits of such a container hands it on to all that is
made of that. So it has the container's name in it as well, which no other container can have.

What cannot be judged is left alone. A process is known by its id only to those who share its namespace, and
nothing tells a boot of this machine from one of another that uses the same engine.
"""

from __future__ import annotations

import logging
import os
import re
from dataclasses import dataclass, field
from pathlib import Path

import anyio

from pocket_dock_mcp.engine.base import ContainerState, Engine
from pocket_dock_mcp.errors import EngineError

logger = logging.getLogger(__name__)

POOL_LABEL = "pocket-dock.pool"
AT_ONCE = 4
_PROC = Path("/proc")
_LABEL = re.compile(
    r"(?P<name>\S{1,128})(?: (?P<space>\S{1,128}) (?P<pid>[1-9]\d{0,9}) (?P<start>\d{1,20}))?", re.ASCII
)


@dataclass(frozen=True, slots=True)
class Maker:
    """A process that makes containers."""

    space: str
    """Within which its id means something: a boot, and the namespaces of process ids and of clocks."""
    pid: int
    start: int
    """When it started, in ticks since the boot: ids are used again."""


@dataclass(slots=True)
class Cleared:
    """What became of abandoned containers, by name."""

    removed: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)


def this_process() -> Maker | None:
    """Return who we are; None where nobody could tell later whether we are alive."""
    space, pid = _space(), os.getpid()
    status = _status(pid)
    return None if space is None or status is None else Maker(space, pid, status[0])


def mark(name: str, maker: Maker | None) -> str:
    """Return the value of `POOL_LABEL` on a container of that name."""
    return name if maker is None else f"{name} {maker.space} {maker.pid} {maker.start}"


async def find_abandoned(engine: Engine) -> list[ContainerState]:
    """Return the containers that were never started, or have ended, and whose maker is dead.

    Raises:
        EngineError: the engine failed.
    """
    space = _space()
    return [
        found
        for found, label in await _idle(engine)
        if space is not None
        and label["space"] == space
        and not _is_alive(int(label["pid"]), int(label["start"]))
    ]


async def find_doubtful(engine: Engine) -> list[ContainerState]:
    """Return those of which nobody here can tell whether their maker lives: of before a reboot, perhaps.

    Raises:
        EngineError: the engine failed.
    """
    space = _space()
    return [found for found, label in await _idle(engine) if label["space"] != space or space is None]


async def remove_abandoned(engine: Engine) -> Cleared:
    """Remove them, some at a time. One that the engine refuses does not stop the others.

    Raises:
        EngineError: the engine does not say what there is.
    """
    found = {state.id: state.name for state in await find_abandoned(engine)}
    if not found:
        return Cleared()
    limiter = anyio.CapacityLimiter(AT_ONCE)

    async def attempt(container_id: str) -> None:
        async with limiter:
            try:
                await engine.remove(container_id)
            except EngineError as error:
                logger.info("could not remove an abandoned container yet: %s", error)

    async with anyio.create_task_group() as group:
        for container_id in found:
            group.start_soon(attempt, container_id)
    # Asked again: engines remove in the background, and not always with success.
    still = {state.id for state in await find_abandoned(engine)}
    done = Cleared(
        removed=sorted(name for container_id, name in found.items() if container_id not in still),
        left=sorted(name for container_id, name in found.items() if container_id in still),
    )
    if done.removed:
        logger.info("removed containers of pools whose process died: %s", ", ".join(done.removed))
    return done


async def _idle(engine: Engine) -> list[tuple[ContainerState, re.Match[str]]]:
    """Return pools' own containers that do not run, with what their labels say."""
    every = [
        (found, _LABEL.fullmatch(found.labels.get(POOL_LABEL, "")))
        for found in await engine.containers(POOL_LABEL)
        if found.status in ("created", "exited")
    ]
    return [(found, label) for found, label in every if label is not None and label["name"] == found.name]


def _is_alive(pid: int, start: int) -> bool:
    """Whether that process runs, or may run."""
    try:
        # Not by looking into /proc, where other users' processes may be hidden.
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        # It is another user's: there, at least.
        pass
    status = _status(pid)
    if status is None:
        return True
    started, has_ended = status
    return started == start and not has_ended


def _space() -> str | None:
    """Return in which space our process ids are; None where this cannot be told."""
    try:
        # Where /proc is that of other namespaces, it has other processes under our ids.
        if (_PROC / "self").readlink() != Path(str(os.getpid())):
            return None
        boot = (_PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        pids = (_PROC / "self/ns/pid").stat().st_ino
        clocks = _PROC / "self/ns/time"
        # Older kernels have none of these, and one clock for all.
        return f"{boot}/{pids}/{clocks.stat().st_ino if clocks.exists() else 0}"
    except (OSError, ValueError):
        return None


def _status(pid: int) -> tuple[int, bool] | None:
    """Return when a process started and whether it has ended; None if that cannot be seen."""
    try:
        text = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
        # Its name comes before, in parentheses, with anything in it.
        fields = text.rpartition(")")[2].split()
        # The first thread may have ended before the others.
        return int(fields[19]), fields[0] in ("Z", "X") and int(fields[17]) <= 1
    except (OSError, ValueError, IndexError):
        return None
