"""Pure: the first thing a TLS client says, as far as it tells which host it wants (RFC 8446, RFC 6066)."""

from __future__ import annotations

from dataclasses import dataclass

HANDSHAKE = 0x16
MAX_BYTES = 16_384
"""Of a greeting. The largest in use, with keys against quantum computers, have 2 KiB."""
MAX_RECORDS = 16
"""That it may come in."""
ACCESS_DENIED = bytes((0x15, 3, 3, 0, 2, 2, 49))
"""What a server says to a client that it turns away."""

_CLIENT_HELLO = 1
_SERVER_NAME = 0
_ENCRYPTED_HELLO = 0xFE0D
_HOST_NAME = 0


class NoHelloError(Exception):
    """It is not TLS, or not as it has to be."""


@dataclass(frozen=True, slots=True)
class Hello:
    """What a greeting tells."""

    server_name: str | None
    """In small letters; None if it names no host."""
    is_encrypted: bool = False
    """Whether there is another greeting in it, with another name, that only the server can read."""


class _Reader:
    """Takes bytes from the front. Raises `NoHelloError` where there are too few."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def __len__(self) -> int:
        return len(self._data)

    def take(self, count: int) -> bytes:
        if count > len(self._data):
            raise NoHelloError
        taken, self._data = self._data[:count], self._data[count:]
        return taken

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def block(self, size: int) -> _Reader:
        """Take what a number of `size` bytes says the length of."""
        return _Reader(self.take(self.number(size)))

    def end(self) -> None:
        if self._data:
            raise NoHelloError


def parse_hello(data: bytes) -> Hello | None:
    """Read a greeting; None if there is more of it to come.

    Raises:
        NoHelloError: it is none, whatever comes.
    """
    message = _message(data)
    if message is None and len(data) >= MAX_BYTES:
        raise NoHelloError
    return None if message is None else _parse(message)


def _message(data: bytes) -> bytes | None:
    """Return the handshake message out of the records that it comes in."""
    message = b""
    at = 0
    for _ in range(MAX_RECORDS):
        size = _record_size(data[at : at + 5])
        if size is None or at + 5 + size > len(data):
            return None
        message += data[at + 5 : at + 5 + size]
        at += 5 + size
        if message[0] != _CLIENT_HELLO:
            raise NoHelloError
        whole = 4 + int.from_bytes(message[1:4], "big")
        if len(message) >= 4 and whole <= len(message):
            return message[4:whole]
    raise NoHelloError


def _record_size(head: bytes) -> int | None:
    """Return how much a record has behind its head; None if not even that is there."""
    if head[:1] not in (b"", bytes((HANDSHAKE,))) or head[1:2] not in (b"", b"\x03"):
        raise NoHelloError
    if len(head) < 5:
        return None
    size = int.from_bytes(head[3:], "big")
    if not 0 < size <= 1 << 14:
        raise NoHelloError
    return size


def _parse(message: bytes) -> Hello:
    body = _Reader(message)
    body.take(2 + 32)
    for size in (1, 2, 1):  # session id, cipher suites, compression methods
        body.block(size)
    if not body:
        return Hello(None)
    extensions = body.block(2)
    body.end()
    found: dict[int, _Reader] = {}
    while extensions:
        kind = extensions.number(2)
        if kind in found:
            raise NoHelloError
        found[kind] = extensions.block(2)
    name = _server_name(found[_SERVER_NAME]) if _SERVER_NAME in found else None
    return Hello(name, _ENCRYPTED_HELLO in found)


def _server_name(extension: _Reader) -> str:
    names = extension.block(2)
    extension.end()
    kind, name = names.number(1), names.block(2)
    # There is one kind, and one name of it.
    names.end()
    if kind != _HOST_NAME:
        raise NoHelloError
    try:
        return name.take(len(name)).decode("ascii").lower()
    except UnicodeDecodeError:
        raise NoHelloError from None
