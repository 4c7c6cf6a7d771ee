"""Sessions: a process of the user that stays, and runs one cell after another in the same state.

A cell's output is what arrives on the session's pipes until the process says that the cell is done; what
processes write that a cell has left running belongs to the next one. Nothing is read, and nothing lost, while
no cell runs. What a session says of its cells could be forged by the user's code; how it *died* could not.
"""

from __future__ import annotations

import collections
import errno
import os
import signal
import socket
import time
from typing import TYPE_CHECKING, Callable, Deque, Dict, List, Optional

from . import children, cold, killing, wire
from .cells import Cell
from .dialects import DIALECTS, Done
from .forks import Line, Revived
from .loop import READ
from .outputs import ERR, OUT, REPORT
from .runs import KILL_RETRY, decoded

if TYPE_CHECKING:
    from .main import Agent

GRACE = 0.3
"""Seconds that a cell which was interrupted gets to end without its session."""
INTERRUPT_PAUSE = 0.03
STOPPED = "an earlier run in it was stopped, and it with it"
MAX_SESSIONS = 32
_REMEMBERED = 64


class Session:
    """One process that runs cells. Its helper sees it as it sees a run."""

    def __init__(self, agent: Agent, name: str, kind: str, revived: Optional[Revived] = None) -> None:
        self.name = name
        self.kind = kind
        self.pid: Optional[int] = None
        self.cells: Deque[Cell] = collections.deque()
        """The first one runs, or begins as soon as it can; the others wait."""
        self.held = revived is not None
        """Whether they all wait, for a checkpoint."""
        self.on_closed: Callable[[], object] = _nothing
        self._agent = agent
        self._running = False
        self._is_new = revived is None
        self._why: Optional[str] = None
        self._status: Optional[int] = None
        self._usage: children.Usage = (0.0, 0)
        self._dialect = DIALECTS[kind]()
        self._oom_before = agent.cgroup.oom_kills()
        self.line = Line(agent) if revived is None else revived.line
        self.marker = self.line.marker
        self.line.join(self)
        try:
            self._fds, self.control = self._launch() if revived is None else self._take(revived)
        except BaseException:
            self.line.leave(self)
            raise
        agent.loop.watch(self.control.fileno(), READ, self._on_message)

    def _launch(self) -> tuple[Dict[int, int], socket.socket]:
        agent, dialect = self._agent, self._dialect
        mine, its = socket.socketpair(socket.AF_UNIX, dialect.socket_type)
        ends = children.Ends()
        ends.give_input(agent.devnull, False)
        for stream in (OUT, ERR, REPORT) if dialect.reports else (OUT, ERR):
            ends.give_output(stream)
        ends.give(os.dup(its.fileno()))
        its.close()
        argv, targets = dialect.argv, dialect.targets
        if argv is None and not agent.is_warm:
            argv, targets = cold.command(cold.SERVE), [cold.REPORT, cold.CONTROL]
        start = children.Start({"env": agent.environment.including({}), "cwd": agent.user.home, "argv": argv})
        try:
            helper = agent.helper_for(b"" if argv is None else None)
            helper.start(self, start, None, ends, serve=True, targets=targets)
        except BaseException:
            ends.close_own_ends()
            mine.close()
            raise
        finally:
            ends.close_child_ends()
        mine.setblocking(False)
        return ends.outputs, mine

    def _take(self, revived: Revived) -> tuple[Dict[int, int], socket.socket]:
        self.pid = revived.pid
        self._dialect.count = revived.cells
        self._agent.process_started(revived.pid, self)
        return revived.outputs, revived.control

    @property
    def cells_run(self) -> int:
        return self._dialect.count

    @property
    def is_ending(self) -> bool:
        """Whether it is dead or is to die."""
        return self._status is not None or self._why is not None

    @property
    def is_busy(self) -> bool:
        """Whether it cannot be left as it is now."""
        return self.held or bool(self.cells) or self.pid is None or self.is_ending

    # -- what its helper says ---------------------------------------------------------------------

    def has_started(self, pid: int) -> None:
        self.pid = pid
        self._agent.process_started(pid, self)
        if self._why is not None:
            # It was ended before it began.
            self.kill_all()
            return
        self.proceed()

    def was_lost(self) -> None:
        self.line.kill(lambda _found: self.could_not_start("helper", errno.ECHILD))

    def could_not_start(self, stage: str, number: int) -> None:
        waiting = self._close()
        for cell in waiting:
            cell.fail("", number, stage)

    def on_exit(self, status: int, usage: children.Usage) -> None:
        """It died, whether it was to or not. Everything in it goes too."""
        self._status, self._usage = status, usage
        if self._running and self.cells[0].account is not None:
            self.cells[0].account.over()
        self.line.kill(self._on_gone)

    def _on_gone(self, _found: int) -> None:
        if self._running and self.cells[0].outputs is not None:
            self.cells[0].outputs.finish(self._finish_dead)
        else:
            self._bury()

    def _finish_dead(self) -> None:
        """Its last cell ends as it did."""
        cell = self.cells.popleft()
        self._end_cell(cell, decoded(self._status or 0), self._usage, alive=False)
        self._bury(told=True)

    def _bury(self, told: bool = False) -> None:
        waiting = self._close()
        if not waiting and not told and self._why is None:
            self._agent.sessions.remember(self)
        for cell in waiting:
            cell.fail("died", **self.death())

    def death(self) -> wire.Header:
        """Return how it ended."""
        how = decoded(self._status or 0)
        oom = self._agent.cgroup.oom_kills() > self._oom_before
        return {"code_of_exit": how["code"], "signal": how["signal"], "oom": oom, "why": self._why}

    def _close(self) -> List[Cell]:
        self._running = False
        self._agent.sessions.remove(self)
        self._agent.loop.unwatch(self.control.fileno())
        self.control.close()
        for fd in self._fds.values():
            self._agent.loop.unwatch(fd)
            os.close(fd)
        self._agent.process_ended(self.pid)
        self.line.leave(self)
        waiting = list(self.cells)
        self.cells.clear()
        self.on_closed()
        return waiting

    # -- cells ------------------------------------------------------------------------------------

    def add(self, cell: Cell) -> None:
        """Run a cell when those before it are over."""
        self.cells.append(cell)
        self.proceed()

    def proceed(self) -> None:
        """Begin the next cell, if there is one and nothing is in its way."""
        if self._running or self.held or not self.cells or self.pid is None or self.is_ending:
            return
        cell = self.cells[0]
        if not self._dialect.streams_input and not cell.input_is_whole:
            return
        self._running = True
        cell.is_first, self._is_new = self._is_new, False
        self._oom_before = self._agent.cgroup.oom_kills()
        cell.begin(self, self._fds)
        try:
            self._dialect.send(self.control, cell, self._agent.user)
        except OSError:
            # It does not listen, has just died, or closed what it is spoken to through.
            self.kill_all()

    def release(self) -> None:
        """Let the cells go on that a checkpoint has held up."""
        self.held = False
        self.proceed()

    def _on_message(self) -> None:
        try:
            done = self._dialect.receive(self.control)
        except BlockingIOError:
            return
        except OSError:
            # It has ended, or become another program (a shell's ``exec``), whose end is the session's.
            self._agent.loop.unwatch(self.control.fileno())
            return
        except (ValueError, KeyError, TypeError):
            # The user's code has spoken nonsense in its name.
            self.kill_all()
            return
        if done is not None and self._running and self._status is None:
            self._on_done(done)

    def _on_done(self, done: Done) -> None:
        cell = self.cells[0]
        if cell.account is None or cell.outputs is None:
            return
        cell.account.over()
        if cell.account.was_stopped:
            # What it started goes, also when it has heeded the interruption itself.
            self._kill_younger(cell)
        outputs = cell.outputs
        outputs.finish(lambda: self._finish(done))

    def _finish(self, done: Done) -> None:
        if self._status is not None:
            # It died while its output was on its way; what it said before that holds.
            return
        cell = self.cells.popleft()
        self._running = False
        if done.failure is not None:
            cell.fail("", done.failure, "cwd")
        else:
            self._end_cell(cell, {"code": done.code, "signal": None}, (done.cpu, done.peak), alive=True)
        self.proceed()

    def _end_cell(self, cell: Cell, how: wire.Header, usage: children.Usage, alive: bool) -> None:
        fields = {} if cell.account is None else cell.account.fields(usage)
        state = {"alive": alive, "new": cell.is_first, "name": self.name}
        cell.close()
        self._agent.send({"kind": "exit", "id": cell.id, **how, "session": state, **fields})

    # -- ending -----------------------------------------------------------------------------------

    def signal(self, number: int) -> None:
        """Signal what runs in it: the interpreter, or what a shell has started."""
        if self.pid is None:
            return
        with self._agent.user:
            for pid in [self.pid] if self._dialect.interruptible else self._younger(self.cells[0]):
                try:
                    os.kill(pid, number)
                except ProcessLookupError:
                    pass

    def interrupt(self) -> None:
        """End the present cell; an interpreter survives that if it lets go of it, a shell never does.

        A shell whose command was killed would go on with the next one.
        """
        cell = self.cells[0]
        if not self._dialect.interruptible:
            self.kill_all(STOPPED)
            return
        self._interrupt_until(cell, time.monotonic() + GRACE)

    def _interrupt_until(self, cell: Cell, deadline: float) -> None:
        """Again and again: one that comes just before a call that waits is noticed only after it."""
        if cell not in self.cells or cell.account is None or cell.account.is_over:
            return
        if time.monotonic() > deadline:
            self.kill_all(STOPPED)
            return
        self.signal(signal.SIGINT)
        self._agent.loop.later(INTERRUPT_PAUSE, lambda: self._interrupt_until(cell, deadline))

    def kill_all(self, why: Optional[str] = None) -> None:
        """End the session with everything in it but its checkpoints; `why` is for those whose cells wait."""
        self._why = self._why or why
        if self._status is None and self.pid is not None:
            self.line.kill(lambda _found: self._insist_on_death())

    def _insist_on_death(self) -> None:
        if self._status is None:
            # Forked and not marked yet, or not collected yet: look again.
            self._agent.loop.later(KILL_RETRY, self.kill_all)

    def _younger(self, cell: Cell) -> List[int]:
        return [pid for pid in killing.marked(self.marker) if pid != self.pid and cell.is_older_than(pid)]

    def _kill_younger(self, cell: Cell) -> None:
        with self._agent.user:
            for pid in self._younger(cell):
                try:
                    os.kill(pid, signal.SIGKILL)
                except OSError:
                    pass


class Sessions:
    """All sessions by name, and how those ended that died while nobody looked."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._alive: Dict[str, Session] = {}
        self._dead: collections.OrderedDict[str, wire.Header] = collections.OrderedDict()

    def run(self, cell: Cell) -> None:
        """Have a cell run by its session, which begins with it where there is none.

        A session that died unseen is not begun anew in silence: code may rely on what is gone.
        """
        name, kind = cell.start.session or "", cell.start.kind
        death = self._dead.pop(_key(name, kind), None)
        if death is not None:
            cell.fail("died", **death)
            return
        session = self._alive.get(_key(name, kind))
        if session is None:
            if len(self._alive) >= MAX_SESSIONS:
                cell.fail("too_many")
                return
            try:
                session = Session(self._agent, name, kind)
            except OSError as error:
                cell.fail("", error.errno or errno.EAGAIN, "helper" if error.errno == errno.EPIPE else "fork")
                return
            self._alive[_key(name, kind)] = session
        session.add(cell)

    def find(self, name: str) -> Optional[Session]:
        """Return the interpreter of this name that is alive."""
        return self._alive.get(_key(name, "python"))

    def revive(self, name: str, revived: Revived) -> Session:
        """Have an interpreter take the place of the one of this name, and the cells that wait for it."""
        session = Session(self._agent, name, "python", revived)
        old = self._alive.get(_key(name, "python"))
        if old is not None:
            session.cells, old.cells = old.cells, session.cells
        self._alive[_key(name, "python")] = session
        self._dead.pop(_key(name, "python"), None)
        return session

    def remove(self, session: Session) -> None:
        if self._alive.get(_key(session.name, session.kind)) is session:
            del self._alive[_key(session.name, session.kind)]

    def remember(self, session: Session) -> None:
        self._dead[_key(session.name, session.kind)] = session.death()
        while len(self._dead) > _REMEMBERED:
            self._dead.popitem(last=False)

    def forget(self, cell: Cell) -> bool:
        """Take a waiting cell out of its queue; False if it is in none."""
        for session in self._alive.values():
            if cell in session.cells:
                session.cells.remove(cell)
                return True
        return False

    def input_is_whole(self, cell: Cell) -> None:
        for session in self._alive.values():
            if cell in session.cells:
                session.proceed()

    def end(self, name: Optional[str]) -> int:
        """Kill the sessions of this name (None: all) with their checkpoints and return how many."""
        chosen = [session for session in self._alive.values() if name in (None, session.name)]
        for session in chosen:
            # Out of the way at once: whoever calls next begins a new one.
            self.remove(session)
            session.kill_all("somebody has ended it")
        if name is None:
            self._dead.clear()
        return len(chosen) + self._agent.checkpoints.drop_all(name)

    def describe(self) -> List[wire.Header]:
        return [
            {"name": session.name, "kind": session.kind, "busy": session.held or bool(session.cells)}
            for session in self._alive.values()
        ]


def _key(name: str, kind: str) -> str:
    return kind + ":" + name


def _nothing() -> None:
    pass
