"""Calls of tools with arguments by their schemas: right ones, odd ones, and such as no schema allows.

Each call has one answer: a result with its structure, or an error that says what is wrong. An error without a
text of ours is a crash that the SDK has hidden.
"""

from __future__ import annotations

import asyncio
import functools
import json
import random
import tempfile
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from pocket_dock_mcp.manager.core import Manager
from pocket_dock_mcp.server.app import create_server
from pocket_dock_mcp.settings import Settings
from pocket_dock_mcp.testing import FakeEngine
from tests.fuzz.harness import FoundError, Surface
from tests.fuzz.messages import Message
from tests.fuzz.stdio import Server, end_all
from tests.fuzz.values import TEXTS, mutated, value

MOST_REPLY = 1024 * 1024
"""Bytes: clients drop what is larger."""
_AFTER = 50
"""Cases after which all sandboxes are ended, so that there is room again."""
_LONG = 2_000_000

Schema = dict[str, Any]


@functools.cache
def schemas() -> dict[str, Schema]:
    """Return the input schemas of all tools by their names."""
    # In a thread: a loop of its own is needed, and this one may run already.
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, _listed()).result()


async def _listed() -> dict[str, Schema]:
    async def nobody() -> FakeEngine:
        raise NotImplementedError

    with tempfile.TemporaryDirectory(prefix="pocket-dock-fuzz-") as folder:
        settings = Settings(state_dir=Path(folder))
        async with Manager(settings, nobody) as manager:
            return {
                tool.name: tool.input_schema for tool in await create_server(manager, settings).list_tools()
            }


class Arguments(Surface):
    """The tools of a server on a fake engine."""

    name = "arguments"

    def make(self, rng: random.Random) -> bytes:
        """Return the parameters of a ``tools/call``."""
        tools = schemas()
        name = rng.choice(list(tools))
        params: Any = {"name": name, "arguments": _arguments(rng, name, tools[name])}
        if rng.random() < 0.05:
            params = mutated(rng, params)
        return json.dumps(params).encode()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Hold a server."""
        async with Server.start() as self._server:
            self._known: dict[str, str] = {}
            self._calls = self._numbers = 0
            yield

    async def settle(self) -> None:
        """End all sandboxes."""
        await end_all(self._server)
        self._known = {}

    @property
    def pid(self) -> int:
        """The server."""
        return self._server.process.pid

    async def attempt(self, data: bytes) -> str:
        """Make the call, in a sandbox that is there."""
        try:
            params = json.loads(data)
        except (ValueError, RecursionError):
            return "none"
        self._calls += 1
        if self._calls % _AFTER == 0:
            await self.settle()
        if "@sandbox" not in self._known:
            await self.settle()
            await self._call({"name": "create_sandbox", "arguments": {}})
            await self._call({"name": "write_file", "arguments": {"path": "f", "content": "text"}})
            await self._call({"name": "run_command", "arguments": {"command": "echo early"}})
        tool = params.get("name") if isinstance(params, dict) else None
        return await self._call(_filled(params, self._known), tool)

    async def _call(self, params: Any, tool: object = None) -> str:
        server = self._server
        self._numbers += 1
        number = f"call-{self._numbers}"
        messages: list[Message] = []
        await server.send({"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params})
        if await server.missing({number}, messages):
            raise FoundError(f"No answer to a call of {tool}.")
        answers = [message for message in messages if "method" not in message]
        size = max(
            len(json.dumps(answer, ensure_ascii=False).encode("utf-8", "replace")) for answer in answers
        )
        if size > MOST_REPLY:
            raise FoundError(f"A reply of {tool} has {size} bytes.")
        await server.probe()
        (answer,) = answers
        if "error" in answer:
            return "refused by the protocol"
        return self._judged(answer["result"], tool)

    def _judged(self, result: Message, tool: object) -> str:
        said = "\n".join(block.get("text", "") for block in result["content"])
        if result.get("isError"):
            if not said.strip() or said.startswith("Error executing tool"):
                raise FoundError(
                    f"{tool} failed without a word of ours: {said[:300]!r}. {self._server.errors[-3:]}"
                )
            return "error"
        structure = result.get("structuredContent")
        if not isinstance(structure, dict):
            raise FoundError(f"{tool} has answered without a structure.")
        for key, name in (("sandbox_id", "@sandbox"), ("run_id", "@run"), ("snapshot_id", "@snapshot")):
            if isinstance(structure.get(key), str):
                self._known[name] = structure[key]
        if tool == "kill":
            self._known.pop("@sandbox", None)
        return "result"


def _filled(params: Any, known: dict[str, str]) -> Any:
    """Return parameters with what is known now in the places that were left for it."""
    if isinstance(params, dict):
        return {key: _filled(one, known) for key, one in params.items()}
    if isinstance(params, list):
        return [_filled(one, known) for one in params]
    return known.get(params, params) if isinstance(params, str) else params


# -- arguments -----------------------------------------------------------------------------------------


def _arguments(rng: random.Random, tool: str, schema: Schema) -> dict[str, Any]:
    properties = schema.get("properties", {})
    required = set(schema.get("required", ()))
    wrong = rng.choice((0.0, 0.0, 0.05, 0.4))
    given: dict[str, Any] = {}
    for name, one in properties.items():
        is_needed = name in required or name in _ALWAYS or (name == "sandbox_id" and tool != "kill")
        if rng.random() < (0.98 if is_needed else 0.2):
            odd = _ODD.get(name, value)
            given[name] = odd(rng) if rng.random() < wrong else _fitting(rng, name, one, schema)
    if rng.random() < 0.03:
        given[rng.choice(TEXTS)] = value(rng)
    if rng.random() < 0.01:
        given[rng.choice(list(properties) or ["x"])] = rng.choice(("a", "é", "\0", "\n")) * _LONG
    return given


def _fitting(rng: random.Random, name: str, schema: Schema, root: Schema) -> Any:
    """Return what a schema allows, most of the time something that makes sense."""
    if name in _MEANT:
        return rng.choice(_MEANT[name])
    if "$ref" in schema:
        return _fitting(rng, name, root["$defs"][schema["$ref"].rpartition("/")[2]], root)
    if "anyOf" in schema:
        return _fitting(rng, name, rng.choice(schema["anyOf"]), root)
    if "enum" in schema:
        return rng.choice(schema["enum"])
    return _of_type(rng, name, schema, root)


def _of_type(rng: random.Random, name: str, schema: Schema, root: Schema) -> Any:
    kind = schema.get("type")
    if kind == "object":
        properties = schema.get("properties")
        if properties:
            return {key: _fitting(rng, key, one, root) for key, one in properties.items()}
        return {rng.choice(("A", "B_1", *TEXTS)): rng.choice(TEXTS) for _ in range(rng.randrange(3))}
    if kind == "array":
        return [_fitting(rng, name, schema.get("items", {}), root) for _ in range(rng.randrange(4))]
    if kind == "boolean":
        return rng.random() < 0.5
    if kind == "integer":
        return rng.choice((0, 1, 2, 10, 64, 128, 8000, 65535, 65536, -1))
    if kind == "number":
        return rng.choice((0, 0.05, 1, 1.5, 100, 1e6, -1))
    return rng.choice(TEXTS)


_ALWAYS = frozenset({"wait_s", "command", "code"})
"""Of these the defaults would take long, or nothing would happen without."""
_WAITS = (0, 0.01, 0.05)


def _odd_wait(rng: random.Random) -> Any:
    """Return something that nobody can wait for."""
    return rng.choice(
        (-1, -0.001, 301, 1e9, 10**400, float("nan"), float("inf"), "x", "", [], {}, "1e9", "NaN")
    )


_ODD: dict[str, Callable[[random.Random], Any]] = {"wait_s": _odd_wait}
_PATHS = (
    "f", "a/b", "/tmp/x", ".", "..", "", "/", "/proc/self/mem", "/etc/passwd", "~", "a\0b", "x" * 300, "/" * 5000, "\ud800",
)  # fmt: skip
_MEANT: dict[str, tuple[Any, ...]] = {
    "wait_s": _WAITS,
    "sandbox_id": (
        "@sandbox",
        "@sandbox",
        "@sandbox",
        "@sandbox",
        "none",
        "",
        "../images/json",
        "x?force=1",
        "{}",
        "\0",
    ),
    "run_id": ("@run", "@run", "@run", "run-0000000000000000", "", "@sandbox"),
    "snapshot_id": ("@snapshot", "cp-0", "", "@sandbox"),
    "snapshot": ("@snapshot", "snap-x", ""),
    "since": ("start", "@snapshot", "", "x"),
    "command": ("echo hi", "false", "hang", "exit 3", "cat", "true", "no such thing", "echo '", ""),
    "code": ("print(6 * 7)", "hang", "", "import os", "\ud800", "\0"),
    "profile": (
        "localhost/pocket-dock-fake:latest",
        "x;y",
        "http://169.254.169.254/",
        "oci:/etc",
        "--privileged",
        "",
    ),
    "path": _PATHS,
    "cwd": _PATHS,
    "pattern": ("early", "(", "(a+)+$", ".*", "", "\\", "[" * 500, "a{1,99999}"),
    "grep": ("e", "(", "(a+)+$", "", "(?P<a>x)", "\\1"),
    "glob": ("*", "**/*", "../*", "/etc/*", "[", "{a,b", "{" * 300, ""),
    "content": ("text", "", "\ud800", "not base64!", "YQ==", "é" * 1000),
    "language": ("python", "shell", "javascript", "perl", ""),
    "encoding": ("utf-8", "base64", "latin-1", ""),
    "session": ("s", "", "a b", "x" * 500, "\0"),
    "count": (1, 2, 0, -1, 9, 10**6),
    "network": ("none", "open"),
    "old": ("text", "", "x"),
    "timeout_s": (1, 60, 0.01, 86400, 86401, 0),
    "cpu_s": (1, 10),
    "memory_mb": (64, 256, 31),
    "cpus": (0.5, 1, 10**6),
    "pids": (64, 15),
    "disk_mb": (64, 15),
    "ttl_s": (60, 86400),
    "processes": (5, 0),
    "output_limit_mb": (1, 0),
    "max_output": (1, 8192, 65536, 65537, 0),
    "stdin": ("line\n", "", "\0"),
    "name": ("a", "", "\x1b[2J", "\u202e"),
    "idempotency_key": ("k1", "k2", "", "x" * 5000),
    "checkpoint": ("save", "cp-0", ""),
    "edits": (
        [{"old": "text", "new": "x"}],
        [{"old": "", "new": "x"}],
        [],
        [{"old": "t", "new": "", "all": True}],
    ),
    "env": ({"A": "b"}, {"": "b"}, {"A=": "b"}, {"LD_PRELOAD": "/x"}, {"A": "\0"}, {"\n": ""}),
    "ports": ([8000], [0], [8000, 8000], [65536], list(range(1, 100))),
    "until": ("exit", "output", "port", ""),
    "signal": (2, 15, 0, 65, -1),
    "port": (8000, 0, 65536),
    "mode": ("644", "0o644", "rwx", "777777", ""),
}
