"""The frame format, shared by both ends of the stream.

A frame is ``>II`` (length of header, length of payload), then the header (a JSON object), then the payload
(raw bytes). Requests carry ``op`` and ``id``; what comes back carries ``kind`` and the same ``id``. Whoever
sends ``data`` frames may have at most a window of bytes under way; the receiver gives ``credit`` back as it
consumes, so a flood stops at its source and not in anybody's memory.
"""

from __future__ import annotations

import json
import struct
from typing import Any, Dict, List, Tuple

Header = Dict[str, Any]

PROTOCOL = 1

PREFIX = struct.Struct(">II")
MAX_HEADER = 2 * 1024 * 1024
"""Of one JSON header: a command and an environment of full length whose every byte JSON escapes."""
MAX_PAYLOAD = 256 * 1024

SOCKET = "\0pocket-dock-agent"
"""Where an agent that is to keep its sandbox listens for its next client. Abstract: no file of it can be
replaced, and it is bound before any code of the user runs."""
IDS = 1 << 32
"""Numbers that each client of an agent has for its requests; whose they are says what is above."""
VISITORS_SOCKET = SOCKET + "-visitors"
"""Where it listens for clients that leave another one to hold it."""

WINDOW = 1024 * 1024
"""Bytes of ``data`` that may be under way from the container on one request."""
UPLOAD_WINDOW = 1024 * 1024
"""Bytes of ``data`` that may be under way to the container on one request."""

MAX_COMMAND = 128 * 1024 - 1
"""Bytes of one program argument: Linux's MAX_ARG_STRLEN (32 pages) less the terminating NUL."""
MAX_ENVIRONMENT = 128 * 1024
"""Bytes of all environment variables of one run."""
MAX_CODE = 1024 * 1024
"""Bytes of one script; it travels as a payload of several frames' worth, not as an argument."""
MAX_APPEND = 8 * 1024 * 1024
"""Bytes of one append: they are held in memory, so that they can be written at once."""
MAX_PATH = 4096
"""Bytes of a path: Linux's PATH_MAX."""
MAX_LISTING = 900 * 1024
"""Bytes of a directory listing: within one window, so that it needs no credit."""

READY, FORKED, THREADS, FAILED = b"ready", b"forked", b"threads %d", b"failed %d"
"""What is said of a fork for a checkpoint: by the fork, and by who has forked it or could not."""


class FrameError(Exception):
    """The peer's bytes are not a frame."""


def encode(header: Header, payload: bytes = b"") -> bytes:
    """Return the bytes of one frame."""
    head = json.dumps(header, separators=(",", ":")).encode("ascii")
    return b"".join((PREFIX.pack(len(head), len(payload)), head, payload))


class Decoder:
    """Bytes in, frames out. Never holds more than one frame's worth of undecoded bytes plus one read."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> List[Tuple[Header, bytes]]:
        """Take some bytes and return the list of ``(header, payload)`` that they complete.

        Raises `FrameError` for lengths over the caps and for headers that are no JSON object.
        """
        buffer = self._buffer
        buffer += data
        frames = []
        start = 0
        while len(buffer) - start >= PREFIX.size:
            head_length, payload_length = PREFIX.unpack_from(buffer, start)
            if head_length > MAX_HEADER or payload_length > MAX_PAYLOAD:
                raise FrameError("frame of %d+%d bytes is over the limit" % (head_length, payload_length))
            body = start + PREFIX.size
            end = body + head_length + payload_length
            if len(buffer) < end:
                break
            with memoryview(buffer) as view:
                head = bytes(view[body : body + head_length])
                payload = bytes(view[body + head_length : end])
            frames.append((_header(head), payload))
            start = end
        if start:
            del buffer[:start]
        return frames


def _header(raw: bytes) -> Header:
    try:
        header = json.loads(raw)
    except (ValueError, RecursionError):
        raise FrameError("header is not JSON") from None
    if not isinstance(header, dict):
        raise FrameError("header is not an object")
    return header
