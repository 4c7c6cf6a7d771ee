"""Runs a surface: makes cases from a seed, tries them, and tells what must not be."""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import gc
import logging
import os
import random
import time
import traceback
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import anyio

CORPUS = Path(__file__).parent / "corpus"
ATTEMPT_DEADLINE = 60.0
"""Seconds for one case: far more than any needs, far less than for ever."""
STUCK_AFTER = 300.0
"""Seconds after which a case that does not even let a deadline pass is shown and ended, where that is asked."""
MOST_GROWTH = 64 * 1024 * 1024
"""Bytes of memory that may be held after all cases and not after the first quarter: allocators keep some."""
_SHRINKS = 200
"""Attempts at making a failing input smaller."""
SHRINK_S = 30.0
"""Seconds for all of them."""


class FoundError(Exception):
    """Something that must not be, whatever the input."""


class Surface(ABC):
    """One place where foreign input is read."""

    name: str
    held_up_s = 0.0
    """The longest that the event loop under test was busy with one thing, in processor time, where that is known."""

    @abstractmethod
    def make(self, rng: random.Random) -> bytes:
        """Return an input."""

    @abstractmethod
    async def attempt(self, data: bytes) -> str:
        """Try an input and return, in a word, what came of it. Raises for what must not be."""

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Hold what cases have in common. At its end nothing may be left."""
        yield

    async def settle(self) -> None:
        """Come to rest, so that what is held can be compared."""
        await anyio.sleep(0)

    @property
    def pid(self) -> int:
        """The process that is under test."""
        return os.getpid()


@dataclass
class Report:
    """What came of a surface."""

    surface: str
    seed: int
    attempts: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    slowest_s: float = 0.0
    slowest_case: int = -1
    grown_bytes: int = 0
    held_up_s: float = 0.0
    findings: list[str] = field(default_factory=list)
    failed: list[bytes] = field(default_factory=list)
    """The inputs of findings."""
    known: set[str] = field(default_factory=set)

    def __str__(self) -> str:
        outcomes = ", ".join(f"{word} {count}" for word, count in self.outcomes.most_common())
        return (
            f"{self.surface}: {self.attempts} cases of seed {self.seed} in {self.seconds:.0f} s; {outcomes}; "
            f"slowest {self.slowest_s * 1000:.0f} ms (case {self.slowest_case}); "
            f"loop held up {self.held_up_s * 1000:.0f} ms at most; memory {self.grown_bytes / 2**20:+.1f} MiB; findings: {len(self.findings)}"
        )


def case_of(surface: Surface, seed: int, number: int) -> bytes:
    """Return the input that a number stands for."""
    return surface.make(random.Random(f"{surface.name}:{seed}:{number}"))


def corpus(name: str) -> list[Path]:
    """Return the inputs that have found something in a surface."""
    return sorted(path for path in (CORPUS / name).glob("*") if path.is_file())


async def run(
    surface: Surface,
    count: int,
    seed: int,
    *,
    seconds: float | None = None,
    first: int = 0,
    inputs: Sequence[bytes] = (),
    most: int = 1,
    on_case: Callable[[int], None] = lambda _number: None,
) -> Report:
    """Try `inputs`, and then cases until `most` different things are found, or `seconds` are over."""
    report = Report(surface.name, seed)
    began = time.monotonic()
    tasks = len(asyncio.all_tasks())
    try:
        async with surface.open():
            end = None if seconds is None else time.monotonic() + seconds
            for data in inputs:
                await _try(surface, report, data, -1)
            before: Holdings | None = None
            for number in range(first, first + count):
                if len(report.findings) >= most or (end is not None and time.monotonic() > end):
                    break
                if number == first + count // 4:
                    before = await _measure(surface)
                on_case(number)
                await _try(surface, report, case_of(surface, seed, number), number)
            if before is not None and count >= MEASURED_FROM:
                _compare(report, before, await _measure_again(surface, before))
        await _see_tasks_end(surface, tasks)
    except Exception as error:  # noqa: BLE001  # what holding or closing it raises is something found, too
        report.findings.append(_told(error))
    report.held_up_s = surface.held_up_s
    report.seconds = time.monotonic() - began
    return report


def _compare(report: Report, before: Holdings, after: Holdings) -> None:
    report.grown_bytes = after.memory - before.memory
    if report.grown_bytes > MOST_GROWTH:
        report.findings.append(f"It has grown by {report.grown_bytes >> 20} MiB.")
    if after.descriptors > before.descriptors:
        report.findings.append(
            f"It holds {after.descriptors} descriptors, and held {before.descriptors}: {sorted(after.open - before.open)}."
        )


MEASURED_FROM = 40
"""Cases from which on what is held is compared: the first few of each kind load and keep things."""


async def _try(surface: Surface, report: Report, data: bytes, number: int) -> None:
    began = time.monotonic()
    report.attempts += 1
    try:
        report.outcomes[await attempt(surface, data)] += 1
    except Exception as error:  # noqa: BLE001  # whatever it is, it should not have come out
        told = _told(error)
        if told not in report.known:
            report.known.add(told)
            report.findings.append(f"case {number}: {told}")
            report.failed.append(data)
        return
    taken = time.monotonic() - began
    if taken > report.slowest_s:
        report.slowest_s, report.slowest_case = taken, number


async def attempt(surface: Surface, data: bytes) -> str:
    """Try one input, with a deadline and an eye on the log."""
    with errors_logged() as logged:
        try:
            with anyio.fail_after(ATTEMPT_DEADLINE):
                outcome = await surface.attempt(data)
        except FoundError as finding:
            raise FoundError(" ".join((str(finding), *logged[:1]))) from None
    if logged:
        raise FoundError(f"It was logged as an error: {logged[0]}")
    return outcome


def _told(error: BaseException) -> str:
    """Return an error on one line, with where it comes from."""
    # Of a group the first: Python 3.10 has no name for groups.
    while inner := getattr(error, "exceptions", None):
        error = inner[0]
    if isinstance(error, FoundError):
        return str(error)
    return f"{type(error).__name__}: {str(error)[:500]}{_place(error)}"


def _place(error: BaseException) -> str:
    """Return where an error comes from: the last places, of which ours are the interesting ones."""
    frames = traceback.extract_tb(error.__traceback__)[-4:]
    return " <- ".join(["", *(f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in reversed(frames))])


@dataclass(frozen=True)
class Holdings:
    """What a process holds."""

    memory: int
    open: frozenset[str]
    """What its descriptors are, each with its number."""

    @property
    def descriptors(self) -> int:
        """How many there are."""
        return len(self.open)


async def _measure(surface: Surface) -> Holdings:
    await surface.settle()
    gc.collect()
    pid = surface.pid
    resident = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return Holdings(resident, frozenset(_open(Path(f"/proc/{pid}/fd"))))


def _open(folder: Path) -> Iterator[str]:
    for path in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):
            yield f"{path.name} {path.readlink()}"


async def _measure_again(surface: Surface, before: Holdings) -> Holdings:
    """Measure, and once more while there is what may just be being closed."""
    for _ in range(100):
        after = await _measure(surface)
        if after.descriptors <= before.descriptors:
            break
        await anyio.sleep(0.05)
    return after


async def _see_tasks_end(surface: Surface, before: int) -> None:
    with contextlib.suppress(TimeoutError), anyio.fail_after(10):
        while len(asyncio.all_tasks()) > before:
            await anyio.sleep(0.01)
    left = sorted(task.get_name() for task in asyncio.all_tasks())
    if len(left) > before:
        raise FoundError(f"{surface.name} has left tasks behind: {left}")


class _Errors(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        self.said.append(
            f"[{record.name}: {record.getMessage()}{'' if error is None else ' ' + _told(error)}]"
        )


@contextmanager
def errors_logged() -> Iterator[list[str]]:
    """Yield a list of what is logged meanwhile as an error, with its traceback."""
    handler = _Errors()
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        yield handler.said
    finally:
        root.removeHandler(handler)


async def shrink(surface: Surface, data: bytes, seconds: float = SHRINK_S) -> bytes:
    """Return a smaller input that fails as well: halves, quarters and so on are left out while that does.

    It ends after some attempts or after `seconds`, whatever comes first, with the smallest so far.
    """
    left = _SHRINKS
    size = max(len(data) // 2, 1)
    with anyio.move_on_after(seconds) as scope:
        while size:
            at = 0
            while at < len(data):
                # Attempts that never wait are not cancelled.
                if left == 0 or anyio.current_time() > scope.deadline:
                    return data
                smaller = data[:at] + data[at + size :]
                left -= 1
                if await _fails(surface, smaller) and not scope.cancel_called:
                    data = smaller
                else:
                    at += size
            size //= 2
    return data


async def _fails(surface: Surface, data: bytes) -> bool:
    try:
        async with surface.open():
            await attempt(surface, data)
    except Exception:  # noqa: BLE001  # whatever it is, it is what is looked for
        return True
    return False


def show_what_is_stuck(_number: int) -> None:
    """From now on for a while: if nothing moves, say where, and exit."""
    faulthandler.dump_traceback_later(STUCK_AFTER, exit=True)
