"""What must hold after every case, whatever it was about."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio

from tests.abuse.ground import Ground
from tests.abuse.server import MIB, DiedError, Reply, Server
from tests.trials.api import RefusedError
from tests.trials.host import files_under, processes_about, slowness

MOST_GROWTH_MB = 64
ANSWER_S = 2.0
GONE_S = 10.0
_INSTANCE = "pocket-dock.instance"


@dataclass
class Container:
    """One of a server's containers, as the engine and the host have it."""

    id: str
    name: str
    first: tuple[int, str] | None
    """Its first process on this machine, by id and time of its start; None where the engine runs elsewhere.
    Its namespace of processes ends with it, and the kernel gives the namespace's number to another one."""
    volumes: list[str]


@dataclass
class Verdict:
    """What the oracles have found."""

    violations: list[str] = field(default_factory=list)
    """Each begins with the oracle's name."""
    values: dict[str, Any] = field(default_factory=dict)
    said: str = ""
    """All that the case was told."""

    def add(self, oracle: str, reasons: Collection[str], value: Any = None) -> None:
        """Note what one oracle says."""
        self.violations += [f"{oracle}: {reason}" for reason in reasons]
        self.values[oracle] = value if value is not None else ("ok" if not reasons else list(reasons))


class Watch:
    """Looks before and after a case."""

    def __init__(self, ground: Ground, server: Server) -> None:
        self._ground = ground
        self._server = server
        self._files: set[Path] = set()
        self._memory = 0
        self._strays = len(server.strays)
        self._before: set[str] = set()
        self.containers: dict[str, Container] = {}
        """Those that were seen during the case, by id."""

    async def begin(self) -> None:
        """Look at what there is before the case."""
        neighbour = await self._ground.neighbour(self._server)
        self._ground.canaries.violations()
        self._files = self._state()
        self._before = set(await self._ours())
        self._memory = self._server.memory_bytes()
        neighbour.listen()

    async def see(self) -> None:
        """Look at the containers that there are now, so that later it is known what has to be gone."""
        for container_id in await self._ours() - self._before - set(self.containers):
            if found := await self._look(container_id):
                self.containers[container_id] = found

    async def judge(self, verdict: Verdict, *, after: str, sandbox: str | None, said: str) -> None:
        """Ask all oracles; `said` is all that the case has been told."""
        reasons = self._ground.canaries.violations()
        if self._ground.canaries.secret in said:
            reasons.append("a secret of the host is in a reply")
        verdict.add("O1", reasons)
        await self._ask_server(verdict)
        if sandbox is not None:
            await self._ask_sandbox(verdict, sandbox, after)
        await self._ask_for_the_rest(verdict)
        grown = (self._server.peak_bytes() - self._memory) / MIB if self._server.is_alive else 0.0
        verdict.add(
            "O6", [f"the server grew by {grown:.0f} MiB"] if grown > MOST_GROWTH_MB else [], round(grown, 1)
        )
        reasons, times = await (await self._ground.neighbour(self._server)).violations()
        verdict.add("O7", reasons, times)
        await self._ask_engine(verdict)

    async def _ask_server(self, verdict: Verdict) -> None:
        reasons = [f"stdout of the server: {stray}" for stray in self._server.strays[self._strays :][:3]]
        verdict.add("O3", reasons)
        began = time.monotonic()
        try:
            with anyio.fail_after(ANSWER_S * 2 * slowness()):
                reply = await self._server.call("list_sandboxes")
            reasons = [f"a fresh call fails: {reply.text[:300]}"] if reply.is_error else []
        except (DiedError, TimeoutError, OSError) as error:
            reasons = [f"a fresh call is not answered: {error!r}"]
        verdict.add("O2", reasons, round(time.monotonic() - began, 3))

    async def _ask_sandbox(self, verdict: Verdict, sandbox: str, after: str) -> None:
        try:
            with anyio.fail_after(_patience(verdict, 20.0)):
                reply = await self._server.call(
                    "run_command", command="echo still-$((40 + 2))", sandbox_id=sandbox
                )
        except (DiedError, TimeoutError, OSError) as error:
            verdict.add("O4", [f"the sandbox does not answer: {error!r}"])
            return
        verdict.add("O4", _state_reasons(reply, after))

    async def _ask_for_the_rest(self, verdict: Verdict) -> None:
        """Destroy what there is, and see that nothing is left."""
        await self.see()
        if self._server.is_alive:
            listed = await self._server.call("list_sandboxes")
            for found in listed.structured.get("sandboxes", []):
                await self._server.call("kill", sandbox_id=found["sandbox_id"])
        left = await _settled(self._left, _patience(verdict, GONE_S))
        verdict.add("O5", left)
        for container_id in await self._ours() - self._before:
            # What was found is not left to whoever comes next.
            await self._ground.api.call("DELETE", f"containers/{container_id}", force="1", v="1")

    async def _left(self) -> list[str]:
        left = [f"container {name[:12]}" for name in await self._ours() - self._before]
        for container in self.containers.values():
            left += [f"process {pid} of {container.name}" for pid in _processes_beside(container.first)]
            for volume in container.volumes:
                if await self._ground.api.inspect("volumes", volume) is not None:
                    left.append(f"volume {volume}")
        names = [container.name for container in self.containers.values()]
        left += [f"a process about a container: {line}" for line in processes_about(names)] if names else []
        return left + [f"file {path}" for path in sorted(self._state() - self._files)]

    async def _ask_engine(self, verdict: Verdict) -> None:
        try:
            with anyio.fail_after(10 * slowness()):
                await self._ground.api.call("GET", "_ping")
            verdict.add("O8", [])
        except (TimeoutError, OSError, RefusedError) as error:
            verdict.add("O8", [f"the engine does not answer: {error!r}"])

    def _state(self) -> set[Path]:
        state = Path(self._server.environ["POCKET_DOCK_STATE_DIR"])
        return {path for path in files_under(state) if not _is_kept(path.relative_to(state))}

    async def _ours(self) -> set[str]:
        found: set[str] = set()
        state = Path(self._server.environ["POCKET_DOCK_STATE_DIR"])
        for path in (state / "instances").glob("*.jsonl"):
            found |= {item["Id"] for item in await self._ground.api.containers(f"{_INSTANCE}={path.stem}")}
        return found

    async def _look(self, container_id: str) -> Container | None:
        known = await self._ground.api.inspect("containers", container_id)
        if known is None:
            return None
        pid = known["State"].get("Pid") or 0
        volumes = [mount["Name"] for mount in known["Mounts"] if mount.get("Type") == "volume"]
        return Container(container_id, known["Name"].lstrip("/"), _first(pid), volumes)


def _patience(verdict: Verdict, seconds: float) -> float:
    """Return how long to wait for something to be right: a moment, when it is known that not all is."""
    return 1.0 if verdict.violations else seconds * slowness()


def _is_kept(path: Path) -> bool:
    """Whether a file is one of the server's and not of a sandbox: its journal, and the filter for Podman."""
    return path.parts[0] == "instances" or path.name.startswith("seccomp-")


def _state_reasons(reply: Reply, after: str) -> list[str]:
    is_usable = not reply.is_error and reply.structured.get("stdout") == "still-42\n"
    is_gone = reply.is_error or reply.status == "lost"
    if after == "either" or (is_usable and after == "usable") or (is_gone and after == "gone"):
        return []
    return [f"the sandbox was to be {after}: {reply.text[:300]}"]


async def _settled(left: Callable[[], Awaitable[list[str]]], within_s: float) -> list[str]:
    """Return what is left, as soon as that is nothing or when the time is over."""
    deadline = time.monotonic() + within_s
    while found := await left():
        if time.monotonic() > deadline:
            return found
        await anyio.sleep(0.05)
    return []


def _namespace(pid: int) -> str:
    try:
        found = Path("/proc", str(pid), "ns/pid").readlink()
    except OSError:
        # It has ended, or runs on another kernel.
        return ""
    own = Path("/proc/self/ns/pid").readlink()
    return "" if found == own else str(found)


def _first(pid: int) -> tuple[int, str] | None:
    started = _started(pid)
    return (pid, started) if started and _namespace(pid) else None


def _started(pid: int) -> str:
    try:
        return Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""


def _processes_beside(first: tuple[int, str] | None) -> list[str]:
    if first is None or _started(first[0]) != first[1]:
        return []
    namespace = _namespace(first[0])
    return [
        path.name
        for path in Path("/proc").iterdir()
        if path.name.isdigit() and namespace and _namespace(int(path.name)) == namespace
    ]
