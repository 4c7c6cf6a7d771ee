"""What is kept of runs: their output on tapes and how they ended, for each client at a pace of its own."""

from __future__ import annotations

import collections
from typing import TYPE_CHECKING, Callable, Deque, Dict, List, Optional, Tuple

from . import wire
from .clients import SHIFT, Client
from .tapes import Reader, Tape

if TYPE_CHECKING:
    from .main import Agent

MAX_RUNS = 1024
"""Runs under way at once."""
MAX_ENDED = 128
"""Ended runs that nobody has asked to forget."""
TOTAL_BYTES = 256 * 1024 * 1024
PAGE = 32
"""Runs in one piece of a listing."""


class Follower:
    """A client that is told of a run, from its beginning to its end."""

    def __init__(self, kept: Kept, client: Client) -> None:
        self.client = client
        self.reader: Reader = kept.tape.reader()
        self.was_told = False
        self._kept = kept
        self._credit = wire.WINDOW

    def add_credit(self, amount: int) -> None:
        self._credit += amount
        self.reader.taken(amount)
        self.pump()
        self._kept.has_room()

    def pump(self) -> None:
        """Tell what there is to tell, as far as there is room for it."""
        kept, sender = self._kept, self.client.sender
        while not self.was_told and self._credit > 0:
            if sender.has_enough:
                sender.waiting[kept.id] = self.pump
                return
            piece = self.reader.read(self._credit)
            if piece is None:
                break
            self._credit -= len(piece[1])
            sender.send({"kind": "data", "id": kept.id, "s": piece[0]}, piece[1])
        if not self.was_told and kept.final is not None and self.reader.is_done:
            self.was_told = True
            header, payload = kept.final
            missed = [self.reader.missed.get(stream, 0) for stream in (1, 2, 3)]
            sender.send({**header, "missed": missed} if any(missed) else header, payload)
            kept.was_told()


class Kept:
    """What clients have to know of one run: output, ending, and what was said of it when it was begun."""

    def __init__(self, shelf: Shelf, run_id: int, meta: object, stays: bool) -> None:
        self.id = run_id
        self.meta = meta
        self.stays = stays
        """Whether it goes on without the client that has begun it."""
        self.final: Optional[Tuple[wire.Header, bytes]] = None
        self.wanted = True
        self.is_heard_of = False
        """Whether a client has said that it knows how it ended."""
        self.followers: Dict[int, Follower] = {}
        self.tape = Tape(shelf.reserve, shelf.room)
        self.tape.pace = self._pace
        self._shelf = shelf
        self._fed: Deque[Tuple[Client, int]] = collections.deque()
        """Whose input is still to be read, and how many bytes of it."""
        self._resume: Callable[[], object] = _nothing

    @property
    def is_unfinished(self) -> bool:
        """Whether somebody has still to be told something."""
        return any(not one.was_told for one in self.followers.values())

    def _pace(self) -> Optional[Reader]:
        """Who has to have what is let go of: who has begun it, or else who holds the sandbox.

        If it is neither, whoever is furthest: one who visits holds up nobody but himself.
        """
        own = self.followers.get(self.id >> SHIFT)
        holder = [one for one in self.followers.values() if not one.client.is_visitor]
        if own is not None or holder:
            return (own or holder[0]).reader
        readers = [one.reader for one in self.followers.values()]
        return max(readers, key=lambda reader: reader.has) if readers else None

    def take(self, header: wire.Header, payload: bytes) -> None:
        """Take a frame about it."""
        if header["kind"] == "data":
            self.tape.append(header["s"], payload)
        elif header["kind"] == "credit":
            self._pay(header["n"])
            return
        else:
            self.final = header, payload
            self._shelf.has_ended(self)
        for follower in list(self.followers.values()):
            follower.pump()

    def was_fed(self, client: Client, amount: int) -> None:
        """A client has given it some input."""
        if self._fed and self._fed[-1][0] is client:
            amount += self._fed.pop()[1]
        self._fed.append((client, amount))

    def _pay(self, amount: int) -> None:
        """So much of its input has been read: whose it was may give more."""
        while amount and self._fed:
            client, there = self._fed.popleft()
            paid = min(amount, there)
            amount -= paid
            if paid < there:
                self._fed.appendleft((client, there - paid))
            # Quietly nobody's if he has gone.
            client.sender.send({"kind": "credit", "id": self.id, "n": paid})

    def hold(self, resume: Callable[[], object]) -> None:
        """There is no room for its output; `resume` is to be called when there may be some."""
        self._resume = resume

    def has_room(self) -> None:
        resume, self._resume = self._resume, _nothing
        resume()

    def follow(self, client: Client) -> None:
        """Tell a client everything from the beginning."""
        self.leave(client)
        follower = self.followers[client.number] = Follower(self, client)
        follower.pump()

    def leave(self, client: Client) -> None:
        """Tell a client no more."""
        follower = self.followers.pop(client.number, None)
        if follower is not None:
            client.sender.waiting.pop(self.id, None)
            self.tape.readers.remove(follower.reader)

    def was_told(self) -> None:
        """Drop it if nobody wants it and all has been told that is to be told of it."""
        if not self.wanted and self.final is not None and not self.is_unfinished:
            self._shelf.drop(self.id)


class Shelf:
    """All kept runs, by number, within the room that there is for them."""

    def __init__(self, agent: Agent, room: int) -> None:
        self.agent = agent
        self.room = room
        """Bytes for the output of one run."""
        self.runs: Dict[int, Kept] = {}
        self._ended: collections.OrderedDict[int, Kept] = collections.OrderedDict()
        self._bytes = 0

    def add(self, run_id: int, meta: object, stays: bool) -> Optional[Kept]:
        """Keep a run from its beginning on; None if there are too many."""
        if len(self.runs) - len(self._ended) >= MAX_RUNS:
            return None
        kept = self.runs[run_id] = Kept(self, run_id, meta, stays)
        return kept

    def has_to_stay(self, run_id: int) -> bool:
        """Whether a run goes on without the client that has begun it."""
        kept = self.runs.get(run_id)
        return kept is not None and kept.stays

    def has_ended(self, kept: Kept) -> None:
        self._ended[kept.id] = kept
        kept.was_told()
        for old in list(self._ended.values())[: max(0, len(self._ended) - MAX_ENDED)]:
            if not old.is_unfinished:
                self.drop(old.id)

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

    def leave(self, client: Client) -> None:
        """A client is gone, and told nothing any more."""
        for kept in list(self.runs.values()):
            kept.leave(client)
            kept.was_told()
        self._wake()

    @property
    def has_news(self) -> bool:
        """Whether a run that was to go on has ended, and somebody may still want to know how."""
        return any(kept.stays and not kept.is_heard_of for kept in self._ended.values())

    def describe(self, after: int, present: Dict[int, Client]) -> List[wire.Header]:
        """List runs from a number on. Those whose clients are `present` are somebody's to tell of."""
        ids = sorted(run_id for run_id in self.runs if run_id > after)[:PAGE]
        return [{**_described(self.runs[run_id]), "attended": run_id >> SHIFT in present} for run_id in ids]


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


def _nothing() -> None:
    pass
