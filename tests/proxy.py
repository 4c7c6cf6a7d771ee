"""A unix socket in front of an engine's, which can be cut like a cable."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path


class Proxy:
    """Forwards connections to an engine until it is cut."""

    def __init__(self, path: Path, target: str) -> None:
        self.url = f"unix://{path}"
        self._path = path
        self._target = target.removeprefix("unix://")
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def connect(self) -> None:
        """Listen and forward."""
        self._path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._serve, self._path)

    async def cut(self) -> None:
        """Break every connection and refuse new ones: what a dead engine looks like."""
        if self._server is not None:
            self._server.close()
            self._path.unlink(missing_ok=True)
        for writer in list(self._writers):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_unix_connection(self._target)
        self._writers |= {writer, far_writer}
        try:
            await asyncio.gather(self._pump(reader, far_writer), self._pump(far_reader, writer))
        finally:
            self._writers -= {writer, far_writer}
            writer.close()
            far_writer.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
            if writer.can_write_eof():
                writer.write_eof()
        except OSError:
            # It was cut, or the peer has gone.
            pass


@asynccontextmanager
async def proxy(path: Path, target: str) -> AsyncIterator[Proxy]:
    """Yield a connected proxy to the engine at `target`."""
    made = Proxy(path, target)
    await made.connect()
    try:
        yield made
    finally:
        await made.cut()
