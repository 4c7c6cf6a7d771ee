"""Bodies of requests: read within limits, and looked through before anything acts on them.

What can be parsed is still no message that costs little: nesting exhausts stacks, and numbers of a million
digits or a million empty lists take the only thread, which everybody shares. So a body is searched for that
first, a piece at a time, and others have their turn in between.
"""

from __future__ import annotations

import collections
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import anyio.lowlevel
from mcp.server.mcpserver import Context
from mcp.types import INVALID_REQUEST, PARSE_ERROR
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pocket_dock_mcp.server.guards import refused

MAX_BYTES = 4 * 1024 * 1024
"""Of one body."""
MAX_IN_FLIGHT = 64 * 1024 * 1024
"""Bytes of all bodies together whose calls are under way."""
MAX_IN_FLIGHT_EACH = 32 * 1024 * 1024
"""Bytes of those of one principal."""
MIN_CHARGE = 16 * 1024
"""Bytes that a request counts at least: it takes more room than its body."""
MAX_DEPTH = 64
MAX_TOKENS = 50_000
"""Strings, brackets, commas and colons. An edit of a file needs nine."""
MAX_DIGITS = 400
"""Of a number: what has more is none that a double or a 64-bit integer could be."""
PIECE = 32 * 1024
"""Bytes after which others have their turn."""

_SHARE = "pocket_dock.share"
MESSAGE = "pocket_dock.message"
"""Where in its scope the parsed body of a request is."""

_OUTSIDE = re.compile(rb'[^"]*')
_INSIDE = re.compile(rb'[^"\\]*(?:\\.[^"\\]*)*', re.DOTALL)
_STRUCTURE = re.compile(rb"[\[\]{},:]")
_LONG_NUMBER = re.compile(rb"[0-9]{%d}" % MAX_DIGITS)
_HALF = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])|(?<!\\u[dD][89abAB][0-9a-fA-F]{2})\\u[dD][c-fC-F]"
)
"""What may be half of a surrogate pair; or behind another backslash a text that looks like it."""
_STEPS = {b"[": 1, b"{": 1, b"]": -1, b"}": -1}


class _RefusedError(Exception):
    """A request's body is not taken; `answer` says why."""

    def __init__(self, answer: ASGIApp) -> None:
        super().__init__()
        self.answer = answer


class Budget:
    """How many bytes of bodies there are: of everybody, and of each principal."""

    def __init__(self, most: int = MAX_IN_FLIGHT, most_each: int = MAX_IN_FLIGHT_EACH) -> None:
        self._most = most
        self._most_each = most_each
        self._total = 0
        self._by_principal: collections.Counter[str] = collections.Counter()

    def take(self, principal: str, count: int) -> bool:
        """Count some more, unless there are too many."""
        if self._total + count > self._most or self._by_principal[principal] + count > self._most_each:
            return False
        self.add(principal, count)
        return True

    def add(self, principal: str, count: int) -> None:
        """Count some more, or less, whatever the limits are."""
        self._total += count
        self._by_principal[principal] += count
        if not self._by_principal[principal]:
            del self._by_principal[principal]


class _Share:
    """What one request has of the budget, while somebody holds it."""

    def __init__(self, budget: Budget, principal: str) -> None:
        self._budget = budget
        self._principal = principal
        self._holders = 0
        self._size = 0

    def grow_to(self, size: int) -> bool:
        """Have room for a body of this size, if there is any."""
        more = max(size, MIN_CHARGE) - self._size
        if more > 0:
            if not self._budget.take(self._principal, more):
                return False
            self._size += more
        return True

    @contextmanager
    def held(self) -> Iterator[None]:
        """Count it. The call that comes of a request may begin a moment after the request is over."""
        if not self._holders:
            self._budget.add(self._principal, self._size)
        self._holders += 1
        try:
            yield
        finally:
            self._holders -= 1
            if not self._holders:
                self._budget.add(self._principal, -self._size)


@contextmanager
def held_during_call(context: Context[Any, Any] | None) -> Iterator[None]:
    """Count the body of a call until the call is over: it may outlive its request."""
    request = None if context is None else context.request_context.request
    share = None if request is None else request.scope.get(_SHARE)
    if not isinstance(share, _Share):
        yield
        return
    with share.held():
        yield


class BodyGuard:
    """Lets requests pass whose bodies are messages of bounded size and cost. Needs to know whose they are."""

    def __init__(self, app: ASGIApp, budget: Budget) -> None:
        self._app = app
        self._budget = budget

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read the body and pass it on with the request, or refuse both."""
        if scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        share = _Share(self._budget, scope["user"].username)
        with share.held():
            try:
                body = await _read(scope, receive, share)
                message = await parsed(body)
            except _RefusedError as refusal:
                await refusal.answer(scope, receive, send)
            except ClientDisconnect:
                pass
            else:
                passed = {**scope, _SHARE: share, MESSAGE: message}
                await self._app(passed, _replay(body, receive), send)


async def _read(scope: Scope, receive: Receive, share: _Share) -> bytes:
    """Return a body.

    Raises:
        _RefusedError: there is no room for it.
        ClientDisconnect: the client has gone before the end.
    """
    if _declared(scope) > MAX_BYTES:
        raise _too_large()
    body = bytearray()
    while True:
        part = await receive()
        if part["type"] != "http.request":
            raise ClientDisconnect
        size = len(body) + len(part.get("body", b""))
        if size > MAX_BYTES:
            raise _too_large()
        if not share.grow_to(size):
            raise _RefusedError(
                refused(503, "There are too many requests under way.", "Try again when some are answered.")
            )
        body += part.get("body", b"")
        if not part.get("more_body", False):
            return bytes(body)


def _declared(scope: Scope) -> int:
    """Return what the Content-Length says; h11 has seen to it that it is a number, and only one."""
    return next((int(value) for name, value in scope["headers"] if name == b"content-length"), 0)


def _too_large() -> _RefusedError:
    return _RefusedError(
        refused(
            413,
            f"The request's body is larger than {MAX_BYTES} bytes.",
            "Write a large file in several pieces: write_file with append.",
        )
    )


def no_message(why: str, code: int) -> ASGIApp:
    """Return the answer to a body that is no message."""
    return JSONResponse({"jsonrpc": "2.0", "id": None, "error": {"code": code, "message": why}}, 400)


def _not_understood(why: str) -> _RefusedError:
    return _RefusedError(no_message(f"Parse error: {why}", PARSE_ERROR))


def _replay(body: bytes, receive: Receive) -> Receive:
    """Return what hands out a whole body, and then what else comes."""
    first: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return first.pop() if first else await receive()

    return replay


async def parsed(body: bytes) -> Any:
    """Return what a body says.

    Raises:
        _RefusedError: it is no JSON that has one meaning and a bounded cost, or no single message.
    """
    await _look_through(body)
    try:
        message = json.loads(body.decode("utf-8"), object_pairs_hook=_object, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise _not_understood("the body is no JSON text in UTF-8.") from None
    if _HALF.search(body) and not _is_text(message):
        raise _not_understood("a text has half of a surrogate pair.")
    if not isinstance(message, dict):
        raise _RefusedError(
            no_message("The body has to be a single message; batches are not served.", INVALID_REQUEST)
        )
    await anyio.lowlevel.checkpoint()
    return message


def _is_text(message: Any) -> bool:
    """Whether all that it says can be said in UTF-8, and so in an answer."""
    try:
        json.dumps(message, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        # Whoever looks at it before us may have seen the other value.
        raise _not_understood("an object has a key twice.")
    return made


def _no_constant(name: str) -> Any:
    raise _not_understood(f"{name} is no number in JSON.")


async def _look_through(body: bytes) -> None:
    """Refuse what would be expensive to parse. What is no JSON at all is left to the parser."""
    looked = _Looked()
    position = 0
    while position < len(body):
        position = await _outside(body, position, looked)
        position = await _inside(body, position + 1, looked)


class _Looked:
    """What a body has so far."""

    def __init__(self) -> None:
        self.depth = 0
        self.tokens = 0
        self.strings = 0

    def structure(self, text: bytes) -> None:
        """See a piece that is in no string."""
        if _LONG_NUMBER.search(text):
            raise _not_understood(f"a number has more than {MAX_DIGITS} digits.")
        for mark in _STRUCTURE.findall(text):
            self.depth += _STEPS.get(mark, 0)
            if self.depth > MAX_DEPTH:
                raise _not_understood(f"the body is nested more than {MAX_DEPTH} deep.")
            self.token()

    def token(self) -> None:
        """Count."""
        self.tokens += 1
        if self.tokens > MAX_TOKENS:
            raise _not_understood(f"the body has more than {MAX_TOKENS} parts.")


async def _outside(body: bytes, position: int, looked: _Looked) -> int:
    """Return where the next string begins, or the end."""
    while True:
        piece = _piece(_OUTSIDE, body, position)
        looked.structure(piece)
        position += len(piece)
        if len(piece) < PIECE:
            return position
        await anyio.lowlevel.checkpoint()


async def _inside(body: bytes, position: int, looked: _Looked) -> int:
    """Return what follows a string, or the end."""
    looked.token()
    looked.strings += 1
    if looked.strings % 500 == 0:
        await anyio.lowlevel.checkpoint()
    while position < len(body):
        piece = _piece(_INSIDE, body, position)
        position += len(piece)
        if body[position : position + 1] == b'"':
            return position + 1
        # It goes on; or a backslash is the last of the body.
        position += not piece
        await anyio.lowlevel.checkpoint()
    return position


def _piece(pattern: re.Pattern[bytes], body: bytes, position: int) -> bytes:
    """Return what matches from here, at most a piece; the patterns match nothing, too."""
    found = pattern.match(body, position, position + PIECE)
    return found.group() if found else b""
