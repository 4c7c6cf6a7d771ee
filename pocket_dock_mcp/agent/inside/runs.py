"""Programs of the user: start, pump their streams, know how they ended, leave nothing of them behind.

Each run has a *marker*: a supplementary group of its own, which every descendant inherits and none can
drop without CAP_SETGID. Whatever a program does (setsid, double fork, new names), its processes are found
by it in ``/proc/*/status``.
"""

from __future__ import annotations

import collections
import errno
import fcntl
import os
import struct
import termios
import time
from typing import TYPE_CHECKING, Deque, Dict, List, Optional, Set

from . import children, wire
from .loop import READ, WRITE, Timer

if TYPE_CHECKING:
    from .main import Agent

MARKER_FIRST = 61000
MARKER_LAST = 64999
"""Group ids for markers: within the 65536 ids that a rootless user namespace maps."""

CHUNK = wire.MAX_PAYLOAD
DEFAULT_PIPE_SIZE = 64 * 1024
KILL_RETRY = 0.002


class Run:
    """One program of the user, from fork to the last byte of its output."""

    def __init__(self, agent: Agent, run_id: int, start: children.Start, script: Optional[bytes]) -> None:
        self.agent = agent
        self.id = run_id
        self.credit = wire.WINDOW
        self.timed_out = False
        self.killed = False
        self.pid: Optional[int] = None
        self._signals: List[int] = []
        self.status: Optional[int] = None
        self._usage: children.Usage = (0.0, 0)
        self._timer: Optional[Timer] = None
        self._killing = False
        self._ended = False
        self._over = False
        self._outputs: Dict[int, int] = {}
        self._left: Dict[int, int] = {}
        self._enlarged = False
        self._pending: Deque[memoryview] = collections.deque()
        self._stdin_done = False
        self._oom_before = agent.cgroup.oom_kills()
        self._began = time.monotonic()
        self.marker = agent.markers.take()
        try:
            pipes = self._launch(start, script)
        except BaseException:
            agent.markers.give_back(self.marker)
            raise
        self._failure = pipes.failure_read
        self._stdin = pipes.in_write
        for stream, fd in ((1, pipes.out_read), (2, pipes.err_read)):
            self._outputs[stream] = fd
            self._watch_output(stream, fd)
        if start.timeout is not None:
            self._timer = agent.loop.later(start.timeout, self._on_timeout)

    # -- starting ---------------------------------------------------------------------------------

    def _launch(self, start: children.Start, script: Optional[bytes]) -> children.Pipes:
        agent = self.agent
        pipes = children.Pipes(agent.devnull, start.stdin)
        try:
            agent.helper_for(script).start(self, start, script, pipes.child_ends)
        except BaseException:
            pipes.close_own_ends()
            raise
        finally:
            pipes.close_child_ends()
        return pipes

    def has_started(self, pid: int) -> None:
        """The program has a process id now."""
        self.pid = pid
        self.agent.run_started(self, pid)
        while self._signals:
            self.signal(self._signals.pop(0))

    def was_lost(self) -> None:
        """The helper died before it said whether the program runs. It is not to run, then."""
        self.agent.kill_marked(self.marker, lambda: self.could_not_start("helper", errno.ECHILD))

    def could_not_start(self, stage: str, number: int) -> None:
        """The helper could not start it."""
        if self._over:
            return
        for fd in list(self._outputs.values()):
            self.agent.loop.unwatch(fd)
            os.close(fd)
        self._outputs.clear()
        self._release()
        self.agent.fail(self.id, stage, number)

    # -- output -----------------------------------------------------------------------------------

    def _watch_output(self, stream: int, fd: int) -> None:
        self.agent.loop.watch(fd, READ, lambda: self._on_output(stream))

    def _on_output(self, stream: int) -> bool:
        """Send one chunk; stop listening when the window is used up."""
        fd = self._outputs[stream]
        if self.credit <= 0:
            self.agent.loop.unwatch(fd)
            return False
        try:
            data = os.read(fd, min(CHUNK, self.credit, self._left.get(stream, CHUNK)))
        except BlockingIOError:
            return False
        if not data:
            self._close_output(stream)
            return False
        if len(data) >= DEFAULT_PIPE_SIZE and not self._enlarged:
            self._enlarged = True
            children.enlarge(fd)
        self.credit -= len(data)
        if stream in self._left:
            self._left[stream] -= len(data)
        self.agent.send({"kind": "data", "id": self.id, "s": stream}, data)
        return True

    def _close_output(self, stream: int) -> None:
        fd = self._outputs.pop(stream)
        self.agent.loop.unwatch(fd)
        os.close(fd)
        if self._ended and not self._outputs:
            self._finish()

    def add_credit(self, amount: int) -> None:
        self.credit += amount
        if self._ended:
            self._drain()
        else:
            for stream, fd in self._outputs.items():
                self._watch_output(stream, fd)

    def _drain(self) -> None:
        """All processes are gone: what the pipes held then is all there will ever be.

        Counted, because another run may hold a pipe's other end and keep writing.
        """
        for stream in list(self._outputs):
            while self._left[stream] and self._on_output(stream):
                pass
            if not self._left[stream] and stream in self._outputs:
                self._close_output(stream)

    # -- input ------------------------------------------------------------------------------------

    def feed(self, data: bytes, end: bool) -> None:
        if data and self._stdin is not None:
            self._pending.append(memoryview(data))
        elif data:
            # The program is gone or has no input: the bytes are spent all the same.
            self.agent.send({"kind": "credit", "id": self.id, "n": len(data)})
        self._stdin_done = self._stdin_done or end
        self._pump_input()

    def _pump_input(self) -> None:
        spent = 0
        try:
            while self._pending and self._stdin is not None:
                written = os.write(self._stdin, self._pending[0])
                spent += written
                rest = self._pending.popleft()[written:]
                if rest:
                    self._pending.appendleft(rest)
        except BlockingIOError:
            if self._stdin is not None:
                self.agent.loop.watch(self._stdin, WRITE, self._pump_input)
        except OSError:
            # The program closed its input; that is its good right.
            spent += self._drop_input()
        else:
            if self._stdin is not None:
                self.agent.loop.unwatch(self._stdin)
                if self._stdin_done:
                    self._drop_input()
        if spent:
            self.agent.send({"kind": "credit", "id": self.id, "n": spent})

    def _drop_input(self) -> int:
        dropped = sum(len(piece) for piece in self._pending)
        self._pending.clear()
        if self._stdin is not None:
            self.agent.loop.unwatch(self._stdin)
            os.close(self._stdin)
            self._stdin = None
        return dropped

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
        if self.status is None:
            self.killed = True
        self._kill()

    def _kill(self) -> None:
        if not self._killing:
            self._killing = True
            self.agent.kill_marked(self.marker, self._on_gone)

    def _on_timeout(self) -> None:
        if self.status is None:
            self.timed_out = True
        self._kill()

    def on_exit(self, status: int, usage: children.Usage) -> None:
        """The program itself has ended. Its descendants must not outlive it."""
        self.status = status
        self._usage = usage
        self._ended_at = time.monotonic()
        self._oom_after = self.agent.cgroup.oom_kills()
        if not self._killing:
            self._killing = True
            self.agent.kill_descendants(self.marker, self._on_gone)

    def _on_gone(self) -> None:
        if self._over:
            return
        if self.status is None:
            # Forked and not marked yet, or ended and not collected yet: look again.
            self._killing = False
            self.agent.loop.later(KILL_RETRY, self._kill_unless_ended)
            return
        self._ended = True
        for stream, fd in self._outputs.items():
            self._left[stream] = _readable(fd)
        if self._outputs:
            self._drain()
        else:
            self._finish()

    def _kill_unless_ended(self) -> None:
        if self.status is None and not self._over:
            self._kill()

    def _finish(self) -> None:
        failure = b""
        if self.status == 127 << 8:
            try:
                failure = os.read(self._failure, 64)
            except BlockingIOError:
                pass
        self._release()
        if failure:
            stage, _, number = failure.decode("ascii", "replace").partition(" ")
            self.agent.fail(self.id, stage, int(number))
        else:
            self.agent.send(self._exit_frame(self.status or 0))

    def _release(self) -> None:
        self._over = True
        if self._timer is not None:
            self._timer.cancel()
        self._drop_input()
        os.close(self._failure)
        self.agent.run_ended(self)

    def _exit_frame(self, status: int) -> wire.Header:
        signaled = os.WIFSIGNALED(status)
        cpu, peak = self._usage
        return {
            "kind": "exit",
            "id": self.id,
            "code": None if signaled else os.WEXITSTATUS(status),
            "signal": os.WTERMSIG(status) if signaled else None,
            "timed_out": self.timed_out,
            "killed": self.killed,
            "oom": self._oom_after > self._oom_before,
            "wall": self._ended_at - self._began,
            "cpu": cpu,
            "peak": peak,
        }


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


def _readable(fd: int) -> int:
    """Return how many bytes a pipe holds."""
    return int(struct.unpack("i", fcntl.ioctl(fd, termios.FIONREAD, b"\0" * 4))[0])
