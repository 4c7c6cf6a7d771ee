"""What is said of settings: what they may be, and what is wrong with one."""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from pocket_dock_mcp.quotas import EXAMPLE, Quota


def unknown(name: str, known: list[str], prefix: str) -> str:
    """Say of a variable that there is no such setting."""
    # Without the prefix, which makes everything look alike.
    fields = [other.removeprefix(prefix) for other in known]
    close = difflib.get_close_matches(name.removeprefix(prefix), fields, n=1)
    advice = f"Did you mean {prefix}{close[0]}?" if close else f"Known are {', '.join(known)}."
    return f"There is no setting {name}. {advice}"


def valid(field: FieldInfo) -> str:
    """Say what a setting may be."""
    if get_origin(field.annotation) is Literal:
        return " or ".join(str(choice) for choice in get_args(field.annotation))
    if field.annotation in (Path, Path | None):
        return "an absolute path"
    if field.examples:
        return f"a path such as {field.examples[0]}"
    if field.annotation == str | None:
        return "a name such as runsc"
    if field.annotation == tuple[Quota, ...]:
        return f"a JSON object such as {EXAMPLE}"
    if field.annotation == tuple[Path, ...] | None:
        return f"absolute paths with {os.pathsep!r} between them"
    if field.annotation is bool:
        return "true or false"
    low, high = (_bound(field, name) for name in ("ge", "le"))
    kind = "a whole number" if field.annotation in (int, int | None) else "a number"
    return f"{kind} from {low} to {high}"


def _bound(field: FieldInfo, name: str) -> str:
    return next(f"{getattr(part, name):.10g}" for part in field.metadata if hasattr(part, name))


def default(field: FieldInfo, required: str) -> str:
    """Return what a setting is where it is not given; `required` is what is said of one that has to be."""
    if field.is_required():
        return required
    if isinstance(field.default, float):
        return f"{field.default:g}"
    if isinstance(field.default, bool):
        return str(field.default).lower()
    if isinstance(field.default, tuple):
        return ",".join(map(str, field.default))
    return "" if field.default is None else str(field.default)
