"""Pure: text of unknown origin as text that is safe to show."""

from __future__ import annotations

import re

_CONTROL = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u200e\u200f\u061c\u2066-\u206f"
    # Invisible, and used to hide text from people that models read. Joiners (U+200C, U+200D) and U+FE0E and
    # U+FE0F stay: scripts and emoji need them.
    r"\xad\u115f\u1160\u180e\u200b\u2060-\u2065\u3164\ufeff\uffa0\ufff9-\ufffb\U000e0000-\U000e0fff]"
)
# CSI, OSC and the other string sequences of ECMA-48, as far as they are well formed.
_SEQUENCE = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]P^_X][^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?|[ -/]*[0-~])"
    r"|\x9b[0-?]*[ -/]*[@-~]"
)


class Milestone(str):
    """A line about long work that is worth saying also where its single steps are not shown."""

    __slots__ = ()


def neutralise(text: str) -> tuple[str, bool]:
    """Remove terminal sequences and control characters; say whether there were any.

    Tabs and newlines stay; a carriage return at a line's end goes, and one inside it becomes a newline, as
    progress bars mean it. Everything else that could move a cursor, set a title, write a clipboard, turn
    the reading direction round or stand there unseen is taken out.
    """
    plain = text.replace("\r\n", "\n")
    clean = _CONTROL.sub("", _SEQUENCE.sub("", plain).replace("\r", "\n"))
    return clean, len(clean) != len(plain) or "\r" in plain


def visible(text: str) -> str:
    """Return lines in which what `neutralise` would remove stands escaped: two that differ look different.

    Carriage returns are escaped too, and backslashes are not.
    """
    return _CONTROL.sub(lambda found: _escaped(found[0]), text)


def escaped(name: str) -> tuple[str, bool]:
    """Return a name that stands on one line and is what it looks like, and whether it had to be changed."""
    # Fillers count as letters, and so as printable.
    if name.isprintable() and not _CONTROL.search(name):
        return name, False
    return "".join(_escaped(char) for char in name), True


def _escaped(char: str) -> str:
    number = ord(char)
    if char.isprintable() and char != "\\" and not _CONTROL.match(char):
        return char
    if 0xDC80 <= number <= 0xDCFF:
        return f"\\x{number - 0xDC00:02x}"
    if number < 0x80:
        return {"\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}.get(char, f"\\x{number:02x}")
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"
