"""What a model is told of files, and what it gets as data."""

from __future__ import annotations

import base64
import re
from typing import Any

import pytest
from mcp.types import CallToolResult, ImageContent, TextContent

from pocket_dock_mcp.errors import EditNotFoundError
from pocket_dock_mcp.models import FileEdited, FileLines, FilesFound, FileWritten, FoundFile, FoundLine
from pocket_dock_mcp.server import render, render_files
from pocket_dock_mcp.server.image_files import Format
from pocket_dock_mcp.server.pictures import Picture
from pocket_dock_mcp.server.reading import Asked, Image, Part


def text(result: CallToolResult) -> str:
    """Return the text, with every mark written as MARK."""
    (block,) = [block for block in result.content if isinstance(block, TextContent)]
    return re.sub(r"(?<=--- )(\w+) [0-9a-f]{6} ---", r"\1 MARK ---", block.text)


def data(result: CallToolResult) -> dict[str, Any]:
    assert result.structured_content is not None
    return dict(result.structured_content)


@pytest.mark.parametrize(
    ("size", "overwrote", "appended", "expected"),
    [
        (1, False, None, "Created /a (1 byte)."),
        (0, True, None, "Replaced /a (0 bytes)."),
        (3, True, 1, "Appended 1 byte to /a; it has 3 bytes now."),
        (3, False, 3, "Created /a (3 bytes)."),
    ],
)
def test_a_write_says_which_it_was(size: int, overwrote: bool, appended: int | None, expected: str) -> None:
    result = render_files.written("sb", FileWritten("/a", size, overwrote), appended)

    assert text(result) == expected
    assert data(result) == {"sandbox_id": "sb", "path": "/a", "size": size, "overwrote": overwrote}


def test_an_edit_says_how_often_and_shows_the_diff() -> None:
    one = render_files.edited("sb", FileEdited("/a", 9, (1,), "@@ -1,1 +1,1 @@\n-a\n+b\x1b[2J\n", False))
    two = render_files.edited("sb", FileEdited("/a", 9, (1, 3), "", True))

    assert (
        text(one) == "Edited /a: 1 replacement.\n--- diff MARK ---\n@@ -1,1 +1,1 @@\n-a\n+b\n--- end MARK ---"
    )
    assert (data(one)["diff"][-4:], data(one)["control_chars_removed"]) == ("\n+b\n", True)
    assert data(two)["control_chars_removed"] is False
    assert (
        text(two) == "Edited /a: 4 replacements (by edit: 1, 3).\nThe diff is longer; this is its beginning."
    )
    assert data(two)["replacements"] == [1, 3]


def test_the_lines_that_an_edit_may_have_meant_stand_between_marks() -> None:
    failure = EditNotFoundError("It is not in 'a'.", hint="Most like it:", excerpt="5: x\x1b[2J\n6: y")

    result = render.error(failure)

    assert (
        text(result)
        == "edit_not_found: It is not in 'a'. Most like it:\n--- lines MARK ---\n5: x\n6: y\n--- end MARK ---"
    )
    assert result.is_error


def lines(content: bytes, **fields: Any) -> FileLines:
    values = {"size": len(content), "start_line": 1, "end_line": content.count(b"\n"), "start_byte": 0}
    return FileLines(
        **{"data": content, "total_lines": content.count(b"\n"), "partial": False, **values, **fields}
    )


@pytest.mark.parametrize(
    ("found", "asked", "headline", "end"),
    [
        (lines(b"a\nb\n"), Asked("f"), "f: 2 lines, 4 bytes", None),
        (lines(b"a\n"), Asked("f"), "f: 1 line, 2 bytes", None),
        (lines(b"a\nb\n", start_line=5, end_line=6, start_byte=8, total_lines=9, size=18), Asked("f", 5, 2),
         "f: lines 5-6 of 9, 18 bytes in all", None),
        (lines(b"a\n", size=18, total_lines=None), Asked("f", 1, 1), "f: line 1, 18 bytes in all", None),
        (lines(b"a\nb\n", size=18, total_lines=9), Asked("f"), "f: lines 1-2 of 9, 18 bytes in all",
         "There is more: go on with start_line=3."),
        (lines(b"a\nb\n", size=18, total_lines=9), Asked("f", 1, 5), "f: lines 1-2 of 9, 18 bytes in all",
         "There is more: go on with start_line=3."),
        (lines("aü".encode()[:-1], size=18, total_lines=1, end_line=1, partial=True), Asked("f"),
         "f: line 1, bytes 0-0 of 18", "The line is longer: go on in it with start_byte=1."),
        (lines(b"a\r\n"), Asked("f"), "f: 1 line, 3 bytes", "Lines end with CRLF."),
        (lines(b"a\x1b[2J\n"), Asked("f"), "f: 1 line, 6 bytes",
         "Control characters are not shown here; encoding='base64' has them."),
        (lines(b"a\xff\n"), Asked("f"), "f: 1 line, 3 bytes",
         "Bytes that are not UTF-8 are shown as \ufffd; encoding='base64' has them."),
        (lines("a\ufffd\n".encode()), Asked("f"), "f: 1 line, 5 bytes", None),
    ],
)  # fmt: skip
def test_lines_come_with_where_they_are_and_how_to_go_on(
    found: FileLines, asked: Asked, headline: str, end: str | None
) -> None:
    shown = text(render_files.read("sb", asked, found)).splitlines()

    assert shown[:2] == [headline, "--- file MARK ---"]
    assert (shown[-1] if end else None) == end
    assert end or shown[-1] == "--- end MARK ---"


@pytest.mark.parametrize(
    ("content", "expected", "is_changed"),
    [
        (b"a\x1b]52;c;aGk=\x07\xe2\x80\xaeb\r\n", "ab\n", True),
        (b"a\tb\r\n", "a\tb\r\n", False),
        (b"a\xff\n", "a\ufffd\n", False),
    ],
)
def test_structured_text_is_as_harmless_as_what_is_shown_and_says_so(
    content: bytes, expected: str, is_changed: bool
) -> None:
    part = Part(content, len(content), 0, is_text=True)
    for what in (lines(content), part):
        result = render_files.read("sb", Asked("f"), what)
        assert (data(result)["content"], data(result)["control_chars_removed"]) == (expected, is_changed)
        assert ("Control characters are not shown" in text(result)) is is_changed
        assert ("not UTF-8" in text(result)) is ("\ufffd" in expected)

    encoded = render_files.read("sb", Asked("f"), Part(content, len(content), 0, is_text=False))
    assert base64.b64decode(data(encoded)["content"]) == content
    assert data(encoded)["control_chars_removed"] is False


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (lines(b"", end_line=0), "f is empty."),
        (
            lines(b"", start_line=7, end_line=6, size=4, total_lines=2, start_byte=4),
            "f has 2 lines: there is no line 7.",
        ),
        (Part(b"", 0, 0, is_text=False), "f is empty."),
        (Part(b"", 5, 9, is_text=False), "f has 5 bytes: there is no byte 9."),
    ],
)
def test_where_there_is_nothing_it_is_said(found: FileLines | Part, expected: str) -> None:
    result = render_files.read("sb", Asked("f"), found)

    assert text(result) == expected
    assert (data(result)["content"], data(result)["truncated"]) == ("", False)


def test_binary_parts_say_where_they_are_and_how_to_go_on() -> None:
    whole = render_files.read("sb", Asked("f"), Part(b"\0\1", 2, 0, is_text=False))
    part = render_files.read("sb", Asked("f"), Part(b"\0\1\2", 9, 3, is_text=False))

    assert text(whole) == "f: 2 bytes, base64\n--- file MARK ---\nAAE=\n--- end MARK ---"
    assert text(part) == (
        "f: bytes 3-5 of 9, base64\n--- file MARK ---\nAAEC\n--- end MARK ---\n"
        "There is more: go on with start_byte=6."
    )
    assert (data(part)["start_byte"], data(part)["next_byte"], data(part)["truncated"]) == (3, 6, True)


def test_an_image_is_image_content_and_never_text() -> None:
    form, small = Format("image/png", 3000, 2000), Format("image/jpeg", 1568, 1045)
    as_it_is = render_files.read("sb", Asked("f"), Image(small, 5, Picture(small, b"\xff\xd8pic")))
    scaled = render_files.read("sb", Asked("f"), Image(form, 5, Picture(small, b"\xff\xd8pic")))

    assert text(as_it_is) == "f: JPEG image, 1568x1045, 5 bytes"
    assert text(scaled) == "f: PNG image, 3000x2000, 5 bytes; shown at 1568x1045"
    assert scaled.content[1] == ImageContent(type="image", data="/9hwaWM=", mime_type="image/jpeg")
    assert (data(scaled)["encoding"], data(scaled)["content"]) == ("image", "")


def test_an_image_that_cannot_be_shown_says_why_and_what_to_do() -> None:
    large = Image(Format("image/png", 3000, 2000), 5, "the sandbox's Python has no Pillow to make it smaller")
    broken = Image(Format("image/png", 30, 20), 5, "it could not be made smaller")

    assert text(render_files.read("sb", Asked("f"), large)) == (
        "f: PNG image, 3000x2000, 5 bytes. It is too large to be shown (over 1568 px or 480 KB), and the "
        "sandbox's Python has no Pillow to make it smaller. Convert it in the sandbox, or read its bytes "
        "with encoding='base64'."
    )
    assert "It seems to be damaged" in text(render_files.read("sb", Asked("f"), broken))


def found(**fields: Any) -> FilesFound:
    counts = {"skipped": 0, "binary": 0, "unreadable": 0}
    return FilesFound(**{"files": (), "lines": (), "more": False, "timed_out": False, **counts, **fields})


def test_files_are_listed_with_their_sizes_and_names_that_are_what_they_look_like() -> None:
    files = (
        FoundFile("a b", "file", 7), FoundFile("d", "directory", 4096), FoundFile("l", "symlink", 3),
        FoundFile("x\ny\\\udcff\u202e\xa0", "file", 0),
    )  # fmt: skip

    result = render_files.found("sb", found(files=files, more=True), grep=False)

    assert text(result) == (
        "The first 4 entries; sizes in bytes:\n--- found MARK ---\na b 7\nd/\nl (symlink)\n"
        "x\\ny\\\\\\xff\\u202e\\u00a0 (escaped) 0\n--- end MARK ---\n"
        "Of names that are marked (escaped), \\xNN is a byte and \\uNNNN a character.\n"
        "There are more: narrow path, glob or grep, or raise max_results."
    )
    assert data(result)["files"][3] == {
        "path": "x\\ny\\\\\\xff\\u202e\\u00a0", "type": "file", "size": 0, "escaped": True,
    }  # fmt: skip


def test_lines_are_listed_by_file() -> None:
    matches = (FoundLine("a", 1, "one\x1b[2J"), FoundLine("a", 20, "two\udcff"), FoundLine("b", 3, "three"))

    result = render_files.found("sb", found(lines=matches, timed_out=True), grep=True)

    assert text(result) == (
        "3 matching lines, in 2 files:\n--- found MARK ---\na\n  1: one\n  20: two\\udcff\nb\n  3: three\n"
        "--- end MARK ---\nThe time was up before all was searched: narrow path or glob."
    )
    assert data(result)["matches"][0] == {"path": "a", "line": 1, "text": "one", "escaped": False}


def test_where_nothing_is_found_it_is_said_what_was_not_looked_at() -> None:
    result = render_files.found("sb", found(skipped=1, binary=2, unreadable=1), grep=True)

    assert text(result) == (
        "Nothing was found.\n1 hidden or vendored entry was not searched: hidden=true includes it.\n"
        "2 binary files could not be searched.\n1 entry could not be read."
    )
