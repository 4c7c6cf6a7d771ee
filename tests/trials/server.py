"""A server process, spoken to line by line, so that it can be killed at any moment."""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
from collections.abc import Mapping
from typing import Any

import anyio

CALL_DEADLINE = 60.0
ABOUT_ONE = {"run_code", "run_command", "write_file", "snapshot", "fork_sandbox", "diff"}
"""Tools that are about one sandbox."""


class DiedError(Exception):
    """The server ended before it answered."""


class Server:
    """`python -m pocket_dock_mcp`, over its standard streams."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.is_used = False
        self._newest: str | None = None
        self._ids = itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._reader = asyncio.ensure_future(self._read())

    @classmethod
    async def start(cls, environ: Mapping[str, str]) -> Server:
        """Start one; it is not spoken to yet."""
        return cls(
            await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "pocket_dock_mcp",
                env=dict(environ),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=None,
                limit=64 * 1024 * 1024,
                # Ctrl-C is for the trial, which comes to its end with it.
                start_new_session=True,
            )
        )

    async def initialize(self) -> None:
        """Shake hands, if that has not been done."""
        if self.is_used:
            return
        self.is_used = True
        client = {"name": "trial", "version": "0"}
        fields = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": client}
        await self._wait(self._send("initialize", fields))
        self._write({"jsonrpc": "2.0", "method": "notifications/initialized"})

    def send(self, tool: str, /, **arguments: Any) -> asyncio.Future[dict[str, Any]]:
        """Call a tool and do not wait; it is about the newest sandbox, where nothing else is said."""
        if tool in ABOUT_ONE and self._newest is not None:
            arguments.setdefault("sandbox_id", self._newest)
        return self._send("tools/call", {"name": tool, "arguments": arguments})

    async def call(self, tool: str, /, **arguments: Any) -> dict[str, Any]:
        """Call a tool that is to succeed and return its structured result."""
        result = (await self._wait(self.send(tool, **arguments)))["result"]
        if result.get("isError"):
            raise AssertionError(f"{tool}: {result['content']}")
        if tool == "create_sandbox":
            self._newest = result["structuredContent"]["sandbox_id"]
        return dict(result["structuredContent"])

    async def kill(self) -> None:
        """SIGKILL, and wait until the process is gone."""
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()
        await asyncio.wait([self._reader])

    async def close(self) -> int:
        """Close its input, as a client does, and return its exit status."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        with anyio.move_on_after(20):
            await self.process.wait()
        await self.kill()
        assert self.process.returncode is not None
        return self.process.returncode

    def _send(self, method: str, params: Mapping[str, Any]) -> asyncio.Future[dict[str, Any]]:
        number = next(self._ids)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        self._write({"jsonrpc": "2.0", "id": number, "method": method, "params": params})
        return answer

    def _write(self, message: Mapping[str, Any]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(message).encode() + b"\n")

    async def _wait(self, answer: asyncio.Future[dict[str, Any]]) -> dict[str, Any]:
        with anyio.fail_after(CALL_DEADLINE):
            return await answer

    async def _read(self) -> None:
        assert self.process.stdout is not None
        try:
            while line := await self.process.stdout.readline():
                message = json.loads(line)
                answer = self._answers.pop(message.get("id"), None)
                if answer is not None and not answer.done():
                    answer.set_result(message)
        finally:
            for answer in self._answers.values():
                if not answer.done():
                    answer.set_exception(DiedError())
                    # Most of those that are asked when it is killed are of no interest to anybody.
                    answer.exception()
