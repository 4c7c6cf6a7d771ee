"""The end of everything, and before it: trees of directories that no engine could remove are made shallow.

An engine removes a container's files with a descriptor for each level of a tree. Whoever makes a chain of
more levels than the engine may have descriptors (20,000 take a program a second) leaves files that stay on
the disk for ever, and Podman 4.3 then fails for everybody who uses the same image. So what lies deeper is
moved up.
"""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING, Callable, List, Optional

from . import killing, wire

if TYPE_CHECKING:
    from .main import Agent

MOST_LEVELS = 500
"""No tree of files that is of use has as many, and every engine may have more descriptors."""
SUSPICIOUS = 2 * MOST_LEVELS
"""Files that the disk has to have lost: with less there is no such tree, and nothing is looked for."""
DEADLINE = 1.5
"""Seconds of looking: a server that dies leaves nothing that runs for 2 s."""
PATIENCE = 20.0
"""Seconds, if there is such a tree: then it is only us who run on."""


class Names:
    """How many files the disk has lost, to whomever; looked at while programs run, and at the end."""

    def __init__(self) -> None:
        self._free = _free_names()
        self.lost = 0

    def look(self) -> None:
        now = _free_names()
        if self._free is None or now is None:
            # A file system that does not count them.
            self.lost = SUSPICIOUS
            return
        # What others give back meanwhile must not hide it.
        self.lost += max(0, self._free - now)
        self._free = now


def _free_names() -> Optional[int]:
    try:
        found = os.statvfs("/")
    except OSError:
        return None
    return found.f_ffree if found.f_files else None


def is_suspicious(agent: Agent) -> bool:
    """Whether there may be a tree that is too deep."""
    agent.names.look()
    # Before `init` there is no user, and nothing of one.
    return hasattr(agent, "user") and agent.names.lost >= SUSPICIOUS


def end(agent: Agent, status: int = 0) -> None:
    """Exit, and everything with us."""
    try:
        if is_suspicious(agent):
            _make_shallow(agent, time.monotonic())
    except Exception:
        # It is the end in any case.
        pass
    finally:
        os._exit(status)


def farewell(agent: Agent, request_id: int, header: wire.Header, _payload: bytes) -> None:
    """The container is about to be ended from outside. If it takes us a moment, we exit by ourselves."""
    if agent.keep is not None:
        agent.keep.tell_others(request_id, header["why"])
    tidies = is_suspicious(agent)
    agent.send({"kind": "reply", "id": request_id, "tidies": tidies})
    if tidies:
        agent.first.sender.flush()
        agent.loop.later(0, lambda: end(agent))


def _make_shallow(agent: Agent, began: float) -> None:
    with agent.user:
        # Nobody is to change anything any more: also the helpers go.
        while any(killing.owned(agent.user.uid)) and time.monotonic() < began + DEADLINE:
            try:
                os.kill(-1, signal.SIGKILL)
            except OSError:
                pass
            agent.reap()

        def over(found: int) -> bool:
            return time.monotonic() > began + (PATIENCE if found else DEADLINE)

        places = [agent.user.home, "/tmp", "/var/tmp"]
        place = _place(places)
        if place is not None:
            # Where it would be, first.
            Shallow(place, over).make([*places, "/"])


def _place(paths: List[str]) -> Optional[str]:
    """Return where on the disk the user may put something."""
    disk = os.stat("/").st_dev
    for path in paths:
        try:
            if os.stat(path).st_dev == disk and os.access(path, os.W_OK | os.X_OK, effective_ids=True):
                return path
        except OSError:
            continue
    return None


class Shallow:
    """Moves what is too deep to a place of the same file system, and goes on there, as whoever calls it."""

    def __init__(self, place: str, is_over: Callable[[int], bool]) -> None:
        """`is_over` is told how many have been moved, and says whether that is it."""
        self._place = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._is_over = is_over
        self._disk = os.fstat(self._place).st_dev
        self._moved: List[str] = []
        self.count = 0

    def make(self, tops: List[str]) -> None:
        for top in tops:
            self._go_through(self._place, top)
            while self._moved and not self._is_over(self.count):
                self._go_through(self._place, self._moved.pop())
        os.close(self._place)

    def _go_through(self, fd: int, name: str) -> None:
        found = self._enter(fd, name)
        if found is not None:
            # As if it were below something: a little early is not too late.
            self._descend(found, 3)

    def _descend(self, fd: int, level: int) -> None:
        """Go through a directory and close it."""
        try:
            for name in self._directories(fd):
                if level >= MOST_LEVELS:
                    self._move(fd, name)
                    continue
                child = self._enter(fd, name)
                if child is not None:
                    self._descend(child, level + 1)
        except OSError:
            # It cannot be read: there is nothing of the user's in it.
            pass
        finally:
            os.close(fd)

    def _directories(self, fd: int) -> List[str]:
        found: List[str] = []
        with os.scandir(fd) as entries:
            for entry in entries:
                if self._is_over(self.count):
                    return []
                if entry.is_dir(follow_symlinks=False):
                    found.append(entry.name)
        return found

    def _enter(self, fd: int, name: str) -> Optional[int]:
        """Open a directory, also one that its owner has closed; None for another file system's."""
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            try:
                child = os.open(name, flags, dir_fd=fd)
            except PermissionError:
                os.chmod(name, 0o700, dir_fd=fd)
                child = os.open(name, flags, dir_fd=fd)
        except OSError:
            return None
        if os.fstat(child).st_dev == self._disk:
            return child
        os.close(child)
        return None

    def _move(self, fd: int, name: str) -> None:
        self.count += 1
        new = ".deep-%d-%d" % (os.getpid(), self.count)
        try:
            os.rename(name, new, src_dir_fd=fd, dst_dir_fd=self._place)
        except PermissionError:
            # Either of the two may be closed to its owner.
            os.fchmod(fd, 0o700)
            os.chmod(name, 0o700, dir_fd=fd)
            os.rename(name, new, src_dir_fd=fd, dst_dir_fd=self._place)
        self._moved.append(new)


HANDLERS = {"farewell": farewell}
