"""Searching a spool as grep does, compared with Python's `re` on each line; and patterns that mean harm."""

from __future__ import annotations

import random
import re
import threading
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from pocket_dock_mcp.errors import InvalidArgumentError
from pocket_dock_mcp.spool import Matches, OutputGoneError, Spool, grep
from tests.spools import Spools, pieces

MANY = 10**9


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Spools]:
    with Spools(tmp_path / "spool") as spools:
        yield spools


def found(
    spool: Spool, pattern: str, context: int = 0, most: int = MANY, room: int = MANY, *, start: int = 0
) -> Matches:
    return grep(spool, pattern, context, most, room, 60.0, start_byte=start)


def lines_of(data: bytes, start: int, end: int) -> list[tuple[int, int, str]]:
    """Number, offset and text of each line, or of what of it is in a part of the data."""
    number, at, lines = data.count(b"\n", 0, start) + 1, start, []
    for line in data[start:end].split(b"\n"):
        lines.append((number, at, line.decode(errors="replace")))
        number, at = number + 1, at + len(line) + 1
    return lines if lines[-1][2] else lines[:-1]


def model(
    parts: list[list[tuple[int, int, str]]], pattern: str, context: int, most: int
) -> list[tuple[int, int, str, bool]]:
    """The lines that are to be shown, with whether they match."""
    shown: dict[int, tuple[int, int, str, bool]] = {}
    for lines in parts:
        hits = [at for at, line in enumerate(lines) if re.search(pattern, line[2])]
        for hit in hits[: max(0, most - sum(line[3] for line in shown.values()))]:
            for at in range(max(0, hit - context), min(len(lines), hit + context + 1)):
                is_hit = at == hit or shown.get(lines[at][0], (0, 0, "", False))[3]
                shown[lines[at][0]] = (*lines[at], is_hit)
    return [shown[number] for number in sorted(shown)]


PATTERNS = [
    "a", "ab+", "^a", "a$", r"\bb", r"\s", "[^a]b", r"c\s*$", "^$", "", "b|c.", "(?i)AB", "(a)(b)?c", r"\W",
    "(?s)a.c", "ä", r"\Aab", r"b\Z", "(?<=a)b", "a(?!b)", "[[:digit:]]", r"\{", "{", "x{2}", r"[\x00-\x20]a",
]  # fmt: skip


@pytest.mark.parametrize("seed", range(12))
def test_any_pattern_on_any_stream_finds_what_each_line_alone_would(make: Spools, seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(15):
        size = chance.choice([0, 5, 60, 2000])
        data = "".join(chance.choices("abc xä{}1\t\r\n", k=size)).encode()
        spool = make(cap_bytes=chance.choice([100, 5000]), memory_bytes=chance.choice([0, 5000]))
        for piece in pieces(chance, data, 500):
            spool.append(piece)
        if spool.gap:
            parts = [lines_of(data, 0, spool.gap[0]), lines_of(data, spool.gap[1], len(data))]
        else:
            parts = [lines_of(data, 0, len(data))]
        for pattern in chance.sample(PATTERNS, 10):
            context, most = chance.choice([0, 1, 3]), chance.choice([1, 4, MANY])
            as_python = pattern.replace("[[:digit:]]", r"\d")
            expected = model(parts, as_python, context, most)
            matching = [line for part in parts for line in part if re.search(as_python, line[2])]

            result = found(spool, pattern, context, most)

            shown = [(line.number, line.start_byte, line.text, line.matches) for line in result.lines]
            if len(matching) <= most:
                assert shown == expected, pattern
                assert (result.next_byte, result.more) == (len(data), False)
            else:
                # What is context of a match may itself be the first match that is not shown.
                left_out = matching[most]
                assert shown == [line for line in expected if line[0] < left_out[0]], pattern
                assert (result.next_byte, result.more) == (left_out[1], True)
            assert (result.matches, result.exact) == (len(matching), True)
            assert (result.total_bytes, result.gap) == (len(data), spool.gap)


def test_searching_on_finds_each_match_once(make: Spools) -> None:
    spool = make(b"".join(b"line %d\n" % number for number in range(1, 5001)))
    result = found(spool, "7$", most=90)
    numbers = [line.number for line in result.lines]
    assert result.matches == 500
    while result.more:
        result = found(spool, "7$", most=90, start=result.next_byte)
        numbers += [line.number for line in result.lines]

    assert numbers == list(range(7, 5001, 10))


def test_what_is_shown_has_a_limit_but_the_first_match_is(make: Spools) -> None:
    spool = make(b"before\nhit one\nafter\nx\nhit two\n")

    nothing, some = found(spool, "hit", 1, room=1), found(spool, "hit", 1, room=20)

    assert [line.text for line in nothing.lines] == ["hit one"]
    assert [line.text for line in some.lines] == ["before", "hit one", "after"]
    assert (nothing.matches, nothing.next_byte, some.next_byte) == (2, 23, 23)


def test_a_long_line_is_shown_around_its_match(make: Spools) -> None:
    line = "ä" * 5000 + "needle" + "b" * 5000
    spool = make(f"first\n{line}\nlast\n".encode())

    (shown,) = found(spool, "needle").lines
    before, _, after = found(spool, "first|last", context=1).lines[0], None, found(spool, "last", 1).lines[0]

    assert (len(shown.text), shown.cut_start, shown.cut_end, shown.number) == (400, True, True, 2)
    assert shown.text.startswith("ä" * 100 + "needle" + "b")
    assert shown.start_byte == 6 + 2 * 4900
    assert before.text == "first"
    assert (after.text, after.cut_end, after.matches) == ("ä" * 400, True, False)


@pytest.mark.parametrize("letter", ["x", "ä", "€", "😀"])
def test_a_match_anywhere_in_a_giant_line_is_found_once(make: Spools, letter: str) -> None:
    size = 400_000 // len(letter.encode())
    for at in (0, 1, 60_000, 65_530, 65_536, 57_344, 49_152, 114_688, 200_000, size * len(letter.encode())):
        before = at // len(letter.encode())
        line = letter * before + "nädel" + letter * (size - before)
        spool = make(f"one\n{line}\nthree\n".encode())

        result = found(spool, "nädel", context=1)

        first, hit, last = result.lines
        assert (first.text, last.text) == ("one", "three")
        assert (first.number, hit.number, last.number) == (1, 2, 3)
        assert "nädel" in hit.text
        offset = hit.start_byte + len(hit.text.partition("nädel")[0].encode())
        assert offset == 4 + before * len(letter.encode())
        assert (result.matches, result.exact, result.total_lines) == (1, True, 3)
        assert found(spool, "^nädel").matches == (before == 0)
        assert found(spool, f"^{letter}").matches == (before > 0)
        assert found(spool, "nädel$").matches == (before == size)
        assert [line.number for line in found(spool, "^three$", start=100_000).lines] == [3]


def test_bytes_that_are_no_text_are_searched_around(make: Spools) -> None:
    spool = make(bytes(range(256)) + b"\nab\xff\xfe\x80needle\xc3\n" + b"\xe2\x82" * 300 + b"end")

    (hit,) = found(spool, r"needle").lines
    (end,) = found(spool, "end").lines

    assert (hit.number, hit.start_byte, hit.text) == (3, 257, "ab\ufffd\ufffd\ufffdneedle\ufffd")
    assert end.number == 4
    assert end.text.endswith("\ufffdend")


def test_numbers_after_a_gap(make: Spools) -> None:
    spool = make(*(b"line %d\n" % number for number in range(1, 50_001)), cap_bytes=2000)

    result = found(spool, "^line (3|49999)$", context=1)

    assert [(line.number, line.text) for line in result.lines] == [
        (number, f"line {number}") for number in (2, 3, 4, 49_998, 49_999, 50_000)
    ]
    assert result.gap == spool.gap


# -- time and harm --------------------------------------------------------------------------------------


def test_a_catastrophic_pattern_ends_and_lets_others_work(make: Spools) -> None:
    spool = make(b"a" * 5000 + b"b\n")
    longest, ended = 0.0, threading.Event()

    def work() -> None:
        nonlocal longest
        last = time.monotonic()
        while not ended.wait(0.001):
            longest = max(longest, time.monotonic() - last)
            last = time.monotonic()

    worker = threading.Thread(target=work)
    worker.start()
    begun = time.monotonic()
    with pytest.raises(InvalidArgumentError, match="needs more than") as caught:
        grep(spool, "(a+)+$", 0, 10, 1000, 0.5)
    took = time.monotonic() - begun
    ended.set()
    worker.join()

    assert "(a+)+" in caught.value.hint
    # Generous, because it is processor time that is limited, and machines can be busy.
    assert took < 10
    assert longest < 1


def test_without_time_it_says_how_far_it_came(make: Spools) -> None:
    spool = make(b"".join(b"line %d\n" % number for number in range(1, 100_001)))
    numbers, at, rounds = [], 0, 0
    while at < spool.total:
        result = grep(spool, r"\d", 0, MANY, MANY, 0.1, start_byte=at)
        numbers += [line.number for line in result.lines]
        rounds += 1

        assert result.matches == len(result.lines)
        assert result.exact == (result.next_byte == spool.total) != result.more
        assert at < result.next_byte
        at = result.next_byte

    assert numbers == list(range(1, 100_001))
    assert rounds > 1


@pytest.mark.parametrize(
    "pattern",
    [
        "(", ")", "[a", "*", "a**", "a{2}{3}", "[z-a]", "abc\\", r"\N{NO SUCH}", r"\p{Nosuch}", "(?<=",
        "x" * 1001, r"(a)\1", "(?P<n>a)(?P=n)", "(?(1)a|b)", "(?R)", "(?1)", "(?&n)", "(?|a|b)", "(?x)a",
        "(?V1)a", "(*FAIL)", r"\Ka", r"\X", r"\R", r"\L<n>", "a\nb", r"a\nb", r"\x0a", r"\012",
        "a{4000000000}", "(?:(?:(?:(?:a?){99}){99}){99}){99}", "(" * 400 + ")" * 400,
        "(?:" * 20 + "a" + ")+" * 20,
    ],
)  # fmt: skip
def test_a_pattern_that_cannot_be_used_is_refused_at_once(make: Spools, pattern: str) -> None:
    spool = make(b"aaa\n" * 1000)
    begun = time.monotonic()
    with pytest.raises(InvalidArgumentError, match="The pattern cannot be used") as caught:
        found(spool, pattern)

    assert "re module" in caught.value.hint
    assert time.monotonic() - begun < 5


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("a{e}", "a{e}"),
        ("a{", "a{"),
        ("a{,x}", "a{,x}"),
        ("a{,2}b", "b"),
        ("}", "}"),
        (r"\{\}", "{}"),
        ("[]]", "]"),
        ("[^]a]", "b"),
        ("[^-a]", "b"),
        ("(?#note (x)b", "b"),
        ("(?i:A)b", "ab"),
        ("(?P<name>a)(?<other>b)", "ab"),
        ("(?>a+)b", "aab"),
        (r"\u00e9\N{LATIN SMALL LETTER A WITH DIAERESIS}\x41\101\p{L}", "éäAAz"),
        ("(?:" * 100 + "a" + ")" * 100, "a"),
        ("a{1000}", "a" * 1000),
    ],
)
def test_a_pattern_means_what_it_means_in_python(make: Spools, pattern: str, text: str) -> None:
    spool = make(f"\n{text}\n\n".encode())

    assert [line.number for line in found(spool, pattern).lines] == [2]


def test_memory_does_not_grow_with_the_stream(make: Spools) -> None:
    spool = make(*[(b"some words " * 100 + b"42\n") * 200] * 100)
    tracemalloc.start()
    try:
        assert found(spool, r"\d$", 2, 20, 10_000).matches == 20_000
        assert found(spool, "nothing").matches == 0
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert peak < 4_000_000


def test_arguments_that_make_no_sense_are_refused(make: Spools) -> None:
    spool = make(b"x\n")
    for arguments in (
        (-1, 1, 1, 1.0),
        (0, 0, 1, 1.0),
        (0, 1, 0, 1.0),
        (0, 1, 1, 0.0),
        (0, 1, 1, float("nan")),
    ):
        with pytest.raises(InvalidArgumentError):
            grep(spool, "x", *arguments)


def test_a_closed_spool_says_so(make: Spools) -> None:
    spool = make(b"x\n")
    spool.close()
    with pytest.raises(OutputGoneError):
        found(spool, "x")


def test_nothing_printed_is_nothing_found(make: Spools) -> None:
    result = found(make(), "")

    assert (result.lines, result.matches, result.exact, result.more, result.total_lines) == (
        (),
        0,
        True,
        False,
        0,
    )


@pytest.mark.parametrize("cap", [5000, 300_000])
def test_while_the_run_prints_on_what_is_shown_is_true(make: Spools, cap: int) -> None:
    spool = make(cap_bytes=cap)
    ended = threading.Event()
    wrong: list[object] = []
    rounds = 0

    def search() -> None:
        nonlocal rounds
        while not ended.is_set():
            for line in found(spool, "7$", 1, 50).lines:
                cut = line.cut_start or line.cut_end
                if not cut and (
                    int(line.text) + 1 != (line.number or int(line.text) + 1) or len(line.text) != 9
                ):
                    wrong.append(line)
            rounds += 1

    searcher = threading.Thread(target=search)
    searcher.start()
    for at in range(0, 300_000, 50):
        spool.append(b"".join(b"%09d\n" % number for number in range(at, at + 50)))
    ended.set()
    searcher.join()

    assert rounds
    assert wrong == []
