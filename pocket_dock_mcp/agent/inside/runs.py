"""Programs of the user: start, pump their streams, know how they ended, leave nothing of them behind.

Each run has a *marker*: a supplementary group of its own, which every descendant inherits and none can
drop without CAP_SETGID. Whatever a program does (setsid, double fork, new names), its processes are found
by it in ``/proc/*/status``.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, List, Optional, Set

from . import children, cold, dialects, wire
from .identity import MARKER_FIRST
from .inputs import Input
from .limits import Account
from .outputs import ERR, OUT, REPORT, Outputs

if TYPE_CHECKING:
    from .main import Agent

MARKER_LAST = 64999
"""Group ids for markers: within the 65536 ids that a rootless user namespace maps."""

KILL_RETRY = 0.002


class Run:
    """One program of the user, from fork to the last byte of its output."""

    def __init__(self, agent: Agent, run_id: int, start: children.Start, script: Optional[bytes]) -> None:
        self.agent = agent
        self.id = run_id
        self.pid: Optional[int] = None
        self.status: Optional[int] = None
        self._signals: List[int] = []
        self._usage: children.Usage = (0.0, 0)
        self._killing = False
        self._left_behind = 0
        self._over = False
        self.marker = agent.markers.take()
        self._account = Account(agent, self.marker, start.limits, start.timeout, self._kill)
        try:
            ends = self._launch(start, script)
        except BaseException:
            self._account.release()
            agent.markers.give_back(self.marker)
            raise
        self._terminal = ends.outputs[OUT] if ends.tty else None
        self._outputs = Outputs(agent, run_id, ends.outputs)
        self._outputs.limit = start.limits.output
        self._outputs.on_limit = lambda: self._account.end_for("output")
        self._input = Input(agent, run_id, ends.input, is_tty=ends.tty is not None)

    # -- starting ---------------------------------------------------------------------------------

    def _launch(self, start: children.Start, script: Optional[bytes]) -> children.Ends:
        agent = self.agent
        ends = children.Ends()
        try:
            if start.tty is not None:
                ends.give_terminal(agent.user, agent.devnull, *start.tty)
            else:
                ends.give_input(agent.devnull, start.stdin)
                ends.give_output(OUT)
                ends.give_output(ERR)
            targets: List[int] = []
            if script is not None:
                ends.give_output(REPORT)
            if script is not None and start.kind == "javascript":
                start.argv, targets, script = dialects.node_once(script), [dialects.REPORT_FD], None
            elif script is not None and not agent.is_warm:
                start.argv, targets = cold.command(cold.ONCE), [cold.REPORT, cold.SCRIPT]
                ends.give(children.memfd(script))
                script = None
            agent.helper_for(script).start(self, start, script, ends, targets=targets)
        except BaseException:
            ends.close_own_ends()
            raise
        finally:
            ends.close_child_ends()
        return ends

    def has_started(self, pid: int) -> None:
        """The program has a process id now."""
        self.pid = pid
        self.agent.process_started(pid, self)
        while self._signals:
            self.signal(self._signals.pop(0))

    def was_lost(self) -> None:
        """The helper died before it said whether the program runs. It is not to run, then."""
        self.agent.kill_marked(self.marker, lambda _found: self.could_not_start("helper", errno.ECHILD))

    def could_not_start(self, stage: str, number: int) -> None:
        """The helper could not start it."""
        if self._over:
            return
        self._outputs.close()
        self._release()
        self.agent.fail(self.id, stage, number)

    # -- streams ----------------------------------------------------------------------------------

    def add_credit(self, amount: int) -> None:
        self._outputs.add_credit(amount)

    def feed(self, data: bytes, end: bool) -> None:
        self._input.feed(data, end)

    def resize(self, rows: int, columns: int) -> None:
        """Give its terminal another size, if it has one."""
        if self._terminal is not None and not self._over:
            children.resize(self._terminal, rows, columns)

    # -- ending -----------------------------------------------------------------------------------

    def signal(self, number: int) -> None:
        """Signal the program's process group; as soon as there is one."""
        if self.pid is None:
            self._signals.append(number)
            return
        with self.agent.user:
            try:
                os.killpg(self.pid, number)
            except ProcessLookupError:
                self._signal_alone(self.pid, number)

    def _signal_alone(self, pid: int, number: int) -> None:
        """It has not made its group yet, or it has ended."""
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass

    def kill(self) -> None:
        """End every process of the run, because somebody asked for it."""
        self._account.end_for("killed")

    def stop_for(self, why: str, used: int) -> None:
        """End every process of the run, for a limit of the sandbox, of which so much is used."""
        self._account.end_for(why, used)

    def _kill(self) -> None:
        if not self._killing:
            self._killing = True
            self.agent.kill_marked(self.marker, self._on_gone)

    def on_exit(self, status: int, usage: children.Usage) -> None:
        """The program itself has ended. Its descendants must not outlive it."""
        self.status = status
        self._usage = usage
        self._account.over()
        if not self._killing:
            self._killing = True
            self.agent.kill_descendants(self.marker, self._on_gone)

    def _on_gone(self, found: int) -> None:
        if self._over:
            return
        if self.status is None:
            # Forked and not marked yet, or ended and not collected yet: look again.
            self._killing = False
            self.agent.loop.later(KILL_RETRY, self._kill_unless_ended)
            return
        self._left_behind = 0 if self._account.was_stopped else found
        self._outputs.finish(self._finish)

    def _kill_unless_ended(self) -> None:
        if self.status is None and not self._over:
            self._kill()

    def _finish(self) -> None:
        frame = {
            "kind": "exit",
            "id": self.id,
            **decoded(self.status or 0),
            "left_behind": self._left_behind,
            **self._account.fields(self._usage),
        }
        self._release()
        self.agent.send(frame)

    def _release(self) -> None:
        self._over = True
        self._account.release()
        self._input.close()
        self.agent.run_ended(self)


class PartialScript:
    """A script that needs more than one frame, until it is whole."""

    def __init__(self, agent: Agent, request_id: int, start: children.Start, first: bytes) -> None:
        self._agent = agent
        self._id = request_id
        self._start = start
        self._script = bytearray(first)

    def feed(self, data: bytes, _end: bool) -> None:
        self._script += data
        if len(self._script) >= (self._start.script_bytes or 0):
            self._agent.start_run(self._id, self._start, bytes(self._script))

    def abort(self) -> None:
        self._agent.drop(self._id)


def decoded(status: int) -> wire.Header:
    """Return what a wait status says: an exit code or a signal."""
    if os.WIFSIGNALED(status):
        return {"code": None, "signal": os.WTERMSIG(status)}
    return {"code": os.WEXITSTATUS(status), "signal": None}


class Markers:
    """Hands out marker groups; one is not reused while its run is alive."""

    def __init__(self) -> None:
        self._next = MARKER_FIRST
        self._used: Set[int] = set()

    def take(self) -> int:
        for _ in range(MARKER_LAST - MARKER_FIRST + 1):
            marker = self._next
            self._next = marker + 1 if marker < MARKER_LAST else MARKER_FIRST
            if marker not in self._used:
                self._used.add(marker)
                return marker
        raise OSError(errno.EAGAIN, "too many runs at once")

    def give_back(self, marker: int) -> None:
        self._used.discard(marker)
