"""Descriptors read and written in threads, and terminals that are as they were before."""

from __future__ import annotations

import errno
import os
import pty
import select
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import pytest

from pocket_dock_mcp.async_.descriptors import Reader, Writer, same_file
from pocket_dock_mcp.async_.passing import exit_status
from pocket_dock_mcp.async_.terminal import DEFAULT_SIZE, Modes, require_terminal, size_of
from pocket_dock_mcp.errors import InvalidArgumentError
from pocket_dock_mcp.models import RunResult

pytestmark = pytest.mark.anyio


@contextmanager
def pipe() -> Iterator[tuple[int, int]]:
    read, write = os.pipe()
    ends = [read, write]
    try:
        yield read, write
    finally:
        for fd in ends:
            try:
                os.close(fd)
            except OSError:
                # The test has closed it.
                pass


async def test_a_reader_returns_what_there_is_and_then_nothing() -> None:
    with pipe() as (read, write):
        reader = Reader(read)
        os.write(write, b"one")
        assert await reader.read() == b"one"
        os.close(write)
        assert await reader.read() == b""
        assert await reader.read() == b""
        reader.close()
        reader.close()


async def test_a_reader_that_is_given_up_takes_nothing_from_whoever_comes_next() -> None:
    with pipe() as (read, write):
        reader = Reader(read)
        with anyio.move_on_after(0.05) as scope:
            await reader.read()
        assert scope.cancelled_caught
        reader.close()
        await anyio.to_thread.run_sync(reader._thread.join)  # type: ignore[union-attr]
        os.write(write, b"yours")
        assert select.select([read], [], [], 0)[0]
        assert os.read(read, 100) == b"yours"


async def test_what_a_cancelled_caller_does_not_get_is_there_for_the_next() -> None:
    with pipe() as (read, write):
        reader = Reader(read)
        with anyio.move_on_after(0.05):
            await reader.read()
        os.write(write, b"late")
        assert await reader.read() == b"late"
        reader.close()


async def test_a_writer_writes_in_order_and_says_how_far_it_is_behind() -> None:
    with pipe() as (read, write):
        writer = Writer(write)
        total = 300_000
        for number in range(100):
            writer.write(bytes([number]) * (total // 100))
        assert writer.queued == total
        received = b""
        while len(received) < total:
            received += await anyio.to_thread.run_sync(os.read, read, 65536)
        await writer.drained()
        assert writer.queued == 0
        assert received == b"".join(bytes([number]) * (total // 100) for number in range(100))
        writer.close()


async def test_a_writer_says_why_it_cannot_write() -> None:
    with pipe() as (read, write):
        os.close(read)
        changes: list[OSError | None] = []
        writer = Writer(write)
        writer.on_written = lambda: changes.append(writer.error)
        writer.write(b"x")
        with pytest.raises(BrokenPipeError):
            await writer.drained()
        writer.write(b"ignored")
        assert changes[-1] is not None
        assert changes[-1].errno == errno.EPIPE
    nowhere = Writer(-1)
    nowhere.write(b"x")
    with pytest.raises(OSError, match="Bad file descriptor"):
        await nowhere.drained()


def test_what_is_the_same_file(tmp_path: Path) -> None:
    with pipe() as (read, write), (tmp_path / "f").open("w") as file:
        assert same_file(write, write)
        assert same_file(read, write), "two ends of one pipe"
        assert not same_file(write, file.fileno())


def test_a_terminal_is_raw_for_a_while_and_tidied_up() -> None:
    master, slave = pty.openpty()
    before = termios.tcgetattr(slave)

    def fail() -> None:
        with Modes(slave, slave) as modes:
            assert termios.tcgetattr(slave) != before
            modes.note(b"...\x1b[?1049h...")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert termios.tcgetattr(slave) == before
    assert b"\x1b[?1049l" in os.read(master, 1000)
    with Modes(slave, slave) as modes:
        modes.is_tidy = True
    assert not select.select([master], [], [], 0)[0]
    os.close(master)
    os.close(slave)


def test_what_is_no_terminal_has_the_usual_size_and_no_shell() -> None:
    with pipe() as (read, write):
        assert size_of(write) == DEFAULT_SIZE
        with pytest.raises(InvalidArgumentError, match="needs a terminal"):
            require_terminal(read, write)


@pytest.mark.parametrize(
    ("result", "status"),
    [
        (RunResult("ok", exit_code=0), 0),
        (RunResult("nonzero", exit_code=9), 9),
        (RunResult("signal", signal=15), 143),
        (RunResult("timeout", signal=9), 124),
        (RunResult("oom", signal=9), 137),
        (RunResult("disk_full", exit_code=1), 1),
        (RunResult("killed", signal=9), 137),
        (RunResult("lost"), 125),
        (RunResult("indeterminate"), 125),
    ],
)
def test_exit_statuses(result: RunResult, status: int) -> None:
    assert exit_status(result) == status
