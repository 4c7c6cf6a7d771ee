"""Pieces of code for sessions, from their arrival to their exit frame."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Dict, Optional

from . import children, killing
from .inputs import Input
from .limits import Account
from .loop import Timer
from .outputs import Outputs

if TYPE_CHECKING:
    from .main import Agent
    from .sessions import Session


class Cell:
    """One piece of code for a session: waiting, running, or over."""

    def __init__(self, agent: Agent, cell_id: int, start: children.Start, script: bytes) -> None:
        self.agent = agent
        self.id = cell_id
        self.start = start
        self.script = script
        self.is_first = False
        self.account: Optional[Account] = None
        self.outputs: Optional[Outputs] = None
        self.session: Optional[Session] = None
        self._born: killing.Moment = (0, 0)
        self._credit = 0
        self._stdin = bytearray()
        self._stdin_complete = not start.stdin
        self._input: Optional[Input] = None
        self._expires = None if start.timeout is None else time.monotonic() + start.timeout
        self._timer: Optional[Timer] = None
        if start.timeout is not None:
            self._timer = agent.loop.later(start.timeout, lambda: self._give_up("busy"))

    @property
    def input_is_whole(self) -> bool:
        """Whether all its standard input is here. A shell gets it as a file."""
        return self._stdin_complete

    @property
    def stdin(self) -> bytes:
        return bytes(self._stdin)

    def begin(self, session: Session, fds: Dict[int, int]) -> None:
        """Its turn has come."""
        if self._timer is not None:
            self._timer.cancel()
        left = None if self._expires is None else max(0.0, self._expires - time.monotonic())
        self.session = session
        self._born = killing.moment()
        self.account = Account(
            self.agent, session.marker, self.start.limits, left, session.interrupt, goes_on=True
        )
        account = self.account
        self.outputs = Outputs(self.agent, self.id, dict(fds), keep=True)
        self.outputs.limit = self.start.limits.output
        self.outputs.on_limit = lambda: account.end_for("output")
        self.outputs.add_credit(self._credit)

    def is_older_than(self, pid: int) -> bool:
        """Whether a process of its session was started by it, and not by one before."""
        return killing.is_younger(pid, self._born)

    def open_input(self) -> int:
        """Return a reading end for what the host feeds, the rest of it too as it comes."""
        read, write = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(write, False)
        self._input = Input(self.agent, self.id, write)
        self._input.feed(bytes(self._stdin), self._stdin_complete)
        return read

    def feed(self, data: bytes, end: bool) -> None:
        if self._input is not None:
            self._input.feed(data, end)
            return
        self._stdin += data
        self._stdin_complete = self._stdin_complete or end
        if data:
            self.agent.send({"kind": "credit", "id": self.id, "n": len(data)})
        if end:
            self.agent.sessions.input_is_whole(self)

    def add_credit(self, amount: int) -> None:
        if self.outputs is not None:
            self.outputs.add_credit(amount)
        else:
            self._credit += amount

    def resize(self, _rows: int, _columns: int) -> None:
        """A session has no terminal."""

    def signal(self, number: int) -> None:
        if self.session is not None:
            self.session.signal(number)

    def kill(self) -> None:
        """End it, because somebody asked for it."""
        if self.account is not None:
            self.account.end_for("killed")
        else:
            self._give_up("cancelled")

    def stop_for(self, why: str, used: int) -> None:
        """End it, for a limit of the sandbox; one that has not begun goes on waiting."""
        if self.account is not None:
            self.account.end_for(why, used)

    def _give_up(self, why: str) -> None:
        """It has not begun, and never will."""
        if self.session is None and self.agent.sessions.forget(self):
            self.fail(why)

    def fail(self, code: str, number: int = 0, stage: str = "session", **more: object) -> None:
        """Answer that it has not run."""
        self.close()
        self.agent.fail(self.id, stage, number, code or None, **more)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._input is not None:
            self._input.close()
        if self.account is not None:
            self.account.release()
        self.agent.drop(self.id)
