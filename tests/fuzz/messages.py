"""Messages of the protocol, of both eras, right and wrong: what is sent to a server, and what it may say."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any

from tests.fuzz.values import TEXTS, mutated, odd_json, value

Message = dict[str, Any]
LEGACY = {
    "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "fuzz", "version": "0"},
}  # fmt: skip
MODERN = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
    "io.modelcontextprotocol/clientInfo": {"name": "fuzz", "version": "0"},
}


def request(method: str, params: Message, number: object) -> Message:
    """Return a request."""
    return {"jsonrpc": "2.0", "id": number, "method": method, "params": params}


def is_valid(message: object) -> bool:
    """Whether it is something that a server may say."""
    if not isinstance(message, dict) or message.get("jsonrpc") != "2.0":
        return False
    match message:
        case {"method": str()}:
            return True
        case {"id": str() | int(), "result": dict()}:
            return "error" not in message
        case {"id": _, "error": {"code": int(), "message": str()}}:
            return "result" not in message
    return False


_CALL = {"name": "list_sandboxes", "arguments": {}}
_METHODS: Sequence[tuple[str, Message]] = (
    ("initialize", LEGACY), ("ping", {}), ("tools/list", {}), ("tools/list", {"cursor": "x"}), ("tools/call", _CALL),
    ("tools/call", {"name": "run_code", "arguments": {"code": "print(6 * 7)", "wait_s": 0.05}}),
    ("tools/call", {"name": "create_sandbox", "arguments": {}}),
    ("tools/call", {"name": "nothing", "arguments": {}}), ("server/discover", {}), ("resources/list", {}),
    ("resources/read", {"uri": "file:///etc/passwd"}), ("prompts/list", {}), ("prompts/get", {"name": "x"}),
    ("logging/setLevel", {"level": "debug"}), ("completion/complete", {"ref": {"type": "ref/prompt", "name": "x"},
    "argument": {"name": "a", "value": "b"}}), ("subscriptions/listen", {}), ("resources/subscribe", {"uri": "x:y"}),
    ("roots/list", {}), ("sampling/createMessage", {}), ("tasks/get", {"taskId": "1"}), ("", {}), ("rpc.discover", {}),
    ("notifications/cancelled", {"requestId": 1}),
)  # fmt: skip
_NOTIFICATIONS: Sequence[tuple[str, Message]] = (
    ("notifications/initialized", {}), ("notifications/cancelled", {"requestId": "probe-1", "reason": "x"}),
    ("notifications/progress", {"progressToken": 1, "progress": 0.5}), ("notifications/roots/list_changed", {}),
    ("notifications/message", {"level": "info", "data": "x"}), ("$/cancelRequest", {"id": 1}), ("tools/call", _CALL),
)  # fmt: skip
_IDS: tuple[Any, ...] = (
    0,
    1,
    -1,
    2**31,
    2**53,
    2**63,
    10**30,
    1.5,
    "",
    "a",
    "\0",
    "x" * 2000,
    None,
    True,
    [],
    {},
    "probe-1",
    "\ud800",
)


def line(rng: random.Random) -> bytes:
    """Return a message in most of which something is wrong."""
    whole = message(rng)
    act = rng.randrange(6)
    if act < 2:
        return odd_json(rng, whole)
    if act < 4:
        return json.dumps(mutated(rng, whole)).encode()
    if act == 4:
        return json.dumps(whole, indent=rng.choice((None, None, 1))).encode().replace(b"\n", b" ")
    return rng.choice(
        (b"", b"null", b"1", b"[]", b"{}", b"\xff\xfe", b"Content-Length: 5", rng.randbytes(20))
    )


def message(rng: random.Random) -> Message:
    """Return a message that could be one."""
    act = rng.randrange(8)
    if act == 0:
        method, params = rng.choice(_NOTIFICATIONS)
        return {"jsonrpc": "2.0", "method": method, "params": params}
    if act == 1:
        return {"jsonrpc": "2.0", "id": rng.choice(_IDS), "result": value(rng)}
    if act == 2:
        return {"jsonrpc": "2.0", "id": rng.choice(_IDS), "error": {"code": -1, "message": rng.choice(TEXTS)}}
    method, params = rng.choice(_METHODS)
    if rng.random() < 0.5:
        params = {**params, "_meta": mutated(rng, MODERN) if rng.random() < 0.5 else MODERN}
    number = rng.choice(_IDS) if rng.random() < 0.3 else f"n{rng.randrange(10**9)}"
    return {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
