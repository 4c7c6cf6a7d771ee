"""What a run printed: every byte counted, both ends exact, whatever becomes of the disk and the budget."""

from __future__ import annotations

import os
import random
import resource
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pocket_dock_mcp.spool import FairBudget, OutputGoneError, Spool, SpoolBudget
from tests.spools import PLENTY, Spools, pieces

KIB = 1024


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Spools]:
    with Spools(tmp_path / "spool") as spools:
        yield spools


def kept(spool: Spool) -> bytes:
    return b"".join(data for _, data in spool.chunks())


def utf8(chance: random.Random, length: int) -> bytes:
    return "".join(chance.choice("ab\nä€😀") for _ in range(length)).encode()


# -- bytes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("memory_bytes", [0, 300, PLENTY])
def test_all_byte_values_come_back(make: Spools, memory_bytes: int) -> None:
    data = bytes(range(256)) * 3
    spool = make(data[:100], b"", data[100:], memory_bytes=memory_bytes)

    assert spool.read(0, len(data)) == data
    assert spool.read(250, 260) == data[250:260]
    assert (spool.total, spool.gap) == (768, None)


def test_nothing_at_all(make: Spools) -> None:
    spool = make(b"")

    assert (spool.total, spool.gap, spool.read(0, 10), list(spool.chunks())) == (0, None, b"", [])
    assert (spool.head_and_tail(10), spool.since(5, 10), spool.last_line(10)) == ("", "", "")
    assert not make.directory.exists()


@pytest.mark.parametrize(("size", "gap"), [(99, None), (100, None), (101, (50, 51)), (1000, (50, 950))])
def test_the_cap_to_the_byte(make: Spools, size: int, gap: tuple[int, int] | None) -> None:
    data = random.Random(size).randbytes(size)

    for chunks in ([data], [data[:100], data[100:]], [bytes([byte]) for byte in data]):
        spool = make(*chunks, cap_bytes=100)
        first, last = gap or (size, size)

        assert (spool.total, spool.gap) == (size, gap)
        assert kept(spool) == data[:first] + data[last:]


@pytest.mark.parametrize("seed", range(150))
def test_any_stream_has_exact_ends_and_one_gap(make: Spools, seed: int) -> None:
    chance = random.Random(seed)
    data = chance.randbytes(chance.randrange(3000))
    cap = chance.choice([0, 1, 2, 7, 64, 500, 2000, 5000])
    spool = make(cap_bytes=cap, memory_bytes=chance.choice([0, 1, 50, 1000, 10_000]))
    seen = 0
    for piece in pieces(chance, data, chance.choice([1, 20, 300, 4000])):
        spool.append(piece)
        seen += len(piece)
        first, last = (cap // 2, seen - (cap - cap // 2)) if seen > cap else (seen, seen)
        start = chance.randrange(seen + 5)
        end = start + chance.randrange(100)

        assert spool.total == seen
        assert spool.gap == ((first, last) if first < last else None)
        if start < first:
            assert spool.read(start, end) == data[start : min(end, first)]
        else:
            assert spool.read(start, end) == (data[start : min(end, seen)] if start >= last else b"")
    assert (
        b"".join(chunk for _, chunk in spool.chunks(size=chance.randrange(1, 99)))
        == data[:first] + data[last:]
        if data
        else True
    )


def test_chunks_tell_where_bytes_are_missing(make: Spools) -> None:
    spool = make(b"0123456789" * 10, cap_bytes=20)

    assert list(spool.chunks(size=8)) == [(0, b"01234567"), (8, b"89"), (90, b"01234567"), (98, b"89")]
    assert list(spool.chunks(50)) == [(90, b"0123456789")]
    assert list(spool.chunks(95)) == [(95, b"56789")]
    assert list(spool.chunks(100)) == []


def test_a_ring_that_goes_round_thousands_of_times(make: Spools) -> None:
    chance = random.Random(1)
    data = chance.randbytes(1_000_000)
    spool = make(*pieces(chance, data, 150), cap_bytes=301, memory_bytes=0)

    assert spool.gap == (150, 999_849)
    assert kept(spool) == data[:150] + data[-151:]


def test_what_finds_its_way_around_does_not_grow_with_the_stream(make: Spools) -> None:
    spool = make(cap_bytes=64 * KIB)
    for _ in range(400):
        spool.append(b"a line\n" * 40_000)

    assert len(spool.extent().marks) < 100
    assert spool.extent().lines == 400 * 40_000


# -- budgets ------------------------------------------------------------------------------------------


def test_a_grant_is_what_every_level_has_left() -> None:
    total = SpoolBudget(100)
    sandbox = SpoolBudget(60, total)
    run, other = SpoolBudget(50, sandbox), SpoolBudget(50, sandbox)

    assert [run.take(45), other.take(45), run.take(45), SpoolBudget(99, total).take(99)] == [45, 15, 0, 40]
    assert (total.used_bytes, sandbox.used_bytes, run.used_bytes) == (100, 60, 45)

    run.give_back(45)

    assert other.take(99) == 35
    assert [run.take(0), run.take(-1)] == [0, 0]


def test_what_is_kept_is_what_is_taken_and_closing_gives_it_back_once(make: Spools) -> None:
    total = SpoolBudget(1000)
    one, two = (make(budget=SpoolBudget(600, total), cap_bytes=500) for _ in range(2))
    one.append(b"x" * 400)
    two.append(b"y" * 5000)

    assert total.used_bytes == 900

    two.close()
    two.close()

    assert total.used_bytes == 400
    assert kept(one) == b"x" * 400


def test_a_budget_that_another_uses_up_and_frees_again(make: Spools) -> None:
    budget = SpoolBudget(100)
    other = make(budget=budget)
    other.append(b"o" * 80)
    data = random.Random(2).randbytes(400)
    spool = make(budget=budget)
    spool.append(data[:50])

    assert (spool.gap, kept(spool)) == ((10, 40), data[:10] + data[40:50])

    other.close()
    for at in range(50, 400, 7):
        spool.append(data[at : at + 7])

    assert spool.gap == (10, 310)
    assert kept(spool) == data[:10] + data[310:]
    assert budget.used_bytes == 100


def test_no_budget_at_all_still_counts_and_its_floor_is_kept(make: Spools) -> None:
    data = b"0123456789" * 10
    none = make(data, budget=SpoolBudget(0))
    budget = SpoolBudget(4)
    floor = make(budget=budget, floor_bytes=10)
    floor.append(data)

    assert (none.total, none.gap) == (100, (0, 100))
    assert none.head_and_tail(20) == "\n[... 100 of 100 bytes left out here ...]\n"
    assert floor.head_and_tail(20) == "01234\n[... 90 of 100 bytes left out here ...]\n56789"
    assert budget.used_bytes == 4

    floor.close()

    assert budget.used_bytes == 0


def test_nobody_uses_up_what_several_share() -> None:
    fair = FairBudget(1000)
    alice, bob, carol = (fair.share(name) for name in ("alice", "bob", "carol"))

    assert fair.share("alice") is alice
    assert [alice.take(2000), alice.take(1)] == [750, 0]
    assert [bob.take(2000), bob.take(1)] == [187, 0]
    assert [carol.take(2000), carol.take(1)] == [47, 0]
    assert fair.total.left() > 0

    alice.give_back(alice.used_bytes)

    assert bob.take(2000) > 300
    assert carol.take(2000) > 100


@pytest.mark.parametrize("seed", range(20))
def test_who_shares_with_greedy_ones_gets_its_part_in_the_end(seed: int) -> None:
    chance = random.Random(seed)
    fair = FairBudget(100_000)
    shares = [fair.share(str(number)) for number in range(chance.randrange(1, 12))]
    for _ in range(3000):
        share = chance.choice(shares)
        share.take(chance.randrange(1, 5000))
        # Runs end, and their output is forgotten.
        share.give_back(chance.randrange(0, share.used_bytes // 4 + 1))
    for _ in range(200):
        for share in shares:
            share.take(100_000)
            share.give_back(max(0, -share.left()))
    part = 3 * 100_000 // (3 * len(shares) + 1)
    assert all(abs(share.used_bytes - part) < part / 20 for share in shares)


def test_nobody_has_to_forget_because_of_what_others_use() -> None:
    fair = FairBudget(1000)
    alice, bob = (SpoolBudget(1000, fair.share(name)) for name in ("alice", "bob"))
    alice.take(100)
    assert not alice.is_short

    while bob.take(100):
        pass

    assert bob.is_short
    assert not alice.is_short
    alice.take(1000)
    assert alice.is_short


@pytest.mark.parametrize("seed", range(60))
def test_any_changing_budget_leaves_exact_ends(make: Spools, seed: int) -> None:
    chance = random.Random(seed)
    budget = SpoolBudget(400)
    taken = budget.take(chance.randrange(401))
    data = chance.randbytes(3000)
    spool = make(budget=budget, cap_bytes=chance.choice([10, 100, 350]), memory_bytes=chance.choice([0, 64]))
    for piece in pieces(chance, data, chance.choice([3, 40, 600])):
        spool.append(piece)
        change = chance.randrange(-50, 51)
        if change > 0:
            taken += budget.take(change)
        elif -change <= taken:
            budget.give_back(-change)
            taken += change
        first, last = spool.gap or (spool.total, spool.total)

        assert kept(spool) == data[:first] + data[last : spool.total]
        assert len(kept(spool)) <= budget.used_bytes - taken <= 400


# -- files --------------------------------------------------------------------------------------------


def test_a_file_comes_late_has_no_name_and_is_for_this_user_only(make: Spools) -> None:
    spool = make(b"x" * 64 * KIB)

    assert not make.directory.exists()

    spool.append(b"y")

    assert make.directory.stat().st_mode & 0o777 == 0o700
    assert list(make.directory.iterdir()) == []
    assert spool.read(64 * KIB - 1, PLENTY) == b"xy"


def test_without_a_place_for_files_memory_has_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    data = random.Random(3).randbytes(500)
    budget = SpoolBudget(PLENTY)
    spool = Spool(budget, tmp_path / "file" / "below", memory_bytes=100)
    for at in range(0, 500, 30):
        spool.append(data[at : at + 30])

    assert (spool.total, spool.gap, budget.used_bytes) == (500, (50, 450), 100)
    assert kept(spool) == data[:50] + data[450:]


DISK_FULL = """
import random, sys
from pathlib import Path
from pocket_dock_mcp.spool import Spool, SpoolBudget

budget = SpoolBudget(1 << 40)
spool = Spool(budget, Path(sys.argv[1]), memory_bytes=1000)
data = random.Random(4).randbytes(1_000_000)
for at in range(0, len(data), 7001):
    spool.append(data[at : at + 7001])
first, last = spool.gap
assert spool.total == len(data)
assert b"".join(piece for _, piece in spool.chunks()) == data[:first] + data[last:]
print(first, len(data) - last, budget.used_bytes)
"""


def test_a_full_disk_is_a_gap(make: Spools) -> None:
    limits = (100_000, 100_000)
    done = subprocess.run(
        [sys.executable, "-c", DISK_FULL, str(make.directory)],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limits),
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.stdout, done.stderr) == ("50000 50000 100000\n", "")


def test_a_file_that_fails_later_costs_the_tail_and_no_more(make: Spools) -> None:
    spool = make(b"0123456789" * 15, cap_bytes=100, memory_bytes=0)
    file = spool._storage._file
    assert file is not None
    # From here on the kernel refuses to write.
    read_only = os.open(f"/proc/self/fd/{file.fileno()}", os.O_RDONLY)
    writable = os.dup(file.fileno())
    os.dup2(read_only, file.fileno())
    spool.append(b"lost")

    assert (spool.total, spool.gap) == (154, (50, 154))
    assert kept(spool) == b"0123456789" * 5

    os.dup2(writable, file.fileno())
    os.close(writable)
    os.close(read_only)
    spool.append(b"new")

    assert (spool.gap, kept(spool)) == ((50, 154), b"0123456789" * 5 + b"new")


# -- closing and threads ------------------------------------------------------------------------------


@pytest.mark.parametrize("memory_bytes", [0, PLENTY])
def test_closed_is_gone_and_says_so(make: Spools, memory_bytes: int) -> None:
    spool = make(b"some\noutput\n", memory_bytes=memory_bytes)
    spool.close()
    spool.append(b"more")

    assert (spool.total, spool.gap, spool.extent().lines) == (16, (0, 16), 3)
    for read in (
        lambda: spool.read(0, 1),
        lambda: list(spool.chunks()),
        lambda: spool.head_and_tail(10),
        lambda: spool.since(3, 10),
        lambda: spool.last_line(10),
        lambda: spool.newest(10),
    ):
        with pytest.raises(OutputGoneError, match="not kept any more"):
            read()


def numbers(start: int, count: int) -> bytes:
    """Bytes that tell their own offset: the stream of all four-byte numbers."""
    first = start // 4
    data = b"".join(number.to_bytes(4, "big") for number in range(first, (start + count) // 4 + 1))
    return data[start - 4 * first :][:count]


@pytest.mark.parametrize(("cap", "memory"), [(3000, PLENTY), (3000, 0), (200_000, 0), (PLENTY, 64 * KIB)])
def test_a_reader_in_another_thread_never_gets_wrong_bytes(make: Spools, cap: int, memory: int) -> None:
    spool = make(cap_bytes=cap, memory_bytes=memory)
    stream = numbers(0, 4_000_000)
    wrong: list[int] = []
    rounds = 0
    ended = threading.Event()

    def read() -> None:
        nonlocal rounds
        chance = random.Random(rounds)
        while not ended.is_set():
            start = chance.choice([0, chance.randrange(spool.total + 1), max(0, spool.total - 5000)])
            for at, data in spool.chunks(start, chance.choice([100, 10_000])):
                wrong.extend([at] if data != stream[at : at + len(data)] else [])
            at, data, extent = spool.newest(2000)
            wrong.extend([at] if data != stream[at : extent.total] else [])
            rounds += 1

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for at in range(0, len(stream), 977):
        spool.append(stream[at : at + 977])
    ended.set()
    for reader in readers:
        reader.join()

    assert rounds
    assert wrong == []


def test_closing_under_a_reader_neither_breaks_nor_leaks(make: Spools) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    budget = SpoolBudget(PLENTY)
    wrong: list[int] = []
    for _ in range(50):
        spool = make(budget=budget, memory_bytes=0)
        spool.append(b"x" * 1_000_000)

        def read(spool: Spool = spool) -> None:
            try:
                while True:
                    wrong.extend(at for at, data in spool.chunks(size=5000) if data.strip(b"x"))
            except OutputGoneError:
                pass

        reader = threading.Thread(target=read)
        reader.start()
        spool.close()
        reader.join()

    assert wrong == []
    assert budget.used_bytes == 0
    assert len(list(Path("/proc/self/fd").iterdir())) == before


# -- text ---------------------------------------------------------------------------------------------


def ends(data: bytes, cap: int) -> str:
    """What `head_and_tail` has to return for UTF-8, the slow way."""
    if len(data) <= cap:
        return data.decode()
    head, tail = data[: cap // 2], data[len(data) - (cap - cap // 2) :]
    while head.decode(errors="ignore").encode() != head:
        head = head[:-1]
    while tail.decode(errors="ignore").encode() != tail:
        tail = tail[1:]
    missing = len(data) - len(head) - len(tail)
    return f"{head.decode()}\n[... {missing} of {len(data)} bytes left out here ...]\n{tail.decode()}"


@pytest.mark.parametrize("memory_bytes", [0, PLENTY])
def test_head_and_tail_of_characters_cut_anywhere(make: Spools, memory_bytes: int) -> None:
    data = utf8(random.Random(5), 40)
    for size in (1, 3, len(data)):
        chunks = [data[at : at + size] for at in range(0, len(data), size)]
        spool = make(*chunks, memory_bytes=memory_bytes)
        for cap in range(len(data) + 2):
            assert spool.head_and_tail(cap) == ends(data, cap)


def test_what_is_new_since_any_offset_begins_with_a_whole_character(make: Spools) -> None:
    data = utf8(random.Random(6), 40)
    spool = make(data, memory_bytes=0)
    for offset in range(len(data) + 1):
        start = len(data[:offset].decode(errors="ignore").encode())
        for cap in (0, 9, 50, 1000):
            assert spool.since(offset, cap) == ends(data[start:], cap)
    assert spool.since(-5, 1000) == data.decode()
    assert spool.since(PLENTY, 1000) == ""


def test_undecodable_bytes_become_replacement_characters(make: Spools) -> None:
    spool = make(b"a\xff\xfeb\x80\x80\x80\x80\x80c")

    assert spool.head_and_tail(100) == "a\ufffd\ufffdb\ufffd\ufffd\ufffd\ufffd\ufffdc"
    assert spool.since(7, 100) == "\ufffd\ufffdc"


def test_text_around_the_gap_is_as_much_as_is_kept(make: Spools) -> None:
    spool = make(b"0123456789" * 5, cap_bytes=20)
    gap = "\n[... {} of {} bytes left out here ...]\n"

    assert spool.head_and_tail(1000) == "0123456789" + gap.format(30, 50) + "0123456789"
    assert spool.head_and_tail(20) == "0123456789" + gap.format(30, 50) + "0123456789"
    assert spool.head_and_tail(8) == "0123" + gap.format(42, 50) + "6789"
    assert spool.since(8, 1000) == "89" + gap.format(30, 42) + "0123456789"
    assert spool.since(25, 1000) == gap.format(15, 25) + "0123456789"
    assert spool.since(42, 1000) == "23456789"
    assert spool.since(42, 4) == "23" + gap.format(4, 8) + "89"


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (b"one\ntwo", "two"),
        (b"one\ntwo\n\n \t\n", "two"),
        (b"\r 10%\r 20%\r", "20%"),
        (b"a\r\nb\r\n", "b"),
        ("0123456789äöü".encode(), "0123456789"),
        (b"\n" * 20_000, ""),
        (b"start" + b"x" * 20_000 + b"the end", "xxxthe end"),
        (b"bad \xff\n", "bad \ufffd"),
        ("ö".encode() * 10_000, "ö" * 10),
    ],
)
def test_the_newest_line_that_is_not_blank(make: Spools, data: bytes, line: str) -> None:
    assert make(data).last_line(10) == line
