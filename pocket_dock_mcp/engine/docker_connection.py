"""Connections to a daemon that speaks the Docker API: how they are made, hold a deadline, fail and stream."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import aiodocker
import aiohttp
import anyio
from aiodocker.execs import Exec
from aiodocker.stream import Stream as DockerStream

from pocket_dock_mcp.engine.base import ExecState
from pocket_dock_mcp.engine.translate import Verb, translate
from pocket_dock_mcp.errors import (
    ConfigError,
    EngineResponseError,
    EngineTimeoutError,
    EngineUnavailableError,
    PocketDockError,
    StreamLostError,
)

HIGH_WATER = 64 * 1024
"""Bytes in a connection's write buffer from which on a sender waits: asyncio's own mark."""
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


@asynccontextmanager
async def engine_call(verb: Verb, subject: str, deadline: float) -> AsyncIterator[None]:
    """Give one request its deadline and turn its failures into our errors.

    What is made of the answer belongs into the block as well: a broken connection or proxy may have made
    anything of it.
    """
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
        message = f"The connection to the container engine broke ({verb} {subject!r}): {error!r}."
        raise EngineUnavailableError(message, hint="Check that the engine runs, and try again.") from error
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        message = f"What the container engine answered makes no sense ({verb} {subject!r}): {error!r}."
        raise EngineResponseError(
            message, hint="Check that nothing but the engine answers, and try again."
        ) from error


def _plain(message: str) -> str:
    """Return the text of an error that arrived as raw JSON (aiodocker parses one content type only)."""
    try:
        data = json.loads(message)
    except ValueError:
        return message.strip()
    if isinstance(data, dict):
        return str(data.get("message") or data.get("cause") or message)
    return message


class AttachedStream:
    """An attach or exec connection as a `Stream`."""

    def __init__(self, stream: DockerStream) -> None:
        self._stream = stream
        self._draining: asyncio.Future[bool] | None = None

    async def receive(self) -> tuple[int, bytes] | None:
        """Return the next piece; see the port."""
        try:
            message = await self._stream.read_out()
        except (aiohttp.ClientError, OSError) as error:
            raise StreamLostError(f"The connection to the container broke: {error!r}.") from error
        return None if message is None else (message.stream, message.data)

    async def send(self, data: bytes) -> None:
        """Write at once, and wait for room; see the port."""
        transport = self._transport()
        if transport is None or transport.is_closing():
            raise StreamLostError("The connection to the container is closed.")
        transport.write(data)
        if transport.get_write_buffer_size() > HIGH_WATER:
            await self._wait_for_room()

    def send_nowait(self, data: bytes) -> None:
        """Write at once; see the port."""
        transport = self._transport()
        if transport is not None and not transport.is_closing():
            transport.write(data)

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

    def __init__(self, stream: DockerStream, handle: Exec) -> None:
        super().__init__(stream)
        self._handle = handle

    async def state(self) -> ExecState:
        """Ask how the program fares; see the port."""
        async with engine_call("exec", self._handle.id, CALL_DEADLINE):
            data = await self._handle.inspect()
            running = bool(data["Running"])
            code = None if running or data["ExitCode"] is None else int(data["ExitCode"])
        return ExecState(running=running, exit_code=code)
