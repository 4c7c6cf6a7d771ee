"""Tracebacks as Python writes them, less the frames that are not the user's: ours, and those of libraries.

What a library did inside is rarely what the user got wrong, and a traceback through pandas is two pages.
"""

from __future__ import annotations

import os
import sys
import traceback
from types import FrameType, TracebackType
from typing import Any, Dict, Iterator, List, Optional, Set

MESSAGE_LENGTH = 500

_OURS = os.path.dirname((lambda: None).__code__.co_filename)
_OUR_FILES = frozenset(
    os.path.join(_OURS, name + ".py")
    for name in ("interpreter", "pictures", "program", "tracebacks", "values")
)
_LIBRARIES = (os.path.dirname(os.__file__) + "/",)
_INSTALLED = ("/site-packages/", "/dist-packages/")


def show(error: BaseException) -> None:
    """Print the traceback to standard error, or let the user's own hook do it. Raises nothing but what the
    hook raises as `SystemExit`."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename in _OUR_FILES:
        trace = trace.tb_next
    error.__traceback__ = trace
    hook = getattr(sys, "excepthook", sys.__excepthook__)
    if hook is sys.__excepthook__:
        _print(error)
        return
    try:
        hook(type(error), error, trace)
    except SystemExit:
        raise
    except BaseException as failure:
        _write("Error in sys.excepthook:\n")
        _print(failure)
        _write("\nOriginal exception was:\n")
        _print(error)


def facts(error: BaseException, file_name: str) -> Dict[str, Any]:
    """Return type, message and line of the error for a machine to read. The line is of `file_name`."""
    kind = type(error)
    name = kind.__qualname__
    if kind.__module__ not in ("builtins", "__main__"):
        name = "%s.%s" % (kind.__module__, name)
    return {"type": name, "message": message(error), "line": _line(error, file_name)}


def message(error: BaseException) -> str:
    """Return what the error says; never raises."""
    try:
        text = str(error)
    except BaseException:
        return "<no message: str() failed>"
    return text if len(text) <= MESSAGE_LENGTH else text[: MESSAGE_LENGTH - 3] + "..."


def _line(error: BaseException, file_name: str) -> Optional[int]:
    if isinstance(error, SyntaxError) and error.filename == file_name:
        return error.lineno
    line = None
    for trace in _traces(error):
        if trace.tb_frame.f_code.co_filename == file_name:
            line = trace.tb_lineno
    return line


def _write(text: str) -> None:
    try:
        sys.stderr.write(text)
    except BaseException:
        # Closed or replaced by something that is no file: what an interpreter would lose is lost.
        pass


def _print(error: BaseException) -> None:
    kind, trace = type(error), error.__traceback__
    try:
        shown = traceback.TracebackException(kind, error, trace, lookup_lines=False)
        _trim(shown, _hidden_files(error))
        text = "".join(shown.format())
    except BaseException:
        # An exception can be built so that `traceback` does not cope with it.
        try:
            sys.__excepthook__(kind, error, trace)
        except BaseException:
            pass
    else:
        _write(text)


def _trim(shown: traceback.TracebackException, hidden: Set[str]) -> None:
    """Take the hidden frames out of this and all linked exceptions. One with none left is its last line."""
    left: List[Any] = [shown]
    while left:
        one = left.pop()
        if one is None:
            continue
        one.stack[:] = [frame for frame in one.stack if frame.filename not in hidden]
        left += [one.__cause__, one.__context__]
        left += getattr(one, "exceptions", None) or ()


def _hidden_files(error: BaseException) -> Set[str]:
    judged: Dict[str, bool] = {}
    for linked in _linked(error):
        for trace in _traces(linked):
            name = trace.tb_frame.f_code.co_filename
            if name not in judged:
                judged[name] = _is_hidden(name, trace.tb_frame)
    return {name for name, hidden in judged.items() if hidden}


def _is_hidden(name: str, frame: FrameType) -> bool:
    if name in _OUR_FILES or name.startswith(("<frozen ", "<__array_function__")):
        return True
    if os.path.isabs(name):
        return _is_library(name)
    # `<string>` and the like are as much the user's as what generated them. Extension modules give the names
    # of sources that are not here.
    return _is_library(frame.f_globals.get("__file__"))


def _is_library(path: object) -> bool:
    return isinstance(path, str) and (path.startswith(_LIBRARIES) or any(part in path for part in _INSTALLED))


def _linked(error: BaseException) -> Iterator[BaseException]:
    """Yield the error and all that are its causes, contexts and members."""
    seen: Set[int] = set()
    left: List[Optional[BaseException]] = [error]
    while left:
        one = left.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        left += [one.__cause__, one.__context__]
        members = getattr(one, "exceptions", ())
        left += [member for member in members if isinstance(member, BaseException)] if members else []


def _traces(error: BaseException) -> Iterator[TracebackType]:
    trace = error.__traceback__
    while trace is not None:
        yield trace
        trace = trace.tb_next
