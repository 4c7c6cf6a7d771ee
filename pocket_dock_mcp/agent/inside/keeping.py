"""Keep mode: the sandbox outlives whoever holds its stream, and another one can take it up.

The end of the input then detaches instead of ending everything: programs and sessions go on, and what they
print is kept. The next client comes over a socket, by a bridge that the engine starts inside as uid 0.
"""

from __future__ import annotations

import collections
import os
import socket
import struct
import time
from typing import TYPE_CHECKING, Callable, Dict, List, Optional, Tuple

from . import cells, disk, facts, runs, wire
from .loop import READ, Timer
from .tapes import Tape

if TYPE_CHECKING:
    from .main import Agent

BACKLOG = 512
MAX_RUNS = 1024
"""Runs under way at once."""
MAX_ENDED = 128
"""Ended runs that nobody has asked to forget."""
TOTAL_BYTES = 256 * 1024 * 1024
PAGE = 32
"""Runs in one piece of a listing."""
LOOK = 2.0
"""Seconds between two looks at whether anything still runs."""
MOST_DETACHED = 86_400.0
"""Seconds after which nobody is waited for any more, whatever runs."""
_PAUSE = 0.1
_TO_END = 10.0
"""Seconds that a run has which goes with its client, to put away what it has made."""
_ENDLESS = 1 << 62


class Kept:
    """What the next client has to know of one run: output, ending, and what its client said of it."""

    def __init__(self, shelf: Shelf, run_id: int, meta: object) -> None:
        self.id = run_id
        self.meta = meta
        self.final: Optional[Tuple[wire.Header, bytes]] = None
        self.wanted = True
        self.is_heard_of = False
        """Whether a client has said that it knows how it ended."""
        self.is_open = True
        """Whether the present client follows it."""
        self.tape = Tape(shelf.reserve, shelf.room)
        self._shelf = shelf
        self._credit = wire.WINDOW
        self._told = False
        self._resume: Callable[[], object] = _nothing

    @property
    def is_unfinished(self) -> bool:
        """Whether the present client has still to be told something."""
        return self.is_open and not self._told

    def take(self, header: wire.Header, payload: bytes) -> None:
        """Take a frame about it on its way to the client."""
        if header["kind"] == "data":
            self.tape.append(header["s"], payload)
        elif header["kind"] == "credit":
            if self.is_open:
                self._shelf.agent.sender.send(header, payload)
            return
        else:
            self.final = header, payload
            self._shelf.has_ended(self)
        self._pump()

    def add_credit(self, amount: int) -> None:
        self._credit += amount
        self.tape.taken(amount)
        self._pump()
        self.has_room()

    def hold(self, resume: Callable[[], object]) -> None:
        """There is no room for its output; `resume` is to be called when there may be some."""
        self._resume = resume

    def has_room(self) -> None:
        resume, self._resume = self._resume, _nothing
        resume()

    def replay(self) -> None:
        """Tell the present client everything from the beginning."""
        self.is_open, self._told = True, False
        self._credit = wire.WINDOW
        self.tape.rewind()
        self._pump()

    def detach(self) -> None:
        self.is_open = False
        self.tape.rewind()
        self._shelf.was_told(self)

    def _pump(self) -> None:
        send = self._shelf.agent.sender.send
        while self.is_unfinished and self._credit > 0:
            piece = self.tape.read(self._credit)
            if piece is None:
                break
            self._credit -= len(piece[1])
            send({"kind": "data", "id": self.id, "s": piece[0]}, piece[1])
        if self.is_unfinished and self.final is not None and self.tape.is_read:
            self._told = True
            send(*self.final)
            self._shelf.was_told(self)


class Shelf:
    """All kept runs, by number, within the room that there is for them."""

    def __init__(self, agent: Agent, room: int) -> None:
        self.agent = agent
        self.room = room
        """Bytes for the output of one run."""
        self.runs: Dict[int, Kept] = {}
        self._ended: collections.OrderedDict[int, Kept] = collections.OrderedDict()
        self._bytes = 0

    def add(self, run_id: int, meta: object) -> bool:
        """Keep a run from its beginning on; False if there are too many."""
        if len(self.runs) - len(self._ended) >= MAX_RUNS:
            return False
        self.runs[run_id] = Kept(self, run_id, meta)
        return True

    def has_ended(self, kept: Kept) -> None:
        self._ended[kept.id] = kept
        self.was_told(kept)
        for old in list(self._ended.values())[: max(0, len(self._ended) - MAX_ENDED)]:
            if not old.is_unfinished:
                self.drop(old.id)

    def forget(self, run_id: int) -> None:
        """Nobody will ask for it any more."""
        kept = self.runs.get(run_id)
        if kept is not None:
            kept.wanted = False
            self.was_told(kept)

    def was_told(self, kept: Kept) -> None:
        """Drop it if nobody wants it and all has been told that is to be told of it."""
        if not kept.wanted and kept.final is not None and not kept.is_unfinished:
            self.drop(kept.id)

    def drop(self, run_id: int) -> None:
        """Forget it at once."""
        kept = self.runs.pop(run_id, None)
        self._ended.pop(run_id, None)
        if kept is not None:
            kept.tape.close()
            self._wake()

    def reserve(self, amount: int) -> bool:
        """Take room for a tape, from the oldest of ended runs if need be; or give it back."""
        if amount > 0 and self._bytes + amount > TOTAL_BYTES and not self.clear_oldest():
            return False
        self._bytes += amount
        return True

    def clear_oldest(self) -> bool:
        """Let go of the output of the oldest ended run that has a file."""
        for kept in self._ended.values():
            if kept.tape.allotted and not kept.is_unfinished:
                kept.tape.clear()
                return True
        return False

    def _wake(self) -> None:
        for kept in list(self.runs.values()):
            kept.has_room()

    def detach(self) -> None:
        for kept in list(self.runs.values()):
            kept.detach()
        self._wake()

    @property
    def has_news(self) -> bool:
        """Whether a run has ended of which somebody may still want to know how."""
        return any(not kept.is_heard_of for kept in self._ended.values())

    def describe(self, after: int) -> List[wire.Header]:
        ids = sorted(run_id for run_id in self.runs if run_id > after)[:PAGE]
        return [_described(self.runs[run_id]) for run_id in ids]


def _described(kept: Kept) -> wire.Header:
    missing = [kept.tape.missing.get(stream, 0) for stream in (1, 2, 3)]
    ended = kept.final is not None
    return {
        "id": kept.id,
        "meta": kept.meta,
        "ended": ended,
        "heard": ended and kept.is_heard_of,
        "missing": missing,
    }


class Keep:
    """Who is connected, and for how long nobody has been."""

    def __init__(self, agent: Agent, request_id: int, header: wire.Header) -> None:
        self.shelf = Shelf(agent, header["room"])
        self._agent = agent
        self._ttl: Optional[float] = header.get("ttl")
        self._first_id = 0
        """Requests with lower numbers are an earlier client's."""
        self._last_id = request_id
        self._client: List[int] = []
        """Descriptors to read from it and to write to it, but for the first client's."""
        self._since: Optional[float] = None
        """When the last client left, while there is none."""
        self._busy_until = 0.0
        self.is_leased = True
        """Whether everything still ends with the first client: nobody has it on record yet."""
        self._timer: Optional[Timer] = None
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self._listener.setblocking(False)
        self._listener.bind(wire.SOCKET)
        self._listener.listen(BACKLOG)
        self._listen()
        agent.receiver.on_lost = agent.sender.on_lost = self.detach

    # -- frames -----------------------------------------------------------------------------------

    def saw(self, request_id: int) -> None:
        """A request has come."""
        self._last_id = max(self._last_id, request_id)

    def passes(self, header: wire.Header, payload: bytes) -> bool:
        """Whether a frame is to be sent now and as it is: no run's, and no answer to an earlier client."""
        kept = self.shelf.runs.get(header["id"])
        if kept is not None:
            kept.take(header, payload)
            return False
        return self._since is None and header["id"] >= self._first_id

    # -- clients ----------------------------------------------------------------------------------

    def _listen(self) -> None:
        self._agent.loop.watch(self._listener.fileno(), READ, self._on_client)

    def _on_client(self) -> None:
        try:
            for _ in range(BACKLOG):
                client, _address = self._listener.accept()
                if _uid_of(client) == 0:
                    self._welcome(client)
                else:
                    client.close()
        except BlockingIOError:
            return
        except OSError:
            # No descriptor is free for it: as long as it waits we would be called again and again.
            self.shelf.clear_oldest()
            self._agent.loop.unwatch(self._listener.fileno())
            self._agent.loop.later(_PAUSE, self._listen)

    def _welcome(self, client: socket.socket) -> None:
        """Serve a new client. The newest one wins: an older one may be half dead without knowing it."""
        if self._since is None:
            self._agent.sender.send({"kind": "replaced", "id": 0}, b"")
            self._agent.sender.flush()
        if self._since is None:
            self.detach()
        # Two, because the loop knows one callback for each.
        self._client = [os.dup(client.fileno()), client.detach()]
        self._since = None
        self._first_id = self._last_id + 1
        self._agent.receiver.use(self._client[0])
        self._agent.sender.use(self._client[1])
        self._agent.sender.send(
            {"kind": "ready", "id": 0, "protocol": wire.PROTOCOL, "next": self._first_id}, b""
        )

    def detach(self, _status: int = 0) -> None:
        """The client is gone. What it has begun and not told all of is given up; runs go on."""
        if self.is_leased:
            os._exit(0)
        self._agent.receiver.use(None)
        self._agent.sender.use(None)
        while self._client:
            os.close(self._client.pop())
        for request_id, work in list(self._agent.work.items()):
            if not isinstance(work, (runs.Run, cells.Cell, disk.Watch)):
                work.abort()
                self.shelf.drop(request_id)
            elif isinstance(work, runs.Run) and request_id not in self.shelf.runs:
                _let_end(work, self._agent)
        self._since = self._busy_until = time.monotonic()
        self.shelf.detach()
        if self._timer is None:
            self._look()

    def _look(self) -> None:
        """End everything when nobody has come for too long."""
        self._timer = None
        if self._since is None or self._ttl is None:
            return
        now = time.monotonic()
        if self.shelf.has_news or any(_runs(work) for work in self._agent.work.values()):
            self._busy_until = now
        left = min(self._busy_until + self._ttl, self._since + max(self._ttl, MOST_DETACHED)) - now
        if left <= 0:
            os._exit(0)
        self._timer = self._agent.loop.later(min(left, LOOK), self._look)

    # -- requests ---------------------------------------------------------------------------------

    def rejoin(self, request_id: int, _header: wire.Header) -> None:
        """Say again what `init` said."""
        fields = facts.collect(self._agent)
        self._agent.send({"kind": "reply", "id": request_id, "home": self._agent.user.home, **fields})

    def list_runs(self, request_id: int, header: wire.Header) -> None:
        self._agent.send({"kind": "reply", "id": request_id, "runs": self.shelf.describe(header["after"])})

    def replay(self, request_id: int, _header: wire.Header) -> None:
        kept = self.shelf.runs.get(request_id)
        if kept is not None:
            kept.replay()
        else:
            # Its number is an earlier client's, so it would not pass.
            gone = {"kind": "error", "id": request_id, "stage": "run", "code": "forgotten"}
            self._agent.sender.send(gone, b"")

    def forget(self, request_id: int, _header: wire.Header) -> None:
        self.shelf.forget(request_id)

    def heard(self, request_id: int, _header: wire.Header) -> None:
        """The client knows how a run has ended, and has told whom it concerns."""
        kept = self.shelf.runs.get(request_id)
        if kept is not None:
            kept.is_heard_of = True


def _let_end(run: runs.Run, agent: Agent) -> None:
    """Have a run that only its client wanted see the end of its input, and kill it if that is not enough."""
    run.add_credit(_ENDLESS)
    run.feed(b"", True)
    agent.loop.later(_TO_END, lambda: run.kill() if agent.work.get(run.id) is run else None)


def _runs(work: object) -> bool:
    """Whether it is a program that runs or whose end is just coming, or code that waits for its turn."""
    return isinstance(work, (runs.Run, cells.Cell))


def _uid_of(client: socket.socket) -> int:
    """Return who is at the other end, as the kernel knows it."""
    credentials = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", credentials)[1])


def _nothing() -> None:
    pass
