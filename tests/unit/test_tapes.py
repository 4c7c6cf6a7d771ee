"""Tapes: what is kept of a run's output is all of it, in order, however it comes and is read."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from pocket_dock_mcp.agent.inside import tapes
from pocket_dock_mcp.agent.inside.tapes import Reader, Tape

KIB = 1024
MOST = 256 * KIB


def no_room(_amount: int) -> bool:
    return _amount <= 0


def all_room(_amount: int) -> bool:
    return True


def follow(tape: Tape) -> Reader:
    """Be the one client that counts, from the beginning on."""
    tape.readers.clear()
    reader = tape.reader()
    tape.pace = lambda: reader
    return reader


def drain(reader: Reader, most: int = 1 << 30) -> dict[int, bytes]:
    """Read all that is there."""
    read: dict[int, bytes] = {}
    while (piece := reader.read(most)) is not None:
        read[piece[0]] = read.get(piece[0], b"") + piece[1]
    return read


def fill(tape: Tape, stream: int, data: bytes) -> bytes:
    """Append as much of it as there is room for, and return that."""
    taken = b""
    while data and (room := tape.room(min(len(data), 64 * KIB))) > 0:
        tape.append(stream, data[:room])
        taken, data = taken + data[:room], data[room:]
    return taken


def test_what_was_written_is_read_as_often_as_it_is_wanted() -> None:
    tape = Tape(all_room, MOST)
    tape.append(1, b"out")
    tape.append(1, b"put")
    tape.append(2, b"error")

    readers = [tape.reader(), tape.reader()]
    for reader in readers:
        assert [reader.read(100) for _ in range(3)] == [(1, b"output"), (2, b"error"), None]
        assert reader.is_done
    assert not tape.reader().is_done


def test_it_is_read_while_it_grows() -> None:
    tape = Tape(all_room, MOST)
    reader = tape.reader()
    tape.append(1, b"abc")
    assert reader.read(2) == (1, b"ab")
    tape.append(1, b"d")
    assert reader.read(9) == (1, b"cd")
    assert reader.read(9) is None
    tape.append(1, b"e")
    assert not reader.is_done
    assert reader.read(9) == (1, b"e")


def test_a_little_needs_no_file() -> None:
    tape = Tape(no_room, MOST)
    assert tape.allotted == 0
    fill(tape, 1, b"x" * 1000)
    assert drain(tape.reader()) == {1: b"x" * 1000}


@pytest.mark.parametrize("reserve", [all_room, no_room])
def test_nothing_is_let_go_of_that_nobody_has(reserve: object) -> None:
    tape = Tape(reserve, MOST)  # type: ignore[arg-type]
    reader = follow(tape)
    data = os.urandom(MOST)

    kept = fill(tape, 1, data)

    assert len(kept) > (MOST if reserve is all_room else tapes.IN_MEMORY) * 0.97
    assert tape.room(1) <= 0
    assert drain(reader) == {1: kept}
    # Read and not acknowledged: it may have been lost on its way.
    assert tape.room(1) <= 0
    reader.taken(len(kept))
    more = fill(tape, 1, data)
    assert len(more) > len(kept) // 2
    assert drain(follow(tape)) == {1: (kept + more)[tape.missing[1] :]}
    assert tape.room(1) <= 0


def test_the_room_is_given_back() -> None:
    reserved = [0]

    def reserve(amount: int) -> bool:
        reserved[0] += amount
        return True

    before = len(list(Path("/proc/self/fd").iterdir()))
    tape = Tape(reserve, MOST)
    fill(tape, 1, b"x" * 100_000)
    assert reserved[0] == tape.allotted > 100_000

    tape.clear()

    assert (reserved[0], tape.allotted, tape.missing) == (0, 0, {1: 100_000})
    assert drain(tape.reader()) == {}
    assert tape.room(1) <= 0
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.parametrize("seed", range(20))
def test_any_order_of_writing_reading_and_starting_again(seed: int) -> None:
    rng = random.Random(seed)
    budget = rng.choice([0, 100 * KIB, 1 << 30])

    def reserve(amount: int) -> bool:
        nonlocal budget
        if amount > budget:
            return False
        budget -= amount
        return True

    tape = Tape(reserve, rng.choice([64 * KIB, MOST]))
    reader = follow(tape)
    written = {1: b"", 2: b"", 3: b""}
    heard: dict[int, bytes] = {1: b"", 2: b"", 3: b""}
    unacknowledged = 0
    for _ in range(400):
        action = rng.random()
        if action < 0.5:
            stream = rng.choice([1, 1, 1, 2, 3])
            written[stream] += fill(tape, stream, rng.randbytes(rng.choice([1, 20, 3000, 50_000])))
        elif action < 0.9:
            piece = reader.read(rng.choice([1, 100, 1 << 20]))
            if piece is not None:
                heard[piece[0]] += piece[1]
                unacknowledged += len(piece[1])
        elif action < 0.98:
            reader.taken(unacknowledged)
            unacknowledged = 0
        else:
            reader = follow(tape)
            heard = {stream: written[stream][: tape.missing.get(stream, 0)] for stream in written}
            unacknowledged = 0
        for stream, whole in written.items():
            assert whole.startswith(heard[stream])
    for stream, data in drain(reader).items():
        heard[stream] += data
    assert heard == written


@pytest.mark.parametrize("seed", range(10))
def test_a_slow_reader_holds_nobody_up_and_is_told_what_it_has_missed(seed: int) -> None:
    rng = random.Random(seed)
    tape = Tape(all_room, 64 * KIB)
    fast, slow = follow(tape), tape.reader()
    heard = {1: b"", 2: b""}
    written = dict(heard)
    for _ in range(100):
        data = rng.randbytes(20_000)
        stream = rng.choice([1, 2])
        assert fill(tape, stream, data) == data
        written[stream] += data
        fast.taken(sum(map(len, drain(fast).values())))
        if rng.random() < 0.3 and (piece := slow.read(rng.choice([1, 5000]))) is not None:
            assert piece[1] in written[piece[0]]
            heard[piece[0]] += piece[1]
            slow.taken(len(piece[1]))

    for stream, rest in drain(slow).items():
        assert written[stream].endswith(rest)
        heard[stream] += rest

    assert fast.missed == {}
    for stream, whole in written.items():
        assert len(heard[stream]) + slow.missed.get(stream, 0) == len(whole)
    assert slow.missed
    assert slow.is_done
