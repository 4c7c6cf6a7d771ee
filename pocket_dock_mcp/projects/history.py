"""What was run in a container, one JSON line each: ``history.jsonl``, bounded in bytes and in age.

Several processes write at once: each line is one write to a file opened for appending. Who replaces the file
holds a lock on it that those who write share, and never for long; should somebody be stopped with it, the
others go on without.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pocket_dock_mcp.projects.outputs import KINDS

FILE = "history.jsonl"
MAX_LINE = 8 * 1024
MAX_READ = 64 * 1024 * 1024
_PATIENCE = 0.02
"""Seconds that a writer waits for one who replaces the file."""
DAY_S = 86_400.0
_END_OF_TIME = 253_402_300_799.0 - 2 * DAY_S
"""A second that has a date of four digits in every time zone, and is among the last."""
_LONGEST_MS = _END_OF_TIME * 1000

Clock = Callable[[], float]


class History:
    """The history of one container. Older lines move to a second file, and what was in that goes."""

    def __init__(self, path: Path, *, max_bytes: int, max_age_s: float, clock: Clock = time.time) -> None:
        """Touch nothing yet.

        Args:
            path: the file, in a directory that is there.
            max_bytes: of one of both files.
            max_age_s: seconds after which a line goes.
            clock: returns seconds since the epoch.
        """
        self._path = path
        self._old = path.with_name(f"{path.name}.1")
        self._max_bytes = max_bytes
        self._max_age_s = max_age_s
        self._clock = clock

    def append(self, entry: dict[str, Any]) -> None:
        """Add a line. Texts in it are cut until it fits.

        Raises:
            OSError: it cannot be written.
        """
        line = _line(entry)
        descriptor = _open_shared(self._path)
        try:
            size = os.fstat(descriptor).st_size
            # Whoever wrote before may have been killed in the middle of a line.
            if size and os.pread(descriptor, 1, size - 1) != b"\n":
                line = b"\n" + line
            if os.write(descriptor, line) < len(line):
                raise OSError(0, "the disk is full")
        finally:
            os.close(descriptor)
        if size + len(line) > self._max_bytes:
            self._replace(lambda: self._path.replace(self._old), lambda size: size > self._max_bytes)

    def read(self) -> list[dict[str, Any]]:
        """Return what is there and not too old, oldest first. What is no line of ours is passed over."""
        oldest = self._clock() - self._max_age_s
        found = []
        for path in (self._old, self._path):
            found += [entry for entry in _entries(path) if _time(entry) >= oldest]
        return found

    def expire(self) -> None:
        """Remove lines that are too old.

        Raises:
            OSError: something cannot be written.
        """
        oldest = self._clock() - self._max_age_s
        try:
            if self._old.stat().st_mtime < oldest:
                self._old.unlink(missing_ok=True)
        except FileNotFoundError:
            pass
        first = next(_entries(self._path), None)
        if first is not None and _time(first) < oldest:
            self._replace(lambda: self._rewrite(oldest), lambda _size: True)

    def _rewrite(self, oldest: float) -> None:
        kept = [_line(entry) for entry in _entries(self._path) if _time(entry) >= oldest]
        temporary = self._path.with_name(f".{self._path.name}.new")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        with os.fdopen(os.open(temporary, flags, 0o600), "wb") as file:
            file.write(b"".join(kept))
        temporary.replace(self._path)

    def _replace(self, action: Callable[[], object], is_due: Callable[[int], bool]) -> None:
        """Put another file in the place of this one, unless somebody is just doing so."""
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return
        try:
            is_ours = _locked(descriptor, fcntl.LOCK_EX) and _is_at(descriptor, self._path)
            if is_ours and is_due(os.fstat(descriptor).st_size):
                action()
        finally:
            os.close(descriptor)


def _open_shared(path: Path) -> int:
    """Open the file for appending, and see that nobody takes it away meanwhile."""
    while True:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(path, flags, 0o600)
        # Without the lock a line may be lost; without an end nobody's run would come to one.
        if not _locked(descriptor, fcntl.LOCK_SH) or _is_at(descriptor, path):
            return descriptor
        os.close(descriptor)


def _locked(descriptor: int, how: int) -> bool:
    end = time.monotonic() + _PATIENCE
    while True:
        try:
            fcntl.flock(descriptor, how | fcntl.LOCK_NB)
        except BlockingIOError:
            if how == fcntl.LOCK_EX or time.monotonic() > end:
                return False
            time.sleep(0.001)
        except OSError:
            # A file system without locks.
            return how == fcntl.LOCK_EX
        else:
            return True


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _entries(path: Path) -> Iterator[dict[str, Any]]:
    try:
        file = path.open("rb")
    except OSError:
        return
    with file:
        left = MAX_READ
        while left > 0 and (line := file.readline(MAX_LINE * 2)):
            left -= len(line)
            try:
                entry = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(entry, dict) and _is_ours(entry):
                yield _without_nonsense(entry)


def _is_ours(entry: dict[str, Any]) -> bool:
    """Whether all that others go by is there: a history may come from anywhere, with its project."""
    moment = entry.get("time")
    if not isinstance(moment, (int, float)) or not 0 <= moment <= _END_OF_TIME:
        return False
    return isinstance(entry.get("id"), str) and entry.get("type") in KINDS


def _without_nonsense(entry: dict[str, Any]) -> dict[str, Any]:
    """Return an entry without a duration that is none."""
    duration = entry.get("duration_ms", 0)
    is_number = isinstance(duration, (int, float)) and not isinstance(duration, bool)
    if not is_number or not 0 <= duration <= _LONGEST_MS:
        return {name: value for name, value in entry.items() if name != "duration_ms"}
    return entry


def _time(entry: dict[str, Any]) -> float:
    return float(entry["time"])


def _line(entry: dict[str, Any]) -> bytes:
    """Return an entry as a line that is not too long."""
    line = json.dumps(entry, default=str).encode()
    if len(line) >= MAX_LINE:
        line = json.dumps({key: _cut(value) for key, value in entry.items()}, default=str).encode()
    return line + b"\n"


def _cut(value: object) -> object:
    return f"{value[:500]}..." if isinstance(value, str) and len(value) > 500 else value
