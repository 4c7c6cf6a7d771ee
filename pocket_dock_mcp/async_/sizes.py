"""Pure: sizes as people write and read them. A unit is 1024 times the one before."""

from __future__ import annotations

import re

from pocket_dock_mcp.errors import InvalidArgumentError

_UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_SIZE = re.compile(r"(\d{1,15}(?:\.\d{1,6})?)\s*([kmgt]?)(?:i?b)?", re.ASCII | re.IGNORECASE)


def size_of(what: str, wanted: object) -> int:
    """Return a number of bytes: of ``"256m"``, ``"1.5g"``, ``"64 KB"``, or what is one already.

    Raises:
        InvalidArgumentError: names `what`, and says what may be.
    """
    if isinstance(wanted, int) and not isinstance(wanted, bool):
        bytes_ = wanted
    elif isinstance(wanted, str) and (found := _SIZE.fullmatch(wanted.strip())) is not None:
        bytes_ = int(float(found[1]) * _UNITS[found[2].lower()])
    else:
        raise _no_size(what, wanted)
    if bytes_ <= 0:
        raise _no_size(what, wanted)
    return bytes_


def _no_size(what: str, wanted: object) -> InvalidArgumentError:
    message = f"{what} is {wanted!r}, which is no size."
    return InvalidArgumentError(message, hint="Give a number of bytes, or text such as '256m' or '1.5g'.")


def size_text(count: int) -> str:
    """Return a number of bytes for people: ``"42.1 MB"``, ``"256 MB"``."""
    value, unit = float(count), "B"
    for larger in ("KB", "MB", "GB", "TB"):
        # What would be shown as 1024 of a unit is one of the next.
        if round(value, 1) < 1024:
            break
        value, unit = value / 1024, larger
    text = f"{value:.1f}".removesuffix(".0")
    return f"{text} {unit}"
