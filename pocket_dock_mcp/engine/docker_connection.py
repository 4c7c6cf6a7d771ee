"""Connections to a daemon that speaks the Docker API: how they are made, hold a deadline, fail and stream."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, TypeVar, cast

import aiodocker
import aiohttp
import anyio
from aiodocker.execs import Exec
from aiodocker.stream import Stream as DockerStream

from pocket_dock_mcp import telemetry
from pocket_dock_mcp.engine.base import STDERR, STDOUT, ExecState
from pocket_dock_mcp.engine.translate import Verb, translate
from pocket_dock_mcp.errors import (
    ConfigError,
    ContainerGoneError,
    EngineResponseError,
    EngineTimeoutError,
    EngineUnavailableError,
    PocketDockError,
    StreamLostError,
)

T = TypeVar("T")

_STREAMS = (STDOUT, STDERR)
_HEADER = 8
"""Bytes before each piece of a stream: which stream, three zeros, the length."""
MAX_PIECE = 16 * 1024 * 1024
"""Bytes that an engine may send as one piece. What they send is 32 KiB."""
HIGH_WATER = 64 * 1024
"""Bytes in a connection's write buffer from which on a sender waits: asyncio's own mark."""
ATTEMPTS = 3
"""How often something is asked that an engine may fail to tell."""
MOST_IMAGES = 1000
"""Whose volumes are remembered."""
SILENCE = 1.0
"""Seconds after which somebody who has sent something and heard nothing asks whether anybody is there."""
_MOST_SHOWN = 300
"""Characters of an exception that are told."""
CALL_DEADLINE = 30.0
"""Seconds for one verb on a busy machine. What is usual is a tenth of a second."""


def connector(url: str) -> aiohttp.BaseConnector:
    """Return what opens connections to this address. Raises `ConfigError` for an address of no known kind."""
    # No pool: a connection that the engine closed while it lay idle must not fail the next request, and
    # attached streams would use up a pool's places. A unix socket costs next to nothing to open.
    if url.startswith("unix://"):
        return aiohttp.UnixConnector(url.removeprefix("unix://"), force_close=True, limit=0)
    if url.startswith(("tcp://", "http://", "https://")):
        return aiohttp.TCPConnector(force_close=True, limit=0)
    raise ConfigError(
        f"The engine address {url!r} is of no known kind.",
        hint="Use unix:///path/to.sock or tcp://host:port; for a remote engine, forward its socket by ssh.",
    )


class Client(aiodocker.Docker):
    """aiodocker's client. It closes each answer; those that cannot be read would be the collector's."""

    @asynccontextmanager
    async def _query(self, *args: Any, **options: Any) -> AsyncIterator[aiohttp.ClientResponse]:
        async with super()._query(*args, **options) as response:
            try:
                yield response
            finally:
                response.close()


@asynccontextmanager
async def engine_call(verb: Verb, subject: str, deadline: float) -> AsyncIterator[None]:
    """Give one request its deadline, turn its failures into our errors, and make a span of it.

    What is made of the answer belongs into the block as well: a broken connection or proxy may have made
    anything of it.
    """
    with telemetry.engine_verb(verb):
        async with in_our_words(verb, subject, deadline):
            yield


@asynccontextmanager
async def in_our_words(verb: Verb, subject: str, deadline: float) -> AsyncIterator[None]:
    """As `engine_call`, for a part of a request, which is no span of its own."""
    try:
        with anyio.fail_after(deadline):
            yield
    except aiodocker.DockerError as error:
        raise translate(verb, error.status, _plain(error.message), subject) from error
    except TimeoutError as error:
        message = f"The container engine did not answer within {deadline:g} s ({verb} {subject!r})."
        raise EngineTimeoutError(message) from error
    except PocketDockError:
        raise
    # The last two: the client was closed meanwhile.
    except (aiohttp.ClientError, OSError, RuntimeError, AssertionError) as error:
        message = f"The connection to the container engine broke ({verb} {subject!r}): {_shown(error)}."
        raise EngineUnavailableError(message, hint="Check that the engine runs, and try again.") from error
    except (ValueError, TypeError, ArithmeticError, LookupError, AttributeError) as error:
        message = f"What the container engine answered makes no sense ({verb} {subject!r}): {_shown(error)}."
        raise EngineResponseError(
            message, hint="Check that nothing but the engine answers, and try again."
        ) from error


def _shown(error: Exception) -> str:
    """Return an exception in words: aiohttp's have whole requests and answers in them, or none at all."""
    if isinstance(error, AssertionError):
        return "it was closed before the answer came"
    whole = repr(error)
    return whole if len(whole) <= _MOST_SHOWN else f"{type(error).__name__}: {error}"[:_MOST_SHOWN] + "..."


async def asked(ask: Callable[[], Awaitable[T]], *, may_go: bool = False) -> T:
    """Ask something, again if need be: Podman fails to tell of one thing while another is removed or ends.

    Args:
        ask: what to ask.
        may_go: whether it is about many containers, of which each may go.
    """
    passing = (EngineResponseError, ContainerGoneError) if may_go else EngineResponseError
    for _ in range(ATTEMPTS - 1):
        try:
            return await ask()
        except passing:
            pass
    return await ask()


def _plain(message: str) -> str:
    """Return the text of an error that arrived as raw JSON (aiodocker parses one content type only)."""
    try:
        data = json.loads(message)
    except (ValueError, RecursionError):
        return message.strip()
    if isinstance(data, dict):
        return str(data.get("message") or data.get("cause") or message)
    return message


async def opened(stream: DockerStream) -> None:
    """Open a stream, or leave nothing of it: aiodocker would leave the connection to the collector."""
    try:
        await stream.__aenter__()
    except BaseException:
        stream._closed = True  # noqa: SLF001  # its own `close` asserts that there is a connection
        if stream._resp is not None:  # noqa: SLF001
            stream._resp.close()  # noqa: SLF001
        raise


class _Checked:
    """aiodocker's parser of a container's streams, with an eye on what it is fed.

    It believes any header, waits for as many bytes as that says (four thousand millions, if it likes), and
    takes an end in the middle of a piece for a normal one.
    """

    def __init__(self, parser: Any) -> None:
        self._parser = parser

    def set_exception(self, error: BaseException) -> None:
        self._parser.set_exception(error)

    def feed_eof(self) -> None:
        if self._parser._buf:  # noqa: SLF001  # it has no other way to tell
            self.set_exception(ConnectionResetError("it ended in the middle"))
        else:
            self._parser.feed_eof()

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        pieces = self._parser.queue._buffer  # noqa: SLF001
        before = len(pieces)
        result: tuple[bool, bytes] = self._parser.feed_data(data)
        head = self._parser._buf[:_HEADER]  # noqa: SLF001
        is_odd = bool(head) and (head[0] not in _STREAMS or any(head[1:4]))
        is_too_long = len(head) == _HEADER and int.from_bytes(head[4:], "big") > MAX_PIECE
        if is_odd or is_too_long:
            self._parser._buf.clear()  # noqa: SLF001
            # What came with it has been shifted, perhaps by bytes of somebody else's in its midst.
            while len(pieces) > before:
                pieces.pop()
            self.set_exception(ConnectionResetError("what came makes no sense"))
        return result


class DeclaredVolumes:
    """The volumes that images declare, asked for once: what has a certain id never declares others."""

    def __init__(self, client: aiodocker.Docker) -> None:
        self._client = client
        self._known: dict[str, tuple[str, ...]] = {}

    async def of(self, image: str) -> tuple[str, ...]:
        """Return the paths of an image's volumes. Raises `ImageNotFoundError`."""
        if (known := self._known.get(image)) is not None:
            return known
        volumes = await asked(partial(self._declared, image))
        if image.startswith("sha256:"):
            if len(self._known) >= MOST_IMAGES:
                self._known.clear()
            self._known[image] = volumes
        return volumes

    async def _declared(self, image: str) -> tuple[str, ...]:
        async with engine_call("image", image, CALL_DEADLINE):
            data = await self._client.images.inspect(image)
            return tuple((data["Config"] or {}).get("Volumes") or ())


class AttachedStream:
    """An attach or exec connection as a `Stream`.

    Docker (20.10 at least) leaves it open, and silent, when a container ends that has not read all that was
    sent to it. So somebody who hears nothing after having sent something has the engine asked.
    """

    def __init__(self, stream: DockerStream, ask: Callable[[], Awaitable[bool]]) -> None:
        """Take an open connection; `ask` has the engine say whether the container lives."""
        self._stream = stream
        self._ask = ask
        self._draining: asyncio.Future[bool] | None = None
        self._received = 0
        self._is_receiving = False
        self._has_sent = False
        self._looking: asyncio.Task[None] | None = None
        protocol = stream._resp.connection.protocol  # type: ignore[union-attr]  # noqa: SLF001  # it is open
        # There is no await since aiodocker has set its own, so nothing has gone past.
        protocol.set_parser(_Checked(protocol._payload_parser), stream._queue)  # type: ignore[union-attr]  # noqa: SLF001

    async def receive(self) -> tuple[int, bytes] | None:
        """Return the next piece; see the port."""
        self._is_receiving = True
        try:
            message = await self._stream.read_out()
        except (aiohttp.ClientError, OSError) as error:
            raise StreamLostError(f"The connection to the container broke: {error!r}.") from error
        finally:
            self._is_receiving = False
        self._received += 1
        if message is None:
            return None
        if message.stream not in _STREAMS:
            raise StreamLostError("The connection to the container broke: what came makes no sense.")
        return message.stream, message.data

    async def send(self, data: bytes) -> None:
        """Write at once, and wait for room; see the port."""
        transport = self._transport()
        if transport is None or transport.is_closing():
            raise StreamLostError("The connection to the container is closed.")
        transport.write(data)
        self._look_later()
        if transport.get_write_buffer_size() > HIGH_WATER:
            await self._wait_for_room()

    def send_nowait(self, data: bytes) -> None:
        """Write at once; see the port."""
        transport = self._transport()
        if transport is not None and not transport.is_closing():
            transport.write(data)

    def _look_later(self) -> None:
        self._has_sent = True
        if self._looking is None or self._looking.done():
            # No caller's task: whoever has sent something may wait for its answer, or not at all.
            self._looking = asyncio.get_running_loop().create_task(self._look(), name="engine-stream-look")

    async def _look(self) -> None:
        """Ask whether anybody is there when nothing has come for a while after something was sent."""
        while self._has_sent or self._is_full():
            self._has_sent = False
            # Twice: the last that a program says may come after the word that it has ended.
            if await self._is_silent() and not await self._lives() and await self._is_silent():
                if (transport := self._transport()) is not None:
                    transport.abort()
                return

    async def _lives(self) -> bool:
        try:
            return await self._ask()
        except ContainerGoneError:
            return False
        except PocketDockError:
            # The engine does not say. Whoever waits has a deadline.
            return True

    def _is_full(self) -> bool:
        transport = self._transport()
        return transport is not None and transport.get_write_buffer_size() > 0

    async def _is_silent(self) -> bool:
        """Whether nothing comes for a while from now on, though somebody waits for it."""
        before = self._received
        is_missed = self._is_receiving
        await asyncio.sleep(SILENCE)
        return self._received == before and is_missed and self._is_receiving

    async def _wait_for_room(self) -> None:
        """Wait until the transport has room again, together with all others who wait for it.

        aiohttp has one future for all of them, and whoever is cancelled while waiting cancels it for all, and
        for those to come. So one task waits, which nobody cancels, and everybody waits for that task.
        """
        if self._draining is None or self._draining.done():
            self._draining = asyncio.ensure_future(self._drain())
        if not await asyncio.shield(self._draining):
            raise StreamLostError("The connection to the container broke.")

    async def _drain(self) -> bool:
        """Return whether there is room again; False when the connection broke instead."""
        try:
            await self._stream.write_in(b"")
        # aiodocker asserts that there still is a connection.
        except (aiohttp.ClientError, OSError, RuntimeError, AssertionError):
            return False
        return True

    async def send_eof(self) -> None:
        """Close standard input; see the port."""
        transport = self._transport()
        if transport is not None and transport.can_write_eof():
            transport.write_eof()

    def _transport(self) -> asyncio.WriteTransport | None:
        # aiodocker has no way to write without waiting, and closes both directions at once.
        response = self._stream._resp  # noqa: SLF001
        connection = response.connection if response is not None else None
        transport = connection.transport if connection is not None else None
        return cast("asyncio.WriteTransport | None", transport)

    async def aclose(self) -> None:
        """Close both directions; see the port."""
        if self._looking is not None:
            self._looking.cancel()
        transport = self._transport()
        try:
            await self._stream.close()
        except (aiohttp.ClientError, OSError, RuntimeError, AssertionError):
            # It is closed, which is what was wanted.
            pass
        if transport is not None:
            # Not after what is still to be written: a peer that does not read would keep it open.
            transport.abort()


class ExecutedStream(AttachedStream):
    """An exec's streams and the engine's word on its fate."""

    def __init__(self, stream: DockerStream, ask: Callable[[], Awaitable[bool]], handle: Exec) -> None:
        super().__init__(stream, ask)
        self._handle = handle

    async def state(self) -> ExecState:
        """Ask how the program fares; see the port."""
        async with engine_call("exec", self._handle.id, CALL_DEADLINE):
            data = await self._handle.inspect()
            running = bool(data["Running"])
            code = None if running or data["ExitCode"] is None else int(data["ExitCode"])
        return ExecState(running=running, exit_code=code)
