"""A spool by lines, compared with a plain model over all the bytes."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pocket_dock_mcp.errors import InvalidArgumentError
from pocket_dock_mcp.spool import Excerpt, OutputGoneError, Spool, read_lines, read_range, tail_lines
from tests.spools import Spools, pieces

MANY = 10**9


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Spools]:
    with Spools(tmp_path / "spool") as spools:
        yield spools


def some_lines(chance: random.Random, size: int, longest: int) -> bytes:
    data = b""
    while len(data) < size:
        data += bytes(chance.choices(b"abc", k=chance.randrange(longest))) + b"\n"
    return data[:size]


def facts(data: bytes, spool: Spool, excerpt: Excerpt) -> None:
    """Check what must hold for any excerpt."""
    start, end = excerpt.start_byte, excerpt.start_byte + len(excerpt.data)
    assert excerpt.data == data[start:end]
    assert (excerpt.total_bytes, excerpt.gap) == (len(data), spool.gap)
    assert excerpt.total_lines == data.count(b"\n") + (not data.endswith(b"\n") and bool(data))
    first, last = spool.gap or (len(data), len(data))
    assert excerpt.next_byte == (last if end == first else end)
    assert excerpt.more == (excerpt.next_byte < len(data))
    if excerpt.data:
        assert excerpt.first_line == data.count(b"\n", 0, start) + 1
        assert excerpt.last_line == data.count(b"\n", 0, end - 1) + 1
        at_gap = start == last and first < last
        assert excerpt.cut_start == (start > 0 and (at_gap or data[start - 1 : start] != b"\n"))
        assert excerpt.cut_end == (not excerpt.data.endswith(b"\n") and end < len(data))
    else:
        assert (excerpt.first_line, excerpt.last_line) == (None, None)


def model_lines(
    data: bytes, gap: tuple[int, int], start_line: int, lines: int, max_bytes: int
) -> tuple[int, int]:
    """Where the excerpt of `read_lines` has to begin and end."""
    begins = [0, *(at + 1 for at, byte in enumerate(data) if byte == 10), len(data)]
    start = begins[min(start_line - 1, len(begins) - 1)]
    if gap[0] <= start < gap[1]:
        start = gap[1]
    limit = gap[0] if start < gap[0] else len(data)
    ends = [at for at in begins if at > start][:lines]
    end = min(ends[-1] if ends else len(data), limit)
    if end - start > max_bytes:
        whole = [at for at in ends if at <= start + max_bytes]
        end = whole[-1] if whole else start + max_bytes
    return start, end


@pytest.mark.parametrize("seed", range(12))
def test_any_lines_of_any_stream(make: Spools, seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(12):
        data = some_lines(chance, chance.randrange(600), chance.choice([1, 3, 12, 80, 900]))
        spool = make(cap_bytes=chance.choice([40, 201, 10_000]), memory_bytes=chance.choice([0, 100, 1000]))
        for piece in pieces(chance, data, chance.choice([10, 200])):
            spool.append(piece)
        gap = spool.gap or (len(data), len(data))
        for _ in range(20):
            start_line, lines = chance.randrange(1, 40), chance.choice([1, 2, 7, MANY])
            max_bytes = chance.choice([1, 5, 30, MANY])

            excerpt = read_lines(spool, start_line, lines, max_bytes)
            facts(data, spool, excerpt)
            end = excerpt.start_byte + len(excerpt.data)
            assert (excerpt.start_byte, end) == model_lines(data, gap, start_line, lines, max_bytes)

            excerpt = read_range(spool, chance.randrange(700), max_bytes)
            facts(data, spool, excerpt)

            excerpt = tail_lines(spool, lines, max_bytes)
            facts(data, spool, excerpt)
            kept = data[gap[1] if spool.gap else 0 :]
            wanted = b"".join(kept.splitlines(keepends=True)[-lines:])
            while len(wanted) > max_bytes and b"\n" in wanted[:-1]:
                wanted = wanted.partition(b"\n")[2]
            assert excerpt.data == wanted[-max_bytes:]


def walk(spool: Spool, step: Callable[[Excerpt], Excerpt], excerpt: Excerpt) -> list[Excerpt]:
    found = [excerpt]
    while excerpt.more:
        excerpt = step(excerpt)
        found.append(excerpt)
    return found


@pytest.mark.parametrize("cap", [200, 100_000])
@pytest.mark.parametrize("size", [1, 2, 3, 10, 1000])
def test_reading_on_gives_everything_once_and_whole_characters(make: Spools, cap: int, size: int) -> None:
    data = "aä€😀\n".encode() * 40
    spool = make(data, cap_bytes=cap)
    first, last = spool.gap or (len(data), len(data))

    found = walk(spool, lambda at: read_range(spool, at.next_byte, size), read_range(spool, 0, size))

    assert b"".join(excerpt.data for excerpt in found) == data[:first] + data[last:]
    if size >= 4 and not spool.gap:
        assert "\ufffd" not in "".join(excerpt.text for excerpt in found)


def test_a_line_longer_than_what_fits_is_read_on_by_bytes(make: Spools) -> None:
    long = b"0123456789" * 100_000
    spool = make(b"first\n" + long + b"\nlast\n")

    start = read_lines(spool, 2, 5, 1000)
    on = read_range(spool, start.next_byte, 1000)
    end = read_range(spool, 1_000_000, 1000)

    assert (start.data, start.cut_start, start.cut_end) == (long[:1000], False, True)
    assert (on.data, on.start_byte, on.cut_start, on.cut_end) == (long[1000:2000], 1006, True, True)
    assert (on.first_line, on.last_line) == (2, 2)
    assert (end.data, end.first_line, end.last_line, end.more) == (b"456789\nlast\n", 2, 3, False)
    assert read_lines(spool, 1, 5, 1000).data == b"first\n"
    assert tail_lines(spool, 2, 1000).data == b"last\n"
    assert tail_lines(spool, 2, MANY).data == long + b"\nlast\n"


def test_the_end_of_a_last_line_that_does_not_fit_begins_with_a_character(make: Spools) -> None:
    excerpt = tail_lines(make("ä".encode() * 1000), 1, 101)

    assert (excerpt.text, excerpt.start_byte, excerpt.cut_start) == ("ä" * 50, 1900, True)
    assert (excerpt.first_line, excerpt.last_line) == (1, 1)


def test_line_numbers_are_exact_after_a_gap(make: Spools) -> None:
    spool = make(*(b"line %d\n" % number for number in range(1, 100_001)), cap_bytes=10_000)

    tail = tail_lines(spool, 2, 1000)
    after = read_lines(spool, 50_000, 2, 1000)

    assert (tail.text, tail.first_line, tail.last_line) == ("line 99999\nline 100000\n", 99_999, 100_000)
    assert after.first_line is not None
    assert after.first_line > 50_000
    assert after.cut_start
    assert after.text.splitlines()[1] == f"line {after.first_line + 1}"
    assert (after.gap, after.total_lines) == (spool.gap, 100_000)


def test_a_line_that_is_not_there_yet_is_nothing(make: Spools) -> None:
    for data in (b"", b"one\n", b"one\ntwo"):
        excerpt = read_lines(make(data), 3, 1, 100)

        assert (excerpt.data, excerpt.next_byte, excerpt.more) == (b"", len(data), False)
    assert tail_lines(make(), 1, 100).data == b""
    assert read_range(make(b"one"), 7, 100).next_byte == 7


def test_any_line_of_a_large_stream_is_found(make: Spools) -> None:
    spool = make(
        *(b"".join(b"%07d\n" % n for n in range(at, at + 10_000)) for at in range(0, 500_000, 10_000))
    )

    for line in (1, 2, 131_073, 250_000, 499_999, 500_000):
        assert read_lines(spool, line, 1, 100).text == f"{line - 1:07}\n"


def test_numbers_that_make_no_sense_are_refused(make: Spools) -> None:
    spool = make(b"x")
    calls: list[Callable[[], object]] = [
        lambda: read_lines(spool, 0, 1, 1),
        lambda: read_lines(spool, 1, 0, 1),
        lambda: tail_lines(spool, 1, 0),
        lambda: read_range(spool, -1, 1),
    ]
    for call in calls:
        with pytest.raises(InvalidArgumentError, match="must be at least"):
            call()


def test_a_closed_spool_says_so(make: Spools) -> None:
    spool = make(b"x\n")
    spool.close()
    calls: list[Callable[[], object]] = [
        lambda: read_lines(spool, 1, 1, 1),
        lambda: tail_lines(spool, 1, 1),
        lambda: read_range(spool, 0, 1),
    ]
    for call in calls:
        with pytest.raises(OutputGoneError):
            call()


@pytest.mark.parametrize("cap", [5000, 300_000])
def test_while_the_run_prints_on_what_is_said_is_true(make: Spools, cap: int) -> None:
    spool = make(cap_bytes=cap)
    ended = threading.Event()
    wrong: list[Excerpt] = []
    rounds = 0

    def read() -> None:
        nonlocal rounds
        while not ended.is_set():
            lines = spool.extent().lines
            for excerpt in (
                tail_lines(spool, 3, 500),
                read_lines(spool, max(1, lines - 20), 5, 500),
                read_lines(spool, max(1, lines // 2), 5, 500),
            ):
                numbers = [int(line) for line in excerpt.data.split()]
                whole = numbers[1:] if excerpt.cut_start else numbers
                first = None if excerpt.first_line is None else excerpt.first_line + excerpt.cut_start
                if whole and first is not None and whole != list(range(first, first + len(whole))):
                    wrong.append(excerpt)
            rounds += 1

    reader = threading.Thread(target=read)
    reader.start()
    for at in range(1, 300_001, 50):
        spool.append(b"".join(b"%09d\n" % number for number in range(at, at + 50)))
    ended.set()
    reader.join()

    assert rounds
    assert wrong == []
