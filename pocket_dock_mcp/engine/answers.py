"""Pure: pieces of what an engine answers, in our words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pocket_dock_mcp.engine.translate import IN_STREAM, Verb, translate

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_STATUSES = frozenset({"created", "running", "paused", "stopping", "exited", "removing"})
# Podman's "stopped" is what has ended and is still to be tidied up, by a process of its own: a container
# that was started again meanwhile would be tidied up with it.
_STATUS_NAMES = {"configured": "created", "stopped": "stopping", "dead": "exited"}


def status_of(raw: object) -> Any:
    """Return a container's status."""
    name = _STATUS_NAMES.get(str(raw), str(raw))
    return name if name in _STATUSES else "unknown"


def progress_lines(verb: Verb, subject: str, event: Mapping[str, Any]) -> list[str]:
    """Return the lines of a progress event, or raise the failure that it reports."""
    detail = event.get("errorDetail") or {}
    if problem := detail.get("message") or event.get("error"):
        raise translate(verb, IN_STREAM, str(problem), subject)
    text = event.get("stream") or event.get("status") or ""
    # Docker paints what a step writes to its standard error.
    plain = _COLOUR.sub("", f"{text} {event.get('progress') or ''}")
    return [line.strip() for line in plain.splitlines() if line.strip()]
