"""The runs of a fake agent."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import anyio

from pocket_dock_mcp.agent.inside import wire
from pocket_dock_mcp.models import MIB
from pocket_dock_mcp.testing.programs import SIGKILL, Process, Program
from pocket_dock_mcp.testing.streams import Channel, Credit
from pocket_dock_mcp.testing.transfers import pieces

if TYPE_CHECKING:
    from pocket_dock_mcp.testing.agent import FakeAgent


class FakeRun:
    """One program of the user, from its start to its exit frame."""

    def __init__(self, agent: FakeAgent, request_id: int, header: wire.Header) -> None:
        self.id = request_id
        self.header = header
        self.stdin: Channel = _CreditedInput(agent, request_id)
        self.credit = Credit(wire.WINDOW)
        self.ended = anyio.Event()
        self._is_source = header.get("argv") is None
        self._agent = agent
        self._script = b""
        self._started = False
        self._scope = anyio.CancelScope()
        self._signal: int | None = None
        self._killed = False
        self._began = time.monotonic()

    def take_script(self, payload: bytes) -> None:
        """Take a piece of the source that comes instead of a command line; start when it is whole."""
        self._script += payload
        if len(self._script) < (self.header.get("script") or 0):
            return
        self._started = True
        if not self.header.get("stdin"):
            self.stdin.end()
        self._agent.start(self)

    def source(self) -> str | None:
        """Return the source of a Python run."""
        return self._script.decode("utf-8", "surrogateescape") if self._is_source else None

    def feed(self, data: bytes, *, end: bool) -> None:
        """Take a piece of the source, or of standard input."""
        if not self._started:
            self.take_script(data)
            return
        if self.stdin.ended and data:
            self._agent.send({"kind": "credit", "id": self.id, "n": len(data)})
        self.stdin.put_nowait(0, data)
        if end:
            self.stdin.end()

    async def write(self, source: int, data: bytes) -> None:
        """Send output as far as the host's window allows."""
        for piece in pieces(data):
            sent = 0
            while sent < len(piece):
                amount = await self.credit.take(len(piece) - sent)
                header = {"kind": "data", "id": self.id, "s": source}
                self._agent.send(header, piece[sent : sent + amount])
                sent += amount

    def kill(self) -> None:
        """End it because somebody asked for it."""
        self._killed = True
        if self._started:
            self.end_by(SIGKILL)
        else:
            self._agent.refuse(self, "fork", "ECANCELED")
            self.ended.set()

    def end_by(self, signal: int) -> None:
        """End it by a signal."""
        self._signal = signal
        self._scope.cancel()

    async def play(self, program: Program, process: Process) -> None:
        """Run the program and report its end."""
        timeout = self.header.get("timeout")
        code = -SIGKILL
        with self._scope, anyio.move_on_after(timeout) as limit:
            code = await program(process)
        if self._signal is not None:
            code = -self._signal
        self._agent.drop_run(self.id)
        self._agent.send(self._exit_frame(code, process, timed_out=limit.cancelled_caught))
        self.ended.set()

    def _exit_frame(self, code: int, process: Process, *, timed_out: bool) -> wire.Header:
        return {
            "kind": "exit",
            "id": self.id,
            "code": code if code >= 0 else None,
            "signal": -code if code < 0 else None,
            "ended_by": "timeout" if timed_out else "killed" if self._killed else None,
            "oom": process.oom,
            "full": None,
            "files": None,
            "left_behind": 0,
            "wall": time.monotonic() - self._began,
            "cpu": 0.0,
            "peak": MIB,
        }


class _CreditedInput(Channel):
    """A run's standard input: what the program has read, the host may send again."""

    def __init__(self, agent: FakeAgent, request_id: int) -> None:
        super().__init__()
        self._agent = agent
        self._id = request_id

    async def get(self) -> tuple[int, bytes] | None:
        chunk = await super().get()
        if chunk is not None:
            self._agent.send({"kind": "credit", "id": self._id, "n": len(chunk[1])})
        return chunk
