"""A namespace, what runs in it, and how that is told: the common part of a program and of a session.

The value of a last expression is reported unless a semicolon follows it. ``await`` is allowed outside of
functions: the coroutine runs in an event loop that lives as long as the namespace, and only while something
is awaited.
"""

from __future__ import annotations
import __future__

import _ast
import _thread
import atexit
import builtins
import gc
import io
import linecache
import re
import sys
import types
import weakref
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Optional, Tuple

from . import pictures, tracebacks, values

if TYPE_CHECKING:
    from .interpreter import Report

INTERRUPTED = 130
"""The code of what ended by KeyboardInterrupt: a shell's for SIGINT."""

_CO_COROUTINE = 0x80
_FUTURE = 0
for _name in __future__.all_feature_names:
    _FUTURE |= getattr(__future__, _name).compiler_flag
_MAX_TREE = 256 * 1024
"""Characters of source. A syntax tree takes twice the memory that compiling takes."""
_STRINGS = re.compile(r"'(?:[^'\\]|\\.)*'" + r'|"(?:[^"\\]|\\.)*"')
_ENOUGH_DEPTH = 200
_DEFAULT_DEPTH = 1000

Guard = Callable[..., Any]
"""Calls a function with arguments. User code runs below it and nowhere else."""


# -- from source to code ------------------------------------------------------------------------------


Codes = Tuple[Optional[types.CodeType], Optional[types.CodeType]]
"""What to execute, and the last expression, to evaluate."""


def compiled(source: bytes, name: str, flags: int) -> Codes:
    """Compile the source. Its lines are there for tracebacks, whatever comes of it."""
    try:
        text = source.decode("utf-8")
    except UnicodeDecodeError:
        # There may be a coding line. If not, this raises what Python says to such a file.
        return compile(source, name, "exec", flags, True), None
    if text.startswith("\ufeff"):
        text = text[1:]
    lines = _lines(text)
    linecache.cache[name] = (len(text), None, lines, name)
    try:
        return _split(text, lines, name, flags | _ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    except SyntaxError as error:
        # Some errors are found when the text is no longer there, and the compiler looks for a file.
        if error.text is None and error.filename == name and 0 < (error.lineno or 0) <= len(lines):
            error.text = lines[(error.lineno or 0) - 1]
        raise


def _lines(text: str) -> List[str]:
    """Return the lines as those of a file. `splitlines` parts them where no line of Python ends."""
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    lines = [line + "\n" for line in text.split("\n")]
    if lines[-1] == "\n":
        lines.pop()
    return lines


def _split(text: str, lines: List[str], name: str, flags: int) -> Codes:
    """Part the last expression from the rest, without a syntax tree where that is possible: going through one
    doubles what compiling costs.

    A last line that is an expression, after lines that are complete without it, is the last expression.
    """
    at = len(lines) - 1
    while at >= 0 and lines[at].lstrip()[:1] in ("", "#"):
        at -= 1
    last = lines[at] if at >= 0 else ""
    # A string may be the docstring as well.
    is_string = last.lstrip("rRuU").startswith(("'", '"'))
    if last and not is_string and not _is_statement(last):
        try:
            value = compile("\n" * at + last, name, "eval", flags, True)
            return compile("".join(lines[:at]), name, "exec", flags, True) if at else None, value
        except Exception:
            # It is a statement after all, or the end of something longer, or wrong.
            pass
    if not is_string and (len(text) > _MAX_TREE or _is_no_expression(lines, at)):
        return compile(text, name, "exec", flags, True), None
    return _split_tree(text, lines, name, flags)


def _is_statement(line: str) -> bool:
    """Say whether the line is plainly of a block, an import or an assignment. A look is less than a try."""
    name, equals, rest = line.partition("=")
    is_assignment = equals and rest[:1] != "=" and name.rstrip().isidentifier()
    return bool(is_assignment) or line[0].isspace() or line.startswith(("import ", "from "))


def _is_no_expression(lines: List[str], at: int) -> bool:
    """Say whether a last line that is no expression of its own is not the end of a longer one either."""
    if at < 0:
        return True
    if at > 0 and lines[at - 1].endswith("\\\n"):
        return False
    line = lines[at]
    if "'" in line or '"' in line:
        line = _STRINGS.sub("", line)
    line = line.partition("#")[0]
    opened = line.count("(") + line.count("[") + line.count("{")
    closed = line.count(")") + line.count("]") + line.count("}")
    return opened == closed and "'" not in line and '"' not in line and ";" not in line


def _split_tree(text: str, lines: List[str], name: str, flags: int) -> Codes:
    tree: Any = compile(text, name, "exec", flags | _ast.PyCF_ONLY_AST, True)
    last: Any = tree.body[-1] if tree.body else None
    value = None
    if isinstance(last, _ast.Expr) and not _is_silenced(last, lines):
        value = compile(_ast.Expression(last.value), name, "eval", flags, True)
        is_docstring = len(tree.body) == 1 and isinstance(getattr(last.value, "value", None), str)
        if not is_docstring:
            tree.body.pop()
    return compile(tree, name, "exec", flags, True), value


def _is_silenced(last: Any, lines: List[str]) -> bool:
    """Say whether a semicolon follows the last expression."""
    after: bytes = lines[last.end_lineno - 1].encode("utf-8")[last.end_col_offset :]
    return after.lstrip().startswith(b";")


# -- running it ---------------------------------------------------------------------------------------


class Program:
    """One ``__main__``. A lasting one runs many sources, and shows a figure only once."""

    def __init__(self, report: Report, guard: Guard, lasting: bool) -> None:
        self._report = report
        self._guard = guard
        self._lasting = lasting
        self._flags = 0
        self._loop: Any = None
        self._forgotten: List[Any] = []
        self.main: Any = _fresh_main()
        self.appear()

    def appear(self) -> None:
        """Be the ``__main__`` that others look up, next to what no program does without."""
        sys.modules.update({"__main__": self.main, "builtins": builtins, "sys": sys})
        names = self.main.__dict__
        names.setdefault("__builtins__", builtins)
        # A warning is given once for a line. The next source has lines of its own.
        names.pop("__warningregistry__", None)

    def run(self, source: bytes, name: str) -> Tuple[int, bool]:
        """Run the source, tell what came of it, and return its code and whether it was interrupted."""
        try:
            value = self._guard(self._evaluate, source, name)
            code, interrupted = 0, False
        except BaseException as error:
            value = None
            _restore_depth()
            code, interrupted = self._failed(error, name)
        _restore_depth()
        if interrupted or (value is None and not pictures.are_possible()) or not self._report.is_mine:
            return code, interrupted
        try:
            for header, payload in self._guard(self._outcome, value):
                self._report.send(header, payload)
        except BaseException as error:
            # Interrupted, or out of memory.
            return self._failed(error, name)
        return code, False

    def _evaluate(self, source: bytes, name: str) -> object:
        codes = compiled(source, name, self._flags)
        if self._lasting and codes[0] is not None:
            self._flags |= codes[0].co_flags & _FUTURE
        if any(code is not None and code.co_flags & _CO_COROUTINE for code in codes):
            return self._awaited(self._evaluated(codes))
        value = None
        for code in codes:
            if code is not None:
                value = eval(code, self.main.__dict__)
        return value

    async def _evaluated(self, codes: Codes) -> object:
        """Evaluate code that awaits something. All of it finds the loop running."""
        value: Any = None
        for code in codes:
            if code is not None:
                value = eval(code, self.main.__dict__)
                if code.co_flags & _CO_COROUTINE:
                    value = await value
        return value

    def _awaited(self, coroutine: Any) -> object:
        import asyncio  # whoever awaits has it, or needs it now

        if self._loop is None or self._loop.is_closed():
            self._loop = asyncio.new_event_loop()
        asyncio.set_event_loop(self._loop)
        task = self._loop.create_task(coroutine)
        try:
            return self._loop.run_until_complete(task)
        except BaseException:
            # Interrupted: it is not to go on with the next one.
            task.cancel()
            raise

    def renew_loop(self) -> None:
        """Begin another event loop: in a fork, this one waits on what the fork does not have.

        It is not let go of: what would be said of its tasks then has nothing to do with any cell.
        """
        if self._loop is not None:
            import asyncio

            self._forgotten.append(self._loop)
            self._loop = asyncio.new_event_loop()
            asyncio.set_event_loop(self._loop)

    def _outcome(self, value: object) -> List[pictures.Block]:
        blocks = [] if value is None else [(values.result(value), b"")]
        return blocks + pictures.collect(value, self._lasting)

    def _failed(self, error: BaseException, name: str) -> Tuple[int, bool]:
        """Show what ended it; return the code, and whether it was interrupted."""
        try:
            if isinstance(error, SystemExit):
                return exit_status(error), False
            tracebacks.show(error)
        except SystemExit as stop:
            # Out of the user's own hook.
            return exit_status(stop), False
        self._report.send({"what": "error", **tracebacks.facts(error, name)})
        interrupted = isinstance(error, KeyboardInterrupt)
        return INTERRUPTED if interrupted else 1, interrupted

    # -- its end --------------------------------------------------------------------------------------

    def end(self) -> bool:
        """End as an interpreter does: wait for threads, call what is registered, let go of the namespace.

        Returns False if output was lost.
        """
        for step in (self._end_loop, _end_threads, atexit._run_exitfuncs):
            try:
                step()
            except BaseException:
                # An interpreter reports some of these and goes on; its status is decided.
                pass
        whole = flush()
        self._tear_down()
        return flush() and whole

    def _end_loop(self) -> None:
        loop = self._loop
        if loop is None or loop.is_closed():
            return
        import asyncio

        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        if tasks:
            loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()

    def _tear_down(self) -> None:
        """Let go of the namespace, so that files in it are flushed and finalizers run."""
        if _thread._count():
            # Daemon threads, which an interpreter stops here, go on, and may need what is in it.
            for value in list(self.main.__dict__.values()):
                if isinstance(value, io.IOBase):
                    flushed(value)
            return
        # Puts what refers before what is referred to, in the order in which finalizers are called: a text
        # file must be closed before the buffer that it writes to.
        gc.collect()
        main, self.main = self.main, None
        relic = _Relic(main.__dict__)
        left = weakref.ref(relic)
        main.__dict__[""] = relic
        if sys.modules.get("__main__") is main:
            del sys.modules["__main__"]
        del main, relic
        gc.collect()
        remains = left()
        if remains is not None:
            remains.clear()


class _Relic:
    """In a namespace, tells whether that is still held by something, and by whom it can be emptied."""

    def __init__(self, names: Dict[str, Any]) -> None:
        self._names = names

    def clear(self) -> None:
        # The youngest first: it may need what was there before it.
        for name in reversed(list(self._names)):
            if name != "__builtins__":
                self._names[name] = None


def _fresh_main() -> types.ModuleType:
    main = types.ModuleType("__main__")
    names = main.__dict__
    names["__loader__"] = builtins.__loader__
    if sys.version_info < (3, 14):
        names["__annotations__"] = {}
    names["__builtins__"] = builtins
    return main


def exit_status(stop: SystemExit) -> int:
    """Return the status that this asks for; print it if it is text."""
    code = stop.code
    if code is None:
        return 0
    if isinstance(code, int):
        # What is no C integer is -1.
        return (code if -(2**63) <= code < 2**63 else -1) & 0xFF
    try:
        sys.stderr.write("%s\n" % (code,))
    except Exception:
        pass
    return 1


def _restore_depth() -> None:
    """Take back a limit of recursion that is too low for ourselves."""
    if sys.getrecursionlimit() < _ENOUGH_DEPTH:
        sys.setrecursionlimit(_DEFAULT_DEPTH)


def _end_threads() -> None:
    threading: Any = sys.modules.get("threading")
    if threading is not None:
        threading._shutdown()


def flush() -> bool:
    """Flush standard output and error; False if output was lost."""
    whole = True
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name, None)
        if is_open(stream) and not flushed(stream):
            whole = False
    return whole


def flushed(stream: Any) -> bool:
    """Flush a stream; False if that failed."""
    try:
        stream.flush()
    except Exception:
        return False
    return True


def is_open(stream: Any) -> bool:
    """Say whether a stream can be used."""
    try:
        return stream is not None and not stream.closed
    except Exception:
        # It was detached from its buffer, or is no stream.
        return False
