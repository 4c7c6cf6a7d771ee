"""Pure: texts of which not all is text, such as a path with bytes that are no UTF-8, as JSON that is text.

Python has such bytes as lone surrogates (PEP 383), which strict readers of JSON refuse. On record each is a
NUL and four hexadecimal digits, and so is NUL itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

MARK = "\0"

_ODD = re.compile("[\0\ud800-\udfff]")
_ESCAPE = re.compile("\0([0-9a-f]{4})")


def escaped(value: Any) -> Any:
    """Return JSON's values, or a dataclass, with all their texts escaped."""
    return _mapped(value, lambda text: _ODD.sub(lambda found: f"{MARK}{ord(found[0]):04x}", text))


def restored(value: Any) -> Any:
    """Undo `escaped`."""
    return _mapped(value, lambda text: _ESCAPE.sub(lambda found: chr(int(found[1], 16)), text))


def _mapped(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {_mapped(key, change): _mapped(inner, change) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_mapped(inner, change) for inner in value)
    if is_dataclass(value) and not isinstance(value, type):
        inner = {field.name: getattr(value, field.name) for field in fields(value) if field.init}
        return replace(value, **{name: _mapped(one, change) for name, one in inner.items()})
    return value
