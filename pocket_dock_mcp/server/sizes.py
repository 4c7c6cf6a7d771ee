"""Pure: how much room a reply takes on its way, and what of it is left out when that is too much.

The SDKs' clients drop a message of more than 1 MiB, and a model then hears nothing at all. What counts is the
message, as JSON in ASCII, which some transports make of it: a character takes up to twelve bytes there. And
what a program printed is in it twice, as text and as structured data.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TypeVar

from mcp.types import CallToolResult
from pydantic import BaseModel

from pocket_dock_mcp.errors import InvalidArgumentError

MAX_REPLY = 720_000
"""Bytes of a whole reply."""
MAX_ONCE = 350_000
"""Bytes of what is in a reply twice."""
MAX_ERROR = 20_000
_WORST = 12
"""Bytes of a character: two escaped surrogates."""

T = TypeVar("T", bound="str | BaseModel")


def wire_size(text: str) -> int:
    """Return how many bytes a text takes at most."""
    return len(json.dumps(text))


def fitted(text: str, most: int) -> tuple[str, bool]:
    """Return a text of at most so many bytes, by leaving out its middle; and whether that was necessary."""
    if len(text) * _WORST < most - 2 or wire_size(text) <= most:
        return text, False
    kept = min(len(text), most)
    while True:
        kept = kept * 3 // 4
        tail = kept // 3
        left_out = f"[... {len(text) - kept} characters left out ...]"
        cut = f"{text[: kept - tail]}\n{left_out}\n{text[len(text) - tail :]}"
        if wire_size(cut) <= most or not kept:
            return cut, True


def within(items: Iterable[T], most: int) -> list[T]:
    """Return the first items that fit into so many bytes."""
    fitting = []
    for item in items:
        most -= wire_size(item) if isinstance(item, str) else len(item.model_dump_json(ensure_ascii=True))
        if most < 0:
            break
        fitting.append(item)
    return fitting


def check_size(result: CallToolResult) -> None:
    """See whether clients can take a result. That all can is the tools' business; this is the last look.

    Raises:
        InvalidArgumentError: it is too large.
    """
    size = len(result.model_dump_json(by_alias=True, ensure_ascii=True))
    if size > MAX_REPLY:
        raise InvalidArgumentError(
            f"The reply would have {size} bytes, which clients do not take; at most {MAX_REPLY} are sent.",
            hint="What was asked for is done. Ask for less of it: a narrower path, fewer lines or bytes.",
        )
