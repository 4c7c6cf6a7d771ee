"""The file tools as a client sees them, on real engines."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
from mcp.client import Client
from mcp.types import ImageContent

from pocket_dock_mcp.engine.base import Engine
from pocket_dock_mcp.images import ImageStore
from pocket_dock_mcp.server.image_files import can_be_shown, format_of
from tests.engines import Target
from tests.pictures import png
from tests.servers import call, client, environment, failure, text

pytestmark = [pytest.mark.anyio, pytest.mark.front]


@pytest.fixture
def environ(target: Target, tmp_path: Path, image: str) -> dict[str, str]:
    return environment(target, tmp_path, image)


async def told(server: Client, tool: str, **arguments: Any) -> str:
    """Call a tool that is to succeed and return what the model reads."""
    result = await server.call_tool(tool, arguments)
    assert not result.is_error, text(result)
    return text(result)


async def test_a_file_is_written_added_to_edited_found_and_run(environ: dict[str, str]) -> None:
    async with client(environ) as server:
        await call(server, "create_sandbox")
        assert await told(server, "write_file", path="~/src/a.py", content="def f():\n    pass\n") == (
            "Created /home/sandbox/src/a.py (18 bytes)."
        )
        assert await told(server, "write_file", path="src/a.py", content="\nf()\n", append=True) == (
            "Appended 5 bytes to /home/sandbox/src/a.py; it has 23 bytes now."
        )
        edits = [{"old": "f()", "new": "main()", "all": True}, {"old": "pass", "new": "print('ran')"}]
        edited = await call(server, "edit_file", path="src/a.py", edits=edits)
        assert (edited["replacements"], edited["diff_truncated"]) == ([2, 1], False)
        listed = await call(server, "find_files")
        assert [(file["path"], file["type"]) for file in listed["files"]] == [
            ("src", "directory"), ("src/a.py", "file"),
        ]  # fmt: skip
        found = await call(server, "find_files", glob="*.py", grep="^main")
        assert found["matches"] == [{"path": "src/a.py", "line": 4, "text": "main()", "escaped": False}]
        assert (await call(server, "run_command", command="python3 src/a.py"))["stdout"] == "ran\n"


async def test_what_cannot_be_is_told_with_the_way_out(environ: dict[str, str]) -> None:
    async with client(environ) as server:
        await call(server, "create_sandbox")
        await call(server, "write_file", path="f", content="one\ntwo\n\ttwo\n")
        refused: list[tuple[str, dict[str, Any], str, str]] = [
            ("write_file", {"path": "newdir/", "content": ""}, "is_directory", "path of the file"),
            ("write_file", {"path": "$HOME/x", "content": ""}, "invalid_argument", "~/"),
            ("edit_file", {"path": "f", "edits": []}, "invalid_argument", "from 1"),
            ("edit_file", {"path": "f", "edits": [{"old": "", "new": "x"}]}, "invalid_argument", "empty"),
            (
                "edit_file",
                {"path": "f", "edits": [{"old": "two", "new": "x"}]},
                "edit_ambiguous",
                "lines 2, 3",
            ),
            (
                "edit_file",
                {"path": "f", "edits": [{"old": " two", "new": "x"}]},
                "edit_not_found",
                "\n2: two\n",
            ),
            ("edit_file", {"path": "none", "edits": [{"old": "a", "new": "b"}]}, "file_not_found", "List"),
            ("read_file", {"path": "f", "start_line": 0}, "invalid_argument", "from 1"),
            ("read_file", {"path": "f", "start_line": 2, "start_byte": 1}, "invalid_argument", "start_byte"),
            ("find_files", {"glob": "[a"}, "invalid_argument", "not closed"),
            ("find_files", {"grep": "(a"}, "invalid_argument", "not valid"),
            ("find_files", {"path": "none"}, "file_not_found", "none"),
        ]
        for tool, arguments, code, hint in refused:
            answer = await failure(server, tool, **arguments)
            assert answer.startswith(f"{code}: "), (tool, arguments, answer)
            assert hint in answer, (tool, arguments, answer)


async def test_a_file_without_newlines_is_read_on_by_bytes(environ: dict[str, str]) -> None:
    content = "ü🐳" * 20_000
    async with client(environ) as server:
        await call(server, "create_sandbox")
        await call(server, "write_file", path="long", content=content)
        part = await call(server, "read_file", path="long")
        shown = part["content"]
        assert "start_byte=" in await told(server, "read_file", path="long")
        while part["next_byte"] is not None:
            part = await call(server, "read_file", path="long", start_byte=part["next_byte"])
            shown += part["content"]
        assert shown == content


async def test_a_binary_file_is_read_in_parts_and_no_byte_is_missing(environ: dict[str, str]) -> None:
    data = bytes(range(256)) * 400
    async with client(environ) as server:
        await call(server, "create_sandbox")
        encoded = base64.b64encode(data).decode()
        await call(server, "write_file", path="binary", content=encoded, encoding="base64")
        received = b""
        at: int | None = 0
        while at is not None:
            part = await call(server, "read_file", path="binary", start_byte=at)
            assert (part["encoding"], part["start_byte"]) == ("base64", at)
            received += base64.b64decode(part["content"])
            at = part["next_byte"]
        assert received == data


async def test_the_end_of_a_file_is_read_by_lines_below_zero(environ: dict[str, str]) -> None:
    async with client(environ) as server:
        await call(server, "create_sandbox")
        await call(server, "run_command", command="seq 1 1000 > numbers")
        part = await call(server, "read_file", path="numbers", start_line=-2)
        assert (part["content"], part["start_line"], part["total_lines"]) == ("999\n1000\n", 999, 1000)
        beyond = await told(server, "read_file", path="numbers", start_line=2000)
        assert beyond == "numbers has 1000 lines: there is no line 2000."


async def test_an_image_is_shown_and_one_that_is_none_is_not(environ: dict[str, str]) -> None:
    small, large, broken = png(64, 48), png(3000, 2000), png(64, 48)[:-9]
    async with client(environ) as server:
        await call(server, "create_sandbox")
        for name, data in (("small", small), ("large", large), ("broken", broken)):
            encoded = base64.b64encode(data).decode()
            await call(server, "write_file", path=name, content=encoded, encoding="base64")
        shown = await server.call_tool("read_file", {"path": "small"})
        assert text(shown) == f"small: PNG image, 64x48, {len(small)} bytes"
        (image,) = [block for block in shown.content if isinstance(block, ImageContent)]
        assert (image.mime_type, base64.b64decode(image.data)) == ("image/png", small)
        assert "too large to be shown" in await told(server, "read_file", path="large")
        assert "damaged" in await told(server, "read_file", path="broken")
        raw = await call(server, "read_file", path="broken", encoding="base64")
        assert base64.b64decode(raw["content"]) == broken


MAKE_IMAGES = """
import os
from PIL import Image
Image.new("RGB", (4000, 3000), "red").save("large.png")
Image.frombytes("RGB", (1200, 900), os.urandom(1200 * 900 * 3)).save("noise.png")
Image.new("RGBA", (2000, 100), (0, 0, 0, 0)).save("clear.webp")
open("cut.jpg", "wb").write(open("noise.png", "rb").read()[:900_000])
"""


@pytest.mark.slow
async def test_an_image_that_is_too_large_is_made_smaller_where_pillow_is(
    engine: Engine, target: Target, tmp_path: Path
) -> None:
    image = (await ImageStore(engine).ensure("agent", print)).id
    async with client(environment(target, tmp_path, image)) as server:
        await call(server, "create_sandbox")
        assert (await call(server, "run_code", code=MAKE_IMAGES))["status"] == "ok"
        sizes = {}
        for name in ("large.png", "noise.png", "clear.webp"):
            shown = await server.call_tool("read_file", {"path": name})
            (block,) = [block for block in shown.content if isinstance(block, ImageContent)]
            data = base64.b64decode(block.data)
            found = format_of(data)
            assert found is not None
            assert can_be_shown(data)
            sizes[name] = (found.mime_type, max(found.width, found.height))
        assert sizes["large.png"] == ("image/png", 1568)
        assert sizes["noise.png"][0] == "image/jpeg"
        assert sizes["clear.webp"] == ("image/png", 1568)
        assert "could not be made smaller" in await told(server, "read_file", path="cut.jpg")
