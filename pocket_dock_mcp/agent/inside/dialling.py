"""Connections to TCP ports in here, made for clients of the host: what both sides say goes as frames.

All that is done for the host here is to connect to a port of the loopback interface. The program at the other
end may be hostile: nothing waits for it, and no more of what is said is held than the windows allow.
"""

from __future__ import annotations

import errno
import socket
import struct
from typing import TYPE_CHECKING, List, Optional, Tuple

from . import wire
from .loop import READ, WRITE, Timer

if TYPE_CHECKING:
    from .main import Agent

MOST = 256
"""Connections at once: each is a descriptor of the agent's."""
PATIENCE = 10.0
"""Seconds for a program to accept: its queue may be full."""
_RESET = struct.pack("ii", 1, 0)


class Relay:
    """What two sides say to each other, when they are connected, to the last word of both."""

    def __init__(self, agent: Agent, request_id: int, header: wire.Header) -> None:
        self.id = request_id
        self._agent = agent
        self._credit: int = header["window"]
        """Bytes that may go to the host."""
        self._room: int = header["room"]
        """Bytes that may be here for the program."""
        self._spent = 0
        """Bytes that the program has taken, and the host has not been told of."""
        self._pending = bytearray()
        """No more than that, however small the pieces are that it comes in."""
        self._socket: Optional[socket.socket] = None
        self._events = 0
        self._is_open = self._host_has_ended = self._is_shut = self._program_has_ended = False

    def _begin(self, connected: socket.socket) -> None:
        self._socket = connected
        self._is_open = True
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._turn()

    # -- what both sides say ----------------------------------------------------------------------

    def feed(self, data: bytes, end: bool) -> None:
        """Take what the host says, which is the last of it if `end`."""
        self._pending += data
        self._host_has_ended = self._host_has_ended or end
        self._turn()

    def add_credit(self, amount: int) -> None:
        self._credit += amount
        self._turn()

    def _turn(self) -> None:
        """Do as much as goes without waiting."""
        if self._socket is None or not self._is_open:
            return
        try:
            self._write(self._socket)
            self._read(self._socket)
        except OSError as error:
            self._fail(error.errno)
            return
        if self._is_shut and self._program_has_ended:
            self._leave()
            self._agent.send({"kind": "reply", "id": self.id})
            return
        wants_to_read = self._credit > 0 and not self._program_has_ended
        self._watch((READ if wants_to_read else 0) | (WRITE if self._pending else 0))

    def _write(self, to: socket.socket) -> None:
        try:
            while self._pending:
                written = to.send(self._pending)
                self._spent += written
                del self._pending[:written]
        except BlockingIOError:
            pass
        if self._spent >= self._room // 4:
            self._agent.send({"kind": "credit", "id": self.id, "n": self._spent})
            self._spent = 0
        if self._host_has_ended and not self._pending and not self._is_shut:
            self._is_shut = True
            to.shutdown(socket.SHUT_WR)

    def _read(self, source: socket.socket) -> None:
        if self._credit <= 0 or self._program_has_ended:
            return
        try:
            data = source.recv(min(self._credit, wire.MAX_PAYLOAD))
        except BlockingIOError:
            return
        self._credit -= len(data)
        self._program_has_ended = not data
        end = {} if data else {"end": True}
        self._agent.send({"kind": "relay", "id": self.id, **end}, data)

    # -- the socket -------------------------------------------------------------------------------

    def _watch(self, events: int) -> None:
        if self._socket is None or events == self._events:
            return
        self._events = events
        if events:
            self._agent.loop.watch(self._socket.fileno(), events, self._on_ready)
        else:
            # A connection that was reset is always ready.
            self._agent.loop.unwatch(self._socket.fileno())

    def _on_ready(self) -> None:
        self._turn()

    def abort(self) -> None:
        """Break it off."""
        if self._socket is not None:
            reset_at_close(self._socket)
        self._leave()

    def _fail(self, number: Optional[int]) -> None:
        self.abort()
        self._agent.fail(self.id, "connect", number)

    def _leave(self) -> None:
        self._hang_up()
        self._pending.clear()
        self._agent.drop(self.id)

    def _hang_up(self) -> None:
        if self._socket is not None:
            self._watch(0)
            self._socket.close()
            self._socket = None


class Connection(Relay):
    """One that was asked for from outside, from the dialling on."""

    def __init__(self, agent: Agent, request_id: int, header: wire.Header) -> None:
        super().__init__(agent, request_id, header)
        self._port: int = header["port"]
        self._addresses: List[Tuple[int, str]] = [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")]
        self._why: Optional[int] = None
        self._timer: Optional[Timer] = None

    def dial(self) -> None:
        """Connect to the first address where somebody listens."""
        self._timer = self._agent.loop.later(PATIENCE, self._too_late)
        self._dial_next()

    def _dial_next(self) -> None:
        while self._addresses:
            family, address = self._addresses.pop(0)
            try:
                self._socket = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
                self._socket.setblocking(False)
                number = self._socket.connect_ex((address, self._port))
            except OSError as error:
                # There need not be an IPv6 in here.
                number = error.errno or errno.EIO
            if number in (0, errno.EINPROGRESS):
                self._watch(WRITE)
                return
            self._missed(number)
        self._fail(self._why)

    def _missed(self, number: int) -> None:
        self._hang_up()
        self._why = self._why or number

    def _too_late(self) -> None:
        if not self._is_open:
            self._fail(errno.ETIMEDOUT)

    def _on_ready(self) -> None:
        if self._socket is None:
            return
        if not self._is_open:
            number = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if not number and self._has_met_itself(self._socket):
                number = errno.ECONNREFUSED
            if number:
                self._missed(number)
                self._dial_next()
                return
            self._begin(self._socket)
        else:
            self._turn()

    def _has_met_itself(self, dialled: socket.socket) -> bool:
        """Whether nobody listens, and the kernel has happened to dial from the very port that it dials."""
        try:
            return bool(dialled.getsockname()[:2] == dialled.getpeername()[:2])
        except OSError:
            # It is over already, as the first word of it will tell.
            return False

    def _leave(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        super()._leave()


def reset_at_close(connected: socket.socket) -> None:
    """Have the other side not take it for a normal end when it is closed."""
    try:
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    except OSError:
        # It is over already.
        pass


def connect(agent: Agent, request_id: int, header: wire.Header, _payload: bytes) -> None:
    """Serve a request to connect to a port."""
    if sum(isinstance(work, Connection) for work in agent.work.values()) >= MOST:
        agent.fail(request_id, "connect", errno.EMFILE)
        return
    connection = Connection(agent, request_id, header)
    agent.work[request_id] = connection
    connection.dial()
