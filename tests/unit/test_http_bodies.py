"""Which bodies of requests are messages, what they may cost, and how many there may be at once."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import anyio
import pytest
from starlette.types import Message, Receive, Scope, Send

from pocket_dock_mcp.server.bodies import (
    MAX_BYTES,
    MAX_DEPTH,
    MAX_TOKENS,
    MESSAGE,
    MIN_CHARGE,
    PIECE,
    BodyGuard,
    Budget,
    held_during_call,
)

pytestmark = pytest.mark.anyio

PARSE_ERROR = -32700
INVALID_REQUEST = -32600

GOOD: list[dict[str, Any]] = [
    {},
    {"a": ["x", 1.5, -2, True, None, {"b": 'é"\\q\n'}]},
    {"text": "x" * (MAX_BYTES - 100)},
    {"text": '"' * (MAX_BYTES // 3)},
    {"text": "\\" * (PIECE + 1)},
    {"text": "{[,:" * MAX_TOKENS},
    {"many": ["word"] * (MAX_TOKENS // 3)},
    {"edges": ["y" * (PIECE - size) for size in range(20)]},
    {"pairs": "\U0001f600\U0010ffff", "no escapes": "\\ud800 \\udc00"},
    {"long": 10**399 // 9, "double": 1e308, "small": 5e-324},
]
BAD: dict[str, bytes] = {
    "nothing": b"",
    "no JSON": b"hello",
    "half": b'{"a":',
    "no end of a string": b'{"a":"' + b"x" * PIECE * 2,
    "a backslash at the end": b'{"a":"\\',
    "more behind": b"{} {}",
    "no UTF-8": b'{"a":"\xff"}',
    "UTF-16": '{"a":1}'.encode("utf-16"),
    "a byte order mark": b"\xef\xbb\xbf{}",
    "a control character": b'{"a":"\x00"}',
    "the first half of a pair": b'{"a":"\\ud83d"}',
    "the second half of a pair": b'{"\\uDE00":1}',
    "halves in the wrong order": b'{"a":"\\ude00\\ud83d"}',
    "half a pair behind a pair": b'{"a":"\\ud83d\\ude00\\ude00"}',
    "NaN": b'{"a":NaN}',
    "infinity": b'{"a":-Infinity}',
    "a key twice": b'{"a":1,"b":{"c":1,"c":1}}',
    "a key twice, spelt differently": b'{"a":1,"\\u0061":2}',
    "deep lists": b"[" * 100_000 + b"]" * 100_000,
    "deep objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "a little too deep": b'{"a":' + b"[" * MAX_DEPTH + b"]" * MAX_DEPTH + b"}",
    "a number of a million digits": b'{"a":' + b"9" * 1_000_000 + b"}",
    "a double of a million digits": b'{"a":0.' + b"9" * 1_000_000 + b"}",
    "a million empty lists": b'{"a":[' + b"[]," * 1_000_000 + b"[]]}",
    "a million empty strings": b'{"a":[' + b'"",' * 1_000_000 + b'""]}',
    "a million brackets": b"]" * 1_000_000,
    "only quotes": b'"' * 1_000_000,
    "only spaces": b" " * MAX_BYTES,
}


class Passed:
    """An application that notes what gets to it, and is done when it is told."""

    def __init__(self) -> None:
        self.scopes: list[Scope] = []
        self.bodies: list[bytes] = []
        self.done = anyio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scopes.append(scope)
        self.bodies.append((await receive())["body"])
        await self.done.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})


class Sender:
    """A client, as an application sees one."""

    def __init__(self, guard: BodyGuard, principal: str = "token:alice") -> None:
        self._guard = guard
        self._user = SimpleNamespace(username=principal)
        self.status = 0
        self.answer = b""
        self.read = 0

    async def post(self, parts: list[bytes], *, declared: int | None = None, leave: bool = False) -> int:
        """Send a body in parts and return the status of the answer."""
        messages: list[Message] = [
            {"type": "http.request", "body": part, "more_body": leave or number < len(parts)}
            for number, part in enumerate(parts, start=1)
        ]

        async def receive() -> Message:
            self.read += 1
            return messages.pop(0) if messages else {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            self.status = message.get("status", self.status)
            self.answer += message.get("body", b"")

        headers = [] if declared is None else [(b"content-length", str(declared).encode())]
        scope = {"type": "http", "method": "POST", "headers": headers, "user": self._user}
        await self._guard(scope, receive, send)
        return self.status


def passing() -> Passed:
    app = Passed()
    app.done.set()
    return app


@pytest.mark.parametrize("message", GOOD, ids=lambda message: str(list(message)))
async def test_a_message_passes_as_it_is(message: dict[str, Any]) -> None:
    for body in (json.dumps(message).encode(), json.dumps(message, ensure_ascii=False, indent=1).encode()):
        app = passing()
        if len(body) <= MAX_BYTES:
            assert await Sender(BodyGuard(app, Budget())).post([body[:7], body[7:]]) == 200
            assert app.bodies == [body]
            assert app.scopes[0][MESSAGE] == message


@pytest.mark.parametrize("body", BAD.values(), ids=BAD)
async def test_what_is_no_message_is_a_parse_error(body: bytes) -> None:
    app = passing()
    sender = Sender(BodyGuard(app, Budget()))
    assert await sender.post([body]) == 400
    told = json.loads(sender.answer)
    assert told["error"]["code"] == PARSE_ERROR
    assert told["id"] is None
    assert len(sender.answer) < 300
    assert app.scopes == []


@pytest.mark.parametrize(
    "body", [b'[{"jsonrpc":"2.0","id":1,"method":"ping"}]', b"[]", b"1", b"null", b'"x"']
)
async def test_what_is_no_single_message_is_an_invalid_request(body: bytes) -> None:
    sender = Sender(BodyGuard(passing(), Budget()))
    assert await sender.post([body]) == 400
    assert json.loads(sender.answer)["error"]["code"] == INVALID_REQUEST


@pytest.mark.parametrize(
    "body",
    [
        BAD["only spaces"],
        b'{"a":[' + b'"word",' * (MAX_TOKENS // 2 - 5) + b"1]}",
        b'{"a":"' + b"\\n" * 2_000_000 + b'"}',
        b'{"a":"' + b'\\"' * 2_000_000 + b'"}',
    ],
)
async def test_others_have_their_turn_while_a_body_is_searched(body: bytes) -> None:
    turns = 0

    async def take_turns() -> None:
        nonlocal turns
        while True:
            await anyio.lowlevel.checkpoint()
            turns += 1

    async with anyio.create_task_group() as group:
        group.start_soon(take_turns)
        await Sender(BodyGuard(passing(), Budget())).post([body])
        group.cancel_scope.cancel()
    assert turns >= 5


async def test_a_body_that_is_declared_too_large_is_not_even_read() -> None:
    sender = Sender(BodyGuard(passing(), Budget()))
    assert await sender.post([b"x"], declared=MAX_BYTES + 1) == 413
    assert sender.read == 0


async def test_a_body_that_becomes_too_large_is_read_no_further() -> None:
    sender = Sender(BodyGuard(passing(), Budget()))
    assert await sender.post([b"x" * 1_000_000] * 100) == 413
    assert sender.read == 5


async def test_a_client_that_goes_before_the_end_gets_no_answer() -> None:
    app = passing()
    sender = Sender(BodyGuard(app, Budget()))
    assert await sender.post([b"{}"], leave=True) == 0
    assert app.scopes == []


async def test_bodies_count_until_their_calls_are_over_for_each_principal_and_for_all() -> None:
    app = Passed()
    guard = BodyGuard(app, Budget(most=3 * MIN_CHARGE, most_each=2 * MIN_CHARGE))
    alice, bob, carol = (f"token:{name}" for name in ("alice", "bob", "carol"))

    async def post(principal: str, size: int = 0) -> int:
        return await Sender(guard, principal).post([json.dumps({"text": "x" * size}).encode()])

    async with anyio.create_task_group() as group:
        group.start_soon(post, alice)
        group.start_soon(post, alice)
        await _passed(app, 2)
        assert await post(alice) == 503
        assert await post(bob, 2 * MIN_CHARGE) == 503
        group.start_soon(post, bob)
        await _passed(app, 3)
        assert await post(carol) == 503
        app.done.set()
    assert await post(alice, MIN_CHARGE) == await post(carol) == 200


async def test_the_body_of_a_call_counts_when_its_request_is_over() -> None:
    app = passing()
    guard = BodyGuard(app, Budget(most=2 * MIN_CHARGE, most_each=2 * MIN_CHARGE))
    large = json.dumps({"text": "x" * MIN_CHARGE}).encode()
    assert await Sender(guard).post([large]) == 200
    request: Any = SimpleNamespace(
        request_context=SimpleNamespace(request=SimpleNamespace(scope=app.scopes[0]))
    )
    with held_during_call(request):
        assert await Sender(guard).post([large]) == 503
    assert await Sender(guard).post([large]) == 200


async def _passed(app: Passed, count: int) -> None:
    with anyio.fail_after(10):
        while len(app.scopes) < count:
            await anyio.lowlevel.checkpoint()
