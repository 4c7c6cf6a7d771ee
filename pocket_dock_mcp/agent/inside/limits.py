"""What one run may use of its sandbox: watched here, because the kernel knows no runs."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Callable, Optional

from . import disk, killing, wire
from .children import RunLimits, Usage
from .loop import Timer

if TYPE_CHECKING:
    from .main import Agent

PAUSE = 0.02
"""Seconds between two looks at a run with a limit on its memory or its CPU time."""
_TICKS = float(os.sysconf("SC_CLK_TCK"))
MAX_CHANGES = 50
"""Paths of changed files in one exit frame."""
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Meter:
    """Looks at the processes of a run again and again, until it is stopped or a limit is passed."""

    def __init__(
        self, agent: Agent, marker: int, limits: RunLimits, exceeded: Callable[[str], object]
    ) -> None:
        self._agent = agent
        self._marker = marker
        self._limits = limits
        self._exceeded = exceeded
        self._cpu = 0.0
        self.peak = 0
        """The most resident memory of all its processes together, in bytes."""
        self._timer: Optional[Timer] = None
        if limits.cpu_s is not None or limits.memory is not None:
            # A session has used some before.
            self._before = self._used()[1]
            self._timer = agent.loop.later(PAUSE, self._look)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _used(self) -> tuple[int, float]:
        """Return resident memory and CPU seconds of its processes that are there."""
        memory, cpu = 0, 0.0
        # Most of what a checkpoint has is its session's, and would be counted again.
        left_out = self._agent.checkpoints.pids
        for pid in killing.marked(self._marker):
            used = None if pid in left_out else _usage(pid)
            if used is not None:
                cpu += used[0]
                memory += used[1]
        return memory, cpu

    def _look(self) -> None:
        memory, cpu = self._used()
        # What a process used that nobody has waited for goes with it.
        self._cpu = max(self._cpu, cpu - self._before)
        self.peak = max(self.peak, memory)
        if self._limits.memory is not None and memory > self._limits.memory:
            self._exceeded("memory")
        elif self._limits.cpu_s is not None and self._cpu > self._limits.cpu_s:
            self._exceeded("cpu")
        else:
            self._timer = self._agent.loop.later(PAUSE, self._look)


def _usage(pid: int) -> Optional[tuple[float, int]]:
    """Return CPU seconds (with those of children that it has waited for) and resident bytes."""
    fields = killing.stat(pid)
    if fields is None:
        return None
    cpu = sum(int(fields[at]) for at in (11, 12, 13, 14)) / _TICKS
    return cpu, int(fields[21]) * _PAGE


def processes_of(agent: Agent, wanted: Optional[int]) -> int:
    """Return the limit on the user's processes for a run that may have `wanted` of its own."""
    most = agent.ceilings.processes
    if wanted is None:
        return most
    now = agent.cgroup.number("pids_now")
    # The kernel counts the user's processes, not a run's. Without us and the helpers it is the others'.
    others = (now or 3) - 1 - len(agent.helper_pids())
    return max(1, min(most, others + wanted))


class Account:
    """What is known of one run besides how its program ended: why it was stopped, what it did and used."""

    def __init__(
        self,
        agent: Agent,
        marker: int,
        limits: RunLimits,
        timeout: Optional[float],
        stop: Callable[[], object],
        goes_on: bool = False,
    ) -> None:
        self._agent = agent
        self._goes_on = goes_on
        self._stop = stop
        self._ended_by: Optional[str] = None
        self._used: Optional[int] = None
        self._began = time.monotonic()
        self._wall: Optional[float] = None
        self._oom = agent.cgroup.oom_kills()
        self._disk = FullDisk(agent.user.home)
        disk.wake(agent)
        self._changes = agent.changes.begin() if agent.changes is not None else None
        self._meter = Meter(agent, marker, limits, self.end_for)
        self._timer: Optional[Timer] = None
        if timeout is not None:
            self._timer = agent.loop.later(timeout, lambda: self.end_for("timeout"))

    def end_for(self, why: str, used: Optional[int] = None) -> None:
        """Have the run stopped, for the first reason that there is; unless it is over."""
        if self._wall is None:
            self._ended_by, self._used = (self._ended_by, self._used) if self._ended_by else (why, used)
        self._stop()

    @property
    def was_stopped(self) -> bool:
        """Whether it did not end by itself."""
        return self._ended_by is not None

    @property
    def is_over(self) -> bool:
        """Whether the program has ended."""
        return self._wall is not None

    def over(self) -> None:
        """The program has ended: from here on nothing counts. Idempotent."""
        if self._wall is None:
            self._wall = time.monotonic() - self._began
            self._oom = self._agent.cgroup.oom_kills() - self._oom
        self._meter.stop()
        if self._timer is not None:
            self._timer.cancel()

    def release(self) -> None:
        """Stop watching. Idempotent."""
        self._meter.stop()
        if self._timer is not None:
            self._timer.cancel()
        self._files_changed(0)

    def _files_changed(self, limit: int) -> Optional[wire.Header]:
        """Return which files have changed; once, for nobody follows them afterwards."""
        token, self._changes = self._changes, None
        if token is None or self._agent.changes is None:
            return None
        return self._agent.changes.end(token, limit, alive=self._goes_on)

    def fields(self, usage: Usage) -> wire.Header:
        """Return what an exit frame says of it."""
        return {
            "ended_by": self._ended_by,
            "oom": self._oom > 0,
            "full": self._disk.filled(),
            "disk": self._used,
            "files": self._files_changed(MAX_CHANGES),
            "wall": self._wall,
            "cpu": usage[0],
            "peak": max(usage[1], self._meter.peak),
        }


class FullDisk:
    """Whether a file system that the user can write to was filled up."""

    PATHS = ("/tmp", "/dev/shm")
    ENOUGH = 64 * 1024

    def __init__(self, home: str) -> None:
        self._paths = (home, *self.PATHS)
        self._free = [_free(path) for path in self._paths]

    def filled(self) -> Optional[str]:
        """Return a path on a file system that has no room now and had some in the beginning."""
        now = zip(self._paths, self._free)
        return next((path for path, before in now if before >= self.ENOUGH > _free(path)), None)


def _free(path: str) -> int:
    try:
        status = os.statvfs(path)
    except OSError:
        return FullDisk.ENOUGH
    return status.f_bavail * status.f_frsize
