"""What a kept container remembers of a run for whoever takes it up later: written, and read without trust."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pocket_dock_mcp.agent.transport import Program
from pocket_dock_mcp.errors import InvalidArgumentError
from pocket_dock_mcp.models import Language, RunLimits

MAX_META = 4096
"""Bytes of JSON that whoever starts a run may have kept with it."""
_MOST = 1 << 62
_RUN_ID = re.compile(r"run-(?:[0-9a-f]{16}){1,2}")
"""With half as many digits in what older releases have kept."""
_LANGUAGES: tuple[Language, ...] = ("shell", "python", "javascript")


@dataclass(frozen=True, slots=True)
class Memory:
    """A run as its container remembers it. One that its user has taken over may invent all of it."""

    run_id: str
    program: Program
    """Without code, environment and input."""
    began: float
    """Seconds since the epoch."""
    meta: Mapping[str, Any]


def remembered(run_id: str, program: Program, meta: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is to be kept with a run.

    Raises:
        InvalidArgumentError: `meta` is too large, or no JSON.
    """
    try:
        size = len(json.dumps(meta))
    except (TypeError, ValueError, RecursionError) as error:
        message = f"meta must be what JSON can say: {error}."
        raise InvalidArgumentError(message) from None
    if size > MAX_META:
        message = f"meta has {size} bytes as JSON; it may have {MAX_META}."
        raise InvalidArgumentError(message)
    limits = program.limits
    return {
        "run": run_id,
        "began": time.time(),
        "language": program.language,
        "cwd": program.cwd,
        "timeout": program.timeout_s,
        "session": program.session,
        "stdin": program.keep_stdin,
        "limits": [limits.cpu_s, limits.memory_bytes, limits.processes, limits.output_bytes],
        "meta": meta,
    }


def stays(meta: Mapping[str, Any] | None) -> bool:
    """Whether a run goes on when whoever has begun it only visits its container, and leaves."""
    return meta is not None and meta.get("background") is True


def recalled(said: object) -> Memory | None:
    """Return what `remembered` wrote; None if this is something else."""
    if not isinstance(said, dict):
        return None
    run_id, language, cwd, session = (said.get(name) for name in ("run", "language", "cwd", "session"))
    meta, began = said.get("meta"), _number(said.get("began"))
    limits = said.get("limits")
    if not isinstance(run_id, str) or not _RUN_ID.fullmatch(run_id) or language not in _LANGUAGES:
        return None
    if not isinstance(meta, dict) or began is None or not isinstance(limits, list) or len(limits) != 4:
        return None
    cpu, memory, processes, output = (_number(limit) for limit in limits)
    program = Program(
        language=language,
        code="",
        cwd=cwd if isinstance(cwd, str) else None,
        keep_stdin=said.get("stdin") is True,
        timeout_s=_number(said.get("timeout")),
        session=session if isinstance(session, str) else None,
        limits=RunLimits(cpu, _whole(memory), _whole(processes), _whole(output)),
        meta=said,
    )
    return Memory(run_id, program, began, meta)


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    # False for "not a number" too.
    return float(value) if 0 <= value < _MOST else None


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)
