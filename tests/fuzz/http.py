"""Bytes on the connections of the HTTP server: both eras of streamable HTTP, the older SSE, and what is none.

After each case the server has to answer at its other paths and connections; what it has said has to be HTTP with
JSON-RPC in it; it must not have failed, and not have held up its event loop. Some clients say something and no
more, or a byte now and then: those it has to get rid of by itself.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
from anyio.abc import SocketStream, TaskGroup
from anyio.streams.buffered import BufferedByteReceiveStream

from tests.engines import FAKE, eventually
from tests.fuzz import served
from tests.fuzz.answers import Answer, answers, check
from tests.fuzz.harness import FoundError, Surface
from tests.fuzz.messages import LEGACY, MODERN, Message, request
from tests.fuzz.requests import connection
from tests.servers import HttpServer, environment, http_server

ANSWER_DEADLINE = 30.0
"""Seconds in which a server that lives answers, on a machine that is busy."""
CUT_OFF_DEADLINE = 55.0
"""Seconds in which it closes a connection on which nothing sensible happens: much longer than its own deadlines."""
QUIET_S = 0.02
"""Seconds in which nothing more has to come to see what has been said, once the server has answered others."""
SESSION_IDLE_S = 3
MOST_STAYING = 12
MOST_LOG = 2048
"""Bytes that one case may write to the log, on average, behind the first few."""
_PACES = (*["whole"] * 10, *["pieces"] * 3, "aborted", "half", "stays")
_TROUBLE = re.compile(r"Traceback|Exception in ASGI|Task exception was never|was never awaited")
_PRINCIPAL = "fuzz"


class Http(Surface):
    """The protocol over HTTP."""

    name = "http"
    _server: HttpServer
    _group: TaskGroup

    def __init__(self) -> None:
        self._attempts = 0
        self._known: dict[bytes, bytes] = {}
        self._sessions: set[str] = set()
        self._streams: list[SocketStream] = []
        self._staying = 0
        self._broken: list[str] = []
        self._seen = 0

    def make(self, rng: random.Random) -> bytes:
        """Return how a client says something, and behind a line break what it says."""
        return rng.choice(_PACES).encode() + b"\n" + connection(rng)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Hold a server, a session and a stream of SSE."""
        with tempfile.TemporaryDirectory(prefix="pocket-dock-fuzz-") as folder:
            environ = {
                **environment(FAKE, Path(folder), served.IMAGE), "POCKET_DOCK_POOL_MB": "0",
                "POCKET_DOCK_MIN_FREE_MB": "0", "POCKET_DOCK_HTTP_SESSION_IDLE_S": str(SESSION_IDLE_S),
            }  # fmt: skip
            async with (
                http_server(
                    FAKE, environ, principals=[_PRINCIPAL], module="tests.fuzz.served"
                ) as self._server,
                anyio.create_task_group() as self._group,
            ):
                self._seen = 0
                address = self._server.address.encode()
                self._known = {b"@HOST@": address, b"@TOKEN@": self._server.tokens[_PRINCIPAL].encode()}
                # Only now it connects to its engine.
                await self._tool("create_sandbox", {})
                yield
                await self._see_end()

    @property
    def pid(self) -> int:
        """The server."""
        return self._server.process.pid

    async def settle(self) -> None:
        """End all sandboxes, sessions and connections."""
        with anyio.fail_after(CUT_OFF_DEADLINE + ANSWER_DEADLINE):
            while self._staying:
                await anyio.sleep(0.05)
        listed = await self._tool("list_sandboxes", {})
        for kind, name in (("sandboxes", "sandbox_id"), ("snapshots", "snapshot_id")):
            for one in listed["structuredContent"][kind]:
                await self._tool("kill", {name: one[name]})
        for session in self._sessions:
            await self._ask(b"DELETE", b"/mcp", None, {"Mcp-Session-Id": session})
        self._sessions.clear()
        self._known.pop(b"@SESSION@", None)
        self._known.pop(b"@STREAM@", None)
        for stream in self._streams:
            await stream.aclose()
        self._streams.clear()
        # A session whose client was gone before it was answered ends by itself; nobody else knows of it.
        with anyio.move_on_after(SESSION_IDLE_S + ANSWER_DEADLINE):
            while left := (await self._told())["left"]:
                await anyio.sleep(0.2)
        if left:
            raise FoundError(f"It has sandboxes that it does not tell of: {left}")

    async def attempt(self, data: bytes) -> str:
        """Say it, see that others are answered meanwhile, and look at what was said to it."""
        self._attempts += 1
        pace, _, said = data.partition(b"\n")
        for place, known in (await self._places(said)).items():
            said = said.replace(place, known)
        client = await anyio.connect_tcp(*_split(self._server.address))
        if pace == b"stays" and self._staying < MOST_STAYING:
            self._staying += 1
            self._group.start_soon(self._stay, client, said)
            outcome = "stays"
        else:
            async with client:
                outcome = await self._say(client, pace, said)
        self._look_at_log()
        if self._broken:
            raise FoundError(self._broken.pop())
        return outcome

    async def _say(self, client: SocketStream, pace: bytes, said: bytes) -> str:
        answer = bytearray()
        async with anyio.create_task_group() as group:
            group.start_soon(_read_into, client, answer)
            size = max(len(said) // 4, 1) if pace == b"pieces" else len(said) or 1
            for at in range(0, len(said), size):
                if not await _sent(client, said[at : at + size]):
                    break
                await anyio.sleep(0)
            if pace == b"aborted":
                await _reset(client)
                group.cancel_scope.cancel()
            elif pace == b"half":
                await _ended(client)
            await self._probe()
            await _until_quiet(answer)
            group.cancel_scope.cancel()
        return self._judged(bytes(answer), said)

    def _judged(self, said: bytes, request: bytes) -> str:
        words = []
        for answer in answers(said, perhaps_to_head=b"HEAD" in request):
            words.append(check(answer))
            if session := answer.headers.get("mcp-session-id"):
                self._sessions.add(session)
        return words[0] if words else "nothing"

    async def _stay(self, client: SocketStream, said: bytes) -> None:
        """Say most of it, then a byte now and then; the server has to lose its patience."""
        answer = bytearray()
        cut = len(said) * 3 // 4
        try:
            async with client, anyio.create_task_group() as group:
                group.start_soon(_dribble, client, said[:cut], said[cut:])
                with anyio.move_on_after(CUT_OFF_DEADLINE) as limit:
                    await _read_into(client, answer)
                group.cancel_scope.cancel()
            told = list(answers(bytes(answer), perhaps_to_head=b"HEAD" in said))
            if limit.cancelled_caught and not any(one.is_stream for one in told):
                self._broken.append(
                    f"It has kept a connection on which nobody says anything: {said[:cut][-200:]!r}"
                )
        finally:
            self._staying -= 1

    # -- what goes on beside ---------------------------------------------------------------------------

    async def _probe(self) -> None:
        """See that others are answered in time."""
        try:
            with anyio.fail_after(ANSWER_DEADLINE):
                health = await self._ask(b"GET", b"/health", None, {})
                if health.status != 200:
                    raise FoundError(f"/health answers {health.status}.")
                await self._tool("list_sandboxes", {})
        except (TimeoutError, OSError, anyio.BrokenResourceError, anyio.EndOfStream) as error:
            code = self._server.process.poll()
            raise FoundError(
                f"The server does not answer: {error!r}; {code}: {self._server.log()[-1000:]}"
            ) from None

    async def _tool(self, name: str, arguments: Message) -> Message:
        asked = request("tools/call", {"name": name, "arguments": arguments, "_meta": MODERN}, "probe")
        headers = {"Mcp-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/call", "Mcp-Name": name}
        answer = await self._ask(b"POST", b"/mcp", asked, headers)
        if answer.status != 200:
            raise FoundError(f"A tool call of another client gets {answer.status}: {answer.body[:300]!r}")
        result: Message = json.loads(answer.body)["result"]
        return result

    async def _ask(self, method: bytes, path: bytes, body: Message | None, more: dict[str, str]) -> Answer:
        async with await anyio.connect_tcp(*_split(self._server.address)) as client:
            await client.send(self._head(method, path, body, {**more, "Connection": "close"}))
            said = bytearray()
            with anyio.fail_after(ANSWER_DEADLINE):
                await _read_into(client, said)
        return next(answers(bytes(said), perhaps_to_head=False))

    def _head(self, method: bytes, path: bytes, body: Message | None, more: dict[str, str]) -> bytes:
        data = b"" if body is None else json.dumps(body).encode()
        headers = {
            "Host": self._server.address, "Accept": "application/json, text/event-stream", **more,
            **self._server.headers(_PRINCIPAL), "Content-Type": "application/json", "Content-Length": str(len(data)),
        }  # fmt: skip
        lines = [f"{name}: {said}".encode() for name, said in headers.items()]
        return b"\r\n".join([method + b" " + path + b" HTTP/1.1", *lines, b"", data])

    async def _places(self, said: bytes) -> dict[bytes, bytes]:
        """Return what stands for the words between ``@``; what is missing is opened."""
        if b"@SESSION@" in said and not await self._has_session():
            answer = await self._ask(b"POST", b"/mcp", request("initialize", LEGACY, 1), {})
            if "mcp-session-id" not in answer.headers:
                raise FoundError(f"No new session: {answer.status} {answer.body[:300]!r}")
            self._known[b"@SESSION@"] = answer.headers["mcp-session-id"].encode()
            self._sessions.add(answer.headers["mcp-session-id"])
        if b"@STREAM@" in said and b"@STREAM@" not in self._known:
            self._known[b"@STREAM@"] = await self._open_stream()
        return self._known

    async def _has_session(self) -> bool:
        """Whether the session is there; a case may have ended it."""
        session = self._known.get(b"@SESSION@")
        if session is None:
            return False
        headers = {"Mcp-Session-Id": session.decode(), "Mcp-Protocol-Version": "2025-11-25"}
        answer = await self._ask(b"POST", b"/mcp", request("ping", {}, "ping"), headers)
        return answer.status == 200

    async def _open_stream(self) -> bytes:
        client = await anyio.connect_tcp(*_split(self._server.address))
        self._streams.append(client)
        await client.send(self._head(b"GET", b"/sse", None, {}))
        reader = BufferedByteReceiveStream(client)
        with anyio.fail_after(ANSWER_DEADLINE):
            found = await reader.receive_until(b"session_id=", 10_000)
            number = await reader.receive_exactly(32)
        assert b" 200 " in found
        self._group.start_soon(self._follow, client)
        return number

    async def _follow(self, client: SocketStream) -> None:
        """Read a stream to its end; another is opened when somebody needs one."""
        await _read_into(client, bytearray())
        self._known.pop(b"@STREAM@", None)

    def _look_at_log(self) -> None:
        log = self._server.log()
        new, self._seen = log[self._seen :], len(log)
        if trouble := _TROUBLE.search(new):
            raise FoundError(f"It was logged: {new[trouble.start() :][:1500]}")
        if len(log) > MOST_LOG * (self._attempts + 100):
            raise FoundError(f"{len(log)} bytes were logged in {self._attempts} cases: {log[-500:]}")

    async def _told(self) -> Message:
        before = self._server.log().count(served.END)
        self._server.process.send_signal(10)

        async def said() -> list[str]:
            return self._server.log().split(served.END)[before + 1 :]

        told: Message = json.loads((await eventually(said, ANSWER_DEADLINE))[0].splitlines()[0])
        self.held_up_s = max(self.held_up_s, told["held_up_s"])
        return told

    async def _see_end(self) -> None:
        await self.settle()
        self._server.process.terminate()
        with anyio.fail_after(ANSWER_DEADLINE):
            code = await asyncio.to_thread(self._server.process.wait, ANSWER_DEADLINE)
        if code != 128 + 15:
            raise FoundError(f"The server has ended with {code}: {self._server.log()[-1000:]}")


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host, int(port)


async def _read_into(client: SocketStream, said: bytearray) -> None:
    try:
        async for data in client:
            said += data
    except (anyio.BrokenResourceError, anyio.ClosedResourceError):
        pass


async def _sent(client: SocketStream, data: bytes) -> bool:
    """Send what is taken within a second: a server need not read what it has refused."""
    try:
        with anyio.move_on_after(1) as limit:
            await client.send(data)
    except (anyio.BrokenResourceError, anyio.ClosedResourceError):
        return False
    return not limit.cancelled_caught


async def _dribble(client: SocketStream, first: bytes, rest: bytes) -> None:
    if await _sent(client, first):
        for byte in rest:
            await anyio.sleep(0.3)
            if not await _sent(client, bytes([byte])):
                return


async def _ended(client: SocketStream) -> None:
    try:
        await client.send_eof()
    except (OSError, anyio.BrokenResourceError, anyio.ClosedResourceError):
        pass  # It has ended it.


async def _reset(client: SocketStream) -> None:
    await anyio.aclose_forcefully(client)


async def _until_quiet(said: bytearray) -> None:
    """Wait until nothing more comes for a moment."""
    for _ in range(50):
        before = len(said)
        await anyio.sleep(QUIET_S)
        if len(said) == before:
            return
