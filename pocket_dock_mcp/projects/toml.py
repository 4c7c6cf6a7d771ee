"""Pure: a few facts as TOML, written and read again; nothing is read that is not written like this."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

Scalar = str | int | float | bool
Document = Mapping[str, Scalar | Mapping[str, Scalar]]

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_LINE = re.compile(r'([A-Za-z0-9_-]+|"(?:[^"\\]|\\.)*") = (.+)')
_TABLE = re.compile(r"\[([A-Za-z0-9_-]+)\]")
_SURROGATE = re.compile("[\ud800-\udfff]")


def dumps(document: Document) -> str:
    """Return a document as TOML: what has a value first, then the tables."""
    lines = [f"{_key(key)} = {_scalar(value)}" for key, value in document.items() if not _is_table(value)]
    for key, value in document.items():
        if isinstance(value, Mapping):
            entries = (f"{_key(name)} = {_scalar(entry)}" for name, entry in value.items())
            lines += ["", f"[{_key(key)}]", *entries]
    return "\n".join(lines) + "\n"


def loads(text: str) -> dict[str, Scalar | dict[str, Scalar]]:
    """Return what `dumps` has written.

    Raises:
        ValueError: it is something else.
    """
    document: dict[str, Scalar | dict[str, Scalar]] = {}
    table: dict[str, Scalar] | None = None
    for line in text.split("\n"):
        if not line or line.startswith("#"):
            continue
        if (heading := _TABLE.fullmatch(line)) is not None:
            document[heading[1]] = table = {}
            continue
        found = _LINE.fullmatch(line)
        value = None if found is None else json.loads(found[2])
        if found is None or not isinstance(value, (str, int, float, bool)):
            raise ValueError(line[:100])
        key = json.loads(found[1]) if found[1].startswith('"') else found[1]
        if table is None:
            document[key] = value
        else:
            table[key] = value
    return document


def _is_table(value: object) -> bool:
    return isinstance(value, Mapping)


def _key(key: str) -> str:
    return key if _BARE.fullmatch(key) else _text(key)


def _scalar(value: object) -> str:
    return _text(value) if isinstance(value, str) else json.dumps(value, allow_nan=False)


def _text(text: str) -> str:
    # JSON's escapes are among TOML's, but for one character; surrogates are in neither's texts.
    return json.dumps(_SURROGATE.sub("\ufffd", text), ensure_ascii=False).replace("\x7f", "\\u007f")
