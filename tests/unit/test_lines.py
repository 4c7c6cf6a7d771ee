"""Ranges of lines of files of any length."""

from __future__ import annotations

import random
import time

import anyio
import pytest

from pocket_dock_mcp.container import lines as module
from pocket_dock_mcp.container.lines import read_lines
from pocket_dock_mcp.errors import FileTooLargeError
from pocket_dock_mcp.models import FileContent, FileLines

pytestmark = pytest.mark.anyio


class File:
    """A file that counts what is read of it."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.bytes_read = 0

    async def read(self, offset: int, length: int) -> FileContent:
        await anyio.lowlevel.checkpoint()
        piece = self.data[offset : offset + length]
        self.bytes_read += len(piece)
        return FileContent(piece, len(self.data), 0o644, 0.0)

    async def lines(
        self, start_line: int = 1, lines: int | None = None, max_bytes: int = 32_768, first: int = 65_536
    ) -> FileLines:
        return await read_lines(
            self.read, await self.read(0, first), start_line=start_line, lines=lines, max_bytes=max_bytes
        )


def expected(data: bytes, start_line: int, lines: int | None, max_bytes: int) -> tuple[int, bytes]:
    """Return what is to come, found in the simplest way: the number of the first line, and the lines."""
    every = [line + b"\n" for line in data.split(b"\n")]
    every[-1] = every[-1][:-1]
    every = [line for line in every if line]
    start = start_line if start_line > 0 else max(len(every) + start_line + 1, 1)
    shown = b""
    for line in every[start - 1 :][:lines]:
        if len(shown + line) > max_bytes:
            return start, shown or line[:max_bytes]
        shown += line
    return start, shown


async def test_any_range_of_any_file_is_what_it_is_in_the_simplest_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_PIECE", 64)
    monkeypatch.setattr(module, "_COUNTED_ANYHOW", 100)
    chance = random.Random(1)
    for _ in range(3000):
        pieces = [b"\n", b"a", b"bc", b"\r\n", b"x" * chance.randrange(30)]
        data = b"".join(chance.choice(pieces) for _ in range(chance.randrange(60)))
        wanted = (chance.choice([1, 2, 5, 10, 100, -1, -2, -5]), chance.choice([None, 1, 2, 5]))
        max_bytes = chance.choice([1, 5, 20, 1000])

        found = await File(data).lines(*wanted, max_bytes, first=chance.choice([1, 10, 64, 1000]))

        start, shown = expected(data, *wanted, max_bytes)
        assert (found.start_line, found.data) == (start, shown), (data, wanted, max_bytes)
        assert data[found.start_byte : found.end_byte] == shown
        assert found.more == (found.end_byte < len(data))


async def test_the_first_lines_of_a_large_file_cost_one_piece() -> None:
    file = File(b"some line\n" * 20_000_000)

    found = await file.lines(1, 50)

    assert (found.end_line, found.total_lines) == (50, None)
    assert file.bytes_read <= 2 * 65_536


async def test_the_last_lines_of_a_large_file_are_found_in_time_and_memory() -> None:
    file = File(b"some line\n" * 20_000_000 + b"last")
    began = time.monotonic()

    found = await file.lines(-2)
    again = await file.lines(20_000_001)
    beyond = await file.lines(30_000_000)

    assert (found.start_line, found.end_line, found.data) == (20_000_000, 20_000_001, b"some line\nlast")
    assert again.data == b"last"
    assert (beyond.data, beyond.end_line, beyond.total_lines) == (b"", 29_999_999, 20_000_001)
    assert time.monotonic() - began < 10
    assert file.bytes_read < 3.1 * len(file.data)


async def test_the_lines_of_an_ordinary_file_are_counted() -> None:
    assert (await File(b"some line\n" * 500_000).lines(1, 1)).total_lines == 500_000
    assert (await File(b"").lines()).total_lines == 0
    assert (await File(b"one").lines()).total_lines == 1


async def test_a_line_without_end_comes_in_part() -> None:
    found = await File(b"x" * 100_000 + b"\ny\n").lines()

    assert (found.partial, found.end_byte, found.start_line, found.end_line) == (True, 32_768, 1, 1)


async def test_lines_that_are_too_far_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_SEARCHED_BYTES", 10_000_000)

    with pytest.raises(FileTooLargeError, match="sed"):
        await File(b"some line\n" * 2_000_000).lines(-1)


async def test_lines_that_do_not_come_in_time_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DEADLINE_S", 0.05)
    file = File(b"some line\n" * 2_000_000)

    async def slow(offset: int, length: int) -> FileContent:
        await anyio.sleep(0.02)
        return await file.read(offset, length)

    with pytest.raises(FileTooLargeError, match="sed"):
        await read_lines(slow, await file.read(0, 100), start_line=-1, lines=None, max_bytes=100)


async def test_a_file_that_was_cut_off_meanwhile_ends_where_it_ends() -> None:
    file = File(b"some line\n" * 2_000_000)
    first = await file.read(0, 65_536)
    file.data = file.data[:100_000]

    found = await read_lines(file.read, first, start_line=9_999, lines=None, max_bytes=100)

    assert (found.data, found.size) == (b"some line\n" * 2, 100_000)
