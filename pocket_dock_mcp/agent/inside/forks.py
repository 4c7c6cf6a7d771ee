"""Forks of a session's processes: what they have in common, and how it is known that one is there."""

from __future__ import annotations

import os
import signal
import socket
import struct
from typing import TYPE_CHECKING, Callable, Dict, List, NamedTuple, Optional, Set, Tuple, Union

from . import killing, wire
from .loop import READ, Timer

if TYPE_CHECKING:
    from .checkpoints import Checkpoint
    from .main import Agent
    from .sessions import Session

    Member = Union[Session, Checkpoint]

DEADLINE = 6.0
"""Seconds for a fork: the user's functions that are called for it are part of it."""
_CREDENTIALS = struct.Struct("iii")


class Line:
    """What the processes of a session and those of its checkpoints have in common: their marker."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self.marker = agent.markers.take()
        self.kept: Set[int] = set()
        """Pids that outlive the session's process: of checkpoints, and of what takes its place."""
        self._members: Set[Member] = set()
        self._was_shared = False
        self._killing: List[Callable[[int], object]] = []

    def join(self, member: Member) -> None:
        self._was_shared = self._was_shared or bool(self._members)
        self._members.add(member)

    def leave(self, member: Member) -> None:
        """The last one makes the marker free for others."""
        self._members.discard(member)
        if self._members:
            return
        if self._was_shared:
            # A checkpoint that was woken may have forked.
            self.kill(lambda _found: self._agent.markers.give_back(self.marker))
        else:
            self._agent.markers.give_back(self.marker)

    def has(self, pid: int) -> bool:
        """Whether this is the process of one of its members already."""
        return any(member.pid == pid for member in self._members)

    def kill(self, done: Callable[[int], object]) -> None:
        """Kill all but those that are kept, and tell when none is left.

        One search at a time: the last look of another one would come when it is not expected any more.
        """
        self._killing.append(done)
        if len(self._killing) == 1:
            killing.Kill(self._agent, self.marker, self._killed, self.kept).step()

    def _killed(self, found: int) -> None:
        killing, self._killing = self._killing, []
        for done in killing:
            done(found)


class Revived(NamedTuple):
    """A process that is a session already, and what it speaks through."""

    line: Line
    pid: int
    outputs: Dict[int, int]
    control: socket.socket
    cells: int
    """How many it has run."""


class Fork:
    """A process of a session that has been told to fork, until the fork is there or was refused.

    `done` is told the pid of the fork, `failed` a code and more fields of an error.
    """

    def __init__(
        self,
        agent: Agent,
        line: Line,
        channel: socket.socket,
        parent: Optional[int],
        done: Callable[[int], object],
        failed: Callable[..., object],
    ) -> None:
        self._agent = agent
        self._line = line
        self._channel = channel
        self._parent = parent
        self._done = done
        self._failed = failed
        self._has_forked = False
        self._young: Optional[int] = None
        self._began = killing.moment()
        self._timer: Optional[Timer] = agent.loop.later(DEADLINE, lambda: self.fail("late"))
        agent.loop.watch(channel.fileno(), READ, self._on_message)

    def _on_message(self) -> None:
        try:
            space = socket.CMSG_SPACE(_CREDENTIALS.size)
            said, ancillary, _, _ = self._channel.recvmsg(64, space)
        except BlockingIOError:
            return
        except OSError:
            said, ancillary = b"", []
        pid = _sender(ancillary)
        if not said:
            self.fail("tampered")
        elif pid != self._parent:
            self._young = pid if said == wire.READY else self._young
        elif said == wire.FORKED:
            self._has_forked = True
        else:
            self._refused(said.split())
        if self._has_forked and self._young is not None:
            self._see(self._young)

    def _refused(self, words: List[bytes]) -> None:
        """Fail for the reason that the parent gives."""
        if len(words) == 2 and words[1].isdigit() and words[0] == b"threads":
            self.fail("threads", threads=int(words[1]))
        elif len(words) == 2 and words[1].isdigit() and words[0] == b"failed":
            self.fail("fork", number=int(words[1]))
        else:
            self.fail("tampered")

    def _see(self, pid: int) -> None:
        """Believe that the process is what it says if it is of this session, our child and nobody else."""
        is_ours = killing.carries(pid, self._line.marker) and killing.parent(pid) == os.getpid()
        if not is_ours or self._line.has(pid):
            self.fail("tampered")
        elif self._is_over():
            self._done(pid)

    def _is_over(self) -> bool:
        """End it, once; say whether this was that time."""
        if self._timer is None:
            return False
        self._timer.cancel()
        self._timer = None
        self._agent.loop.unwatch(self._channel.fileno())
        return True

    def fail(self, code: str, number: int = 0, **more: object) -> None:
        """End it without a result, and what it may have begun. Idempotent."""
        if not self._is_over():
            return
        with self._agent.user:
            for pid in killing.marked(self._line.marker):
                if pid not in self._line.kept and killing.is_younger(pid, self._began):
                    send(pid, signal.SIGKILL)
        self._failed(code, number, **more)


def channel() -> Tuple[socket.socket, socket.socket]:
    """Return our end, which is told who speaks, and the other."""
    mine, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    mine.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    mine.setblocking(False)
    return mine, its


def _sender(ancillary: List[Tuple[int, int, bytes]]) -> int:
    """Return the pid of who has sent a message; 0 if that is not known."""
    for _, kind, data in ancillary:
        if kind == socket.SCM_CREDENTIALS:
            return int(_CREDENTIALS.unpack(data)[0])
    return 0


def send(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        pass
