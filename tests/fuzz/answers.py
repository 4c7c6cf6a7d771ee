"""What comes back over a connection: HTTP responses, read strictly, and the messages in them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

from tests.fuzz.harness import FoundError
from tests.fuzz.messages import is_valid

_STATUS = re.compile(rb"HTTP/1\.1 ([1-9][0-9]{2}) [\t -~\x80-\xff]*")
_HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\t -~\x80-\xff]*)")


@dataclass(frozen=True)
class Answer:
    """One response, perhaps not all of its body."""

    status: int
    headers: dict[str, str]
    body: bytes
    is_whole: bool

    @property
    def is_stream(self) -> bool:
        """Whether it is one of events, which ends when somebody wants it to."""
        return self.headers.get("content-type", "").startswith("text/event-stream")


def answers(data: bytes, *, perhaps_to_head: bool) -> Iterator[Answer]:
    """Yield the responses that are in what a connection has said. Those to HEAD have no body, whatever they say.

    Raises:
        FoundError: it is no HTTP.
    """
    while data:
        head, end, rest = data.partition(b"\r\n\r\n")
        if not end:
            return
        status, headers = _head(head)
        is_empty = perhaps_to_head and (not rest or rest.startswith(b"HTTP/1.1 "))
        if is_empty or status in (204, 304) or status < 200:
            body, data, is_whole = b"", rest, True
        elif "chunked" in headers.get("transfer-encoding", ""):
            body, data, is_whole = _dechunked(rest)
        else:
            length = int(headers["content-length"]) if "content-length" in headers else len(rest)
            body, data, is_whole = rest[:length], rest[length:], len(rest) >= length
        yield Answer(status, headers, body, is_whole)


def _head(head: bytes) -> tuple[int, dict[str, str]]:
    first, *lines = head.split(b"\r\n")
    status = _STATUS.fullmatch(first)
    found = [_HEADER.fullmatch(line) for line in lines]
    if status is None or None in found:
        raise FoundError(f"It wrote what is no HTTP: {head[:300]!r}")
    headers = {one[1].decode().lower(): one[2].decode("latin-1") for one in found if one is not None}
    return int(status[1]), headers


def _dechunked(data: bytes) -> tuple[bytes, bytes, bool]:
    body = b""
    while True:
        size, end, rest = data.partition(b"\r\n")
        if not end:
            return body, b"", False
        length = int(size.partition(b";")[0], 16)
        if len(rest) < length + 2:
            return body + rest[:length], b"", False
        body, data = body + rest[:length], rest[length + 2 :]
        if not length:
            return body, data, True


def check(answer: Answer) -> str:
    """Return in a word what an answer is.

    Raises:
        FoundError: no server should say this.
    """
    if answer.status >= 500 and answer.status != 503:
        raise FoundError(f"It answered {answer.status}: {answer.body[:300]!r}")
    if answer.is_stream:
        for event in answer.body.replace(b"\r\n", b"\n").split(b"\n\n")[:-1]:
            _check_event(event)
    elif answer.is_whole and answer.body and "json" in answer.headers.get("content-type", ""):
        said = json.loads(answer.body)
        if not is_valid(said) and not ("error" in said or answer.status == 200):
            raise FoundError(f"It answered with a body that says nothing: {answer.body[:300]!r}")
    return str(answer.status)


def _check_event(event: bytes) -> None:
    fields = dict(
        line.partition(b": ")[::2] for line in event.split(b"\n") if line and not line.startswith(b":")
    )
    if (
        fields.get(b"event") == b"message"
        and fields.get(b"data")
        and not is_valid(json.loads(fields[b"data"]))
    ):
        raise FoundError(f"It sent an event that is no message: {event[:300]!r}")
