"""Keep mode: the sandbox outlives whoever holds its stream, and others can take it up and visit it.

The end of the input then detaches instead of ending everything: programs and sessions go on, and what they
print is kept. The next client comes over a socket, by a bridge that the engine starts inside as uid 0. So
does whoever visits while another holds it: all are served alike, and none waits for another.
"""

from __future__ import annotations

import os
import socket
import time
from typing import TYPE_CHECKING, Dict, Optional

from . import cells, facts, leaving, runs, wire
from .clients import SHIFT, Client, listener, uid_of
from .loop import READ, Timer
from .shelf import Kept, Shelf

if TYPE_CHECKING:
    from .main import Agent

BACKLOG = 512
MAX_VISITORS = 16
"""At once: each has a bridge in here, which uses memory and counts as a process."""
LOOK = 2.0
"""Seconds between two looks at whether anything still runs."""
MOST_DETACHED = 86_400.0
"""Seconds after which nobody is waited for any more, whatever runs."""
LAST_WORDS = 0.05
"""Seconds that bridges have to hand on what was said last: they end with us."""
_PAUSE = 0.1
RUNS = (runs.Run, cells.Cell)
"""What is a program that runs or whose end is just coming, or code that waits for its turn."""
_TO_END = 10.0
"""Seconds that a run has which goes with its client, to put away what it has made."""
_ENDLESS = 1 << 62


class Keep:
    """Who is connected, and for how long nobody has been."""

    def __init__(self, agent: Agent, first: Client, header: wire.Header) -> None:
        self.shelf = Shelf(agent, header["room"])
        self.clients: Dict[int, Client] = {first.number: first}
        self._agent = agent
        self._ttl: Optional[float] = header.get("ttl")
        self._last = first.number
        self._since: Optional[float] = None
        """When the last client left, while there is none."""
        self._busy_until = 0.0
        self.is_leased = True
        """Whether everything still ends with the first client: nobody has it on record yet."""
        self._timer: Optional[Timer] = None
        self._heed(first)
        self._doors = [
            (listener(wire.SOCKET, BACKLOG), False),
            (listener(wire.VISITORS_SOCKET, BACKLOG), True),
        ]
        self._listen()

    # -- frames -----------------------------------------------------------------------------------

    def pass_on(self, header: wire.Header, payload: bytes) -> None:
        """Send a frame to whom it concerns: those who follow a run, or whoever has asked, if he is there."""
        kept = self.shelf.runs.get(header["id"])
        if kept is not None:
            kept.take(header, payload)
            return
        client = self.clients.get(header["id"] >> SHIFT)
        if client is not None:
            client.sender.send(header, payload)

    def about(self, client: Client, number: int, header: wire.Header, payload: bytes) -> bool:
        """Serve what any client may say about any run; False if it is something else."""
        op = header.get("op")
        kept = self.shelf.runs.get(number)
        if op == "replay":
            self._replay(client, number, kept)
        elif op == "heard" and kept is not None:
            kept.is_heard_of = True
        elif op == "forget" and kept is not None:
            self._forget(client, kept)
        elif op == "unfollow" and kept is not None:
            kept.leave(client)
            kept.was_told()
        elif op == "credit" and kept is not None:
            if client.number in kept.followers:
                kept.followers[client.number].add_credit(header["n"])
        elif op == "data" and kept is not None:
            return self._feed(client, kept, header, payload)
        else:
            # What comes late is about nothing any more.
            is_late = op in ("data", "credit") and number >> SHIFT != client.number
            return op in ("heard", "forget", "unfollow", "beat") or is_late
        return True

    def _replay(self, client: Client, number: int, kept: Optional[Kept]) -> None:
        if kept is not None:
            kept.follow(client)
        else:
            client.sender.send({"kind": "error", "id": number, "stage": "run", "code": "forgotten"})

    def _forget(self, client: Client, kept: Kept) -> None:
        """Who has begun a run decides what is kept of it; when he has gone, anybody does."""
        if kept.id >> SHIFT in (client.number, *self._gone(kept.id >> SHIFT)):
            kept.wanted = False
            kept.was_told()
        else:
            kept.leave(client)

    def _gone(self, number: int) -> tuple[int, ...]:
        return () if number in self.clients else (number,)

    def _feed(self, client: Client, kept: Kept, header: wire.Header, payload: bytes) -> bool:
        work = self._agent.work.get(kept.id)
        if not isinstance(work, RUNS):
            return kept.id >> SHIFT != client.number
        if payload:
            kept.was_fed(client, len(payload))
        work.feed(payload, bool(header.get("end")))
        return True

    # -- clients ----------------------------------------------------------------------------------

    def _listen(self) -> None:
        for door, is_visitor in self._doors:
            self._watch(door, is_visitor)

    def _watch(self, door: socket.socket, is_visitor: bool) -> None:
        self._agent.loop.watch(door.fileno(), READ, lambda: self._on_client(door, is_visitor))

    def _on_client(self, door: socket.socket, is_visitor: bool) -> None:
        try:
            for _ in range(BACKLOG):
                client, _address = door.accept()
                if uid_of(client) != 0:
                    client.close()
                elif is_visitor and sum(one.is_visitor for one in self.clients.values()) >= MAX_VISITORS:
                    _turn_away(client)
                else:
                    self._welcome(client, is_visitor)
        except BlockingIOError:
            return
        except OSError:
            # No descriptor is free for it: as long as it waits we would be called again and again.
            self.shelf.clear_oldest()
            self._agent.loop.unwatch(door.fileno())
            self._agent.loop.later(_PAUSE, self._listen)

    def _welcome(self, stream: socket.socket, is_visitor: bool) -> None:
        """Serve a new client. Who comes to hold it replaces who did: an older one may be half dead."""
        if not is_visitor:
            for one in [one for one in self.clients.values() if not one.is_visitor]:
                one.sender.send({"kind": "replaced", "id": 0})
                one.sender.flush()
                # Unless it was found to be gone just now.
                if one.number in self.clients:
                    self.leave(one)
        self._last += 1
        # Two, because the loop knows one callback for each.
        fds = [os.dup(stream.fileno()), stream.detach()]
        client = self.clients[self._last] = Client(self._agent, self._last, fds, is_visitor)
        client.fds = fds
        self._heed(client)
        self._since = None
        client.sender.send({"kind": "ready", "id": 0, "protocol": wire.PROTOCOL, "next": client.first_id})

    def _heed(self, client: Client) -> None:
        def lost(_status: int = 0) -> None:
            self.leave(client)

        client.on_lost(lost)

    def leave(self, client: Client) -> None:
        """A client is gone. What it has begun and not told all of is given up; runs go on.

        But for those of a visitor that were not to outlive the visit.
        """
        if self.is_leased and not client.is_visitor:
            leaving.end(self._agent)
        if self.clients.pop(client.number, None) is None:
            return
        client.close()
        for request_id, work in list(self._agent.work.items()):
            if request_id >> SHIFT != client.number:
                continue
            if not isinstance(work, RUNS):
                work.abort()
                self.shelf.drop(request_id)
            elif isinstance(work, runs.Run) and request_id not in self.shelf.runs:
                _let_end(work, self._agent)
            elif client.is_visitor and not self.shelf.has_to_stay(request_id):
                work.kill()
        self.shelf.leave(client)
        if not self.clients:
            self._since = self._busy_until = time.monotonic()
            if self._timer is None:
                self._look()

    def tell_others(self, request_id: int, why: object) -> bool:
        """Tell all but the one who has asked for it why everything ends; whether somebody needs a moment."""
        for client in list(self.clients.values()):
            if client.number != request_id >> SHIFT:
                client.sender.send({"kind": "halted", "id": 0, "why": why})
            client.sender.flush()
        return len(self.clients) > 1

    def _look(self) -> None:
        """End everything when nobody has come for too long."""
        self._timer = None
        if self._since is None or self._ttl is None:
            return
        now = time.monotonic()
        if self.shelf.has_news or any(isinstance(work, RUNS) for work in self._agent.work.values()):
            self._busy_until = now
        left = min(self._busy_until + self._ttl, self._since + max(self._ttl, MOST_DETACHED)) - now
        if left <= 0:
            leaving.end(self._agent)
        self._timer = self._agent.loop.later(min(left, LOOK), self._look)

    # -- requests ---------------------------------------------------------------------------------

    def add(self, request_id: int, header: wire.Header) -> bool:
        """Keep a run that is about to begin; False if there are too many."""
        kept = self.shelf.add(request_id, header.get("meta"), bool(header.get("stay")))
        if kept is not None:
            kept.follow(self.clients[request_id >> SHIFT])
        return kept is not None

    def rejoin(self, request_id: int, _header: wire.Header) -> None:
        """Say again what `init` said."""
        fields = facts.collect(self._agent)
        self._agent.send({"kind": "reply", "id": request_id, "home": self._agent.user.home, **fields})

    def list_runs(self, request_id: int, header: wire.Header) -> None:
        described = self.shelf.describe(header["after"], self.clients)
        self._agent.send({"kind": "reply", "id": request_id, "runs": described})


def _turn_away(stream: socket.socket) -> None:
    with stream:
        stream.setblocking(False)
        stream.send(wire.encode({"kind": "error", "id": 0, "stage": "visit", "code": "full"}))


def _let_end(run: runs.Run, agent: Agent) -> None:
    """Have a run that only its client wanted see the end of its input, and kill it if that is not enough."""
    run.add_credit(_ENDLESS)
    run.feed(b"", True)
    agent.loop.later(_TO_END, lambda: run.kill() if agent.work.get(run.id) is run else None)
