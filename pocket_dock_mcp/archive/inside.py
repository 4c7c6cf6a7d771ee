"""The program that runs in a sandbox as its user, at the other end of a transfer.

Its input begins with an order: four bytes of length, and JSON. To send, it waits for credit, numbers of bytes
that the host has written to its disk, so that nobody between the two has to hold more than a window. To take,
it reads the stream, and puts what came in its place when it is told to. Whichever it does, it stops and
removes what it made when its input ends early.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import struct
from typing import Any, Dict, Iterator, List

from . import frames, placing
from .incoming import Incoming, SenderFailedError
from .outgoing import LimitError, Limits, Outgoing

WINDOW = 4 * 1024 * 1024
"""Bytes of a stream that are under way from inside."""
CREDIT = struct.Struct(">I")
LIMITS = {"files": 1 << 16, "bytes": (1 << 16) + 1}
"""What a sender says, where others say an errno, when there is more than is allowed."""
READY, GO = b"\n", b"!"
"""What a taker says when all is written beside its destination, and what then has it put there.

So a transfer that is given up while much of it is still in pipes has not happened.
"""
_READ = 1024 * 1024
_MAX_TOLD = 255
"""Bytes of the path of something that has another time than it should."""
_SET_PIPE_SIZE = 1031
"""F_SETPIPE_SZ, which Python knows from 3.10 on."""


class EarlyEndError(Exception):
    """The host does not want any more, or is gone."""


def _exactly(count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = os.read(0, count - len(data))
        if not piece:
            raise EarlyEndError
        data += piece
    return data


def _write(batch: List[bytes]) -> None:
    views = [memoryview(data) for data in batch if data]
    while views:
        done = os.writev(1, views)
        while views and done >= len(views[0]):
            done -= len(views.pop(0))
        if done:
            views[0] = views[0][done:]


def send(order: Dict[str, Any]) -> None:
    """Send a stream, no faster than there is credit for it."""
    limits = Limits(order["files"], order["bytes"])
    room = WINDOW
    for batch in _batches(os.fsencode(order["path"]), limits):
        size = sum(map(len, batch))
        while room < size:
            room += CREDIT.unpack(_exactly(CREDIT.size))[0]
        room -= size
        _write(batch)


def _batches(path: bytes, limits: Limits) -> Iterator[List[bytes]]:
    try:
        outgoing = Outgoing(path, limits)
    except OSError as error:
        yield [_failure(error.errno or errno.EIO)]
        return
    try:
        yield from outgoing.batches()
    except LimitError as error:
        yield [_failure(LIMITS[error.what])]
    except OSError as error:
        yield [_failure(error.errno or errno.EIO)]
    finally:
        outgoing.close()


def _failure(number: int) -> bytes:
    return frames.frame(frames.FAILED, frames.FAILURE.pack(number))


def take(order: Dict[str, Any]) -> Dict[str, Any]:
    """Take a stream and return what came of it."""
    destination = placing.Destination(os.fsencode(order["path"]), os.fsencode(order["name"]))
    incoming = placing.receiver(destination, Limits(order["files"], order["bytes"]))
    try:
        return _taken(destination, incoming)
    except OSError as error:
        at = (error.filename or b"") if incoming.is_complete else incoming.path
        return {
            "errno": error.errno or errno.EIO,
            "at": os.fsdecode(at)[-1000:],
            "path": os.fsdecode(destination.path),
        }
    except LimitError as error:
        return {"limit": error.what}
    except (frames.BadStreamError, SenderFailedError):
        return {"errno": errno.EBADMSG, "at": "", "path": ""}
    finally:
        incoming.close()
        destination.close()


def _taken(destination: placing.Destination, incoming: Incoming) -> Dict[str, Any]:
    while not incoming.is_complete:
        data = os.read(0, _READ)
        if not data:
            raise EarlyEndError
        incoming.feed(data)
    _write([READY])
    _exactly(len(GO))
    destination.commit(incoming.top_mode)
    return {
        "done": True,
        "path": os.fsdecode(destination.path),
        "untimed": [os.fsdecode(path[-_MAX_TOLD:]) for path in incoming.untimed],
        "untimed_count": incoming.untimed_count,
    }


def main() -> None:
    """Do what is ordered."""
    # What it would be ended by is an error that it can tell instead.
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    for fd in (0, 1):
        try:
            fcntl.fcntl(fd, _SET_PIPE_SIZE, _READ)
        except OSError:
            # Slower, then.
            pass
    try:
        order = json.loads(_exactly(CREDIT.unpack(_exactly(CREDIT.size))[0]))
        if order["op"] == "send":
            send(order)
        elif order["op"] == "sweep":
            placing.Destination(os.fsencode(order["path"]), b"").sweep()
        else:
            _write([json.dumps(take(order)).encode("ascii")])
    except (EarlyEndError, BrokenPipeError):
        pass
