"""Exact replacements: which, where, all or nothing, and what is told of those that do not fit."""

from __future__ import annotations

import random
import time

import pytest

from pocket_dock_mcp.container import patches
from pocket_dock_mcp.container.edits import MAX_EDITED_BYTES, apply_edits, check_edits
from pocket_dock_mcp.container.nearest import nearest_lines
from pocket_dock_mcp.errors import (
    EditAmbiguousError,
    EditNotFoundError,
    FileNotTextError,
    FileTooLargeError,
    InvalidArgumentError,
)
from pocket_dock_mcp.models import Edit

CODE = "def f(x):\n    return x\n\n\ndef g(x):\n    return x + 1\n"


def edited(text: str, *edits: Edit) -> str:
    return apply_edits("file", text.encode(), edits).data.decode()


def diff(text: str, *edits: Edit) -> str:
    return apply_edits("file", text.encode(), edits).diff


def test_edits_apply_one_after_the_other() -> None:
    done = apply_edits(
        "file", CODE.encode(), [Edit("f(x)", "f(y)"), Edit("f(y)", "h(y)"), Edit("x", "z", all=True)]
    )

    assert done.data.decode() == CODE.replace("f(x)", "h(y)").replace("x", "z")
    assert done.replacements == (1, 1, 3)


def test_what_is_not_unique_is_refused_with_its_lines() -> None:
    with pytest.raises(EditAmbiguousError, match=r"2 times \(lines 2, 6\)"):
        edited(CODE, Edit("return x", "pass"))
    with pytest.raises(EditAmbiguousError, match=r"of edit 2 \(of 2\)"):
        edited(CODE, Edit("g(x)", "g(y)"), Edit("return x", "pass"))
    with pytest.raises(EditAmbiguousError, match=r"30 times \(lines 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, \.\.\.\)"):
        edited("a\n" * 30, Edit("a", "b"))
    with pytest.raises(EditAmbiguousError, match=r"2 times \(line 1\)"):
        edited("aaa", Edit("aa", "b"))


def test_what_is_not_there_is_told_with_the_lines_that_are_most_like_it() -> None:
    with pytest.raises(EditNotFoundError, match="most like it") as caught:
        edited(CODE, Edit("def g(y):\n    return y + 1", ""))
    assert caught.value.excerpt == "5: def g(x):\n6:     return x + 1"
    with pytest.raises(EditNotFoundError, match="Only white space differs") as caught:
        edited(CODE, Edit("def g(x):\n\treturn x + 1\n", ""))
    assert caught.value.excerpt == "5: def g(x):\n6:     return x + 1"
    with pytest.raises(EditNotFoundError, match="nor anything like it") as caught:
        edited(CODE, Edit("quite different", ""))
    assert caught.value.excerpt == ""


def test_the_nearest_lines_are_found_in_a_line_without_end() -> None:
    text = ",".join(f'{{"key{number}":"value {number}"}}' for number in range(10_000))

    near = nearest_lines(text, '{"key7777": "value 7777"}')

    assert near is not None
    assert near.white_space
    assert near.shown.startswith("1: …")
    assert '{"key7777":"value 7777"}' in near.shown


_ROW = "    return {}\n"
HUGE = {
    "code": "".join(f"def f{number}(x):\n    return x + {number}\n\n" for number in range(320_000)),
    "one line": "word " * 2_000_000,
    "one character": "a" * 10_000_000,
    "empty lines": "\n" * 10_000_000,
    "the same line": ("x" * 99 + "\n") * 100_000,
}


@pytest.mark.parametrize("name", HUGE)
@pytest.mark.parametrize(
    "old",
    [
        "zebra",
        "def f77777(y):\n    return y + 77777",
        "aaaaab" * 10,
        ("x" * 98 + "y\n") * 50,
        "abc\n" * 50_000,
    ],
    ids=["short", "lines", "one character", "long lines", "huge"],
)
def test_ten_megabytes_take_no_time_to_look_through(name: str, old: str) -> None:
    text = HUGE[name][:10_000_000]
    began = time.monotonic()

    with pytest.raises(EditNotFoundError) as caught:
        edited(text, Edit(old, "new"))

    assert time.monotonic() - began < 10
    if name == "code" and old.startswith("def"):
        assert "def f77777(x):" in caught.value.excerpt


def test_many_replacements_in_a_large_file_take_no_time() -> None:
    began = time.monotonic()

    text = HUGE["one line"][:400_000].encode()
    done = apply_edits("file", text, [Edit("word", "worth", all=True)])
    again = apply_edits("file", done.data, [Edit("t", "d", all=True), Edit("wordh", "word", all=True)])

    assert time.monotonic() - began < 10
    assert done.replacements == (80_000,)
    assert again.data == text
    assert len(done.diff) < 5000


@pytest.mark.parametrize(
    ("text", "edit", "expected"),
    [
        ("a\r\nb\r\nc\r\n", Edit("a\nb", "x\ny\nz"), "x\r\ny\r\nz\r\nc\r\n"),
        ("a\r\nb\r\n", Edit("a", "x\ny"), "x\r\ny\r\nb\r\n"),
        ("a\r\nb\r\n", Edit("a\r\nb", "x\ny"), "x\ny\r\n"),
        ("a\r\nb\r\n", Edit("\r\n", "\n", all=True), "a\nb\n"),
        ("a\nb\r\nc\n", Edit("a\n", "x\n"), "x\nb\r\nc\n"),
        ("\ufeffa\n", Edit("a", "ü🐳"), "\ufeffü🐳\n"),
        ("no newline", Edit("newline", "end"), "no end"),
    ],
)
def test_line_ends_stay_what_they_are(text: str, edit: Edit, expected: str) -> None:
    assert edited(text, edit) == expected


@pytest.mark.parametrize(
    ("edits", "reason"),
    [
        ([], "0 edits"),
        ([Edit("a", "b")] * 1001, "1001 edits"),
        ([Edit("", "b")], "empty"),
        ([Edit("a", "b"), Edit("a", "a")], "Edit 2 changes nothing"),
        ([Edit("a", "\ud800")], "UTF-8"),
    ],
)
def test_edits_that_can_never_work_are_refused(edits: list[Edit], reason: str) -> None:
    with pytest.raises(InvalidArgumentError, match=reason):
        check_edits(edits)


def test_what_is_no_text_is_refused() -> None:
    with pytest.raises(FileNotTextError, match="byte 3"):
        apply_edits("file", b"abc\xff", [Edit("a", "b")])


def test_a_result_without_measure_is_refused_and_not_made() -> None:
    began = time.monotonic()

    with pytest.raises(FileTooLargeError, match="more than"):
        edited("a" * 50_000, Edit("a", "b" * 1_000_000, all=True))
    with pytest.raises(FileTooLargeError, match=str(MAX_EDITED_BYTES)):
        edited("a" * 50_000, Edit("a", "🐳" * 100, all=True))
    with pytest.raises(FileTooLargeError, match="100000 times"):
        edited("a" * 200_000, Edit("a", "b", all=True))

    assert time.monotonic() - began < 10


def test_the_diff_shows_what_changed_with_its_lines() -> None:
    assert diff(CODE, Edit("g(x)", "h(x)")) == (
        "@@ -3,4 +3,4 @@\n \n \n-def g(x):\n+def h(x):\n     return x + 1\n"
    )
    text = "".join(f"line {number}\n" for number in range(1, 1001))
    assert diff(text, Edit("line 1\nline 2\n", ""), Edit("line 900\n", "a\nb\n")) == (
        "@@ -1,4 +1,2 @@\n-line 1\n-line 2\n line 3\n line 4\n"
        "@@ -898,5 +896,6 @@\n line 898\n line 899\n-line 900\n+a\n+b\n line 901\n line 902\n"
    )


def test_a_long_line_is_shown_around_its_change() -> None:
    shown = diff("x" * 5000 + "old" + "y" * 5000 + "\n", Edit("old", "new")).splitlines()

    assert [len(line) for line in shown[1:]] == [203, 203]
    assert "xold" in shown[1]
    assert "xnew" in shown[2]


def test_a_long_diff_is_cut_off_between_hunks() -> None:
    text = "".join(f"line {number}\n" for number in range(10_000))

    done = apply_edits("file", text.encode(), [Edit("00\n", "xx\n", all=True)])

    assert done.diff_truncated
    assert len(done.diff) <= 4000
    assert done.diff.endswith("02\n")


@pytest.mark.parametrize("most", [1, 2, 200])
def test_a_diff_leads_from_the_old_text_to_the_new(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    monkeypatch.setattr(patches, "_MAX_PATCHES", most)
    chance = random.Random(1)
    for _ in range(2000):
        text = "".join(chance.choice("ab\n") for _ in range(chance.randrange(1, 60)))
        edits = [
            Edit(
                chance.choice(["a", "b", "\n", "ab", "a\n"]), chance.choice(["", "x", "\n", "xy\n"]), all=True
            )
        ]
        edits += [Edit(chance.choice(["x", "b", "\n\n", "y\n"]), chance.choice(["", "z", "a\nb"]), all=True)]
        try:
            done = apply_edits("file", text.encode(), edits)
        except EditNotFoundError:
            continue
        new = _lines(done.data.decode())
        assert done.diff_truncated or _patched(text, done.diff) == new, (text, edits)
        for start, lines in _hunks(done.diff):
            assert new[start : start + len(lines)] == lines, (text, edits)


def _lines(text: str) -> list[str]:
    lines = text.split("\n")
    return lines[:-1] if lines[-1] == "" else lines


def _hunks(diff: str) -> list[tuple[int, list[str]]]:
    """Return where in the new text there are which lines."""
    hunks: list[tuple[int, list[str]]] = []
    for line in _lines(diff):
        if line.startswith("@@"):
            hunks.append((int(line.split()[2].split(",")[0]) - 1, []))
        elif line[0] != "-":
            hunks[-1][1].append(line[1:])
    return hunks


def _patched(text: str, diff: str) -> list[str]:
    """Apply a diff as ``patch`` does, checking what it says of the old text."""
    old, new = _lines(text), []
    at = 0
    for line in _lines(diff):
        if line.startswith("@@"):
            start = int(line.split()[1].split(",")[0][1:]) - 1
            new += old[at:start]
            at = start
        elif line[0] == "+":
            new.append(line[1:])
        else:
            assert old[at] == line[1:]
            new += [line[1:]] if line[0] == " " else []
            at += 1
    return new + old[at:]
