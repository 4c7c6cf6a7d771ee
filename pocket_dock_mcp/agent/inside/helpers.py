"""Processes that start the user's programs for the agent, and tell it how they end.

There are two: the `spawner` executes programs, the `zygote` forks interpreters. Both are forked from the
agent soon after its start, and like it uid 0: code of the user's uid could forge their answers.

The agent itself never forks for a run. Each page that a process with a forked child writes to is copied, and
for an agent that is busy serving, that was most of what a run cost (measured: 250 pages each).
"""

from __future__ import annotations

import array
import collections
import errno
import json
import os
import select
import signal
import socket
import struct
import sys
from typing import TYPE_CHECKING, Any, Callable, Deque, Dict, List, NoReturn, Optional, Sequence, Union

from . import children
from .identity import User
from .limits import processes_of
from .loop import READ

if TYPE_CHECKING:
    from .main import Agent
    from .runs import Run
    from .sessions import Session

    Started = Union[Run, Session]

_MAX_FDS = 8
_LENGTH = struct.Struct(">I")
_MESSAGE = 256
FIRST_UNUSED = 3
NUDGE_PAUSE = 0.01
"""Seconds. A hostile program can stop the helper anew at each of its system calls: a longer pause would make
the start of another program of the sandbox take seconds."""
NUDGES = 1500
"""After so many in a row without any answer the helper is given up."""


class Order:
    """One program to start, as a helper received it."""

    def __init__(self, header: Dict[str, Any], script: bytes, ends: List[int]) -> None:
        self.argv = header["argv"]
        self.env: Dict[str, str] = header["env"]
        self.cwd: str = header["cwd"]
        self.marker: int = header["marker"]
        self.processes: int = header["processes"]
        self.tty: Optional[str] = header["tty"]
        self.serve: bool = header["serve"]
        """Whether it is a session: cells come over the last descriptor."""
        self.targets: List[int] = header["targets"]
        """Which descriptors the program finds those behind its first three at."""
        self.script = script
        self.ends = ends
        """The program's standard input, output and error, and what else it gets."""

    def close(self) -> None:
        for fd in self.ends:
            os.close(fd)


class NotStartedError(Exception):
    """A program could not be started: at which stage, and why."""

    def __init__(self, stage: str, error: OSError) -> None:
        Exception.__init__(self, stage)
        self.stage = stage
        self.number = error.errno or errno.EAGAIN


Starter = Callable[[Order], int]
"""Starts a program and returns its pid. Raises `NotStartedError`."""
Helper = Callable[[socket.socket, User, children.Ceilings], NoReturn]
"""What a helper does in its own process, given its connection, the user, and the limit of processes."""


def be_zygote(connection: socket.socket, user: User, ceilings: children.Ceilings) -> NoReturn:
    """Be the zygote. What only interpreters need is loaded here, in their own process."""
    from . import zygote

    zygote.be_zygote(connection, user, ceilings)


class Nursery:
    """The agent's side of one helper."""

    def __init__(self, agent: Agent, helper: Helper) -> None:
        self._agent = agent
        self._expecting: Deque[Started] = collections.deque()
        self._runs: Dict[int, Started] = {}
        self._nudges: Optional[int] = None
        mine, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.pid = os.fork()
        if self.pid == 0:
            try:
                mine.close()
                _be_helper(helper, its, agent.user, agent.ceilings)
            except BaseException:
                sys.excepthook(*sys.exc_info())
            finally:
                # Whatever went wrong with it: it must not go on as a second agent.
                os._exit(1)
        its.close()
        mine.setblocking(False)
        self._socket = mine
        agent.loop.watch(mine.fileno(), READ, self._on_message)

    def start(
        self,
        run: Started,
        start: children.Start,
        script: Optional[bytes],
        ends: children.Ends,
        serve: bool = False,
        targets: Sequence[int] = (),
    ) -> None:
        """Hand over one run. Raises OSError when that is not possible now."""
        fields = {
            "argv": start.argv,
            "env": start.env,
            "cwd": start.cwd,
            "marker": run.marker,
            "processes": processes_of(self._agent, start.limits.processes),
            "tty": ends.tty,
            "serve": serve,
            "targets": list(targets),
        }
        header = json.dumps(fields).encode("ascii")
        fd = children.memfd(_LENGTH.pack(len(header)), header, script or b"")
        try:
            fds = array.array("i", [*ends.child, fd])
            self._socket.sendmsg([b"run"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
        finally:
            os.close(fd)
        self._expecting.append(run)
        if self._nudges is None:
            self._nudges = 0
            self._agent.loop.later(NUDGE_PAUSE, self._nudge)

    def _nudge(self) -> None:
        """Wake a helper that is silent although something is expected of it: somebody may have stopped it."""
        if not self._expecting or self._nudges is None:
            self._nudges = None
            return
        self._nudges += 1
        try:
            os.kill(self.pid, signal.SIGCONT if self._nudges < NUDGES else signal.SIGKILL)
        except ProcessLookupError:
            # It is dead; the end of its connection is on its way.
            pass
        self._agent.loop.later(NUDGE_PAUSE, self._nudge)

    def _on_message(self) -> None:
        try:
            message = self._socket.recv(_MESSAGE)
        except BlockingIOError:
            return
        except OSError:
            # It was killed with orders that it had not read.
            message = b""
        if not message:
            self._gone()
            return
        if self._nudges is not None:
            self._nudges = 0
        words = message.split()
        if words[0] == b"pid":
            run = self._expecting.popleft()
            self._runs[int(words[1])] = run
            run.has_started(int(words[1]))
        elif words[0] == b"failed":
            self._expecting.popleft().could_not_start(words[1].decode("ascii"), int(words[2]))
        else:
            pid, status, cpu, peak = int(words[1]), int(words[2]), float(words[3]), int(words[4])
            ended = self._runs.pop(pid, None)
            if ended is not None:
                ended.on_exit(status, (cpu, peak))

    def _gone(self) -> None:
        """The helper died. Its children fall to the agent, which learns of their end as their reaper."""
        self._agent.loop.unwatch(self._socket.fileno())
        self._socket.close()
        expecting, self._nudges = list(self._expecting), None
        self._expecting.clear()
        self._agent.helper_gone(self)
        for run in expecting:
            run.was_lost()


# -- in a helper's own process ------------------------------------------------------------------------


def _be_helper(
    helper: Helper, connection: socket.socket, user: User, ceilings: children.Ceilings
) -> NoReturn:
    try:
        null = os.open("/dev/null", os.O_RDWR)
        for fd in (0, 1):
            os.dup2(null, fd)
        for name in os.listdir("/proc/self/fd"):
            if int(name) >= FIRST_UNUSED and int(name) != connection.fileno():
                _close(int(name))
        helper(connection, user, ceilings)
    except Exception:
        # A fault of ours; what it was goes to the engine's stderr stream.
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(1)


def _close(fd: int) -> None:
    try:
        os.close(fd)
    except OSError:
        # It was the listing's own.
        pass


def serve(connection: socket.socket, starter: Starter) -> NoReturn:
    """Start what is ordered and tell how it ends, until the agent is gone."""
    wake, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    poll.register(wake, select.POLLIN)
    while True:
        ready = [fd for fd, _ in poll.poll()]
        if wake in ready:
            os.read(wake, 4096)
            _report_ends(connection)
        if connection.fileno() in ready:
            order = _receive(connection)
            if order is None:
                os._exit(0)
            try:
                connection.send(b"pid %d" % starter(order))
            except NotStartedError as failure:
                connection.send(b"failed %s %d" % (failure.stage.encode("ascii"), failure.number))
            order.close()


def _receive(connection: socket.socket) -> Optional[Order]:
    """Take one order; None at the end of the connection."""
    fds = array.array("i")
    space = socket.CMSG_SPACE(_MAX_FDS * fds.itemsize)
    message, ancillary, _flags, _address = connection.recvmsg(16, space, socket.MSG_CMSG_CLOEXEC)
    if not message:
        return None
    rights = ancillary[0][2]
    fds.frombytes(rights[: len(rights) - len(rights) % fds.itemsize])
    *ends, fd = fds
    data = os.read(fd, os.fstat(fd).st_size)
    os.close(fd)
    (length,) = _LENGTH.unpack_from(data)
    header = json.loads(data[_LENGTH.size : _LENGTH.size + length])
    return Order(header, data[_LENGTH.size + length :], ends)


def _report_ends(connection: socket.socket) -> None:
    while True:
        try:
            pid, status, rusage = os.wait4(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        cpu, peak = children.usage_of(rusage)
        connection.send(b"exit %d %d %f %d" % (pid, status, cpu, peak))
