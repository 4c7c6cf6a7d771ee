"""Bounded capture and neutralised text."""

from __future__ import annotations

import pytest

from pocket_dock_mcp.output import Capture, neutralise


def captured(cap: int, *chunks: bytes) -> Capture:
    capture = Capture(cap)
    for chunk in chunks:
        capture.feed(chunk)
    return capture


def test_output_within_the_cap_is_kept_whole() -> None:
    capture = captured(10, b"01234", b"56789")

    assert capture.text() == "0123456789"
    assert not capture.truncated
    assert capture.total == 10


def test_output_over_the_cap_keeps_head_and_tail_and_says_how_much_is_missing() -> None:
    capture = captured(10, b"0123456789", b"abcdefghij")

    assert capture.truncated
    assert capture.total == 20
    assert capture.text() == "01234\n[... 10 of 20 bytes left out here ...]\nfghij"


@pytest.mark.parametrize("size", [1, 3, 7, 4096])
def test_chunking_makes_no_difference(size: int) -> None:
    data = bytes(range(256)) * 50
    chunks = [data[at : at + size] for at in range(0, len(data), size)]

    assert captured(1000, *chunks).text() == captured(1000, data).text()


def test_a_flood_costs_no_more_memory_than_twice_the_cap() -> None:
    capture = Capture(1000)
    for _ in range(10_000):
        capture.feed(b"x" * 999)

    assert len(capture._head) + len(capture._tail) <= 2000
    assert capture.total == 9_990_000


def test_a_character_at_the_cut_is_left_out_whole_and_counted() -> None:
    capture = captured(8, "äöüß".encode() * 10)

    text = capture.text()

    assert "\ufffd" not in text
    assert text.startswith("äö\n[... 72 of 80 bytes")


def test_undecodable_bytes_become_replacement_characters() -> None:
    assert captured(100, b"a\xff\xfeb").text() == "a\ufffd\ufffdb"


def test_an_odd_cap_of_one_byte_works() -> None:
    assert captured(1, b"abc").text() == "\n[... 2 of 3 bytes left out here ...]\nc"


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("plain\ttext\n", "plain\ttext\n"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07after", "after"),
        ("\x1b]52;c;aGVsbG8=\x1b\\after", "after"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1bPq#0\x1b\\after", "after"),
        ("a\x00b\x08c\x7fd", "abcd"),
        ("50%\r100%\r\n", "50%\n100%\n"),
        ("\u202eevil\u2066", "evil"),
        ("\x9b31mred", "red"),
    ],
)
def test_what_could_act_on_a_terminal_is_removed(raw: str, clean: str) -> None:
    assert neutralise(raw)[0] == clean


def test_removal_is_flagged_and_only_removal() -> None:
    assert neutralise("a\x1b[0mb")[1]
    assert not neutralise("ab\r\ncd\tü\n")[1]
