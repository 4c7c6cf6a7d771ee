"""How far a long piece of work is: a bar on a terminal, and elsewhere only that it is done, and of what."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from pocket_dock_mcp.cli.console import Console, plain
from pocket_dock_mcp.errors import ImageBuildError
from pocket_dock_mcp.output import Milestone

LAST_LINES = 15
"""Lines that are shown of what has failed, where they went by in one line that moves."""
_WIDTH = 20
_MB = 1_000_000
# "STEP 2/7: RUN x" says Podman, and Docker "Step 2/7 : RUN x".
_STEP = re.compile(r"step (\d+)/(\d+) ?: ?(.*)", re.IGNORECASE)


class Steps:
    """The progress of one build, line by line."""

    def __init__(self, console: Console, name: str) -> None:
        self._console = console
        self._name = name
        self._bar = ""
        self._last: deque[str] = deque(maxlen=LAST_LINES)

    def tell(self, line: str) -> None:
        """Show a line; those that say which step this is move the bar. Where none moves, few are shown."""
        matters, line = isinstance(line, Milestone), plain(line)
        self._last.append(line)
        if (step := _STEP.fullmatch(line)) is not None:
            done, total = int(step[1]), int(step[2])
            self._bar, line = f"{bar(done - 1, total)} {done}/{total} ", step[3]
        if self._console.is_live:
            self._console.progress(f"{self._bar}{self._name}: {line}")
        elif matters:
            self._console.note(f"{self._name}: {line}")

    @contextmanager
    def shown_if_it_fails(self) -> Iterator[None]:
        """Have the last lines printed if a build fails while the context lasts."""
        try:
            yield
        except ImageBuildError:
            self.show_last()
            raise

    def show_last(self) -> None:
        """Print the last lines."""
        for line in self._last:
            self._console.note(f"  | {line}")


class Transfer:
    """The progress of some bytes on their way; on a terminal only."""

    def __init__(self, console: Console, what: str, total: int | None) -> None:
        self._console = console
        self._what = what
        self._total = total
        self._told = 0
        self.done = 0

    def add(self, count: int) -> None:
        """Count bytes that have gone by."""
        self.done += count
        if self.done - self._told < _MB:
            return
        self._told = self.done
        shown = "" if self._total is None else f"{bar(self.done, self._total)} "
        self._console.progress(f"{shown}{self._what}: {self.done // _MB} MB")


def bar(done: int, total: int) -> str:
    """Return a bar of fixed width."""
    filled = _WIDTH * min(max(done, 0), total) // max(total, 1)
    return f"[{'#' * filled}{'.' * (_WIDTH - filled)}]"


def amount(count: int) -> str:
    """Return a number of bytes for people, where there may be few of them."""
    if count >= _MB:
        return size(count)
    return counted(count, "byte") if count < 10_000 else f"{count // 1000} kB"


def counted(count: int, noun: str) -> str:
    """Return how many there are of something."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def size(count: int) -> str:
    """Return a number of bytes for people."""
    return f"{count / _MB:.0f} MB" if count < 10_000 * _MB else f"{count / 1000 / _MB:.1f} GB"
