"""HTTP/1.1 over a stream, and the headers that a proxy takes away from a message."""

from __future__ import annotations

from typing import Literal

import anyio
import h11
from anyio.abc import ByteStream

from pocket_dock_mcp.gate.relay import CHUNK

MAX_HEAD = 65_536
"""Bytes of a request or a response before its body."""

HeaderList = list[tuple[bytes, bytes]]

_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authentication-info",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"http2-settings",
    }
)
"""About one connection, and not the message."""
_NEVER_HOP = frozenset({b"host", b"content-length", b"content-type"})
"""A message cannot call these such, and have them taken away."""


class Side:
    """One end of a connection that speaks HTTP: its parser and its stream."""

    def __init__(self, stream: ByteStream, role: Literal["client", "server"]) -> None:
        """Say and read nothing yet. `role` is our own."""
        self.stream = stream
        self.parser = h11.Connection(
            h11.CLIENT if role == "client" else h11.SERVER, max_incomplete_event_size=MAX_HEAD
        )

    async def next_event(self) -> h11.Event:
        """Return what the other end says next.

        Raises:
            h11.RemoteProtocolError: that is no HTTP.
            anyio.BrokenResourceError: the connection is gone.
        """
        while True:
            event = self.parser.next_event()
            if isinstance(event, h11.Event):
                return event
            if event is h11.PAUSED:
                raise h11.RemoteProtocolError("more was said than was asked for")
            if self.parser.they_are_waiting_for_100_continue:
                await self.send(h11.InformationalResponse(status_code=100, headers=[]))
            try:
                self.parser.receive_data(await self.stream.receive(CHUNK))
            except anyio.EndOfStream:
                self.parser.receive_data(b"")

    async def send(self, event: h11.Event) -> None:
        """Say something."""
        if data := self.parser.send(event):
            await self.stream.send(data)

    @property
    def is_done(self) -> bool:
        """Whether both ends have said all there was, and another request may follow."""
        return self.parser.our_state is h11.DONE and self.parser.their_state is h11.DONE


def end_to_end(message: h11.Request | h11.Response | h11.InformationalResponse) -> HeaderList:
    """Return the headers that are of the message itself, without those of how it is framed and carried.

    A length is kept, unless the body came in chunks: then it is not believed.
    """
    headers = list(message.headers)
    dropped = set(_HOP)
    for name, value in headers:
        if name == b"connection":
            dropped |= {option.strip().lower() for option in value.split(b",")} - _NEVER_HOP
        if name == b"transfer-encoding":
            dropped.add(b"content-length")
    return [(name, value) for name, value in message.headers.raw_items() if name.lower() not in dropped]


def has_header(message: h11.Request | h11.Response, name: bytes) -> bool:
    """Whether a message has a header; `name` in small letters."""
    return any(name == found for found, _ in message.headers)


def with_headers(headers: HeaderList, more: HeaderList) -> HeaderList:
    """Return headers with others in the place of those of the same names."""
    names = {name.lower() for name, _ in more}
    return [*((name, value) for name, value in headers if name.lower() not in names), *more]
