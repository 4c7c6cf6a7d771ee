"""Bytes on a server's standard input: lines that are requests, nearly requests, or nothing of the kind.

After each case a request of our own has to be answered. What may be answered has to be valid JSON-RPC, one
answer for each request at most, and exactly one where the protocol wants one.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import anyio

from tests.fuzz import served
from tests.fuzz.harness import FoundError, Surface
from tests.fuzz.messages import LEGACY, MODERN, Message, is_valid, line, request

PROBE_DEADLINE = 30.0
"""Seconds in which a server that lives answers, on a machine that is busy."""
MOST_LINE = 16 * 1024 * 1024
MOST_LOG = 8192
"""Bytes that one case may write to the log, on average, behind the first few."""


class Server:
    """A server process on a fake engine, spoken to in bytes."""

    def __init__(self, process: asyncio.subprocess.Process, *, modern: bool) -> None:
        self.process = process
        self.modern = modern
        self.messages: list[Message] = []
        """What it has said since the last probe."""
        self.log = 0
        """Bytes that it has written to standard error."""
        self.errors: list[str] = []
        self.left: list[str] | None = None
        self.held_up_s = 0.0
        """The longest that its event loop was busy with one thing, known when it has ended."""
        self._probes = 0
        self._news = asyncio.Event()
        self._bad: list[bytes] = []

    @classmethod
    @asynccontextmanager
    async def start(cls, *, modern: bool = False, greet: bool = True) -> AsyncIterator[Server]:
        """Start one and greet it; at the end see that it ends well and leaves nothing."""
        with tempfile.TemporaryDirectory(prefix="pocket-dock-fuzz-") as folder:
            environ = {
                "PATH": os.environ["PATH"], "HOME": folder, "POCKET_DOCK_STATE_DIR": folder,
                "POCKET_DOCK_PROFILE": served.IMAGE, "POCKET_DOCK_MAX_SANDBOXES": "3",
                "POCKET_DOCK_POOL_MB": "0", "POCKET_DOCK_MIN_FREE_MB": "0",
            }  # fmt: skip
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "tests.fuzz.served", env=environ, cwd=Path(__file__).parents[2],
                limit=MOST_LINE, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )  # fmt: skip
            server = cls(process, modern=modern)
            async with anyio.create_task_group() as group:
                group.start_soon(server._read)
                group.start_soon(server._read_log)
                try:
                    if greet:
                        await server.greet()
                    yield server
                    await server._see_end()
                finally:
                    with contextlib.suppress(ProcessLookupError):
                        process.kill()
                    await process.wait()
                    group.cancel_scope.cancel()

    async def greet(self) -> None:
        """Let it know which era's client this is."""
        if not self.modern:
            await self.send(request("initialize", LEGACY, "greeting"))
            await self.send({"jsonrpc": "2.0", "method": "notifications/initialized"})
        await self.probe()

    async def send(self, message: Message) -> None:
        """Send one message."""
        await self.write(json.dumps(message).encode() + b"\n")

    async def write(self, data: bytes) -> None:
        """Send bytes, and see that they are taken."""
        assert self.process.stdin is not None
        try:
            with anyio.fail_after(PROBE_DEADLINE):
                self.process.stdin.write(data)
                await self.process.stdin.drain()
        except (ConnectionError, TimeoutError) as error:
            raise FoundError(f"The server does not read: {error!r}{await self._fate()}") from None

    async def probe(self) -> list[Message]:
        """Ask something that has to be answered; return all other messages that have come."""
        self._probes += 1
        number = f"probe-{self._probes}"
        await self.send(self.request("tools/list", {}, number))
        await self.wait_for({number})
        messages, self.messages = self.messages, []
        return [message for message in messages if message.get("id") != number]

    def request(self, method: str, params: Message, number: object) -> Message:
        """Return a request of the era that it is in."""
        return request(method, {**params, "_meta": MODERN} if self.modern else params, number)

    async def wait_for(self, numbers: set[str]) -> None:
        """Wait until all of these requests are answered."""
        try:
            with anyio.fail_after(PROBE_DEADLINE):
                while not numbers <= {
                    _key(message.get("id")) for message in self.messages if "method" not in message
                }:
                    if self._bad:
                        raise FoundError(f"It wrote what is no JSON-RPC: {self._bad[0][:300]!r}")
                    if self.process.returncode is not None:
                        raise FoundError(f"The server has ended.{await self._fate()}")
                    await self.wait_for_more()
        except TimeoutError:
            missing = numbers - {_key(message.get("id")) for message in self.messages}
            raise FoundError(f"No answer to {sorted(missing)} within {PROBE_DEADLINE:g} s.") from None
        if self._bad:
            raise FoundError(f"It wrote what is no JSON-RPC: {self._bad[0][:300]!r}")

    async def missing(self, wanted: set[str], messages: list[Message]) -> set[str]:
        """Return what of `wanted` gets no answer; all that is said goes to `messages`.

        A line of which not even the id can be read is answered without one.
        """
        with anyio.move_on_after(PROBE_DEADLINE):
            while True:
                answered = [_key(one.get("id")) for one in messages if "method" not in one]
                if twice := [number for number in wanted if answered.count(number) > 1]:
                    raise FoundError(f"More than one answer to {twice}.")
                left = wanted.difference(answered)
                if len(left) <= answered.count(_key(None)):
                    return set()
                await self.wait_for_more()
                messages += self.messages
                self.messages = []
        return left

    async def wait_for_more(self) -> None:
        """Wait until it says something, but not for long."""
        self._news.clear()
        with anyio.move_on_after(0.5):
            await self._news.wait()

    async def _fate(self) -> str:
        await anyio.sleep(0.2)
        return f" exit code {self.process.returncode}: {' '.join(self.errors)[-1000:]}"

    async def _read(self) -> None:
        assert self.process.stdout is not None
        with contextlib.suppress(ValueError):
            while line := await self.process.stdout.readline():
                self._take(line)
        self._news.set()

    def _take(self, line: bytes) -> None:
        try:
            message = json.loads(line)
        except (ValueError, RecursionError):
            message = None
        if is_valid(message):
            self.messages.append(message)
        else:
            self._bad.append(line)
        self._news.set()

    async def _read_log(self) -> None:
        assert self.process.stderr is not None
        while data := await self.process.stderr.read(65536):
            self.log += len(data)
            text = data.decode("utf-8", "replace")
            if served.END in text:
                told = json.loads(text.rpartition(served.END)[2].splitlines()[0])
                self.left, self.held_up_s = told["left"], told["held_up_s"]
            self.errors = [*self.errors, *text.splitlines()][-40:]

    async def _see_end(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            with anyio.fail_after(PROBE_DEADLINE):
                code = await self.process.wait()
                while self.left is None and code == 0:
                    await anyio.sleep(0.01)
        except TimeoutError:
            raise FoundError("The server does not end with its input.") from None
        if code != 0 or self.left:
            raise FoundError(
                f"The server ended with {code}, and left {self.left}: {' '.join(self.errors)[-1000:]}"
            )


def _key(number: object) -> str:
    return number if isinstance(number, str) else repr(number)


class Stdio(Surface):
    """The protocol on standard input and output."""

    name = "stdio"

    def __init__(self) -> None:
        self._attempts = 0

    def make(self, rng: random.Random) -> bytes:
        """Return some lines, in most of which something is wrong."""
        lines = [line(rng) for _ in range(rng.choice((1, 1, 1, 2, 5)))]
        end = rng.choice((b"\n", b"\n", b"\n", b"\r\n", b"\r", b"\n\n", b" \n", b"\0\n"))
        data = end.join(lines)
        # Sometimes the last line has no end: then what follows is a part of it.
        return data + (end if rng.random() < 0.9 else b"")

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Hold a server of each era."""
        async with Server.start() as legacy, Server.start(modern=True) as modern:
            self._servers = (legacy, modern)
            yield
            for server in self._servers:
                self.held_up_s = max(self.held_up_s, server.held_up_s)
                if server.log > MOST_LOG * (self._attempts + 100):
                    raise FoundError(f"{server.log} bytes were logged in {self._attempts} cases.")

    async def settle(self) -> None:
        """End all sandboxes."""
        for server in self._servers:
            await end_all(server)

    @property
    def pid(self) -> int:
        """One of the servers: what is held by the other is the same."""
        return self._servers[0].process.pid

    async def attempt(self, data: bytes) -> str:
        """Send it, and see what is said until a request of ours is answered."""
        self._attempts += 1
        outcomes = []
        for server in self._servers:
            await server.write(data)
            if not data.endswith(b"\n"):
                await server.write(b"\n")
            messages = await server.probe()
            wanted = _wanted(data)
            if missing := await server.missing(wanted, messages):
                raise FoundError(f"No answer to {missing}.")
            outcomes.append(_judged(messages))
        return " and ".join(sorted(set(outcomes)))


async def end_all(server: Server) -> None:
    """End all sandboxes of a server, and delete all snapshots."""
    listed = await _result(server, "list_sandboxes", {})
    for kind, name in (("sandboxes", "sandbox_id"), ("snapshots", "snapshot_id")):
        for one in listed["structuredContent"][kind]:
            await _result(server, "kill", {name: one[name]})


async def _result(server: Server, tool: str, arguments: Message) -> Message:
    server.messages.clear()
    await server.send(server.request("tools/call", {"name": tool, "arguments": arguments}, "settle"))
    await server.wait_for({"settle"})
    (answer,) = [message for message in server.messages if message.get("id") == "settle"]
    server.messages.clear()
    result: Message = answer["result"]
    return result


def _wanted(data: bytes) -> set[str]:
    """Return the ids of the requests among some lines that are to be answered, once each."""
    found: list[str] = []
    spared = {_key("probe-1")}
    for text in data.decode("utf-8", "replace").replace("\r", "\n").split("\n"):
        try:
            message = json.loads(text)
        except (ValueError, RecursionError):
            continue
        if not isinstance(message, dict):
            continue
        if message.keys() & {"result", "error"}:
            # Two things in one; whichever it is taken for is right.
            spared.add(_key(message.get("id")))
            continue
        if "method" in message and type(number := message.get("id")) in (str, int):
            found.append(_key(number))
            # What listens is answered when it ends.
            spared |= {found[-1]} if message["method"] == "subscriptions/listen" else set()
        if message.get("method") == "notifications/cancelled":
            params = message.get("params")
            spared.add(_key(params.get("requestId") if isinstance(params, dict) else None))
    return {number for number in found if found.count(number) == 1} - spared


def _judged(messages: Sequence[Message]) -> str:
    answers = [message for message in messages if "method" not in message]
    return "answered" if any("result" in one for one in answers) else "refused" if answers else "passed over"
