"""Pure: pieces of a stream as UTF-8 text."""

from __future__ import annotations

import re


def without_cut_end(data: bytes) -> bytes:
    """Return it without the beginning of a character that does not end in it."""
    for back, byte in enumerate(reversed(data[-4:]), 1):
        if byte < 0x80:
            return data
        if byte >= 0xC0:
            return data[:-back] if back < 2 + (byte >= 0xE0) + (byte >= 0xF0) else data
    return data


def without_cut_start(data: bytes) -> bytes:
    """Return it without the end of a character that does not begin in it."""
    for skip, byte in enumerate(data[:4]):
        if not 0x80 <= byte < 0xC0:
            return data[skip:]
    return data


def begun(before: bytes, after: bytes) -> int:
    """Return how many of the last bytes `before` are a character that goes on `after` them."""
    if not after or not 0x80 <= after[0] < 0xC0:
        return 0
    return len(before) - len(without_cut_end(before))


def head_and_tail(head: bytes, tail: bytes, total: int) -> str:
    """Return both ends of `total` bytes, and between them a line that tells how much is missing there.

    Undecodable bytes become U+FFFD; a character that the cut went through is left out whole.
    """
    if len(head) + len(tail) == total:
        return (head + tail).decode("utf-8", "replace")
    head, tail = without_cut_end(head), without_cut_start(tail)
    missing = total - len(head) - len(tail)
    mark = f"\n[... {missing} of {total} bytes left out here ...]\n"
    return head.decode("utf-8", "replace") + mark + tail.decode("utf-8", "replace")


def last_line(data: bytes, max_chars: int, *, cut: bool) -> str:
    """Return the last line that is not blank; `cut` says whether `data` begins inside a line."""
    lines = re.split(r"[\r\n]", without_cut_start(data).decode("utf-8", "replace"))
    for at in range(len(lines) - 1, -1, -1):
        line = lines[at].strip()
        if line:
            return line[max(0, len(line) - max_chars) :] if cut and at == 0 else line[:max_chars]
    return ""
