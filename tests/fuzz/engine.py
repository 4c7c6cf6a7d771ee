"""What an engine answers, or whoever sits where one should: documents, errors, progress, streams, and no HTTP.

The adapter talks to a socket on which each request is answered by a plan. Each verb of the port ends with an
answer of the port's own types, or with one of our errors.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
from pydantic import TypeAdapter, ValidationError

from pocket_dock_mcp import policy
from pocket_dock_mcp.engine.base import (
    ContainerState,
    EngineDetails,
    EngineInfo,
    ExecState,
    ImageState,
    Stream,
)
from pocket_dock_mcp.engine.docker_api import DockerApiEngine
from pocket_dock_mcp.errors import PocketDockError
from pocket_dock_mcp.models import Limits
from tests.fuzz.harness import FoundError, Surface
from tests.fuzz.values import mutated, mutated_bytes, odd_json, value

ID = "a" * 64
_STREAMED = 200_000
"""Bytes of a stream that are read: more than any case sends."""
_INFO = {
    "ServerVersion": "4.3.1", "ID": "x", "Name": "host", "DockerRootDir": "/var/lib", "SecurityOptions": ["name=rootless"],
    "Rootless": False, "CgroupVersion": "1", "Driver": "overlay", "DriverStatus": [["Backing Filesystem", "extfs"]],
    "DefaultRuntime": "runc", "CgroupDriver": "systemd", "KernelVersion": "6", "OperatingSystem": "debian",
}  # fmt: skip
_VERSION = {
    "ApiVersion": "1.41",
    "Components": [
        {"Name": "OCI Runtime (runc)", "Version": "runc version 1.1", "Details": {"Package": "runc_1"}}
    ],
}
_INSPECTED = {
    "Id": ID, "Name": "/name", "Config": {"Labels": {"pocket-dock.x": "y"}, "Volumes": {"/data": {}}},
    "State": {"Status": "exited", "ExitCode": 0, "OOMKilled": False}, "SizeRw": 5,
    "RepoTags": ["a:1"], "Size": 100, "Running": False, "ExitCode": 3,
}  # fmt: skip
_LISTED = {
    "Id": ID, "Names": ["/name"], "State": "running", "Labels": {"a": "b"}, "RepoTags": ["a:1"], "Size": 100,
}  # fmt: skip
_EVENTS: list[Any] = [
    {"stream": "Step 1"}, {"status": "Pulling", "progress": "[=>]"}, {"stream": "Loaded image: a:1,b:2\n"},
    {"errorDetail": {"message": "no space"}, "error": "no space"},
]  # fmt: skip
_ROUTES: tuple[tuple[str, Any], ...] = (
    (r"/_ping", "OK"),
    (r"/info", _INFO),
    (r"/version", _VERSION),
    (r"/containers/json", [_LISTED, _LISTED]),
    (r"/images/json", [_LISTED, _LISTED]),
    (r"/containers/create", {"Id": ID, "Warnings": []}),
    (r"/containers/[^/]+/exec", {"Id": ID}),
    (r"/commit", {"Id": ID}),
    (r"/(containers|exec)/[^/]+/(attach|start)", None),
    (r"/(containers|images|exec)/[^/]+/json", _INSPECTED),
)
_MESSAGES = (
    "no such container", "no such image", "name is already in use", "is not running", "in progress", "x" * 100_000, "\x1b[2J",
    "executable file not found in $PATH", "", "{", "\ud800",
)  # fmt: skip
_KINDS = (
    "application/json",
    "application/json; charset=utf-8",
    "text/plain",
    "text/html",
    "",
    "application/octet-stream",
)
_RAW = (
    b"", b"\r\n", b"garbage\r\n\r\n", b"HTTP/1.1\r\n\r\n", b"HTTP/1.1 99999 X\r\n\r\n", b"HTTP/1.1 200 OK\r\n", b"\0" * 100,
    b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999\r\n\r\n{}",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFF\r\n", b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}",
    b"HTTP/1.1 301 Moved\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n", b"HTTP/2 200\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n" + b"X: " + b"y" * 100_000 + b"\r\n\r\n", b"HTTP/1.1 204 No Content\r\n\r\n{}",
    b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n",
)  # fmt: skip


class Engines(Surface):
    """The adapter for the Docker API."""

    name = "engine"

    def make(self, rng: random.Random) -> bytes:
        """Return which verb is used, and how each request is answered, one after the other."""
        answers = [_answer(rng) if rng.random() < 0.6 else None for _ in range(6)]
        return json.dumps({"do": rng.choice(list(_VERBS)), "answers": answers}).encode()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Listen, and be connected."""
        with tempfile.TemporaryDirectory(prefix="pocket-dock-fuzz-") as folder:
            self._socket = Path(folder, "s")
            self._plan: list[Any] = []
            server = await asyncio.start_unix_server(self._serve, self._socket)
            self._engine = await DockerApiEngine.connect(self.url)
            try:
                yield
            finally:
                await self._engine.aclose()
                server.close()
                await server.wait_closed()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"unix://{self._socket}"

    async def attempt(self, data: bytes) -> str:
        """Use a verb."""
        try:
            plan = json.loads(data)
            self._plan, verb = list(plan["answers"]), _VERBS[plan["do"]]
        except (ValueError, TypeError, KeyError):
            return "none"
        try:
            result = await verb(self._engine, self)
        except PocketDockError:
            return "error"
        finally:
            self._plan = []
        _check(result)
        return "result"

    async def connect_anew(self) -> EngineInfo:
        """Connect once more, to whatever answers now."""
        engine = await DockerApiEngine.connect(self.url)
        await engine.aclose()
        return engine.info

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            if length := re.search(rb"(?i)content-length: (\d+)", head):
                await reader.readexactly(int(length[1]))
            answer = self._plan.pop(0) if self._plan else None
            writer.write(_plain(head) if answer is None else _made(answer, head))
            await writer.drain()
            if writer.can_write_eof():
                writer.write_eof()
            # Until the other side has read it: what is closed before may be lost.
            with anyio.move_on_after(5):
                while await reader.read(65536):
                    pass
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            # It has gone before it had all.
            pass
        finally:
            writer.close()


def _check(result: object) -> None:
    """See that what the port says that it returns is what it returned."""
    try:
        _TYPES.validate_python(result, strict=True)
    except ValidationError as error:
        raise FoundError(f"An answer is not what the port says: {str(error)[:500]}") from None


_Result = (
    ContainerState | ImageState | EngineInfo | EngineDetails | ExecState | list[ContainerState] | list[ImageState]
    | list[str] | bytes | str | None
)  # fmt: skip
_TYPES: TypeAdapter[Any] = TypeAdapter(_Result)


# -- what is done --------------------------------------------------------------------------------------

_Verb = Callable[[DockerApiEngine, Engines], Awaitable[object]]


async def _read(stream: Stream) -> bytes:
    """Read a stream to its end."""
    whole = bytearray()
    try:
        while (received := await stream.receive()) is not None and len(whole) < _STREAMED:
            if received[0] not in (1, 2):
                raise FoundError(f"A piece came of stream {received[0]}.")
            whole += received[1]
    finally:
        await stream.aclose()
    return bytes(whole)


async def _attach(engine: DockerApiEngine, _: Engines) -> bytes:
    return await _read(await engine.attach(ID))


async def _exec(engine: DockerApiEngine, _: Engines) -> ExecState:
    stream = await engine.exec(ID, ["true"], user="0:0")
    await _read(stream)
    return await stream.state()


async def _create(engine: DockerApiEngine, _: Engines) -> str:
    spec = policy.agent_spec("name", "image", ("python3",), {}, Limits(), "none")
    return await engine.create(spec)


async def _lines(made: AsyncIterator[str]) -> list[str]:
    return [line async for line in made]


async def _pieces() -> AsyncIterator[bytes]:
    yield b"x"


async def _save(engine: DockerApiEngine, _: Engines) -> bytes:
    return b"".join([piece async for piece in engine.save_images(["a:1"])])


_VERBS: dict[str, _Verb] = {
    "connect": lambda _, surface: surface.connect_anew(),
    "ping": lambda engine, _: engine.ping(),
    "details": lambda engine, _: engine.details(),
    "create": _create,
    "attach": _attach,
    "start": lambda engine, _: engine.start(ID),
    "stop": lambda engine, _: engine.stop(ID),
    "inspect": lambda engine, _: engine.inspect(ID, size=True),
    "remove": lambda engine, _: engine.remove(ID),
    "containers": lambda engine, _: engine.containers("label"),
    "exec": _exec,
    "commit": lambda engine, _: engine.commit(ID, "a:1", labels={"a": "b"}),
    "image": lambda engine, _: engine.image("a:1"),
    "images": lambda engine, _: engine.images("label"),
    "pull": lambda engine, _: _lines(engine.pull("a:1")),
    "build": lambda engine, _: _lines(engine.build(b"", "a:1", build_args={}, labels={})),
    "import": lambda engine, _: engine.import_rootfs(_pieces(), "a:1"),
    "save": _save,
    "load": lambda engine, _: engine.load_images(_pieces()),
    "remove_image": lambda engine, _: engine.remove_image("a:1"),
}


# -- what is answered ----------------------------------------------------------------------------------


def _answer(rng: random.Random) -> dict[str, Any]:
    """Return how a request is answered: a change of what would be right, an error, or no HTTP at all."""
    act = rng.randrange(10)
    if act < 5:
        return {"status": 200, "seed": rng.randrange(2**32), "type": rng.choice(_KINDS[:2])}
    if act < 7:
        status = rng.choice((304, 400, 401, 404, 409, 500, 503, 999))
        message = rng.choice(_MESSAGES)
        body = rng.choice(
            (json.dumps({"message": message}), message, json.dumps(value(rng)), "[" * 100_000, "<html>")
        )
        return {
            "status": status,
            "body": body.encode("utf-8", "surrogatepass").decode("latin-1"),
            "type": rng.choice(_KINDS),
        }
    if act == 7:
        data = rng.choice(
            (rng.choice(_RAW), mutated_bytes(rng, _http(200, "application/json", b'{"Id": "x"}')))
        )
        return {"raw": data.decode("latin-1")}
    stream = _stream(rng)
    head = rng.choice(
        (
            b"101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp",
            b"200 OK\r\nContent-Type: application/vnd.docker.raw-stream",
        )
    )
    return {"raw": (b"HTTP/1.1 " + head + b"\r\n\r\n" + stream).decode("latin-1")}


def _stream(rng: random.Random) -> bytes:
    """Return pieces of a container's two streams, as engines send them, and as nobody does."""
    pieces = []
    for _ in range(rng.randrange(5)):
        data = rng.randbytes(rng.choice((0, 1, 100, 40_000)))
        source = rng.choice((1, 2, 1, 2, 0, 3, 9, 255))
        length = rng.choice((len(data), len(data), len(data), 0, len(data) + 1, 2**24, 2**24 + 1, 2**32 - 1))
        filling = rng.choice((b"\0\0\0", b"\0\0\0", b"\0\0\0", b"\1\2\3"))
        pieces.append(bytes([source]) + filling + length.to_bytes(4, "big") + data)
    whole = b"".join(pieces)
    return whole[: rng.randrange(len(whole) + 1)] if rng.random() < 0.3 else whole


def _made(answer: dict[str, Any], head: bytes) -> bytes:
    if "raw" in answer:
        return str(answer["raw"]).encode("latin-1")
    if "body" in answer:
        return _http(answer["status"], answer["type"], answer["body"].encode("latin-1"))
    rng = random.Random(answer["seed"])
    right = _right(head)
    if right is None:
        return _http(
            200, answer["type"], b"\n".join(json.dumps(mutated(rng, one)).encode() for one in _EVENTS)
        )
    body = (
        odd_json(rng, right, monsters=False)
        if rng.random() < 0.2
        else json.dumps(mutated(rng, right)).encode()
    )
    return _http(200, answer["type"], body)


def _plain(head: bytes) -> bytes:
    """Return what an engine would answer."""
    right = _right(head)
    if b"upgrade: tcp" in head.lower():
        data = b"\1\0\0\0\0\0\0\2hi"
        return b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n" + data
    if right is None:
        return _http(200, "application/json", b"\n".join(json.dumps(one).encode() for one in _EVENTS[:-1]))
    return _http(200, "application/json", json.dumps(right).encode())


def _right(head: bytes) -> Any:
    path = head.split(b" ")[1].partition(b"?")[0].decode("latin-1")
    return next((answer for route, answer in _ROUTES if re.fullmatch(f"(/v[0-9.]+)?{route}", path)), None)


def _http(status: int, kind: str, body: bytes) -> bytes:
    head = (
        f"HTTP/1.1 {status} X\r\nApi-Version: 1.41\r\nLibpod-Api-Version: 4.3.1\r\nContent-Type: {kind}\r\n"
    )
    return head.encode() + b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(body) + body
