"""What a model has to read before it can call anything."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from mcp.client import Client
from mcp.types import Tool

from pocket_dock_mcp.engine.base import Engine
from pocket_dock_mcp.manager.core import Manager
from pocket_dock_mcp.server.app import create_server
from pocket_dock_mcp.server.slim import slim
from pocket_dock_mcp.settings import Settings

pytestmark = pytest.mark.anyio

MAX_TOOLS = 14
MAX_TOKENS = 4000
CHARACTERS_PER_TOKEN = 4


@pytest.fixture
async def tools(tmp_path: Path) -> list[Tool]:
    return await listed(tmp_path)


async def listed(home: Path, **variables: str) -> list[Tool]:
    """Return the tools of a server with these settings."""
    given = {f"POCKET_DOCK_{name}": value for name, value in variables.items()}
    settings = Settings.from_environ({"HOME": str(home), **given})

    async def no_engine(*_args: object, **_options: object) -> Engine:
        raise AssertionError("an engine was asked for")

    async with Manager(settings, no_engine) as manager, Client(create_server(manager, settings)) as client:
        return (await client.list_tools()).tools


def described(schema: dict[str, Any], where: str) -> list[tuple[str, bool]]:
    """Return all parameters, also those within others, and whether they are described."""
    found = []
    for name, parameter in schema.get("properties", {}).items():
        found.append((f"{where}.{name}", bool(parameter.get("description"))))
        found += described(parameter, f"{where}.{name}")
    for name, inner in schema.get("$defs", {}).items():
        found += described(inner, f"{where}.{name}")
    return found


async def test_all_tools_together_are_short(tools: list[Tool]) -> None:
    sizes = {
        tool.name: len(json.dumps(tool.input_schema, separators=(",", ":"))) + len(tool.description or "")
        for tool in tools
    }

    assert len(tools) <= MAX_TOOLS
    assert sum(sizes.values()) / CHARACTERS_PER_TOKEN < MAX_TOKENS, sizes


async def test_every_tool_and_every_parameter_is_described(tools: list[Tool]) -> None:
    assert [tool.name for tool in tools if not tool.description or not tool.annotations] == []
    parameters = [pair for tool in tools for pair in described(tool.input_schema, tool.name)]
    assert ("edit_file.EditIn.old", True) in parameters
    assert [name for name, is_described in parameters if not is_described] == []


CONFIGURED = {
    "PROFILE": "registry.example/{cpus}", "MEMORY_MB": "2048", "CPUS": "2.5", "PIDS": "512",
    "DISK_MB": "9000", "MAX_LIFETIME_S": "3600", "IDLE_TTL_S": "90", "OUTPUT_BYTES": "2048",
}  # fmt: skip


@pytest.mark.parametrize(
    ("configured", "expected"),
    [
        ({}, ["'minimal'.", "512.", "1.", "128.", "4096.", "1800.", "8192,"]),
        (CONFIGURED, ["'registry.example/{cpus}'.", "2048.", "2.5.", "512.", "9000.", "90.", "2048,"]),
    ],
)
async def test_descriptions_say_what_is_configured(
    tmp_path: Path, configured: dict[str, str], expected: list[str]
) -> None:
    tools = {tool.name: tool for tool in await listed(tmp_path, **configured)}
    of_create = tools["create_sandbox"].input_schema["properties"]
    found = [of_create[name] for name in ("profile", "memory_mb", "cpus", "pids", "disk_mb", "ttl_s")]
    found.append(tools["run_code"].input_schema["properties"]["max_output"])

    assert [one["description"].partition("Default ")[2] for one in found] == [
        *expected[:4], f"{expected[4]} Over it runs are killed.", expected[5], f"{expected[6]} up to 65536.",
    ]  # fmt: skip
    assert f"up to {'3600' if configured else '86400'}." in of_create["ttl_s"]["description"]
    idle = "90 seconds" if configured else "30 minutes"
    assert f"It ends after {idle} without a call" in (tools["create_sandbox"].description or "")


async def test_no_slot_of_a_description_is_left_open(tools: list[Tool]) -> None:
    texts = [f"{tool.description} {json.dumps(tool.input_schema)}" for tool in tools]
    assert [found for text in texts for found in re.findall(r"\{\w+\}", text)] == []


def test_titles_and_nulls_are_left_out_and_parameters_of_that_name_stay() -> None:
    schema = {
        "title": "Arguments",
        "properties": {
            "title": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None, "title": "Title"},
            "either": {"anyOf": [{"type": "string"}, {"type": "integer"}, {"type": "null"}]},
            "count": {"type": "integer", "default": 0, "title": "Count"},
        },
        "required": ["title"],
    }

    assert slim(schema) == {
        "properties": {
            "title": {"type": "string"},
            "either": {"anyOf": [{"type": "string"}, {"type": "integer"}, {"type": "null"}]},
            "count": {"type": "integer", "default": 0},
        },
        "required": ["title"],
    }
