"""Pure: YAML as people write it into a configuration, with the place of every value, and no more of YAML.

Aliases, anchors and tags are refused: a file of a few hundred bytes can stand for gigabytes with them. What
is parsed is bounded in bytes, depth and values, so a hostile file costs no more than a moment.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import yaml

from pocket_dock_mcp.errors import ConfigError

MAX_BYTES = 64 * 1024
MAX_DEPTH = 8
MAX_VALUES = 2000

_WHOLE = re.compile(r"[-+]?[0-9]{1,15}")
_NUMBER = re.compile(r"[-+]?[0-9]{1,15}\.[0-9]{0,15}")
_BOOLEANS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
_NULLS = ("", "~", "null")


@dataclass(frozen=True, slots=True)
class Node:
    """One value, and where it stands."""

    value: str | int | float | bool | list[Node] | dict[str, Node] | None
    text: str
    """Of a scalar, as it is written."""
    line: int
    """Counted from 1, as `column` is."""
    column: int
    key: tuple[int, int] = (1, 1)
    """Line and column of its key, if it has one."""

    def plain(self) -> Any:
        """Return the value without places."""
        if isinstance(self.value, dict):
            return {key: node.plain() for key, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.plain() for node in self.value]
        return self.value


class MisreadError(ConfigError):
    """Something at one place of a text is wrong."""

    def __init__(self, what: str, line: int, column: int, *, hint: str | None = None) -> None:
        super().__init__(what, hint=hint)
        self.line = line
        self.column = column


def parse(raw: bytes) -> dict[str, Node]:
    """Return what a file says at its top level; nothing for an empty one.

    Raises:
        MisreadError: it is too large, no UTF-8, no YAML, more of YAML than is allowed here, or no mapping.
    """
    if len(raw) > MAX_BYTES:
        raise MisreadError(f"The file has more than {MAX_BYTES // 1024} KiB.", 1, 1)
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = raw[: error.start]
        column = error.start - (before.rfind(b"\n") + 1) + 1
        raise MisreadError("The file is no UTF-8.", before.count(b"\n") + 1, column) from None
    try:
        root = _Reader(text).document()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (1, 1) if mark is None else (mark.line + 1, mark.column + 1)
        raise MisreadError(f"This is no YAML: {error.problem or error.context}.", line, column) from None
    except yaml.reader.ReaderError as error:
        before = text[: error.position].encode()
        line = before.count(b"\n") + 1
        raise MisreadError("A character that YAML does not allow.", line, 1) from None
    except (ValueError, OverflowError) as error:
        if isinstance(error, MisreadError):
            raise
        # The parser trips over escapes of characters that there are not.
        raise MisreadError(f"This is no YAML: {error}.", 1, 1) from None
    if root is None or root.value is None:
        return {}
    if not isinstance(root.value, dict):
        raise MisreadError("The file has to consist of lines such as 'key: value'.", root.line, root.column)
    return root.value


class _Reader:
    """From events to nodes. What is refused is refused at its event, before anything is built of it."""

    def __init__(self, text: str) -> None:
        # The parser in C builds the same events; this one is there everywhere, and says the same everywhere.
        self._events: Iterator[Any] = yaml.parse(text, Loader=yaml.SafeLoader)
        self._count = 0

    def document(self) -> Node | None:
        root = None
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                if root is not None:
                    raise _misread(event, "There is a second document in the file.")
                root = self._node(next(self._events), 1)
        return root

    def _node(self, event: Any, depth: int) -> Node:
        self._count += 1
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            raise _misread(event, "Anchors and aliases (& and *) are not allowed here; quote the value.")
        if event.tag is not None:
            raise _misread(event, "Tags (!) are not allowed here; quote the value.")
        if depth > MAX_DEPTH or self._count > MAX_VALUES:
            raise _misread(event, "There is more in the file than a configuration has.")
        if isinstance(event, yaml.MappingStartEvent):
            return _at(event, self._mapping(depth), "")
        if isinstance(event, yaml.SequenceStartEvent):
            return _at(event, self._sequence(depth), "")
        return _at(event, _scalar(event.value) if event.implicit[0] else event.value, event.value)

    def _sequence(self, depth: int) -> list[Node]:
        items = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            items.append(self._node(event, depth + 1))
        return items

    def _mapping(self, depth: int) -> dict[str, Node]:
        found: dict[str, Node] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            key = self._node(event, depth + 1)
            if isinstance(key.value, (dict, list)):
                raise _misread(event, "A key has to be a word.")
            if key.text in found:
                raise _misread(event, f"{key.text!r} is there twice.")
            value = self._node(next(self._events), depth + 1)
            found[key.text] = replace(value, key=(key.line, key.column))
        return found


def _scalar(text: str) -> str | int | float | bool | None:
    if text.lower() in _BOOLEANS:
        return _BOOLEANS[text.lower()]
    if text.lower() in _NULLS:
        return None
    if _WHOLE.fullmatch(text):
        return int(text)
    return float(text) if _NUMBER.fullmatch(text) else text


def _at(event: Any, value: Any, text: str) -> Node:
    return Node(value, text, event.start_mark.line + 1, event.start_mark.column + 1)


def _misread(event: Any, what: str) -> MisreadError:
    return MisreadError(what, event.start_mark.line + 1, event.start_mark.column + 1)
