"""Pure: what models read of tools and parameters, with what is configured in it: ``{memory_mb}``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pocket_dock_mcp.settings import Settings

_SLOT = re.compile(r"\{(\w+)\}")
_NAMES = ("profile", "memory_mb", "cpus", "pids", "disk_mb", "idle_ttl_s", "max_lifetime_s", "output_bytes")
"""Settings that descriptions name."""


def words_of(settings: Settings) -> dict[str, str]:
    """Return what stands for each slot in a description."""
    values = {name: getattr(settings, name) for name in _NAMES}
    words = {name: value if isinstance(value, str) else f"{value:.10g}" for name, value in values.items()}
    return {**words, "idle": _duration(settings.idle_ttl_s)}


def filled(text: str, words: Mapping[str, str]) -> str:
    """Return a description with the words in its slots. Braces that are no slot stay, also those of words."""
    return _SLOT.sub(lambda slot: words.get(slot[1], slot[0]), text)


def filled_schema(schema: Any, words: Mapping[str, str]) -> Any:
    """Return a schema with all its descriptions filled."""
    if isinstance(schema, list):
        return [filled_schema(item, words) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        name: filled(value, words)
        if name == "description" and isinstance(value, str)
        else filled_schema(value, words)
        for name, value in schema.items()
    }


def _duration(seconds: float) -> str:
    # Below that, the nearest minute is too far away.
    return f"{seconds:.10g} seconds" if seconds < 120 else f"{round(seconds / 60)} minutes"
