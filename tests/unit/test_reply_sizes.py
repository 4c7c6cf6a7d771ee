"""No reply comes near the 1 MiB at which clients drop a message, whatever a sandbox has in it."""

from __future__ import annotations

import base64
import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from mcp.types import CallToolResult, ImageContent, TextContent

from pocket_dock_mcp.container.diffing import ChangeKind, FileChange, TreeDiff
from pocket_dock_mcp.errors import EditNotFoundError, InvalidArgumentError
from pocket_dock_mcp.models import (
    FileEdited,
    FileLines,
    FilesChanged,
    FilesFound,
    FoundFile,
    FoundLine,
    RunImage,
    RunResult,
)
from pocket_dock_mcp.output import visible
from pocket_dock_mcp.readings import Readings
from pocket_dock_mcp.server import output_tools, render, render_diff, render_files, render_live, render_runs
from pocket_dock_mcp.server.diff_tools import MAX_DIFF, MAX_PATHS
from pocket_dock_mcp.server.file_tools import MAX_FOUND_BYTES, MAX_RESULTS
from pocket_dock_mcp.server.following import Found
from pocket_dock_mcp.server.image_files import MAX_BYTES, Format
from pocket_dock_mcp.server.output_tools import MOST_BYTES
from pocket_dock_mcp.server.pictures import Picture
from pocket_dock_mcp.server.reading import MAX_BINARY_BYTES, MAX_REPLY_BYTES, Asked, Image, Part
from pocket_dock_mcp.server.run_tools import MAX_OUTPUT_BYTES
from pocket_dock_mcp.server.schemas import SandboxReply, SnapshotReply
from pocket_dock_mcp.server.sizes import MAX_REPLY, check_size, fitted, wire_size, within
from tests.spools import Spools

ONE_MIB = 1024 * 1024
OUTPUT = output_tools._Output("run", "stdout", unkept=0)
NASTY = {
    "plain": "x",
    "lines": "\n",
    "quotes": '"',
    "backslashes": "\\",
    "control": "\x01",
    "accents": "é",
    "ideographs": "山",
    "emoji": "😀",
    "undecodable": "\udcff",
    "hidden": "\u200b",
}


def filled(char: str, size: int) -> str:
    """Return a text of so many bytes; of a decoded one, each byte may be a replacement character."""
    return char * (size // len(char.encode("utf-8", "surrogateescape")))


def decoded(char: str, size: int) -> str:
    return filled(char, size).encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def size_of(result: CallToolResult) -> int:
    """Return the size of the largest message that a transport makes of a result."""
    check_size(result)
    return len(json.dumps(result.model_dump(mode="json", by_alias=True)))


def structured(result: CallToolResult) -> dict[str, Any]:
    assert result.structured_content is not None
    return dict(result.structured_content)


def text(result: CallToolResult) -> str:
    return "\n".join(block.text for block in result.content if isinstance(block, TextContent))


@pytest.mark.parametrize("char", NASTY.values(), ids=NASTY)
@pytest.mark.parametrize("with_images", [False, True])
def test_a_run(char: str, with_images: bool) -> None:
    paths = tuple((filled(char, 4000), 1) for _ in range(200))
    images = tuple(RunImage(filled(char, 255), "image/png", b"x" * 100_000) for _ in range(16))
    output = decoded(char, MAX_OUTPUT_BYTES)
    result = render_runs.run(
        "sb",
        "run",
        RunResult(
            status="ok",
            stdout=output,
            stderr=output,
            value=decoded(char, 64 * 1024),
            images=images if with_images else (),
            files_changed=FilesChanged(paths, paths, tuple(path for path, _ in paths), (200, 200, 200)),
            network_denied=(decoded(char, 300),) * 50,
            notes=(decoded(char, 300),) * 16,
        ),
        found=Found("A line matches.", decoded(char, 200)),
    )
    assert size_of(result) <= MAX_REPLY
    told = structured(result)
    assert told["files_changed"]["incomplete"]
    assert told["files_changed"]["counts"] == [200, 200, 200]
    left_out = "characters left out" in told["stdout"]
    assert told["truncated"] == left_out
    assert ("read_output" in (told["hint"] or "")) == left_out
    shown = [block for block in result.content if isinstance(block, ImageContent)]
    assert len(shown) == len(told["artifacts"])
    assert ("more images are not shown" in text(result)) == (with_images and len(shown) < 16)


def test_a_run_with_usual_output_of_any_size_is_shown_whole() -> None:
    line = 'a "usual" line\tof output, with some unusual ö in it\n'
    output = line * (MAX_OUTPUT_BYTES // len(line.encode()))
    told = structured(render_runs.run("sb", "run", RunResult(status="ok", stdout=output, stderr=output)))
    assert (told["stdout"], told["stderr"], told["truncated"]) == (output, output, False)


@pytest.mark.parametrize("char", NASTY.values(), ids=NASTY)
def test_a_file(char: str) -> None:
    data = filled(char, MAX_REPLY_BYTES).encode("utf-8", "surrogateescape")
    asked = Asked(filled(char, 4000).encode("utf-8", "surrogateescape").decode("utf-8", "replace"))
    lines = FileLines(data, 10**9, 1, 2, 10**6, 0, partial=False)
    assert size_of(render_files.read("sb", asked, lines)) <= MAX_REPLY
    assert size_of(render_files.read("sb", asked, Part(data, 10**9, 0, is_text=True))) <= MAX_REPLY
    part = Part(data[:MAX_BINARY_BYTES], 10**9, 0, is_text=False)
    assert size_of(render_files.read("sb", asked, part)) <= MAX_REPLY


@pytest.mark.parametrize("char", NASTY.values(), ids=NASTY)
def test_output_that_is_read_again(char: str, tmp_path: Path) -> None:
    data = filled(char, 2 * MOST_BYTES).encode("utf-8", "surrogateescape")
    with Spools(tmp_path) as spools:
        spool = spools(data)
        for start_line, tail, start_byte in ((1, None, None), (None, 5, None), (None, None, 1)):
            read = partial(output_tools._excerpt, spool, start_line, None, tail, start_byte)
            excerpt = output_tools._fitting(read, output_tools._shown_text, MOST_BYTES)
            assert size_of(output_tools._text(OUTPUT, excerpt)) <= MAX_REPLY
            assert excerpt.data
            excerpt = output_tools._fitting(read, output_tools._base64, MOST_BYTES)
            result = output_tools._bytes(OUTPUT, excerpt)
            assert size_of(result) <= MAX_REPLY
            # All of it comes, and not just some.
            assert len(base64.b64decode(structured(result)["content"])) > MOST_BYTES - 4 or char == "\n"


@pytest.mark.parametrize("char", NASTY.values(), ids=NASTY)
def test_output_that_is_searched(char: str, tmp_path: Path) -> None:
    line = b"match " + filled(char, 4000).encode("utf-8", "surrogateescape") + b"\n"
    with Spools(tmp_path) as spools:
        spool = spools(line * 100)
        search = partial(output_tools._search, spool, "match", 2, 0)
        found = output_tools._fitting(search, output_tools._rows, MOST_BYTES)
        result = output_tools._matches(OUTPUT, found)
    assert size_of(result) <= MAX_REPLY
    assert structured(result)["matches"] == 100
    assert "match" in structured(result)["content"]


def test_an_image() -> None:
    form = Format("image/png", 1000, 1000)
    image = Image(form, MAX_BYTES, Picture(form, b"x" * MAX_BYTES))
    assert size_of(render_files.read("sb", Asked("a.png"), image)) <= MAX_REPLY


@pytest.mark.parametrize("char", NASTY.values(), ids=NASTY)
def test_a_search(char: str) -> None:
    path = filled(char, 4000)
    for files, lines in (
        ((FoundFile(path, "file", 1),) * MAX_RESULTS, ()),
        ((), (FoundLine(path, 1, filled(char, 500)),) * MAX_RESULTS),
        ((FoundFile("a", "file", 1),) * MAX_RESULTS, ()),
        ((), (FoundLine("a", 1, filled(char, MAX_FOUND_BYTES)),)),
    ):
        found = FilesFound(files, lines, more=False, timed_out=False, skipped=0, binary=0, unreadable=0)
        result = render_files.found("sb", found, grep=bool(lines))
        assert size_of(result) <= MAX_REPLY
        told = structured(result)
        shown = len(told["files"]) + len(told["matches"])
        assert shown >= 1
        assert told["more"] == (shown < len(files) + len(lines))
        assert told["more"] == ("There are more" in text(result))


@pytest.mark.parametrize("char", NASTY.values(), ids=NASTY)
def test_a_comparison(char: str) -> None:
    kinds: tuple[ChangeKind, ...] = ("modified", "created", "deleted")
    changes = tuple(
        FileChange(filled(char, 4000), kind, "file", 1, (filled(char, 4000),))
        for kind in kinds
        for _ in range(MAX_PATHS)
    )
    counts = (MAX_PATHS, MAX_PATHS, MAX_PATHS)
    diff = visible(filled(char, MAX_DIFF))
    found = TreeDiff(changes, counts, diff, diff_truncated=False, unreadable=0, unchecked=0)
    result = render_diff.compared("sb", "start", found)
    assert size_of(result) <= MAX_REPLY
    told = structured(result)
    assert told["counts"] == list(counts)
    left_out = 3 * MAX_PATHS - sum(len(told[kind]) for kind in kinds)
    assert f"{left_out} more paths" in text(result)


@pytest.mark.parametrize("char", NASTY.values(), ids=NASTY)
def test_an_edit_and_an_error(char: str) -> None:
    diff = decoded(char, 8 * 1024)
    result = render_files.edited("sb", FileEdited("a", 1, (1,) * 1000, diff, diff_truncated=True))
    assert size_of(result) <= MAX_REPLY
    failure = EditNotFoundError(decoded(char, ONE_MIB))
    failure.excerpt = decoded(char, ONE_MIB)
    result = render.error(failure)
    assert size_of(result) <= MAX_REPLY
    assert text(result).startswith(failure.code)


def listed(name: str) -> SandboxReply:
    return SandboxReply(
        sandbox_id=f"sb-{'0' * 32}",
        name=name,
        status="running",
        persist=False,
        image="registry.example/" + "x" * 200,
        home="/home/sandbox",
        python="3.11.2",
        memory_mb=512,
        cpus=1.0,
        pids=128,
        disk_mb=4096,
        network=[f"host-{number}.example" for number in range(20)],
        workspace="disk",
        expires_in_s=1800,
        unenforced=[],
        ports=[],
        live=render_live.live_reply(Readings()),
    )


@pytest.mark.parametrize("char", NASTY.values(), ids=NASTY)
def test_a_list(char: str) -> None:
    name = decoded(char, 100)
    made = SnapshotReply(snapshot_id="snap", name=name, sandbox_id=None, size_mb=1, created="2026-01-01")
    few = render.listing([listed(name)], [made])
    assert set(structured(few)) == {"sandboxes", "snapshots"}
    many = render.listing([listed(name)] * 1000, [made] * 10_000)
    assert size_of(many) <= MAX_REPLY
    told = structured(many)
    left_out = 11_000 - len(told["sandboxes"]) - len(told["snapshots"])
    assert told["hint"].startswith(f"{left_out} more are not listed")
    assert told["hint"] in text(many)
    assert text(many).startswith("1000 sandboxes, 10000 snapshots")


def test_the_middle_of_a_text_is_left_out() -> None:
    for char in NASTY.values():
        short, is_cut = fitted("begin " + char * 100_000 + " end", 50_000)
        assert is_cut
        assert short.startswith("begin ")
        assert short.endswith(" end")
        assert 20_000 < wire_size(short) <= 50_000
    assert fitted("x" * 49_998, 50_000) == ("x" * 49_998, False)
    assert fitted("", 2) == ("", False)


def test_items_are_taken_while_they_fit() -> None:
    assert within(["aa", "bb", "cc"], 8) == ["aa", "bb"]
    assert within([], 0) == []


def test_what_is_too_large_all_the_same_is_an_error_that_says_so() -> None:
    with pytest.raises(InvalidArgumentError, match=str(MAX_REPLY)):
        check_size(CallToolResult(content=[TextContent(type="text", text="😀" * (MAX_REPLY // 12))]))
