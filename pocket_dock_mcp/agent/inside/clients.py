"""Who speaks with the agent: one client that holds it, and any that visit it while it is kept.

Each has a range of numbers of its own for its requests, so that a number says whose a request is, for as long
as the agent lives: an answer to somebody who has gone is nobody else's.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
import time
from typing import TYPE_CHECKING, Callable, List

from . import leaving, wire
from .receiving import Receiver
from .sending import Sender

if TYPE_CHECKING:
    from .main import Agent

SHIFT = wire.IDS.bit_length() - 1
"""Bits of a request's number that its client counts with; what is above is the client's own number."""
MOST_QUEUED = 32 * 1024 * 1024
"""Bytes on their way to a visitor; who asks for more at once than it reads is let go of."""
STALL = 15.0
"""Seconds between two looks at whether a visitor reads at all."""
SILENCE = 25.0
"""Seconds after which a visitor that says nothing is gone: not every engine tells it."""


class Client:
    """One of them, from its first frame to its end."""

    def __init__(self, agent: Agent, number: int, fds: List[int], is_visitor: bool) -> None:
        """Serve one that is read from the first descriptor and written to through the second."""
        self.number = number
        self.is_visitor = is_visitor
        self.fds: List[int] = []
        """To be closed with it."""
        self._agent = agent
        self._written = 0
        self._heard = time.monotonic()
        self.sender = Sender(agent.loop, fds[1])
        self.receiver = Receiver(agent.loop, fds[0], self._serve)
        self.on_lost(lambda status: leaving.end(agent, status))
        if is_visitor:
            self.sender.most = MOST_QUEUED
            agent.loop.later(STALL, self._look)

    @property
    def first_id(self) -> int:
        """The lowest number that a request of it may have."""
        return self.number << SHIFT | 1

    def on_lost(self, callback: Callable[[int], object]) -> None:
        """Have `callback` called when it does not read, write, or speak the protocol any more."""
        self.sender.on_lost = self.receiver.on_lost = callback

    def close(self) -> None:
        self.sender.close()
        self.receiver.close()
        if self._agent.way_out is not None:
            self._agent.way_out.leave(self.number)
        while self.fds:
            os.close(self.fds.pop())

    def _serve(self, header: wire.Header, payload: bytes) -> None:
        number = header.get("id")
        keep = self._agent.keep
        self._heard = time.monotonic()
        try:
            if type(number) is not int or (keep is None and self.number):
                raise ValueError("a frame without a number")
            if keep is not None and keep.about(self, number, header, payload):
                return
            if number >> SHIFT != self.number:
                raise ValueError("the number of somebody else's request")
        except (ValueError, KeyError, TypeError):
            self.receiver.on_lost(1)
        except Exception:
            # A fault of ours must not end the sandbox; what it was goes to the engine's stderr stream.
            sys.excepthook(*sys.exc_info())
        else:
            self._agent.serve(number, header, payload)

    def _look(self) -> None:
        """Let go of a visitor that does not read what there is for it, or has not been heard of for long."""
        if not self.fds:
            return
        is_stuck = self.sender.queued > 0 and self.sender.written == self._written
        if is_stuck or time.monotonic() - self._heard > SILENCE:
            self.sender.on_lost(1)
            return
        self._written = self.sender.written
        self._agent.loop.later(STALL, self._look)


def is_to_wait(agent: Agent, request_id: int, go_on: Callable[[], object]) -> bool:
    """Whether there is enough on its way to a client already; `go_on` is called when there is less."""
    sender = (agent.first if agent.keep is None else agent.keep.clients[request_id >> SHIFT]).sender
    if sender.has_enough:
        sender.waiting[request_id] = go_on
    return sender.has_enough


def uid_of(client: socket.socket) -> int:
    """Return who is at the other end, as the kernel knows it."""
    credentials = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", credentials)[1])


def listener(name: str, backlog: int) -> socket.socket:
    """Listen at an abstract address."""
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    listening.setblocking(False)
    listening.bind(name)
    listening.listen(backlog)
    return listening
