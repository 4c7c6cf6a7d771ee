"""Servers that are wrong on purpose, one way for each scenario: what the runner has to notice.

    python -m tests.conformance.broken --transport http --port 0

It is our server on a fake engine. At /NAME-OF-A-SCENARIO/mcp its messages are changed in a way that this
scenario is about.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import anyio
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pocket_dock_mcp.manager.core import Manager
from pocket_dock_mcp.server.http import HttpFront
from pocket_dock_mcp.settings import Settings
from tests.fake_server import connect

Json = dict[str, Any]


@dataclass(frozen=True)
class Fault:
    """What is wrong."""

    what: str
    message: Callable[[Json], object] = lambda _message: None
    """Changes a JSON-RPC message to the client."""
    status: Callable[[int], int] = lambda status: status
    headers: Callable[[list[tuple[bytes, bytes]], bytes], list[tuple[bytes, bytes]]] = lambda found, _host: (
        found
    )
    """Returns other headers of a request, given those and our own host and port."""


def _result(message: Json) -> Json:
    found = message.get("result")
    return found if isinstance(found, dict) else {}


def _lose(*names: str) -> Callable[[Json], object]:
    return lambda message: [_result(message).pop(name, None) for name in names]


def _no_schemas(message: Json) -> None:
    for tool in _result(message).get("tools", ()):
        tool.pop("inputSchema", None)


def _no_pong(message: Json) -> None:
    if message.get("result") == {}:
        del message["result"]
        message["error"] = {"code": -32601, "message": "Method not found"}


def _other_code(wrong: int) -> Callable[[Json], object]:
    return lambda message: message["error"].update(code=wrong) if "error" in message else None


def _empty_resource(message: Json) -> None:
    if message.pop("error", None) is not None:
        message["result"] = {"contents": [], "resultType": "complete", "ttlMs": 0, "cacheScope": "public"}


def _well(message: Json) -> None:
    if "isError" in _result(message):
        _result(message)["isError"] = False


def _asks_for_input(message: Json) -> None:
    if "resultType" in _result(message):
        _result(message)["resultType"] = "input_required"


def _named_like_us(found: list[tuple[bytes, bytes]], host: bytes) -> list[tuple[bytes, bytes]]:
    return [(b"host", host), *((name, value) for name, value in found if name not in (b"host", b"origin"))]


FAULTS: dict[str, Fault] = {
    "server-initialize": Fault("the server does not say who it is", _lose("serverInfo")),
    "server-session-lifecycle": Fault("a session that is over is still answered", status=lambda found: 200),
    "server-stateless": Fault("errors have another code", _other_code(-32000)),
    "ping": Fault("there is no such method", _no_pong),
    "tools-list": Fault("tools have no schemas", _no_schemas),
    "tools-call-error": Fault("a call that failed is a success", _well),
    "resources-list": Fault("the list is not there", _lose("resources")),
    "prompts-list": Fault("the list is not there", _lose("prompts")),
    "server-sse-multiple-streams": Fault("nothing succeeds", status=lambda found: 500),
    "dns-rebinding-protection": Fault("any Host and Origin will do", headers=_named_like_us),
    "caching": Fault("results do not say how long they hold", _lose("ttlMs", "cacheScope")),
    "http-header-validation": Fault("headers that are wrong are taken", status=lambda found: 200),
    "sep-2164-resource-not-found": Fault("an unknown resource is an empty one", _empty_resource),
    "input-required-result-unsupported-methods": Fault("lists ask for input", _asks_for_input),
}


class _Faulty:
    """An application whose messages are changed on their way, by the first part of the path."""

    def __init__(self, app: ASGIApp, host: bytes) -> None:
        self._app = app
        self._host = host

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        _, name, path = scope["path"].split("/", 2)
        fault = FAULTS[name]
        headers = fault.headers(list(scope["headers"]), self._host)
        changed = {**scope, "path": f"/{path}", "raw_path": f"/{path}".encode(), "headers": headers}
        await self._app(changed, receive, _Sending(fault, send))


class _Sending:
    """The answer to one request."""

    def __init__(self, fault: Fault, send: Send) -> None:
        self._fault = fault
        self._send = send
        self._start: Message = {}
        self._body = b""

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = [(name, value) for name, value in message["headers"] if name != b"content-length"]
            self._start = {**message, "headers": headers, "status": self._fault.status(message["status"])}
            await self._send(self._start)
        elif message["type"] == "http.response.body":
            more = message.get("more_body", False)
            self._body += message.get("body", b"")
            # Events and answers come whole, or in pieces; what ends with a line is an event.
            if more and not self._body.endswith(b"\n"):
                return
            body, self._body = self._body, b""
            lines = [self._changed(line) for line in body.split(b"\n")]
            await self._send({"type": "http.response.body", "body": b"\n".join(lines), "more_body": more})
        else:
            await self._send(message)

    def _changed(self, line: bytes) -> bytes:
        prefix = b"data: " if line.startswith(b"data: ") else b""
        try:
            message = json.loads(line[len(prefix) :])
        except ValueError:
            return line
        if isinstance(message, dict):
            self._fault.message(message)
        return prefix + json.dumps(message).encode() + (b"\r" if line.endswith(b"\r") else b"")


class _Broken(HttpFront):
    def _app(self, manager: Manager, sessions: Any) -> ASGIApp:
        return _Faulty(super()._app(manager, sessions), self.url.split("/")[2].encode())


if __name__ == "__main__":
    anyio.run(_Broken(Settings.from_environ({**os.environ, "POCKET_DOCK_HTTP_PORT": "0"})).serve, connect)
