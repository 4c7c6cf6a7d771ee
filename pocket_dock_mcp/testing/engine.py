"""The fake engine itself: the verbs of the port over plain state."""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import anyio
import anyio.lowlevel

from pocket_dock_mcp.agent.bridge import bridge_argv
from pocket_dock_mcp.agent.bundle import agent_argv, quick_argv
from pocket_dock_mcp.engine.base import STDERR, ContainerState, EngineInfo, ExecStream, Stream
from pocket_dock_mcp.errors import (
    ContainerGoneError,
    EngineConflictError,
    EngineUnavailableError,
    PocketDockError,
    ProgramNotFoundError,
)
from pocket_dock_mcp.models import ContainerSpec
from pocket_dock_mcp.testing.agent import AgentFaults, FakeAgent
from pocket_dock_mcp.testing.container import FakeContainer
from pocket_dock_mcp.testing.details import Described
from pocket_dock_mcp.testing.image_verbs import ImageVerbs
from pocket_dock_mcp.testing.images import PROGRAMS, FakeImage, Images, has_label
from pocket_dock_mcp.testing.keeping import join
from pocket_dock_mcp.testing.programs import NOT_FOUND, Piece, Process, Program, Programs, Script
from pocket_dock_mcp.testing.streams import Channel, FakeExecStream, FakeStream

KILLED = 137


class FakeEngine(Described, ImageVerbs):
    """An `Engine` in memory; see `pocket_dock_mcp.testing` for how to use it."""

    IMAGE = "localhost/pocket-dock-fake:latest"
    """An image that it has from the beginning, with python3."""

    def __init__(self) -> None:
        self.agent = AgentFaults()
        """What is wrong with the agents of its containers."""
        self.calls: list[str] = []
        """The verbs that were called, in order."""
        self.programs = Programs()
        self._info = EngineInfo(
            "fake", version="0", url="fake:", rootless=False, cgroup_version=2, identity="fake"
        )
        self._containers: dict[str, FakeContainer] = {}
        self._images = Images()
        self._is_down = False
        self._faults: dict[str, deque[PocketDockError]] = {}
        self._delays: dict[str, anyio.Event] = {}
        self._cuts: deque[tuple[int, bool]] = deque()
        self._tasks: dict[asyncio.Task[None], str] = {}
        self._crashes: list[BaseException] = []
        self.add_image(self.IMAGE)

    # -- what a test arranges ---------------------------------------------------------------------

    def script(
        self,
        text: str,
        *,
        stdout: str | bytes = b"",
        stderr: str | bytes = b"",
        pieces: Iterable[Piece] = (),
        exit_code: int = 0,
        signal: int | None = None,
        oom: bool = False,
        hang: bool = False,
        lose_stream: bool = False,
        raw: bytes = b"",
        effect: Callable[[Process], None] | None = None,
    ) -> None:
        """Say what a program does, in any container of this engine.

        Args:
            text: what is run: a shell command, a Python source, or a command line as `shlex.join` writes it.
            stdout: written at once.
            stderr: written after it.
            pieces: written after that, one by one: text or bytes for stdout, ``(stream, bytes)``; an
                `anyio.Event` among them is waited for, so that a test decides when it goes on.
            exit_code: returned in the end.
            signal: ends it instead.
            oom: the kernel kills it for its memory instead.
            hang: does not end by itself; only a kill or a time limit ends it.
            lose_stream: the connection to the container breaks after the output.
            raw: bytes that the *agent* is made to write to the host: frames that break the protocol.
            effect: called first, with the `Process`; to change ``process.container.files``, say.
        """
        script = Script(
            pieces=(_bytes(stdout), (STDERR, _bytes(stderr)), *pieces),
            exit_code=exit_code,
            signal=signal,
            oom=oom,
            hang=hang,
            lose_stream=lose_stream,
            raw=raw,
            effect=effect,
        )
        self.programs.add(text, script)

    def program(self, text: str, program: Program) -> None:
        """Let a function of yours be what `text` runs."""
        self.programs.add(text, program)

    def add_image(
        self,
        reference: str,
        *,
        labels: Mapping[str, str] | None = None,
        programs: Iterable[str] = PROGRAMS,
        remote: bool = False,
    ) -> FakeImage:
        """Have an image, or have it in a registry from which it can be pulled."""
        image = FakeImage({reference}, dict(labels or {}), programs=frozenset(programs))
        if remote:
            self._images.remote[reference] = image
            return image
        return self._images.add(image)

    def container(self, name: str) -> FakeContainer:
        """Return a container by name or id, to look at or to break. Raises `ContainerGoneError`."""
        for container in self._containers.values():
            if name in (container.id, container.spec.name):
                return container
        raise ContainerGoneError(f"The engine has no container {name!r}.")

    def fail(self, verb: str, error: PocketDockError, *, times: int = 1) -> None:
        """Let the next calls of a verb fail.

        ``"auto_remove"`` is a verb here as well: the removal of a container whose first program has ended.
        """
        self._faults.setdefault(verb, deque()).extend([error] * times)

    def delay(self, verb: str, event: anyio.Event) -> None:
        """Let calls of a verb wait for an event before they do anything."""
        self._delays[verb] = event

    def cut_next_stream(self, *, after: int, clean: bool = False) -> None:
        """Break the next attached stream after so many bytes of output; `clean` looks like a normal end."""
        self._cuts.append((after, clean))

    def go_down(self, *, clean: bool = False) -> None:
        """Stop answering: every verb raises `EngineUnavailableError`, every stream breaks."""
        self._is_down = True
        for container in self._containers.values():
            container.lose_streams(clean=clean)

    def come_up(self) -> None:
        """Answer again."""
        self._is_down = False

    # -- the port: containers ---------------------------------------------------------------------

    @property
    def info(self) -> EngineInfo:
        """Who this is."""
        return self._info

    async def ping(self) -> None:
        """Raise unless the engine answers."""
        await self._called("ping")

    async def create(self, spec: ContainerSpec) -> str:
        """Create a container; see the port."""
        await self._called("create")
        image = self._images.find(spec.image)
        if any(spec.name == other.spec.name for other in self._containers.values()):
            raise EngineConflictError(f"The engine refused to create {spec.name!r}: the name is in use.")
        container_id = secrets.token_hex(32)
        container = FakeContainer(container_id, spec, image.files.copy(), image.labels, image.programs)
        self._containers[container_id] = container
        return container_id

    async def attach(self, container_id: str) -> Stream:
        """Open the first program's streams; see the port."""
        await self._called("attach")
        container = self.container(container_id)
        if container.status == "exited":
            # As Podman does: what is attached to is what will start.
            container.begin_again()
        after, clean = self._cuts.popleft() if self._cuts else (None, False)
        stream = FakeStream(container.stdin, cut_after=after, clean=clean)
        container.streams.append(stream)
        return stream

    async def start(self, container_id: str) -> None:
        """Start a container; see the port."""
        await self._called("start")
        container = self.container(container_id)
        program = self._find(container, container.spec.argv)
        if program is None:
            container.end(NOT_FOUND)
            self._forget(container)
            raise ProgramNotFoundError(f"The image cannot start its first program: {container.spec.argv[0]}")
        if container.status != "created":
            container.begin_again()
        container.status = "running"
        process = Process(container.spec.argv, container, container.stdin, container.write, env={})
        self._run(container, self._live(container, program, process))

    def _find(self, container: FakeContainer, argv: Sequence[str]) -> Program | None:
        if not container.has_program(argv[0]):
            return None
        if argv[-1] in (agent_argv()[-1], quick_argv()[-1]):
            return lambda process: FakeAgent(process, self.programs, self.agent).serve()
        if argv[-1] in (bridge_argv()[-1], bridge_argv(visits=True)[-1]):
            return join
        return self.programs.find(argv)

    async def _live(self, container: FakeContainer, program: Program, process: Process) -> None:
        """Be a container's life, from the start of its first program to the container's removal."""
        code, life = -9, container.life
        try:
            code = await program(process)
        finally:
            if container.life == life:
                container.oom_killed = process.oom
                container.end(code)
        if container.spec.keep:
            return
        try:
            await self._called("auto_remove")
        except PocketDockError:
            # A test wants it left behind.
            return
        self._forget(container)

    async def stop(self, container_id: str) -> None:
        """Kill and keep; see the port."""
        await self._called("stop")
        try:
            container = self.container(container_id)
        except ContainerGoneError:
            return
        if container.status == "running":
            container.end(-9)
            self._cancel(container)
        await anyio.lowlevel.checkpoint()

    async def inspect(self, container_id: str, *, size: bool = False) -> ContainerState:
        """Say how a container is; see the port. Nothing written here takes room."""
        await self._called("inspect")
        return replace(self.container(container_id).state(), size_bytes=0 if size else None)

    async def remove(self, container_id: str) -> None:
        """Kill and remove; see the port."""
        await self._called("remove")
        try:
            container = self.container(container_id)
        except ContainerGoneError:
            return
        container.status = "removing"
        self._forget(container)
        await anyio.lowlevel.checkpoint()

    def _forget(self, container: FakeContainer) -> None:
        del self._containers[container.id]
        container.end(-9)
        self._cancel(container)

    def _cancel(self, container: FakeContainer) -> None:
        me = asyncio.current_task()
        for task, owner in self._tasks.items():
            if owner == container.id and task is not me:
                task.cancel()

    async def containers(self, label: str) -> list[ContainerState]:
        """List by label; see the port."""
        await self._called("containers")
        return [c.state() for c in self._containers.values() if has_label(c.labels, label)]

    async def exec(
        self,
        container_id: str,
        argv: Sequence[str],
        *,
        user: str,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
    ) -> ExecStream:
        """Start another program; see the port."""
        await self._called("exec")
        container = self.container(container_id)
        if container.status != "running":
            raise EngineConflictError(f"The engine refused to exec {container_id!r}: it is not running.")
        stdin = Channel()
        stream = FakeExecStream(stdin)
        container.execs.append(stream)
        program = self._find(container, argv) or Script(exit_code=NOT_FOUND)
        process = Process(tuple(argv), container, stdin, stream.output.put, env or {}, cwd or "/", user)
        self._run(container, _play_exec(stream, program, process))
        return stream

    async def commit(self, container_id: str, tag: str, *, labels: Mapping[str, str]) -> str:
        """Make an image of the container's files; see the port."""
        await self._called("commit")
        container = self.container(container_id)
        image = FakeImage({tag}, dict(labels), container.files.copy(), frozenset(container.programs))
        return self._images.add(image).id

    async def aclose(self) -> None:
        """End everything that runs. Raises what a test's own program raised, if any did."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._crashes:
            raise self._crashes.pop(0)

    # -- inside -----------------------------------------------------------------------------------

    def _in_use(self) -> list[str]:
        return [container.spec.image for container in self._containers.values()]

    async def _called(self, verb: str) -> None:
        self.calls.append(verb)
        await anyio.lowlevel.checkpoint()
        if verb in self._delays:
            await self._delays[verb].wait()
        if self._is_down and verb != "auto_remove":
            raise EngineUnavailableError("The container engine does not answer: it is down.")
        if self._faults.get(verb):
            raise self._faults[verb].popleft()

    def _run(self, container: FakeContainer, work: Coroutine[Any, Any, None]) -> None:
        # Programs outlive the call that started them, so no caller's task group can own them; `aclose` does.
        task = asyncio.get_running_loop().create_task(work)
        self._tasks[task] = container.id
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        del self._tasks[task]
        if not task.cancelled() and (error := task.exception()) is not None:
            self._crashes.append(error)


async def _play_exec(stream: FakeExecStream, program: Program, process: Process) -> None:
    code = KILLED
    try:
        code = await program(process)
    finally:
        stream.exit_code = code if code >= 0 else 128 - code
        stream.output.end()


def _bytes(text: str | bytes) -> bytes:
    return text.encode() if isinstance(text, str) else text
