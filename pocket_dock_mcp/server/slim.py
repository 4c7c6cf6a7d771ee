"""Pure: JSON schemas without what a model has no use for. Each tool's is part of every conversation."""

from __future__ import annotations

from typing import Any

_NULL = {"type": "null"}


def slim(schema: Any) -> Any:
    """Return a schema of parameters without titles, which repeat the names, and without nulls.

    What may be left out need not accept null as well; whoever sends it is understood all the same.
    """
    if isinstance(schema, list):
        return [slim(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    kept: dict[str, Any] = {}
    for name, value in schema.items():
        if (name == "title" and isinstance(value, str)) or (name == "default" and value is None):
            continue
        if name == "anyOf" and len(value) == 2 and _NULL in value:
            (other,) = [choice for choice in value if choice != _NULL]
            kept.update(slim(other))
        else:
            kept[name] = slim(value)
    return kept
