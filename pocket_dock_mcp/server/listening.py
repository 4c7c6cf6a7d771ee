"""Where the HTTP server listens, and how long and how often it lets anybody talk to it.

uvicorn gives a client all the time in the world to send its request. Here a request's head and its body
have deadlines, as has whoever does not read an answer, and connections are counted.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import ipaddress
import resource
import socket
from collections.abc import Callable, Iterator
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from pocket_dock_mcp.errors import ConfigError

HEAD_S = 5.0
"""Seconds in which the head of a request has to be here, from its first byte or the connection's."""
BODY_S = 5.0
"""Seconds in which a body has to be here, and more as it comes: see `BODY_RATE`."""
BODY_RATE = 32 * 1024
"""Bytes of body in a second that earn another one."""
LINGER_S = 3.0
"""Seconds in which the rest of a body is thrown away that was answered before it was here."""
KEEP_ALIVE_S = 8
"""Seconds that a connection without a request is kept: longer than clients keep theirs, mostly 5."""
STALLED_S = 30.0
"""Seconds for which a client may leave an answer unread."""
MAX_HEAD_BYTES = 16 * 1024
BACKLOG = 1024
_OUR_FILES = 1024
"""Descriptors that are kept for everything but connections: streams of sandboxes, spools, records."""
_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: text/plain\r\ncontent-length: 21\r\n"
    b"retry-after: 10\r\nconnection: close\r\n\r\nToo many connections\n"
)


def listen(host: str, port: int, *, has_tokens: bool) -> list[socket.socket]:
    """Return sockets that listen on all addresses of `host`, on one port.

    Raises:
        ConfigError: there is no such address or no such port; or it can be reached from beyond this machine,
            and nobody has to send a token.
    """
    addresses = _addresses(host, port)
    beyond = [address for _, address in addresses if not is_loopback(address[0])]
    if beyond and not has_tokens:
        raise ConfigError(
            f"{host!r} can be reached from other machines, and whoever reaches this server can run programs "
            "on it. Give clients tokens: --token-file FILE with a line 'name token' for each, "
            "POCKET_DOCK_TOKEN, or --oauth-issuer URL. Or listen on 127.0.0.1."
        )
    with contextlib.ExitStack() as opened:
        sockets: list[socket.socket] = []
        for family, address in addresses:
            # Port 0 is chosen once, and is the same for all addresses.
            chosen = sockets[0].getsockname()[1] if sockets else port
            sockets.append(opened.enter_context(_bound(family, (address[0], chosen, *address[2:]))))
        opened.pop_all()
    return sockets


def shown(address: str) -> str:
    """Return an address as it is written in URLs."""
    return f"[{address}]" if ":" in address else address


def _addresses(host: str, port: int) -> list[tuple[socket.AddressFamily, tuple[Any, ...]]]:
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise ConfigError(
            f"There is no address {host!r} to listen on ({error}). Try --host 127.0.0.1."
        ) from None
    return list(dict.fromkeys((family, address) for family, _, _, _, address in found))


def is_loopback(address: str) -> bool:
    """Whether an address reaches no further than this machine.

    Raises:
        ValueError: it is no address.
    """
    parsed = ipaddress.ip_address(address.partition("%")[0])
    mapped = getattr(parsed, "ipv4_mapped", None)
    return (mapped or parsed).is_loopback


def _bound(family: socket.AddressFamily, address: tuple[Any, ...]) -> socket.socket:
    # Of no protocol named, asyncio would leave Nagle's algorithm on, and each answer would take 40 ms longer.
    opened = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        opened.bind(address)
        opened.listen(BACKLOG)
    except OSError as error:
        opened.close()
        raise ConfigError(
            f"Cannot listen on {shown(address[0])}:{address[1]}: {error.strerror}. "
            "Choose another --port, or 0 for any."
        ) from None
    return opened


class Connections:
    """How many connections there are, in all and from each address."""

    def __init__(self, most: int, most_each: int) -> None:
        self._most = most
        self._most_each = most_each
        self._by_address: collections.Counter[str] = collections.Counter()
        self._total = 0

    def enter(self, address: str) -> bool:
        """Count one more, unless there are as many as allowed."""
        if self._total >= self._most or self._by_address[address] >= self._most_each:
            return False
        self._total += 1
        self._by_address[address] += 1
        return True

    def leave(self, address: str) -> None:
        """Count one less."""
        self._total -= 1
        self._by_address[address] -= 1
        if not self._by_address[address]:
            del self._by_address[address]


class _PunctualProtocol(H11Protocol):
    """uvicorn's connection, for clients that may have no good intentions."""

    def __init__(self, *args: Any, connections: Connections, **options: Any) -> None:
        super().__init__(*args, **options)
        self._all = connections
        self._counted: str | None = None
        self._receipt: asyncio.TimerHandle | None = None
        self._awaited: object = None
        """What of a request the client has to send by the deadline; None for nothing."""
        self._began = 0.0
        self._received = 0
        self._stalled: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Count the connection, or refuse it; the first head is due."""
        super().connection_made(transport)
        address = "" if self.client is None else self.client[0]
        if not self._all.enter(address):
            transport.write(_FULL)
            transport.close()
            return
        self._counted = address
        self._await("head", HEAD_S)

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go of it."""
        super().connection_lost(exc)
        self._await(None)
        self.resume_writing()
        if self._counted is not None:
            self._all.leave(self._counted)
            self._counted = None

    def data_received(self, data: bytes) -> None:
        """Take what the client says, and see what it owes us then."""
        if self._counted is None:
            return
        super().data_received(data)
        self._received += len(data)
        self._look()

    def send_400_response(self, msg: str) -> None:
        """What the client says is no HTTP. If it begins well, there is somebody who would answer it, too."""
        if self.cycle is not None:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        try:
            super().send_400_response(msg)
        except h11.LocalProtocolError:
            # An answer has begun.
            self.transport.abort()

    def on_response_complete(self) -> None:
        """An answer is out: what comes next is another request, or the rest of a body that nobody wants."""
        super().on_response_complete()
        self._look()

    def pause_writing(self) -> None:
        """The client does not read; not for ever."""
        super().pause_writing()
        if self._stalled is None:
            self._stalled = self.loop.call_later(STALLED_S, self.transport.abort)

    def resume_writing(self) -> None:
        """It does again."""
        super().resume_writing()
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    def _look(self) -> None:
        state = self.conn.their_state
        if state is h11.SEND_BODY:
            if self.conn.our_state in (h11.DONE, h11.MUST_CLOSE):
                self._await("rest", LINGER_S)
            else:
                self._await("body", BODY_S)
        elif state is h11.IDLE and self.timeout_keep_alive_task is None:
            self._await("head", HEAD_S)
        else:
            self._await(None)

    def _await(self, what: str | None, seconds: float = 0.0) -> None:
        if what == self._awaited:
            return
        if self._receipt is not None:
            self._receipt.cancel()
            self._receipt = None
        self._awaited = what
        if what is not None:
            self._began, self._received = self.loop.time(), 0
            self._receipt = self.loop.call_later(seconds, self._overdue)

    def _overdue(self) -> None:
        if self._awaited == "body":
            more = self._began + BODY_S + self._received / BODY_RATE - self.loop.time()
            # While we do not read it is not the client who is late.
            if self.flow.read_paused or more > 0:
                self._receipt = self.loop.call_later(max(more, 1.0), self._overdue)
                return
        self.transport.abort()


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers; says when it can be reached."""

    def __init__(self, config: uvicorn.Config, on_start: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_start = on_start

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to whoever ends the sandboxes."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to answer."""
        await super().startup(sockets)
        self._on_start()


def http_server(app: Any, connections: Connections, on_start: Callable[[], None]) -> uvicorn.Server:
    """Return a server that says nothing on standard output and waits for nobody."""

    def protocol(*args: Any, **options: Any) -> _PunctualProtocol:
        return _PunctualProtocol(*args, connections=connections, **options)

    config = uvicorn.Config(
        app,
        http=protocol,  # type: ignore[arg-type]  # what makes one does as well as a class
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="error",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=1,
        h11_max_incomplete_event_size=MAX_HEAD_BYTES,
    )
    return _Server(config, on_start)


def allow_files(connections: int) -> None:
    """Raise this process's limit of open files, as far as it goes, so that all connections have one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + _OUR_FILES
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard), hard))
