"""Pure: text of unknown origin as text that is safe to show."""

from __future__ import annotations

import re

_CONTROL = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069"
    # Invisible, and used to hide text from people that models read.
    r"\u200b\u2060\ufeff\U000e0000-\U000e007f]"
)
# CSI, OSC and the other string sequences of ECMA-48, as far as they are well formed.
_SEQUENCE = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]P^_X][^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?|[ -/]*[0-~])"
    r"|\x9b[0-?]*[ -/]*[@-~]"
)


def neutralise(text: str) -> tuple[str, bool]:
    """Remove terminal sequences and control characters; say whether there were any.

    Tabs and newlines stay; a carriage return at a line's end goes, and one inside it becomes a newline, as
    progress bars mean it. Everything else that could move a cursor, set a title, write a clipboard or turn
    the reading direction round is taken out.
    """
    plain = text.replace("\r\n", "\n")
    clean = _CONTROL.sub("", _SEQUENCE.sub("", plain).replace("\r", "\n"))
    return clean, len(clean) != len(plain) or "\r" in plain
