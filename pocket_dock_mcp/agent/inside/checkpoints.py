"""Checkpoints: forks of a session's interpreter that are kept, stopped, and fork again to be the session.

Restoring one is safe for the session: its process lives until another is there to take its place. Who that
is, is the kernel's word: the credentials of what it says, its marker, and that it is our child.
"""

from __future__ import annotations

import array
import collections
import errno
import signal
import socket
from typing import TYPE_CHECKING, Callable, Dict, List, Optional, Set

from . import children, forks, wire
from .forks import Fork, Revived
from .outputs import ERR, OUT, REPORT

if TYPE_CHECKING:
    from .main import Agent
    from .sessions import Session

MAX_OF_SESSION = 8
MAX_CHECKPOINTS = 32
RESTORED = "a checkpoint of it was restored"
_REMEMBERED = 64


class Checkpoint:
    """One that is kept, or in the making. Its process is stopped unless it is to fork."""

    def __init__(self, agent: Agent, checkpoint_id: str, session: Session) -> None:
        self.id = checkpoint_id
        self.session = session.name
        self.line = session.line
        self.cells = session.cells_run
        self.pid: Optional[int] = None
        self.fork: Optional[Fork] = None
        self._agent = agent
        self.channel, self._its = forks.channel()
        self.line.join(self)

    def make(self, session: Session, done: Callable[[int], object], failed: Callable[..., object]) -> None:
        """Have a session fork it. Raises OSError when the session does not listen."""
        self.fork = Fork(self._agent, self.line, self.channel, session.pid, done, failed)
        with self._its:
            _give(session.control, b'{"keep":true}', [self._its.fileno()])

    def revive(self, fds: List[int], done: Callable[[int], object], failed: Callable[..., object]) -> None:
        """Have it fork a process that speaks through these. Raises OSError when it does not listen."""
        _give(self.channel, b"fork", fds)
        self.fork = Fork(self._agent, self.line, self.channel, self.pid, done, failed)
        self.signal(signal.SIGCONT)

    def signal(self, number: int) -> None:
        if self.pid is not None:
            with self._agent.user:
                forks.send(self.pid, number)

    def on_exit(self, _status: int, _usage: children.Usage) -> None:
        """Its process has ended, whoever wanted that."""
        self._agent.checkpoints.forget(self, died=True)
        self.line.kept.discard(self.pid or 0)
        self.pid = None
        self.close()

    def give_up(self) -> None:
        """Whoever was to fork is dead."""
        if self.fork is not None:
            self.fork.fail("died")

    def close(self) -> None:
        """Be done with it; its process is gone, or there was none."""
        self.give_up()
        self.channel.close()
        self.line.leave(self)


class Restoring:
    """A session that is to go on from a checkpoint: from the request to its answer."""

    def __init__(self, agent: Agent, request_id: int, kept: Checkpoint, old: Optional[Session]) -> None:
        self._agent = agent
        self._id = request_id
        self._kept = kept
        self._old = old
        self._new: Optional[Session] = None
        self._ends = children.Ends()
        self._control, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.setblocking(False)
        for stream in (OUT, ERR, REPORT):
            self._ends.give_output(stream)
        self._ends.give(its.detach())

    def begin(self) -> None:
        if self._old is not None:
            self._old.held = True
        try:
            self._kept.revive(self._ends.child, self._on_forked, self._on_failed)
        except OSError:
            self._on_failed("died")
        finally:
            self._ends.close_child_ends()

    def _on_failed(self, code: str, number: int = 0, **more: object) -> None:
        """The session, if there is one, goes on as it was."""
        self._kept.fork = None
        self._ends.close_own_ends()
        self._control.close()
        if not self._agent.checkpoints.has(self._kept):
            code = "died"
        elif code in ("late", "tampered"):
            # It cannot be known what it will do next.
            self._agent.checkpoints.drop(self._kept)
        else:
            self._kept.signal(signal.SIGSTOP)
        self._agent.checkpoints.refuse(self._id, code, number, **more)
        if self._old is not None:
            self._old.release()

    def _on_forked(self, pid: int) -> None:
        """The process is there. Who has been the session until now ends, and then it is its turn."""
        kept, agent = self._kept, self._agent
        current = agent.sessions.find(kept.session)
        if not agent.checkpoints.has(kept) or (current is not None and current is not self._old):
            # All was ended meanwhile, or the session has died and another was begun.
            with agent.user:
                forks.send(pid, signal.SIGKILL)
            self._on_failed("busy")
            return
        kept.fork = None
        kept.signal(signal.SIGSTOP)
        revived = Revived(kept.line, pid, self._ends.outputs, self._control, kept.cells)
        self._new = agent.sessions.revive(kept.session, revived)
        if self._old is None or current is None:
            self._finish()
            return
        kept.line.kept.add(pid)
        self._old.on_closed = self._finish
        self._old.kill_all(RESTORED)

    def _finish(self) -> None:
        new = self._new
        if new is None or new.pid is None:
            return
        self._kept.line.kept.discard(new.pid)
        if new.is_ending:
            self._agent.checkpoints.refuse(self._id, "died")
        else:
            self._agent.send({"kind": "reply", "id": self._id})
            with self._agent.user:
                # It was stopped when the others were killed.
                forks.send(new.pid, signal.SIGCONT)
        new.release()


class Checkpoints:
    """All checkpoints by id, and which have died."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._all: Dict[str, Checkpoint] = {}
        self._dead: collections.OrderedDict[str, None] = collections.OrderedDict()

    @property
    def pids(self) -> Set[int]:
        """Of their processes."""
        return {kept.pid for kept in self._all.values() if kept.pid is not None}

    def has(self, kept: Checkpoint) -> bool:
        """Whether it can still be restored."""
        return self._all.get(kept.id) is kept

    def serve(self, request_id: int, header: wire.Header) -> None:
        """Do what a request says: make one, restore one, drop one, or list them."""
        do = header["do"]
        if do == "make":
            self._make(request_id, header["session"], header["checkpoint"])
        elif do == "restore":
            self._restore(request_id, header["session"], header["checkpoint"])
        elif do == "drop":
            found = self._all.get(header["checkpoint"])
            if found is not None:
                self.drop(found)
            self._agent.send({"kind": "reply", "id": request_id, "dropped": found is not None})
        else:
            listed = [{"id": one.id, "session": one.session} for one in self._all.values() if one.pid]
            self._agent.send({"kind": "reply", "id": request_id, "checkpoints": listed})

    def refuse(self, request_id: int, code: str, number: int = 0, **more: object) -> None:
        name = errno.errorcode.get(number, "EIO") if code == "fork" else code
        self._agent.fail(request_id, "checkpoint", 0, name, **more)

    # -- making one -------------------------------------------------------------------------------

    def _make(self, request_id: int, name: str, checkpoint_id: str) -> None:
        session = self._agent.sessions.find(name)
        of_session = sum(one.session == name for one in self._all.values())
        if session is None:
            self.refuse(request_id, "no_session")
        elif session.is_busy:
            self.refuse(request_id, "busy")
        elif of_session >= MAX_OF_SESSION or len(self._all) >= MAX_CHECKPOINTS:
            self.refuse(request_id, "too_many")
        else:
            self._keep(request_id, session, checkpoint_id)

    def _keep(self, request_id: int, session: Session, checkpoint_id: str) -> None:
        made = self._all[checkpoint_id] = Checkpoint(self._agent, checkpoint_id, session)

        def done(pid: int) -> None:
            made.fork, made.pid = None, pid
            made.line.kept.add(pid)
            self._agent.process_started(pid, made)
            made.signal(signal.SIGSTOP)
            self._agent.send({"kind": "reply", "id": request_id})
            session.release()

        def failed(code: str, number: int = 0, **more: object) -> None:
            made.fork = None
            self.forget(made, died=False)
            made.close()
            self.refuse(request_id, code, number, **more)
            session.release()

        session.held = True
        session.on_closed = made.give_up
        try:
            made.make(session, done, failed)
        except OSError:
            session.kill_all()

    # -- using it ---------------------------------------------------------------------------------

    def _restore(self, request_id: int, name: str, checkpoint_id: str) -> None:
        kept = self._all.get(checkpoint_id)
        old = self._agent.sessions.find(name)
        if kept is None or kept.session != name:
            self.refuse(request_id, "died" if checkpoint_id in self._dead else "unknown")
        elif kept.pid is None or kept.fork is not None or (old is not None and old.is_busy):
            self.refuse(request_id, "busy")
        else:
            Restoring(self._agent, request_id, kept, old).begin()

    # -- ending -----------------------------------------------------------------------------------

    def drop(self, kept: Checkpoint) -> None:
        """Let go of one, and of its process."""
        self.forget(kept, died=False)
        kept.line.kept.discard(kept.pid or 0)
        if kept.pid is not None:
            kept.signal(signal.SIGKILL)
        else:
            kept.give_up()

    def drop_all(self, name: Optional[str]) -> int:
        """Drop those of the sessions of this name (None: all) and return how many there were."""
        chosen = [one for one in self._all.values() if name in (None, one.session)]
        for one in chosen:
            self.drop(one)
        return len(chosen)

    def forget(self, kept: Checkpoint, died: bool) -> None:
        if self._all.pop(kept.id, None) is not None and died:
            self._dead[kept.id] = None
            while len(self._dead) > _REMEMBERED:
                self._dead.popitem(last=False)


def _give(through: socket.socket, message: bytes, fds: List[int]) -> None:
    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))
    through.sendmsg([message], [rights])
