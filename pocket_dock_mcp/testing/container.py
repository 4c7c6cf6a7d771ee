"""A fake container: plain state, which tests may look at."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import TYPE_CHECKING

from pocket_dock_mcp.engine.base import ContainerState, ContainerStatus
from pocket_dock_mcp.models import ContainerSpec
from pocket_dock_mcp.testing.filetree import FileTree
from pocket_dock_mcp.testing.relays import FakeDoor, Listener
from pocket_dock_mcp.testing.streams import Channel, FakeExecStream, FakeStream

if TYPE_CHECKING:
    from pocket_dock_mcp.testing.programs import Process


class FakeContainer:
    """A container: its files, its state, and the streams that are open on it."""

    def __init__(
        self,
        container_id: str,
        spec: ContainerSpec,
        files: FileTree,
        labels: Mapping[str, str],
        programs: Collection[str] = (),
    ) -> None:
        self.id = container_id
        self.spec = spec
        self.files = files
        self.labels = {**labels, **spec.labels}
        self.programs = programs
        self.status: ContainerStatus = "created"
        self.exit_code: int | None = None
        self.oom_killed = False
        self.stdin = Channel()
        self.streams: list[FakeStream] = []
        self.execs: list[FakeExecStream] = []
        self.life = 1
        """How many times it was started, or is about to be."""
        self.listening: dict[int, Listener] = {}
        """By TCP port; see `listen`."""
        self.way_out: FakeDoor | None = None
        """Where programs connect to something outside, if they can."""
        self.listener: Callable[[Process], Awaitable[int]] | None = None
        """Of an agent that is to outlive its stream: serves another client, whose bridge this process is."""

    def listen(self, port: int, serve: Listener) -> None:
        """Have a function of yours serve those who connect to a TCP port, until everything in it ends."""
        self.listening[port] = serve

    def has_program(self, program: str) -> bool:
        """Whether there is a program of this name or path."""
        return program.rpartition("/")[2] in self.programs

    def state(self) -> ContainerState:
        """Return it as the port describes it."""
        return ContainerState(
            id=self.id,
            name=self.spec.name,
            status=self.status,
            labels=dict(self.labels),
            exit_code=self.exit_code if self.status == "exited" else None,
            oom_killed=self.oom_killed,
        )

    def emit(self, source: int, data: bytes) -> None:
        """Give output of the first program to whoever is attached; without anybody it is lost."""
        for stream in self.streams:
            stream.output.put_nowait(source, data)

    async def write(self, source: int, data: bytes) -> None:
        """As `emit`, and wait while those who are attached do not read."""
        for stream in tuple(self.streams):
            await stream.output.put(source, data)

    def lose_streams(self, *, clean: bool = False) -> None:
        """Break the connections of all who are attached; the first program reads the end of its input."""
        for stream in (*self.streams, *self.execs):
            stream.lose(clean=clean)

    def begin_again(self) -> None:
        """Be as it was before its first program began, but for the files."""
        self.life += 1
        self.status = "created"
        self.exit_code = None
        self.oom_killed = False
        self.stdin = Channel()
        self.streams.clear()
        self.execs.clear()

    def end(self, exit_code: int) -> None:
        """The first program has ended, and with it everything in the container."""
        if self.exit_code is not None:
            return
        self.status = "exited"
        self.exit_code = exit_code if exit_code >= 0 else 128 - exit_code
        self.listener = self.way_out = None
        self.listening.clear()
        self.stdin.end()
        for stream in self.streams:
            stream.output.end()
        for stream in self.execs:
            stream.output.end()
