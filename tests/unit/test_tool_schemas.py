"""What a model has to read before it can call anything."""

from __future__ import annotations

import json
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
    settings = Settings.from_environ({"HOME": str(tmp_path)})

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
