"""A bench for the tests of the engine port: makes containers and images, and clears them away."""

from __future__ import annotations

import io
import tarfile
from collections.abc import AsyncIterator, Mapping

import anyio

from pocket_dock_mcp.engine.base import STDERR, STDOUT, Engine, ExecStream, Stream
from pocket_dock_mcp.models import ContainerSpec, Limits
from tests.engines import LABELS, Deadline, eventually, is_gone, unique

KEEPALIVE = ("/bin/sh", "-c", "exec cat >/dev/null")
"""Runs until its input ends."""
NOBODY_IS_THERE = "localhost:1/pocket-dock-test/nothing:latest"
"""An image of a registry that does not listen."""


class Lab:
    """Makes containers and images on one engine, and removes what a test has left of them."""

    def __init__(self, engine: Engine, image: str, deadline: Deadline) -> None:
        self.engine = engine
        self.image = image
        self.deadline = deadline
        self._containers: list[str] = []
        self._streams: list[Stream] = []
        self._tags: list[str] = []

    def spec(
        self,
        *argv: str,
        name: str | None = None,
        image: str | None = None,
        labels: Mapping[str, str] | None = None,
        init: bool = False,
    ) -> ContainerSpec:
        return ContainerSpec(
            name=name or unique("engine"),
            image=image or self.image,
            argv=argv or KEEPALIVE,
            labels={**LABELS, **(labels or {})},
            limits=Limits(),
            init=init,
        )

    async def create(self, spec: ContainerSpec) -> str:
        container_id = await self.engine.create(spec)
        self._containers.append(container_id)
        return container_id

    async def attach(self, container_id: str) -> Stream:
        stream = await self.engine.attach(container_id)
        self._streams.append(stream)
        return stream

    async def start(self, *argv: str, init: bool = False) -> tuple[str, Stream]:
        """Create, attach and start a container, in this order."""
        container_id = await self.create(self.spec(*argv, init=init))
        stream = await self.attach(container_id)
        await self.engine.start(container_id)
        return container_id, stream

    async def exec(
        self,
        container_id: str,
        *argv: str,
        user: str = "0:0",
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
    ) -> ExecStream:
        stream = await self.engine.exec(container_id, argv, user=user, env=env, cwd=cwd)
        self._streams.append(stream)
        return stream

    async def output(self, stream: Stream, within: float = 30) -> tuple[bytes, bytes]:
        """Return what comes on stdout and stderr up to the end of the stream."""
        received = {STDOUT: bytearray(), STDERR: bytearray()}
        with anyio.fail_after(self.deadline(within)):
            while (chunk := await stream.receive()) is not None:
                received[chunk[0]] += chunk[1]
        return bytes(received[STDOUT]), bytes(received[STDERR])

    async def echo(self, stream: Stream, pieces: list[bytes]) -> bytes:
        """Send all pieces at once from tasks of their own, and return as much as was sent."""
        received = bytearray()
        with anyio.fail_after(self.deadline(60)):
            async with anyio.create_task_group() as group:
                for piece in pieces:
                    group.start_soon(stream.send, piece)
                while len(received) < sum(map(len, pieces)):
                    chunk = await stream.receive()
                    assert chunk is not None, "the stream ended early"
                    assert chunk[0] == STDOUT
                    received += chunk[1]
        return bytes(received)

    async def exit_code(self, stream: ExecStream) -> int | None:
        """Return how an exec ended."""

        async def ended() -> bool:
            return not (await stream.state()).running

        await eventually(ended, self.deadline(15))
        return (await stream.state()).exit_code

    def tag(self, what: str = "image") -> str:
        tag = f"localhost/{unique(what)}:1"
        self._tags.append(tag)
        return tag

    async def gone(self, container_id: str, within: float = 15) -> bool:
        return await eventually(lambda: is_gone(self.engine, container_id), self.deadline(within))

    async def aclose(self) -> None:
        for stream in self._streams:
            await stream.aclose()
        for container_id in self._containers:
            await self.engine.remove(container_id)
        for container_id in self._containers:
            await self.gone(container_id)
        for tag in self._tags:
            await self.engine.remove_image(tag)


def tar_of(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


async def in_pieces(data: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(data), 4096):
        yield data[at : at + 4096]
