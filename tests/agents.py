"""A container with its agent, spoken to frame by frame: what the tests of the protocol hold in hand."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import anyio

from pocket_dock_mcp import policy
from pocket_dock_mcp.agent.bundle import agent_argv
from pocket_dock_mcp.agent.inside import wire
from pocket_dock_mcp.agent.link import AgentLink
from pocket_dock_mcp.agent.requests import Header, Request
from pocket_dock_mcp.engine.base import STDERR, STDOUT, Engine, Stream
from pocket_dock_mcp.models import MIB, Limits
from tests.engines import LABELS, Deadline, eventually, is_gone, unique

LIMITS = Limits(memory_bytes=256 * MIB, cpus=0.75, pids=64)
ENVIRONMENT = {"FROM_INIT": "yes"}
REPORT = 3
"""The stream on which an interpreter says what became of its program."""


class Agent:
    """An agent that knows its user. `link` is what is tested; the methods only save typing."""

    def __init__(self, engine: Engine, container_id: str, link: AgentLink, deadline: Deadline) -> None:
        self.engine = engine
        self.container_id = container_id
        self.link = link
        self.deadline = deadline
        self.facts: Header = {}

    @classmethod
    async def start(cls, engine: Engine, image: str, deadline: Deadline, *, uid: int | None = None) -> Agent:
        """Bring up a container of its own; the user is a random one unless `uid` says who."""
        container_id, stream = await open_container(engine, image)
        agent = cls(engine, container_id, AgentLink(stream), deadline)
        try:
            await agent.link.wait_ready(deadline(30))
            fields = {"uid": uid or policy.random_uid(), "home": policy.HOME, "env": ENVIRONMENT}
            agent.facts = await agent.call(
                "init",
                processes=policy.user_processes(LIMITS),
                open_files=LIMITS.open_files,
                file_bytes=LIMITS.file_bytes,
                **fields,
            )
        except BaseException:
            with anyio.CancelScope(shield=True):
                await agent.aclose()
            raise
        return agent

    @property
    def home(self) -> str:
        """The user's home directory."""
        return str(self.facts["home"])

    async def aclose(self) -> None:
        """End the lease and see the container go."""
        await self.link.aclose()
        await eventually(lambda: is_gone(self.engine, self.container_id), self.deadline(15))

    async def call(self, op: str, **fields: Any) -> Header:
        """Make a request without data."""
        return await self.link.call(op, deadline=self.deadline(30), **fields)

    async def spawn(
        self,
        what: str | Sequence[str] | None,
        *,
        source: str | None = None,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        timeout: float | None = None,
        stdin: bool = False,
    ) -> Run:
        """Start a shell command, a command line, or a Python source."""
        run = Run(self)
        argv = ["/bin/sh", "-c", what] if isinstance(what, str) else what
        header = {"op": "spawn", "cwd": cwd, "env": dict(env or {}), "timeout": timeout, "stdin": stdin}
        if source is None:
            await self.link.send(run.id, {**header, "argv": argv})
            return run
        script = source.encode()
        header = {**header, "argv": None, "script": len(script)}
        for at in range(0, max(len(script), 1), wire.MAX_PAYLOAD):
            await self.link.send(run.id, header, script[at : at + wire.MAX_PAYLOAD])
            header = {"op": "data"}
        return run

    async def run(self, what: str | Sequence[str] | None = None, **options: Any) -> Run:
        """Start something and wait for its end."""
        run = await self.spawn(what, **options)
        await run.wait()
        return run

    async def write(self, path: str, data: bytes, *, mode: int | None = None, **fields: Any) -> Header:
        """Write a file, in as many frames as it takes."""
        request_id, request = self.link.open(None)
        await self.link.send(request_id, {"op": "write", "path": path, "mode": mode, **fields})
        return await self._upload(request_id, request, data)

    async def _upload(self, request_id: int, request: Request, data: bytes) -> Header:
        with anyio.fail_after(self.deadline(60)):
            await self.link.upload(request_id, request, data)
        header, _ = await self.link.finish(request_id, request, self.deadline(30))
        return header

    async def read(self, path: str, *, offset: int = 0, length: int = 1 << 40) -> tuple[bytes, Header]:
        """Read a file; return its content and what the reply says of it."""
        received = bytearray()
        request_id, request = self.link.open(lambda _stream, data: received.extend(data))
        await self.link.send(request_id, {"op": "read", "path": path, "offset": offset, "length": length})
        header, payload = await self.link.finish(request_id, request, self.deadline(60))
        return bytes(received + payload), header

    async def entries(self, path: str, *, limit: int = 100_000) -> tuple[dict[str, Header], Header]:
        """List a directory; return its entries by name and the reply."""
        received = bytearray()
        request_id, request = self.link.open(lambda _stream, data: received.extend(data))
        await self.link.send(request_id, {"op": "list", "path": path, "limit": limit})
        header, _ = await self.link.finish(request_id, request, self.deadline(30))
        lines = [json.loads(line) for line in received.splitlines()]
        return {line["name"]: line for line in lines}, header

    async def processes(self) -> int:
        """Return how many processes of the user there are."""
        return int((await self.call("stats"))["processes"])


class Run:
    """One program under way, its output so far, and in the end how it ended."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._received = {STDOUT: bytearray(), STDERR: bytearray(), REPORT: bytearray()}
        self._changed = anyio.Event()
        self.id, self.request = agent.link.open(self._on_data)
        self.end: Header = {}

    def _on_data(self, stream: int, data: bytes) -> None:
        self._received[stream] += data
        self._changed.set()
        self._changed = anyio.Event()

    @property
    def stdout(self) -> bytes:
        """What it has written to standard output."""
        return bytes(self._received[STDOUT])

    @property
    def stderr(self) -> bytes:
        """What it has written to standard error."""
        return bytes(self._received[STDERR])

    async def said(self, text: bytes) -> None:
        """Wait until it has written this to standard output."""
        with anyio.fail_after(self._agent.deadline(30)):
            while text not in self.stdout:
                await self._changed.wait()

    async def feed(self, data: bytes) -> None:
        """Send all its input and the end of it."""
        await self._agent.link.upload(self.id, self.request, data)

    async def wait(self, within: float = 60) -> Header:
        """Wait for its end and return the exit frame."""
        deadline = self._agent.deadline(within)
        self.end, _ = await self._agent.link.finish(self.id, self.request, deadline)
        return self.end


async def open_container(engine: Engine, image: str) -> tuple[str, Stream]:
    """Start a container with an agent and return its id and its lease."""
    spec = policy.agent_spec(unique("agent"), image, agent_argv(), LABELS, LIMITS, "none")
    container_id = await engine.create(spec)
    try:
        stream = await engine.attach(container_id)
        await engine.start(container_id)
    except BaseException:
        with anyio.CancelScope(shield=True):
            await engine.remove(container_id)
        raise
    return container_id, stream


class Keeper:
    """Keeps one agent for the tests of a module: a container for each test would cost more than the test."""

    def __init__(self, engine: Engine, image: str, deadline: Deadline) -> None:
        self._engine = engine
        self._image = image
        self._deadline = deadline
        self._agent: Agent | None = None

    async def agent(self) -> Agent:
        """Return the agent, or a new one when a test has broken it."""
        if self._agent is not None and self._agent.link.broken is not None:
            await self.aclose()
        if self._agent is None:
            self._agent = await Agent.start(self._engine, self._image, self._deadline)
        return self._agent

    async def aclose(self) -> None:
        """Close the agent."""
        agent, self._agent = self._agent, None
        if agent is not None:
            await agent.aclose()
