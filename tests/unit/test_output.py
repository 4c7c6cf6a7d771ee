"""Neutralised text."""

from __future__ import annotations

import pytest

from pocket_dock_mcp.output import escaped, neutralise, visible


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


def test_lines_that_differ_look_different() -> None:
    assert visible("a\r\n\tb\x1b[1m\u202e\\n ü\n") == "a\\r\n\tb\\x1b[1m\\u202e\\n ü\n"
    assert neutralise(visible("".join(map(chr, range(0x3000)))))[1] is False


def test_a_name_stands_on_one_line() -> None:
    assert escaped("a b\\n") == ("a b\\n", False)
    assert escaped("\t\\\udcff\u202e") == ("\\t\\\\\\xff\\u202e", True)
