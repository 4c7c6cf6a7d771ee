"""A regular expression of a model, made safe to run over many lines of a hostile program at once.

Two things are done to it before it is compiled. It is rewritten so that nothing in it can match a newline:
then a whole block of lines is searched in one call, many times as fast as line by line, with the same result.
And what could cost this process its memory is refused: `regex` has a time limit for searching, but none for
compiling, which copies what is repeated, and none for memory, which recursion and captured groups can fill.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pocket_dock_mcp.errors import InvalidArgumentError

if TYPE_CHECKING:
    import regex

MAX_CHARS = 1000
_MAX_COST = 20_000
"""Nodes of a compiled pattern; each is about 300 bytes."""

_HINT = (
    "Write it as for Python's re module, for one line at a time, without back references, conditions and the "
    r"flag x. To find text as it is, put a backslash before each of . ^ $ * + ? { } [ ] \ | ( )."
)
_PART = re.compile(
    r"""
      (?P<escape> \\ (?: N\{[^{}]*\} | [pP]\{[^{}]*\} | 0[0-7]{0,2} | [1-3][0-7]{2}
                       | x[0-9a-fA-F]{2} | u[0-9a-fA-F]{4} | U[0-9a-fA-F]{8} | . ) )
    | (?P<set> \[ \^? \]? (?: \\. | \[:\^?\w+:\] | [^]\\] )* \] )
    | (?P<comment> \(\?\# [^)]* \) )
    | (?P<flags> \(\? [a-zA-Z-]+ [:)] )
    | (?P<named> \(\? P?< (?![=!]) [^>]* > )
    | (?P<group> \( (?: \?(?: : | > | = | ! | <= | <! ) | (?! [?*] ) ) )
    | (?P<close> \) )
    | (?P<repeat> [*+?] | \{ \d+ (?: ,\d* )? \} | \{ ,\d+ \} )
    | (?P<other> . )
    """,
    re.VERBOSE | re.DOTALL | re.ASCII,
)
# A class of these has no newline in it. Of escapes, those of letters could have: \s, \W, \x0a.
_HARMLESS_SET = re.compile(r"(?:\\[dwS]|\\[^a-zA-Z0-9\s]|[^\\\[\x00-\x1f]|\[(?!:))*")
_REWRITTEN = {"A": "^", "Z": "$", "z": "$", "s": r"[^\S\n]", "W": r"[^\w\n]", "D": r"[^\d\n]"}
_AS_THEY_ARE = "SdwbBtrfva"


def compile_pattern(pattern: str, *, to_line_end: bool = False) -> regex.Pattern[str]:
    """Compile a pattern whose matches in a text of many lines are those in each of its lines.

    With `to_line_end` a match has the rest of its line and the newline in it, so that each line has only one.

    Raises:
        InvalidArgumentError: it is malformed, too large, or has something in it that is not supported.
    """
    import regex  # here, because it takes 20 ms, and hosts wait for a server's start

    if len(pattern) > MAX_CHARS:
        raise _refusal(f"it has {len(pattern)} characters, and at most {MAX_CHARS} are taken")
    try:
        rewritten = _Rewriting().run(pattern)
        if to_line_end:
            rewritten = rf"(?:{rewritten})[^\n]*+\n?"
        return regex.compile(rewritten, regex.MULTILINE | regex.VERSION0, cache_pattern=False)
    except regex.error as error:
        raise _refusal(str(error).partition(" at position")[0]) from error
    except (RecursionError, OverflowError, MemoryError) as error:
        raise _refusal("it is too large, or nested too deeply") from error


def _refusal(reason: str) -> InvalidArgumentError:
    return InvalidArgumentError(f"The pattern cannot be used: {reason}.", hint=_HINT)


class _Rewriting:
    """One pass over one pattern, which also counts what the compiled one will have of nodes."""

    def __init__(self) -> None:
        self._costs = [0]
        """Of each open group, outermost first."""
        self._last = 0
        """Of what a repetition would repeat."""

    def run(self, pattern: str) -> str:
        """Return the pattern rewritten.

        Raises:
            InvalidArgumentError: it is too large, or has something in it that is not supported.
        """
        written = []
        for part in _PART.finditer(pattern):
            written.append(getattr(self, f"_{part.lastgroup}")(part[0]))
            if self._costs[-1] > _MAX_COST:
                raise _refusal("its repetitions multiply to too many")
        return "".join(written)

    def _count(self, cost: int) -> None:
        self._last = cost
        self._costs[-1] += cost

    def _escape(self, part: str) -> str:
        self._count(1)
        kind = part[1]
        if kind in _REWRITTEN:
            return _REWRITTEN[kind]
        if kind in _AS_THEY_ARE or not re.match(r"[a-zA-Z0-9\s]", kind):
            return part
        if kind in "xuU0123" and (len(part) > 2 or kind == "0"):
            code = int(part[1:].lstrip("xuU"), 16 if kind in "xuU" else 8)
            return self._other("\n") if code == 10 else part
        if kind in "NpP" and len(part) > 2:
            return rf"(?:(?!\n){part})"
        raise _refusal("no line has a newline in it" if kind in "n\n" else f"{part} is not supported")

    def _set(self, part: str) -> str:
        self._count(1)
        if part.startswith("[^"):
            # A minus or a bracket has its other meaning in any place but the first.
            return rf"[^\n\{part[2:]}" if part[2] in "-]" else rf"[^\n{part[2:]}"
        return part if _HARMLESS_SET.fullmatch(part[1:-1]) else rf"(?:(?!\n){part})"

    def _comment(self, _part: str) -> str:
        return ""

    def _flags(self, part: str) -> str:
        if set(part[2:-1]) - set("aimsu-"):
            raise _refusal(f"{part} is not supported")
        # Where no newline is, it does not matter what a dot or a circumflex make of one.
        flags = re.sub(r"[ms]|-(?=[ms]*[:)])", "", part)
        if part.endswith(":"):
            self._open()
        return "" if flags == "(?)" else flags

    def _named(self, _part: str) -> str:
        return self._group("(")

    def _group(self, part: str) -> str:
        self._open()
        # What groups capture is of no use here, and can fill the memory when they are repeated.
        return "(?:" if len(part) == 1 else part

    def _open(self) -> None:
        self._costs.append(1)

    def _close(self, part: str) -> str:
        if len(self._costs) == 1:
            raise _refusal("it closes a group that is not open")
        self._count(self._costs.pop())
        return part

    def _repeat(self, part: str) -> str:
        # What has to come n times is in the compiled pattern n times, and once more if it may come again.
        if part[0] != "{":
            copies = 2 if part == "+" else 1
        else:
            least, comma, most = part[1:-1].partition(",")
            copies = int(least or 0) + (comma == "," and most != least)
        self._costs[-1] += self._last * max(0, copies - 1)
        self._last *= max(1, copies)
        return part

    def _other(self, part: str) -> str:
        self._count(1)
        if part == "\n":
            raise _refusal("no line has a newline in it")
        if part == "(":
            raise _refusal("it has a group of a kind that is not supported")
        # A brace that repeats nothing is itself; `regex` would take some for its fuzzy matching.
        return rf"\{part}" if part in "{}" else part
