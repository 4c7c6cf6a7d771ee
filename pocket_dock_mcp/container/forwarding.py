"""Ports of the host that lead to ports inside, through the agent's stream: no network is needed for it."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import logging
import socket
import struct

import anyio

from pocket_dock_mcp.container.arguments import MAX_PORT, is_of
from pocket_dock_mcp.container.conversation import CHUNK, Conversation
from pocket_dock_mcp.container.life import Life
from pocket_dock_mcp.errors import InvalidArgumentError, PortError, PortInUseError
from pocket_dock_mcp.outside import PortMapping

logger = logging.getLogger(__name__)

MOST_PORTS = 64
"""Of one container."""
MOST_CONNECTIONS = 128
"""Of one container at once; whoever comes then is sent away."""
BACKLOG = 128
CLOSE_DEADLINE = 2.0
_RESET = struct.pack("ii", 1, 0)


class Forwarder:
    """All ports of the host that lead into one container. They are closed when its life ends.

    A reboot is not such an end: the ports stay, and until it is done connections are refused.
    """

    def __init__(self, life: Life) -> None:
        self._life = life
        self._open: list[_Listener] = []
        self._coming = 0
        self._clients: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._watcher: asyncio.Task[None] | None = None

    @property
    def ports(self) -> list[PortMapping]:
        """What is open, in the order in which it was opened."""
        return [listener.mapping for listener in self._open]

    @property
    def connections(self) -> int:
        """How many connections there are now."""
        return len(self._clients)

    async def open(self, wanted: PortMapping) -> PortMapping:
        """Open a port of the host, and return which; see `LiveContainer.open_port` for what it raises."""
        check_mapping(wanted)
        self._life.require_open()
        if self._life.running.transport.kind != "agent":
            message = "Ports lead into a sandbox through its agent, and its image has no python3 for one."
            raise PortError(message, hint="Use an image that has it, such as 'minimal'.")
        if len(self._open) + self._coming >= MOST_PORTS:
            message = f"There are {MOST_PORTS} open ports, and more are not allowed."
            raise PortError(message, hint="Close one that is not needed any more.")
        self._coming += 1
        try:
            listener = await _Listener.start(self, wanted)
        finally:
            self._coming -= 1
        try:
            self._life.require_open()
        except BaseException:
            listener.close()
            raise
        self._open.append(listener)
        if self._watcher is None:
            # It outlives the call that made it, as the agent's link does; `aclose` ends it.
            self._watcher = asyncio.get_running_loop().create_task(self._watch(), name="ports")
        return listener.mapping

    async def close(self, port: int) -> bool:
        """Close all that leads to a port inside, with its connections; False if nothing does."""
        doomed = [listener for listener in self._open if listener.mapping.port == port]
        self._open = [listener for listener in self._open if listener not in doomed]
        await self._end(doomed)
        return bool(doomed)

    async def aclose(self) -> None:
        """Close everything. Idempotent."""
        if self._watcher is not None and self._watcher is not asyncio.current_task():
            self._watcher.cancel()
        doomed, self._open = self._open, []
        await self._end(doomed)

    async def _watch(self) -> None:
        await self._life.wait_lost()
        await self.aclose()

    async def _end(self, listeners: list[_Listener]) -> None:
        for listener in listeners:
            listener.close()
        tasks = [task for listener in listeners for task in listener.clients]
        for task in tasks:
            task.cancel()
        if tasks:
            with anyio.CancelScope(shield=True), anyio.move_on_after(CLOSE_DEADLINE):
                await asyncio.wait(tasks)

    def accept(self, listener: _Listener, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve a client of a port, or send it away."""
        if len(self._clients) >= MOST_CONNECTIONS:
            logger.warning("%s: more than %d connections at once are refused", listener, MOST_CONNECTIONS)
            reset(writer)
            return
        talk = Conversation(self._life.running.transport, listener.mapping.port, reader, writer)
        task = asyncio.get_running_loop().create_task(_serve(talk, writer), name="port-client")
        self._clients[task] = writer
        listener.clients.add(task)
        task.add_done_callback(lambda done: self._forget(listener, done))

    def _forget(self, listener: _Listener, task: asyncio.Task[None]) -> None:
        writer = self._clients.pop(task)
        listener.clients.discard(task)
        if task.cancelled():
            # It may not even have begun.
            reset(writer)


class _Listener:
    """One port of the host."""

    def __init__(self, forwarder: Forwarder, mapping: PortMapping) -> None:
        self.mapping = mapping
        self.clients: set[asyncio.Task[None]] = set()
        self._forwarder = forwarder
        self._server: asyncio.Server | None = None

    @classmethod
    async def start(cls, forwarder: Forwarder, wanted: PortMapping) -> _Listener:
        """Listen, on a free port if it is not said on which."""
        bound = _bound(wanted)
        mapping = PortMapping(wanted.port, bound.getsockname()[1], wanted.address)
        listener = cls(forwarder, mapping)
        try:
            listener._server = await asyncio.start_server(
                listener._on_client, sock=bound, limit=CHUNK, backlog=BACKLOG
            )
        except BaseException:
            bound.close()
            raise
        return listener

    def __repr__(self) -> str:
        return f"<port {self.mapping}>"

    def _on_client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._forwarder.accept(self, reader, writer)

    def close(self) -> None:
        """Listen no more, from now on."""
        if self._server is not None:
            self._server.close()


async def _serve(talk: Conversation, writer: asyncio.StreamWriter) -> None:
    is_whole = False
    try:
        is_whole = await talk.run()
    finally:
        if not is_whole:
            reset(writer)


def reset(writer: asyncio.StreamWriter) -> None:
    """Break a connection off, so that the other side does not take it for a normal end."""
    connection = writer.get_extra_info("socket")
    try:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    except OSError:
        # It is closed already.
        pass
    writer.transport.abort()


def check_mapping(wanted: PortMapping) -> None:
    """Refuse what can never work. Raises `InvalidArgumentError`."""
    if not is_of(wanted, PortMapping):
        message = f"{wanted!r} is no PortMapping."
        raise InvalidArgumentError(message, hint="Or give ports as {port of the host: port inside}.")
    for what, port, least in (("port", wanted.port, 1), ("host_port", wanted.host_port, 0)):
        if type(port) is not int or not least <= port <= MAX_PORT:
            message = f"{what} is {port!r}; it must be from {least} to {MAX_PORT}."
            raise InvalidArgumentError(message)
    try:
        # Whole numbers are addresses to it, too, and none to sockets.
        ipaddress.ip_address(str(wanted.address))
    except ValueError:
        message = f"{wanted.address!r} is no IP address."
        hint = "Use '127.0.0.1', or '0.0.0.0' to be reached from other machines."
        raise InvalidArgumentError(message, hint=hint) from None


def _bound(wanted: PortMapping) -> socket.socket:
    """Return a socket that listens. Raises `PortError`."""
    family = socket.AF_INET6 if ":" in wanted.address else socket.AF_INET
    try:
        bound = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise _refused(wanted, error) from error
    try:
        # Or a port could not be opened again while its old connections die away.
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bound.bind((wanted.address, wanted.host_port))
        bound.listen(BACKLOG)
        bound.setblocking(False)
    except OSError as error:
        bound.close()
        raise _refused(wanted, error) from error
    return bound


def _refused(wanted: PortMapping, error: OSError) -> PortError:
    if error.errno == errno.EADDRINUSE:
        return PortInUseError(f"Somebody else listens on {wanted.where}.")
    message = f"The host does not let us listen on {wanted.where}: {error.strerror or error}."
    hint = {
        errno.EACCES: "Ports below 1024 are for root: use a higher one, or 0 for a free one.",
        errno.EADDRNOTAVAIL: "Use an address of this machine: '127.0.0.1', or '0.0.0.0' for all.",
    }.get(error.errno or 0)
    return PortError(message, hint=hint)
