"""Finding the processes of a run, and ending them, whatever they do against it."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING, AbstractSet, Callable, Iterator, List, Optional, Set, Tuple

if TYPE_CHECKING:
    from .main import Agent

KILL_PAUSE = 0.002
KILL_PATIENCE = 4.0
"""Seconds of killing by marker after which everything of the user is killed instead."""
KILL_DESPAIR = 6.0
"""Seconds after which a kill is reported as done although processes are left (in uninterruptible sleep)."""


class Kill:
    """Stop all, kill all, look again, until nobody is left: also faster than a fork bomb forks.

    `done` is told how many there were at the first look. Those in `spared` are stopped, and live.
    """

    def __init__(
        self,
        agent: Agent,
        marker: Optional[int],
        done: Callable[[int], object],
        spared: AbstractSet[int] = frozenset(),
    ) -> None:
        self._agent = agent
        self._marker = marker
        self._done = done
        self._spared = spared
        self._began = time.monotonic()
        self._found: Optional[int] = None

    def step(self) -> None:
        agent = self._agent
        agent.reap()
        elapsed = time.monotonic() - self._began
        with agent.user:
            pids = self._stop_all()
            for pid in pids:
                _kill(pid, signal.SIGKILL)
            if elapsed > KILL_PATIENCE:
                # Also the helpers, which have our real uid; the next run starts others.
                _kill(-1, signal.SIGKILL)
        if self._found is None:
            self._found = len(pids)
        if not pids or elapsed > KILL_DESPAIR:
            agent.reap()
            self._done(self._found)
        else:
            agent.loop.later(KILL_PAUSE, self.step)

    def _stop_all(self) -> List[int]:
        """Stop each as soon as it is found: who is stopped does not fork while the search goes on."""
        found = []
        search = owned(self._agent.user.uid) if self._marker is None else marked(self._marker)
        helpers = self._agent.helper_pids()
        for pid in search:
            # The spawner wears the user's uid and a marker for a moment; it is none of the run.
            if pid not in helpers:
                _kill(pid, signal.SIGSTOP)
                if pid not in self._spared:
                    found.append(pid)
        return found


def _kill(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        pass


def marked(marker: int) -> Iterator[int]:
    """Yield the pids of living processes that carry a run's marker."""
    return _living(b"Groups", marker)


def carries(pid: int, marker: int) -> bool:
    """Whether a process lives and carries a run's marker."""
    return _has(b"%d" % pid, b"\nGroups:", str(marker).encode("ascii"))


def parent(pid: int) -> int:
    """Return the parent of a process; 0 if it is gone."""
    fields = stat(pid)
    return 0 if fields is None else int(fields[1])


Moment = Tuple[int, int]
"""When it was, in clock ticks since boot, and which pid had been given last."""


def moment() -> Moment:
    return int(time.clock_gettime(time.CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK")), _last_pid()


def is_younger(pid: int, than: Moment) -> bool:
    """Whether a process began after that moment.

    Ticks are a hundredth of a second, in which a good deal happens; then the order of pids decides.
    """
    tick, last_pid = than
    began = born(pid)
    return began > tick or (began == tick and pid > last_pid)


def _last_pid() -> int:
    """Return the pid that was given last; 0 where the kernel does not tell."""
    try:
        with open("/proc/loadavg", encoding="ascii") as file:
            return int(file.read().split()[4])
    except (OSError, ValueError, IndexError):
        return 0


def born(pid: int) -> int:
    """Return when a process began, in clock ticks since boot; 0 if it is gone."""
    fields = stat(pid)
    return 0 if fields is None else int(fields[19])


def stat(pid: int) -> Optional[List[bytes]]:
    """Return what proc_pid_stat(5) has of a process, from its state on; None if it is gone."""
    try:
        with open("/proc/%d/stat" % pid, "rb") as file:
            # After the name, which may have anything in it.
            return file.read().rpartition(b")")[2].split()
    except OSError:
        return None


def owned(uid: int) -> Iterator[int]:
    """Yield the pids of living processes of a user."""
    return _living(b"Uid", uid)


def _living(field: bytes, number: int) -> Iterator[int]:
    wanted = str(number).encode("ascii")
    for name in os.listdir(b"/proc"):
        if name.isdigit() and name != b"1" and _has(name, b"\n" + field + b":", wanted):
            yield int(name)


def _has(pid: bytes, field: bytes, wanted: bytes) -> bool:
    """Whether a line of a process's status has a number; a process that is dead has nothing."""
    try:
        fd = os.open(b"/proc/" + pid + b"/status", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        text = os.read(fd, 4096)
    except OSError:
        return False
    finally:
        os.close(fd)
    if b"\nState:\tZ" in text or b"\nState:\tX" in text:
        return False
    start = text.find(field)
    return wanted in text[start + len(field) : text.find(b"\n", start + 1)].split()


def adopted(known: Set[int]) -> Optional[bool]:
    """Whether PID 1 has children besides `known`; None where the kernel does not tell.

    When a program has ended, what it left behind hangs below PID 1: no child that is not known, no leftover.
    """
    try:
        with open("/proc/self/task/1/children", "rb", buffering=0) as file:
            return bool({int(pid) for pid in file.read().split()} - known)
    except OSError:
        return None
