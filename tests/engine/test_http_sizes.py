"""What a sandbox makes as large as it can reaches clients all the same, on real engines."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from mcp.client import Client
from mcp.types import CallToolResult, ImageContent

from pocket_dock_mcp.server.sizes import MAX_REPLY
from tests.engines import Target
from tests.servers import call, environment, http_server

pytestmark = [pytest.mark.anyio, pytest.mark.front]

FILES = r"""
import os, sys
os.makedirs("many")
for number in range(400):
    with open(f"many/{number:03}" + "\x01" * 200, "w") as file:
        file.write("needle \x02\N{GRINNING FACE}" + "\x03" * 400)
for stream in (sys.stdout, sys.stderr):
    stream.buffer.write(b"\xff\n" * 200_000)
"""
IMAGES = r"""
import os, struct, zlib
def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
head = chunk(b"IHDR", struct.pack(">IIBBBBB", 300, 300, 8, 2, 0, 0, 0))
for number in range(4):
    rows = b"".join(b"\0" + os.urandom(3 * 300) for _ in range(300))
    with open(f"noise{number}.png", "wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(rows, 1)) + chunk(b"IEND", b""))
"""


async def taken(client: Client, tool: str, **arguments: object) -> CallToolResult:
    """Call a tool and see that its reply is far from what clients drop."""
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, result
    assert len(json.dumps(result.model_dump(mode="json", by_alias=True))) <= MAX_REPLY
    return result


async def test_the_largest_replies_arrive(target: Target, tmp_path: Path, image: str) -> None:
    async with (
        http_server(target, environment(target, tmp_path, image)) as server,
        # The transport whose clients have a limit.
        server.client(None, "legacy", "sse") as client,
    ):
        await call(client, "create_sandbox")
        drawn = await taken(client, "run_code", code=IMAGES)
        assert any(isinstance(block, ImageContent) for block in drawn.content)
        ran = await taken(client, "run_code", code=FILES, max_output=65_536)
        assert ran.structured_content is not None
        run_id = ran.structured_content["run_id"]

        for more in ({}, {"tail": 10**6}, {"grep": "."}, {"encoding": "base64"}, {"start_byte": 7}):
            await taken(client, "read_output", run_id=run_id, max_bytes=262_144, **more)
        await taken(client, "find_files", path="many", max_results=1000)
        await taken(client, "find_files", path="many", grep="needle", max_results=1000)
        assert (await taken(client, "read_file", path="noise0.png")).content
        await taken(client, "run_command", command="cat many/*", max_output=65_536)
        await taken(client, "diff")
