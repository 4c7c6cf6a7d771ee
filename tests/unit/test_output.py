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


@pytest.mark.parametrize(
    "hidden",
    [
        *"\u00ad\u061c\u115f\u1160\u180e\u200b\u200e\u200f\u2028\u202a\u202e",
        *"\u2060\u2061\u2064\u2065\u2066\u206a\u206f\u3164\ufeff\uffa0",
        *"\ufff9\ufffb\U000e0001\U000e0041\U000e007f\U000e0080\U000e0100\U000e01ef",
    ],
)
def test_what_cannot_be_seen_is_removed(hidden: str) -> None:
    assert neutralise(f"a{hidden}b") == ("ab", True)
    assert visible(f"a{hidden}b").isascii()


@pytest.mark.parametrize(
    "text",
    [
        "\U0001f468\u200d\U0001f469",
        "\u2764\ufe0f",
        "\u2764\ufe0e",
        "\u0646\u200c\u0647",
        "e\u0301",
        "\ufffd",
        "\xa0",
    ],
)
def test_what_scripts_and_emoji_need_stays(text: str) -> None:
    assert neutralise(text) == (text, False)


def test_removal_is_flagged_and_only_removal() -> None:
    assert neutralise("a\x1b[0mb")[1]
    assert not neutralise("ab\r\ncd\tü\n")[1]


def test_lines_that_differ_look_different() -> None:
    assert visible("a\r\n\tb\x1b[1m\u202e\\n ü\n") == "a\\r\n\tb\\x1b[1m\\u202e\\n ü\n"
    assert neutralise(visible("".join(map(chr, range(0x3000)))))[1] is False


def test_a_name_stands_on_one_line() -> None:
    assert escaped("a b\\n") == ("a b\\n", False)
    assert escaped("a\u3164b") == ("a\\u3164b", True)
    assert escaped("\t\\\udcff\u202e") == ("\\t\\\\\\xff\\u202e", True)
