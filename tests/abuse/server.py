"""The real server in a process of its own, spoken to line by line as an MCP client does."""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio

from tests.trials.host import slowness

START_S = 60.0
LONGEST_LINE = 64 * 1024 * 1024
"""Of what we would read: what a server may send is less by far, and an oracle says so."""
MIB = 1024 * 1024


class DiedError(Exception):
    """The server ended before it answered."""


@dataclass(frozen=True)
class Reply:
    """What a client was told by one tool call."""

    is_error: bool
    text: str
    """What a model reads."""
    structured: dict[str, Any]
    wire_bytes: int = 0
    """Length of the line."""
    seconds: float = 0.0
    refused: str = ""
    """The message of an error of the protocol, instead of an answer."""

    @property
    def everything(self) -> str:
        """All text of it, structured or not, with what JSON escapes as it is."""
        return "\n".join([self.text, *_texts(self.structured)])

    @property
    def status(self) -> str | None:
        """Of a run."""
        found = self.structured.get("status")
        return found if isinstance(found, str) else None


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, Mapping):
        return [text for item in value.items() for text in _texts(item)]
    if isinstance(value, Sequence):
        return [text for item in value for text in _texts(item)]
    return []


@dataclass
class Server:
    """`python -m pocket_dock_mcp`, over its standard streams."""

    process: asyncio.subprocess.Process
    environ: Mapping[str, str]
    strays: list[str] = field(default_factory=list)
    """Lines that are no JSON, or answer nothing that was asked."""
    schemas: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Of the structured replies, by tool."""
    late: list[int] = field(default_factory=list)
    """Ids of requests that were answered although they had been cancelled."""
    _cancelled: set[int] = field(default_factory=set)
    _ids: itertools.count[int] = field(default_factory=lambda: itertools.count(1))
    _answers: dict[int, asyncio.Future[tuple[dict[str, Any], int]]] = field(default_factory=dict)
    _reader: asyncio.Future[None] | None = None

    @classmethod
    async def start(cls, environ: Mapping[str, str]) -> Server:
        """Start one, shake hands and ask for its tools."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "pocket_dock_mcp"),
            env=dict(environ),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            limit=LONGEST_LINE,
        )
        server = cls(process, environ)
        server._reader = asyncio.ensure_future(server._read())
        await server._greet()
        return server

    async def _greet(self) -> None:
        with anyio.fail_after(START_S * slowness()):
            client = {"name": "abuse", "version": "0"}
            fields = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client}
            await self.request("initialize", fields)
            self.notify("notifications/initialized")
            listed, _ = await self.request("tools/list", {})
        for tool in listed["result"]["tools"]:
            self.schemas[tool["name"]] = tool.get("outputSchema", {})

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    @property
    def is_alive(self) -> bool:
        """Whether its process runs."""
        return self.process.returncode is None

    async def call(self, tool: str, /, **arguments: Any) -> Reply:
        """Call a tool and return its reply, whatever it is. Raises `DiedError`."""
        began = time.monotonic()
        answer, size = await self.request("tools/call", {"name": tool, "arguments": arguments})
        seconds = time.monotonic() - began
        if "error" in answer:
            message = str(answer["error"].get("message"))
            return Reply(True, message, {}, size, seconds, refused=message)
        result = answer["result"]
        said = [block["text"] for block in result["content"] if block["type"] == "text"]
        structured = result.get("structuredContent") or {}
        return Reply(bool(result.get("isError")), "\n".join(said), structured, size, seconds)

    async def request(self, method: str, params: Mapping[str, Any]) -> tuple[dict[str, Any], int]:
        """Send a request and return the whole answer and its length on the wire."""
        number, answer = self.send(method, params)
        try:
            return await answer
        except asyncio.CancelledError:
            self.cancel(number)
            raise

    def send(
        self, method: str, params: Mapping[str, Any]
    ) -> tuple[int, asyncio.Future[tuple[dict[str, Any], int]]]:
        """Send a request and return its id, and where its answer will be."""
        number = next(self._ids)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        if not self.is_alive:
            raise DiedError("the server has ended")
        self.write({"jsonrpc": "2.0", "id": number, "method": method, "params": params})
        return number, answer

    def notify(self, method: str, **params: Any) -> None:
        """Send a notification."""
        self.write({"jsonrpc": "2.0", "method": method, **({"params": params} if params else {})})

    def cancel(self, number: int) -> None:
        """Cancel a request; an answer that comes nevertheless is in `late`."""
        self._answers.pop(number, None)
        self._cancelled.add(number)
        if self.is_alive:
            self.notify("notifications/cancelled", requestId=number)

    def write(self, message: Any) -> None:
        """Send anything that JSON can be."""
        self.write_bytes(json.dumps(message).encode() + b"\n")

    def write_bytes(self, data: bytes) -> None:
        """Send bytes as they are."""
        assert self.process.stdin is not None
        self.process.stdin.write(data)

    def stop_reading(self) -> None:
        """Read nothing more, as a client that hangs: pipes fill up."""
        self._stdout().pause_reading()

    def go_on_reading(self) -> None:
        """Read again."""
        self._stdout().resume_reading()

    def _stdout(self) -> asyncio.ReadTransport:
        found = self.process._transport.get_pipe_transport(1)  # type: ignore[attr-defined]
        assert isinstance(found, asyncio.ReadTransport)
        return found

    def memory_bytes(self) -> int:
        """Return what is resident now, and begin to measure the most of it anew."""
        Path("/proc", str(self.pid), "clear_refs").write_text("5")
        return _kib(self.pid, "VmRSS") * 1024

    def peak_bytes(self) -> int:
        """Return the most that was resident since `memory_bytes`."""
        return _kib(self.pid, "VmHWM") * 1024

    async def close(self, within_s: float = 20.0) -> int:
        """Close its input, as a client does; return its exit status, a kill's if it takes too long."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        with anyio.move_on_after(within_s * slowness()):
            await self.process.wait()
        return await self.kill()

    async def kill(self) -> int:
        """SIGKILL, and wait until the process is gone."""
        if self.process.returncode is None:
            self.process.kill()
        status = await self.process.wait()
        if self._reader is not None:
            await asyncio.wait([self._reader])
        return status

    async def _read(self) -> None:
        assert self.process.stdout is not None
        try:
            while line := await self.process.stdout.readline():
                self._take(line)
        finally:
            for answer in self._answers.values():
                if not answer.done():
                    answer.set_exception(DiedError("the server has ended"))
                    # Most of those that are asked when it is killed are of no interest to anybody.
                    answer.exception()

    def _take(self, line: bytes) -> None:
        try:
            message = json.loads(line)
        except ValueError:
            self.strays.append(f"no JSON: {line[:200]!r}")
            return
        if not isinstance(message, dict) or message.get("jsonrpc") != "2.0":
            self.strays.append(f"no JSON-RPC: {line[:200]!r}")
            return
        if "method" in message:
            return
        number = message.get("id")
        answer = self._answers.pop(number, None) if isinstance(number, int) else None
        if number in self._cancelled:
            self.late.append(number)
        elif answer is None:
            self.strays.append(f"an answer that nobody waits for: {line[:200]!r}")
        elif not answer.done():
            answer.set_result((message, len(line)))


def _kib(pid: int, field: str) -> int:
    for line in Path("/proc", str(pid), "status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1])
    raise DiedError(f"process {pid} is gone")
