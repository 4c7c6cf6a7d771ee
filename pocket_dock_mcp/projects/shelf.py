"""The files with output of one container: so many runs and so many days, and what is being written stays."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from pathlib import Path

from pocket_dock_mcp.projects.history import Clock
from pocket_dock_mcp.projects.outputs import kept_logs, limit_of, older_half

LOOK_AFTER = 16
LOOK_AFTER_S = 600.0
"""New files, and seconds, after which others' files are looked for, and what is too old."""


class Shelf:
    """What is in one directory. A directory of many files is not listed for each run."""

    def __init__(self, directory: Path, *, most: int, max_age_s: float, clock: Clock) -> None:
        """Look at nothing yet.

        Args:
            directory: which may not be there.
            most: runs whose output may be there.
            max_age_s: seconds after which it goes.
            clock: returns seconds since the epoch.
        """
        self._directory = directory
        self._most = most
        self._max_age_s = max_age_s
        self._clock = clock
        self._names: deque[str] = deque()
        self._open: set[str] = set()
        self._new = LOOK_AFTER
        self._looked = 0.0

    def tidy(self) -> Iterable[Path]:
        """Look at the directory, and return the files that have to go."""
        return self._look(self._most)

    def add(self, name: str) -> Iterable[Path]:
        """Hear of a file that is about to be written, and return those that have to go for it."""
        self._open.add(name)
        is_due = self._new >= LOOK_AFTER or abs(self._clock() - self._looked) > LOOK_AFTER_S
        gone = list(self._look(self._most - 1)) if is_due else []
        self._new += 1
        self._names.append(name)
        for _ in range(len(self._names) - self._most):
            oldest = self._names.popleft()
            if oldest not in self._open:
                path = self._directory / oldest
                gone += [path, older_half(path)]
        return gone

    def close(self, name: str) -> None:
        """Hear that a file is written no more."""
        self._open.discard(name)

    def _look(self, most: int) -> Iterable[Path]:
        self._new, self._looked = 0, self._clock()
        runs = kept_logs(self._directory)
        limit = limit_of(self._looked - self._max_age_s)
        newest = sorted(runs, reverse=True)
        gone = [run for index, run in enumerate(newest) if index >= most or run[0] < limit]
        gone = [run for run in gone if run[1] not in self._open]
        left = set(newest) - set(gone)
        self._names = deque(name for _, name in sorted(left))
        return [path for run in gone for path in runs[run]]
