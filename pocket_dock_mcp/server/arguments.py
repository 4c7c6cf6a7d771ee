"""Pure: arguments that a tool does not take, in words that say what it does take."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from typing import Any

from pydantic import ValidationError

from pocket_dock_mcp.errors import InvalidArgumentError

_MOST = 1 << 53
"""Of a number: up to there integers and floats are the same to everybody."""


def refuse_unknown(
    tool: str, arguments: Mapping[str, Any], parameters: Mapping[str, Collection[str]]
) -> None:
    """Refuse a tool, or an argument of it, that there is not. Raises `InvalidArgumentError`."""
    if tool not in parameters:
        raise InvalidArgumentError(
            f"There is no tool {tool[:80]!r}.", hint=f"The tools are: {', '.join(parameters)}."
        )
    known = list(parameters[tool])
    for name in arguments:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"Did you mean {close[0]}?" if close else f"It has: {', '.join(known)}."
            raise InvalidArgumentError(f"{tool} has no parameter {name[:80]!r}.", hint=hint)


def refuse_odd_numbers(arguments: Mapping[str, object]) -> None:
    """Refuse what JSON or text can say, and nothing can be counted in. Raises `InvalidArgumentError`."""
    for name, value in arguments.items():
        # False for "not a number" too.
        if isinstance(value, (int, float)) and not abs(value) <= _MOST:
            raise InvalidArgumentError(f"{name} is no number that it can be: {repr(value)[:40]}.")


def refusal(error: ValidationError) -> InvalidArgumentError:
    """Return what is wrong with arguments that do not fit their schema."""
    wrong = [
        f"{'.'.join(str(part) for part in detail['loc']) or 'arguments'}: {detail['msg']}"
        for detail in error.errors(include_url=False, include_input=False, include_context=False)
    ]
    return InvalidArgumentError(f"{'; '.join(dict.fromkeys(wrong))}.")
