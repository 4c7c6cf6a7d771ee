"""The host's end of the stream to an agent: requests out, frames in, and no trust in either.

What is behind the stream may be hostile: a frame that the protocol does not allow (a length over the caps,
an unknown kind, an id that is not ours, more data than the window) ends the link. Whoever waits is told,
and nothing that arrives later is believed.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import anyio

from pocket_dock_mcp.agent.inside import wire
from pocket_dock_mcp.agent.requests import Header, OnData, Relay, Request
from pocket_dock_mcp.engine.base import STDERR, Stream
from pocket_dock_mcp.errors import (
    AgentError,
    AgentProtocolError,
    AgentTimeoutError,
    RequestRefusedError,
    SandboxHaltedError,
    StreamLostError,
)

logger = logging.getLogger(__name__)


R = TypeVar("R", bound=Relay)

STALL_DEADLINE = 30.0
"""Seconds in which a peer that lives takes a frame: the agent never stops reading."""
_DIAGNOSTICS = 4096
"""Bytes kept of what the agent writes to standard error: a traceback, if it ever fails."""
_MOST = 1 << 62
"""Of a number in a frame: requests count up from the one that an agent names."""
_FINAL = frozenset({"reply", "error", "exit", "ready"})


class AgentLink:
    """A multiplexed connection to one agent. Made by `connect`; `aclose` ends the lease."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._requests: dict[int, Request] = {}
        self._next_id = self._first_id = 1
        self._broken: AgentError | None = None
        self._held = b""
        self._diagnostics = b""
        self._ready = Request(None)
        self._requests[0] = self._ready
        # The link outlives the call that made it, so no caller's task group can own its reader: this is
        # the one task that is not in a group, and `aclose` is what ends it.
        self._reader = asyncio.get_running_loop().create_task(self._read(), name="agent-link")

    @property
    def broken(self) -> AgentError | None:
        """Why the link is dead, or None while it lives."""
        return self._broken

    def owns(self, request_id: int) -> bool:
        """Whether it is one of the numbers that this link gives; the others are other links'."""
        return self._first_id <= request_id < self._first_id + wire.IDS

    @property
    def diagnostics(self) -> str:
        """The last of what the program wrote to standard error."""
        return self._diagnostics.decode("utf-8", "replace")

    async def wait_ready(self, deadline: float) -> Header:
        """Wait for the agent's first frame and return it.

        Raises:
            AgentTimeoutError: it did not come within `deadline` seconds.
            StreamLostError: the program ended instead.
            AgentProtocolError: something else than an agent speaks.
            RemoteError: the agent cannot serve another client now.
        """
        header, _ = await self._answer(self._ready, 0, deadline)
        if header["kind"] == "error":
            raise RemoteError(header)
        if header["kind"] != "ready" or header.get("protocol") != wire.PROTOCOL:
            self._break(AgentProtocolError("The program in the container is not our agent."))
            raise self._failure()
        # Lower numbers are those of an earlier link's requests.
        self._first_id = self._next_id = max(self._next_id, _natural(header.get("next", 1)))
        return header

    async def wait_broken(self) -> AgentError:
        """Wait until the link is dead and return why."""
        await asyncio.wait([self._reader])
        return self._broken or StreamLostError("The link was closed.")

    async def call(self, op: str, /, *, deadline: float, **fields: Any) -> Header:
        """Send a request without data and return its reply.

        Raises:
            RemoteError: the agent refused; with the code it gave.
            AgentTimeoutError: no reply within `deadline` seconds. The link is dead then.
            StreamLostError, AgentProtocolError: the link is dead.
        """
        header, _ = await self._called(op, deadline, fields)
        return header

    def tell(self, op: str, /, **fields: Any) -> None:
        """Send a request, and do not wait for its reply: what cannot be served so ends the link.

        It goes with `release`, or before the next that is sent.
        """
        request_id, request = self.open(None)
        request.answer.add_done_callback(self._heed)
        self._held += wire.encode({"op": op, **fields, "id": request_id})

    def release(self) -> None:
        """Send what is held back. Quiet when the link is dead."""
        held, self._held = self._held, b""
        if held and self._broken is None:
            self._stream.send_nowait(held)

    def _heed(self, answer: asyncio.Future[tuple[Header, bytes]]) -> None:
        if not answer.cancelled() and answer.exception() is None and answer.result()[0]["kind"] == "error":
            self._break(AgentProtocolError("The program in the container cannot begin."))

    async def fetch(self, op: str, /, *, deadline: float) -> bytes:
        """Send a request whose reply is one piece of data, and return that; see `call`."""
        _, payload = await self._called(op, deadline, {})
        return payload

    async def _called(self, op: str, deadline: float, fields: Header) -> tuple[Header, bytes]:
        request_id, request = self.open(None)
        with self.within(deadline, request_id):
            await self.send(request_id, {"op": op, **fields})
            return await self.finish(request_id, request, None)

    def open(self, on_data: OnData | None, most: int | None = None) -> tuple[int, Request]:
        """Begin a request of several frames; go on with `send` and `finish`. See `Request`."""
        request = Request(on_data, most)
        return self._begin(request), request

    def open_relay(self, relay: R) -> tuple[int, R]:
        """Likewise, for a connection."""
        return self._begin(relay), relay

    def _begin(self, request: Request) -> int:
        self._next_id += 1
        self._add(self._next_id - 1, request)
        return self._next_id - 1

    def reopen(self, request_id: int, on_data: OnData | None) -> Request:
        """Take up a request of an earlier link to the same agent, by its number.

        Raises:
            AgentProtocolError: a request of this number is under way.
            StreamLostError: the link is dead; or another `AgentError` that it is dead of.
        """
        request = Request(on_data)
        self._add(request_id, request)
        return request

    def _add(self, request_id: int, request: Request) -> None:
        if self._broken is not None:
            raise self._failure()
        if request_id in self._requests:
            # Whoever waits for the other would wait for ever.
            message = f"The program in the container has given the number {request_id} twice."
            raise AgentProtocolError(message)
        self._requests[request_id] = request

    def taken(self, request_id: int, relay: Relay, amount: int) -> None:
        """So much of what has come over a connection is in nobody's memory any more. Quiet."""
        relay.owed += amount
        if relay.owed >= relay.size // 4 and not relay.answer.done():
            self._give(request_id, relay)

    def send_nowait(self, request_id: int, op: str) -> None:
        """Say something that needs no answer, and no room. Quiet when the link is dead."""
        self.release()
        if self._broken is None:
            self._stream.send_nowait(wire.encode({"op": op, "id": request_id}))

    def beat(self, every: float) -> None:
        """Show that we live, again and again: an agent lets go of visitors that are silent for long."""
        if self._broken is None:
            self.send_nowait(self._first_id, "beat")
            asyncio.get_running_loop().call_later(every, self.beat, every)

    async def send(self, request_id: int, header: Header, payload: bytes = b"") -> None:
        """Send one frame of a request."""
        if self._broken is not None:
            raise self._failure()
        self.release()
        try:
            with self.within(STALL_DEADLINE, request_id):
                await self._stream.send(wire.encode({**header, "id": request_id}, payload))
        except StreamLostError as error:
            self._break(error)
            raise self._failure() from error

    async def upload(
        self, request_id: int, request: Request, data: bytes | memoryview, *, end: bool = True
    ) -> None:
        """Send `data` as frames, no faster than the agent takes it, and then the mark of its end."""
        view = memoryview(data)
        while view:
            amount = await request.upload.take(min(len(view), wire.MAX_PAYLOAD))
            if amount == 0:
                return
            await self.send(request_id, {"op": "data"}, bytes(view[:amount]))
            view = view[amount:]
        if end:
            await self.send(request_id, {"op": "data", "end": True})

    async def finish(self, request_id: int, request: Request, deadline: float | None) -> tuple[Header, bytes]:
        """Wait for a request's final frame and return it; see `call` for what it raises.

        When the caller is cancelled, the request stays known until its final frame arrives.
        """
        header, payload = await self._answer(request, request_id, deadline)
        if header["kind"] == "error":
            raise RemoteError(header)
        return header, payload

    async def aclose(self) -> None:
        """Close the stream: the agent reads end-of-file and the container is gone. Idempotent."""
        self._break(StreamLostError("The sandbox was closed."))
        self._reader.cancel()
        try:
            await asyncio.wait([self._reader])
        finally:
            # Also for somebody whose time is over: the lease hangs on it.
            await self._stream.aclose()

    # -- reading ----------------------------------------------------------------------------------

    async def _read(self) -> None:
        decoder = wire.Decoder()
        try:
            while (received := await self._stream.receive()) is not None:
                source, data = received
                if source == STDERR:
                    self._diagnostics = (self._diagnostics + data)[-_DIAGNOSTICS:]
                    continue
                for header, payload in decoder.feed(data):
                    self._dispatch(header, payload)
                self._pay_credit()
            self._break(StreamLostError("The stream to the sandbox ended."))
        except StreamLostError as error:
            self._break(error)
        except (wire.FrameError, AgentProtocolError) as error:
            self._break(AgentProtocolError(f"The program in the container broke the protocol: {error}."))
        finally:
            self._break(StreamLostError("The link was closed."))

    def _dispatch(self, header: Header, payload: bytes) -> None:
        kind, request_id = header.get("kind"), header.get("id")
        if not isinstance(kind, str):
            reason = "a frame without a kind"
            raise AgentProtocolError(reason)
        if kind == "replaced":
            message = "Another client has attached to the sandbox."
            raise StreamLostError(message)
        if kind == "halted":
            raise SandboxHaltedError.because(header.get("why"))
        request = self._requests.get(request_id) if type(request_id) is int else None
        if request is None:
            reason = "an answer that nobody asked for"
            raise AgentProtocolError(reason)
        request.count(len(payload))
        if kind in ("relay", "accepted") and isinstance(request, Relay):
            request.take(header, payload)
        elif kind == "data" and not isinstance(request, Relay):
            self._take_data(request, header, payload)
        elif kind == "credit":
            request.upload.add(_natural(header.get("n")))
        elif kind in _FINAL:
            del self._requests[request_id]  # type: ignore[arg-type]  # it was found by this id
            request.upload.close()
            if not request.answer.done():
                request.answer.set_result((header, payload))
        else:
            reason = "a frame of unknown kind"
            raise AgentProtocolError(reason)

    def _take_data(self, request: Request, header: Header, payload: bytes) -> None:
        stream = header.get("s")
        request.window -= len(payload)
        if stream not in (1, 2, 3) or request.window < 0:
            reason = "data beyond its window"
            raise AgentProtocolError(reason)
        request.owed += len(payload)
        if request.on_data is not None:
            request.on_data(stream, payload)

    def _pay_credit(self) -> None:
        """Give back what was consumed, in big pieces: a frame for each read would be a waste.

        Without waiting for room: an engine that cannot write to us may not read from us either, and then
        whoever reads must go on reading (Podman's monitor is such a one).
        """
        for request_id, request in list(self._requests.items()):
            if request.owed >= wire.WINDOW // 4 and not request.is_held:
                self._give(request_id, request)

    def _give(self, request_id: int, request: Request) -> None:
        amount, request.owed = request.owed, 0
        request.window += amount
        self._stream.send_nowait(wire.encode({"op": "credit", "id": request_id, "n": amount}))

    def hold(self, request: Request, is_held: bool) -> None:
        """Have no more data come than is under way, or let it come again. Quiet when the link is dead."""
        request.is_held = is_held
        if not is_held and self._broken is None:
            self._pay_credit()

    # -- ending -----------------------------------------------------------------------------------

    def _break(self, reason: AgentError) -> None:
        if self._broken is not None:
            return
        self._broken = reason
        for request in self._requests.values():
            request.upload.close()
            if not request.answer.done():
                request.answer.set_exception(self._failure())
                # Whoever was cancelled does not ask any more; the exception is not lost, it is `broken`.
                request.answer.exception()
        self._requests.clear()

    def _failure(self) -> AgentError:
        """Return a fresh copy of the reason: an exception instance collects tracebacks where it is raised."""
        reason = self._broken or StreamLostError("The link was closed.")
        return type(reason)(reason.message, hint=reason.hint)

    async def _answer(
        self, request: Request, request_id: int, deadline: float | None
    ) -> tuple[Header, bytes]:
        with self.within(deadline, request_id):
            return await asyncio.shield(request.answer)

    @contextmanager
    def within(self, deadline: float | None, request_id: int) -> Iterator[None]:
        """Break the link for a peer that is too late: what waits for it has so many seconds.

        Raises:
            AgentTimeoutError: they were over; or what the link was dead of already.
        """
        try:
            with anyio.fail_after(deadline):
                yield
        except TimeoutError as error:
            if isinstance(error, AgentError):
                raise
            message = f"The sandbox did not answer request {request_id} within {deadline} s."
            self._break(AgentTimeoutError(message))
            raise self._failure() from None


class RemoteError(RequestRefusedError):
    """The agent's answer to a request that it could not serve: a stage and a reason of a closed set.

    `fields` has all of it, unchecked. Whoever knows what it means for a request raises something better.
    """

    def __init__(self, header: Header) -> None:
        self.stage = str(header.get("stage"))[:32]
        self.reason = str(header.get("code"))[:32]
        self.fields = header
        super().__init__(f"The sandbox could not do that ({self.stage!r}: {self.reason!r}).")


def _natural(value: object) -> int:
    if type(value) is not int or not 0 <= value < _MOST:
        reason = "a number that is none"
        raise AgentProtocolError(reason)
    return value


def parse_lines(data: bytes) -> list[Header]:
    """Parse JSON lines of an agent's listing.

    Raises:
        AgentProtocolError: they are not JSON objects.
    """
    try:
        lines = [json.loads(line) for line in data.splitlines()]
    except (ValueError, RecursionError):
        message = "The program in the container sent a listing that is no JSON."
        raise AgentProtocolError(message) from None
    if not all(isinstance(line, dict) for line in lines):
        message = "The program in the container sent a listing of something else."
        raise AgentProtocolError(message)
    return lines
