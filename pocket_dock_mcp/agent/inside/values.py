"""What is shown of the value of a last expression: enough to go on, in bounded time and room."""

from __future__ import annotations

import sys
from itertools import islice
from types import TracebackType
from typing import Any, Callable, Dict, Iterable, List, Optional, Set, Tuple, Type

from . import tracebacks

ROOM = 8 * 1024
"""Characters of a value."""
MAX_COLUMNS = 12
MAX_ROWS = 20
"""A frame with more rows than that shows its first `HEAD`."""
HEAD = 5
_MAX_CELL = 50
_MARK = 40
"""Characters for saying what was left out, and the least that an item gets."""
_MAX_DEPTH = 60
_MAX_BITS = 3 * ROOM
"""Of an integer: more would take quadratic time to become decimal, or be refused."""

Shown = Tuple[str, bool]
"""The text, and whether something was left out of it."""
_Show = Callable[[Any, int, Set[int]], Shown]


class Quietly:
    """While it is entered, nothing that is asked of a library is warned or logged about.

    Costs nothing where neither has been imported.
    """

    def __enter__(self) -> None:
        warnings, logging = sys.modules.get("warnings"), sys.modules.get("logging")
        self._warnings: Any = warnings and warnings.catch_warnings()
        if warnings and self._warnings:
            self._warnings.__enter__()
            warnings.simplefilter("ignore")
        self._manager: Any = logging and logging.root.manager
        if self._manager:
            self._disabled = self._manager.disable
            self._manager.disable = sys.maxsize

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        if self._manager:
            self._manager.disable = self._disabled
        if self._warnings:
            self._warnings.__exit__(kind, error, trace)


def result(value: object) -> Dict[str, Any]:
    """Return the report of a value. What goes wrong in the value's own code is a part of the report."""
    kind = "repr"
    try:
        frame = _frame(value)
        if frame is not None:
            kind = "frame"
            text, cut = frame
        else:
            text, cut = bounded_repr(value)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        text, cut = "<repr failed: %s: %s>" % (type(error).__name__, tracebacks.message(error)), False
    return {"what": "result", "kind": kind, "text": text, "truncated": cut}


# -- data frames --------------------------------------------------------------------------------------


def _frame(value: object) -> Optional[Shown]:
    pandas, polars = sys.modules.get("pandas"), sys.modules.get("polars")
    if pandas is None and polars is None:
        return None
    if isinstance(value, getattr(pandas, "DataFrame", ())):
        with Quietly():
            return _table(value)
    if isinstance(value, getattr(pandas, "Series", ())):
        with Quietly():
            return _column(value)
    if isinstance(value, (getattr(polars, "DataFrame", ()), getattr(polars, "Series", ()))):
        # They say their shape and types themselves, and cut rows and columns.
        return _cut(repr(value), ROOM)
    return None


def _table(frame: Any) -> Shown:
    rows, columns = frame.shape
    names = list(frame.columns[:MAX_COLUMNS])
    types = ["%s %s" % pair for pair in zip(names, list(frame.dtypes.iloc[:MAX_COLUMNS]))]
    lines = ["%s, %d rows x %d columns" % (type(frame).__name__, rows, columns)]
    if columns > MAX_COLUMNS:
        types.append("...")
        lines[0] += ", the first %d" % MAX_COLUMNS
    lines.append("dtypes: " + ", ".join(types))
    return _with_preview(lines, frame.iloc[:, :MAX_COLUMNS], rows, columns > MAX_COLUMNS)


def _column(series: Any) -> Shown:
    name = "" if series.name is None else " %r" % (series.name,)
    lines = ["%s%s, %d rows, %s" % (type(series).__name__, name, len(series), series.dtype)]
    return _with_preview(lines, series.to_frame(" "), len(series), False)


def _with_preview(lines: List[str], frame: Any, rows: int, narrowed: bool) -> Shown:
    """Add the first rows, or all of few."""
    shown = rows if rows <= MAX_ROWS else HEAD
    if shown:
        lines.append(frame.iloc[:shown].to_string(max_colwidth=_MAX_CELL))
    if shown < rows:
        lines.append("... %d more rows" % (rows - shown))
    text, cut = _cut("\n".join(line.rstrip() for line in "\n".join(lines).split("\n")), ROOM)
    return text, cut or narrowed or shown < rows


# -- everything else ----------------------------------------------------------------------------------


def bounded_repr(value: object) -> Shown:
    """Return what `repr` returns, or head and tail of it. Of builtin containers no more is looked at than is
    shown; other objects have one repr, and it is theirs to be quick."""
    text, cut = _repr(value, ROOM, set())
    text, cut_again = _cut(text, ROOM)
    return text, cut or cut_again


def _repr(value: object, room: int, above: Set[int]) -> Shown:
    kind = type(value)
    if kind in _CONTAINERS:
        return _container(value, room, above)
    if kind is str or kind is bytes:
        return _string(value, room)
    if isinstance(value, int) and kind is int and value.bit_length() > _MAX_BITS:
        return "<int of %d bits>" % value.bit_length(), True
    return _cut(repr(value), room)


def _cut(text: str, room: int) -> Shown:
    if len(text) <= room:
        return text, False
    head, tail = _parts(room)
    return "%s...<%d characters>...%s" % (
        text[:head],
        len(text) - head - tail,
        text[len(text) - tail :],
    ), True


def _string(value: Any, room: int) -> Shown:
    if len(value) <= room:
        return _cut(repr(value), room)
    head, tail = _parts(room)
    first, last = repr(value[:head]), repr(value[len(value) - tail :])
    return "%s...<%d in all>...%s" % (_cut(first, head)[0], len(value), _cut(last, tail)[0]), True


def _parts(room: int) -> Tuple[int, int]:
    """Divide into head and tail, with some space for what is said between them."""
    room = max(room - _MARK, 0)
    return room - room // 3, room // 3


_CONTAINERS: Dict[Any, Tuple[str, str, str]] = {
    list: ("[", "]", "[]"),
    tuple: ("(", ")", "()"),
    set: ("{", "}", "set()"),
    frozenset: ("frozenset({", "})", "frozenset()"),
    dict: ("{", "}", "{}"),
}
"""How they begin and end, and how they are empty."""


def _container(value: Any, room: int, above: Set[int]) -> Shown:
    opening, closing, empty = _CONTAINERS[type(value)]
    if not value:
        return empty, False
    if id(value) in above or len(above) >= _MAX_DEPTH:
        return opening + "..." + closing, id(value) not in above
    above.add(id(value))
    show: _Show = _pair if type(value) is dict else _repr
    texts, cut = _items(value.items() if type(value) is dict else value, show, room, above)
    if len(texts) < len(value):
        texts, cut = _ends(value, show, texts, room, above), True
    above.discard(id(value))
    if len(value) == 1 and type(value) is tuple:
        closing = ",)"
    return opening + ", ".join(texts) + closing, cut


def _ends(value: Any, show: _Show, texts: List[str], room: int, above: Set[int]) -> List[str]:
    """Return some of the first items, of which `texts` has enough, and the last ones of what has an end."""
    head, tail = _parts(room)
    used = sum(len(text) + 2 for text in texts)
    while len(texts) > 1 and used > head:
        used -= len(texts.pop()) + 2
    last: List[str] = []
    if isinstance(value, (list, tuple, dict)):
        items = reversed(value.items() if isinstance(value, dict) else value)
        last, _ = _items(islice(items, len(value) - len(texts)), show, tail, above)
    left = len(value) - len(texts) - len(last)
    return [*texts, *(["...<%d more>..." % left] if left else []), *last[::-1]]


def _items(items: Iterable[Any], show: _Show, room: int, above: Set[int]) -> Tuple[List[str], bool]:
    """Show items while there is room, at least one."""
    texts = []
    cut = False
    for item in items:
        text, cut_here = show(item, max(room, _MARK), above)
        texts.append(text)
        cut = cut or cut_here
        room -= len(text) + 2
        if room <= 0:
            break
    return texts, cut


def _pair(pair: Tuple[object, object], room: int, above: Set[int]) -> Shown:
    key, cut = _repr(pair[0], room, above)
    value, cut_too = _repr(pair[1], max(room - len(key), _MARK), above)
    return key + ": " + value, cut or cut_too
