"""The way out of a sandbox without a network: a port in here whose clients the host answers.

It is bound before any program of the user runs, so nobody can be there first. What clients say is not looked
at in here. The host asks for one connection after the other, so it decides how many there are; those that it
has not asked for wait in the kernel, which keeps a few and lets the others try again.
"""

from __future__ import annotations

import collections
import errno
import os
import socket
from typing import TYPE_CHECKING, Deque, Dict, List, Optional, Tuple

from . import dialling, wire
from .clients import SHIFT
from .loop import READ

if TYPE_CHECKING:
    from .main import Agent

BACKLOG = 64
"""Connections that wait until the host asks for them."""
AT_ONCE = 16
"""Connections that are looked at before others have their turn."""
MOST = 128
"""Requests for a connection, and connections, at once. The host asks for less."""
PAUSE = 0.1
"""Seconds before the next look when there is no descriptor for a connection."""


class Door:
    """Where programs connect to."""

    def __init__(self, agent: Agent, port: int) -> None:
        self.port = port
        self.waiting: Deque[Accepted] = collections.deque()
        self._agent = agent
        self._host: Optional[int] = None
        """The number of the client that answers; None while there is nobody to."""
        self._listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self._listener.setblocking(False)
        self._listener.bind(("127.0.0.1", port))
        self._listener.listen(BACKLOG)
        self._is_watching = False
        self.look()

    def serve(self, client: int) -> None:
        """Let programs wait for a client of the agent's to ask for them; the newest one answers."""
        self._host = client
        self.look()

    def leave(self, client: int) -> None:
        """A client has gone. If it was the one that answers, programs are sent away from now on."""
        if client == self._host:
            self._host = None
            self.look()

    def look(self) -> None:
        """Look for connections, if there is something to be done with them."""
        is_wanted = self._host is None or bool(self.waiting)
        if is_wanted and not self._is_watching:
            self._agent.loop.watch(self._listener.fileno(), READ, self._on_ready)
        elif self._is_watching and not is_wanted:
            self._agent.loop.unwatch(self._listener.fileno())
        self._is_watching = is_wanted

    def _on_ready(self) -> None:
        try:
            for _ in range(AT_ONCE):
                if self._host is not None and not self.waiting:
                    break
                connected, _address = self._listener.accept()
                self._take(connected)
        except BlockingIOError:
            pass
        except OSError:
            # No descriptor is free for it: as long as it waits we would be called again and again.
            self._agent.loop.unwatch(self._listener.fileno())
            self._agent.loop.later(PAUSE, self._look_again)
            return
        self.look()

    def _look_again(self) -> None:
        self._is_watching = False
        self.look()

    def _take(self, connected: socket.socket) -> None:
        if self._host is None:
            with connected:
                dialling.reset_at_close(connected)
        else:
            self.waiting.popleft().take(connected)


class Accepted(dialling.Relay):
    """A request for a connection of a program's, and from then on that connection."""

    def __init__(self, agent: Agent, request_id: int, header: wire.Header, door: Door) -> None:
        super().__init__(agent, request_id, header)
        self._door = door

    def take(self, connected: socket.socket) -> None:
        """Begin with one that has come."""
        connected.setblocking(False)
        self._agent.send({"kind": "accepted", "id": self.id})
        try:
            self._begin(connected)
        except OSError as error:
            # It is over already.
            self._fail(error.errno)

    def _leave(self) -> None:
        if self in self._door.waiting:
            self._door.waiting.remove(self)
            self._door.look()
        super()._leave()


class Outfit:
    """What programs need to know of the way out: variables, and files that only uid 0 can change."""

    def __init__(self, agent: Agent, request_id: int, header: wire.Header) -> None:
        self._agent = agent
        self._id = request_id
        self._env: Dict[str, str] = header["env"]
        self._files: List[Tuple[str, int]] = header["files"]
        """Paths, and how much of the data is for each."""
        self._data = bytearray()

    def feed(self, data: bytes, end: bool) -> None:
        """Take what is in the files, of which the last is there with `end`."""
        self._data += data
        if len(self._data) > wire.UPLOAD_WINDOW:
            self.abort()
            self._agent.fail(self._id, "network", errno.EFBIG)
        elif end:
            self._finish()

    def _finish(self) -> None:
        self.abort()
        try:
            at = 0
            for path, size in self._files:
                place(path, bytes(self._data[at : at + size]))
                at += size
        except OSError as error:
            self._agent.fail(self._id, "network", error.errno)
            return
        self._agent.environment.network = self._env
        if self._agent.way_out is not None:
            self._agent.way_out.serve(self._id >> SHIFT)
        self._agent.send({"kind": "reply", "id": self._id})

    def abort(self) -> None:
        """Nobody wants it any more."""
        self._agent.drop(self._id)


def place(path: str, data: bytes) -> None:
    """Put a file where users can read it and cannot change it; at once, for those who are just reading.

    Its directory must be one in which only uid 0 can write.
    """
    folder = os.path.dirname(path)
    try:
        os.mkdir(folder, 0o755)
    except FileExistsError:
        pass
    temporary = path + ".new"
    try:
        os.unlink(temporary)
    except FileNotFoundError:
        pass
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    with open(fd, "wb") as file:
        os.fchmod(fd, 0o644)
        file.write(data)
    os.rename(temporary, path)


def outfit(agent: Agent, request_id: int, header: wire.Header, payload: bytes) -> None:
    """Serve a request to tell programs of the way out, and to keep it open."""
    work = Outfit(agent, request_id, header)
    agent.work[request_id] = work
    work.feed(payload, bool(header.get("end")))


def accept(agent: Agent, request_id: int, header: wire.Header, _payload: bytes) -> None:
    """Serve a request for the next connection."""
    door = agent.way_out
    if door is None:
        agent.fail(request_id, "accept", errno.EOPNOTSUPP)
    elif sum(isinstance(work, Accepted) for work in agent.work.values()) >= MOST:
        agent.fail(request_id, "accept", errno.EMFILE)
    else:
        work = agent.work[request_id] = Accepted(agent, request_id, header, door)
        door.waiting.append(work)
        door.look()


HANDLERS = {"outfit": outfit, "accept": accept}
