"""Pure: what the ``POCKET_DOCK_*`` variables are called, what may be in them, and how that is said."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from pocket_dock_mcp.quotas import EXAMPLE, Quota

PREFIX = "POCKET_DOCK_"
STATE_DIR = "$XDG_STATE_HOME/pocket-dock, else ~/.local/state/pocket-dock"
_MAX_SHOWN = 200
"""Characters of a value that is not valid."""


def variable(field: str) -> str:
    """Return the environment variable of a field."""
    return PREFIX + field.upper()


def host_roots_of(environ: Mapping[str, str], given: str) -> tuple[Path, ...]:
    """Return directories that are given as in ``PATH``."""
    return tuple(expanded(environ, root) for root in given.split(os.pathsep) if root)


def expanded(environ: Mapping[str, str], path: str) -> Path:
    """Return a path with the home directory for ``~/``: no shell has seen an MCP client's configuration."""
    home = Path(environ.get("HOME") or Path.home())
    return home / path[2:] if path.startswith("~/") else Path(path)


def state_dir_of(environ: Mapping[str, str]) -> Path:
    """Return the directory of our records, as an environment has it."""
    if given := environ.get(variable("state_dir"), "").strip():
        return expanded(environ, given)
    home = Path(environ.get("HOME") or Path.home())
    said = Path(environ.get("XDG_STATE_HOME") or "")
    # A relative path is to be ignored, says the XDG specification.
    return (said if said.is_absolute() else home / ".local/state") / "pocket-dock"


def unknown(name: str, known: list[str]) -> str:
    """Say that there is no such variable, and which one may have been meant."""
    # Without the prefix, which makes everything look alike.
    fields = [other.removeprefix(PREFIX) for other in known]
    close = difflib.get_close_matches(name.removeprefix(PREFIX), fields, n=1)
    advice = f"Did you mean {PREFIX}{close[0]}?" if close else f"Known are {', '.join(known)}."
    return f"There is no setting {name}. {advice}"


def invalid(model: type[BaseModel], field: str, value: object) -> str:
    """Say that a value is not valid, and which ones are."""
    shown = str(value) if len(str(value)) <= _MAX_SHOWN else f"{str(value)[:_MAX_SHOWN]}..."
    return f"{variable(field)} is {shown!r}; valid is {_valid(model.model_fields[field])}."


def _valid(field: FieldInfo) -> str:
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


def default_of(field: FieldInfo) -> str:
    """Return what a setting is when nobody says otherwise, as text."""
    if field.is_required():
        return STATE_DIR
    if isinstance(field.default, float):
        return f"{field.default:g}"
    if isinstance(field.default, bool):
        return str(field.default).lower()
    return "" if field.default in (None, ()) else str(field.default)
