"""Pure: bounded capture of a stream, and bytes of unknown origin as text that is safe to show."""

from __future__ import annotations

import re

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
# CSI, OSC and the other string sequences of ECMA-48, as far as they are well formed.
_SEQUENCE = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]P^_X][^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?|[ -/]*[0-~])"
    r"|\x9b[0-?]*[ -/]*[@-~]"
)


class Capture:
    """Keeps the first and the last bytes of a stream within a cap, and counts all of them.

    A stream of any length costs at most ``2 * cap`` bytes of memory; bytes of the middle are not copied.
    """

    __slots__ = ("_head", "_head_cap", "_tail", "_tail_cap", "total")

    def __init__(self, cap: int) -> None:
        self._head_cap = cap // 2
        self._tail_cap = cap - self._head_cap
        self._head = bytearray()
        self._tail = bytearray()
        self.total = 0
        """Bytes seen."""

    def feed(self, data: bytes) -> None:
        """Take some bytes."""
        self.total += len(data)
        room = self._head_cap - len(self._head)
        if room > 0:
            self._head += data[:room]
            data = data[room:]
        if not data:
            return
        if len(data) >= self._tail_cap:
            self._tail[:] = data[len(data) - self._tail_cap :]
            return
        self._tail += data
        # Trimmed only when it has doubled: trimming each time would move the whole tail for each line.
        if len(self._tail) > 2 * self._tail_cap:
            del self._tail[: len(self._tail) - self._tail_cap]

    @property
    def truncated(self) -> bool:
        """Whether bytes were left out."""
        return self.total > self._head_cap + self._tail_cap

    def text(self) -> str:
        """Return what was kept as UTF-8 text, with a line that says how much is missing in the middle.

        Undecodable bytes become U+FFFD; a character that the cut went through is left out whole.
        """
        if not self.truncated:
            return bytes(self._head + self._tail).decode("utf-8", "replace")
        head = trim_end(bytes(self._head))
        tail = _trim_start(bytes(self._tail[-self._tail_cap :])) if self._tail_cap else b""
        missing = self.total - len(head) - len(tail)
        mark = f"\n[... {missing} of {self.total} bytes left out here ...]\n"
        return head.decode("utf-8", "replace") + mark + tail.decode("utf-8", "replace")


def trim_end(data: bytes) -> bytes:
    """Drop an unfinished UTF-8 character from the end."""
    for back in range(1, min(4, len(data)) + 1):
        byte = data[-back]
        if byte & 0xC0 == 0x80:
            continue
        length = 1 if byte < 0x80 else 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
        return data[:-back] if length > back else data
    return data


def _trim_start(data: bytes) -> bytes:
    """Drop the rest of a character from the start."""
    for skip in range(min(4, len(data))):
        if data[skip] & 0xC0 != 0x80:
            return data[skip:]
    return data


def neutralise(text: str) -> tuple[str, bool]:
    """Remove terminal sequences and control characters; say whether there were any.

    Tabs and newlines stay; a carriage return at a line's end goes, and one inside it becomes a newline, as
    progress bars mean it. Everything else that could move a cursor, set a title, write a clipboard or turn
    the reading direction round is taken out.
    """
    plain = text.replace("\r\n", "\n")
    clean = _CONTROL.sub("", _SEQUENCE.sub("", plain).replace("\r", "\n"))
    return clean, len(clean) != len(plain) or "\r" in plain
