"""The tool that reads what a capped reply has left out: by range, by lines, from the end, by search."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal, TypeVar

import anyio
from mcp.types import CallToolResult
from pydantic import Field

from pocket_dock_mcp.engine.base import STDERR, STDOUT
from pocket_dock_mcp.errors import InvalidArgumentError
from pocket_dock_mcp.output import neutralise
from pocket_dock_mcp.server.call import Ctx, Tools, told
from pocket_dock_mcp.server.owners import owner_of
from pocket_dock_mcp.server.render import block, reply
from pocket_dock_mcp.server.schemas import OutputReply, RunId
from pocket_dock_mcp.server.sizes import MAX_ONCE, wire_size
from pocket_dock_mcp.spool import Spool
from pocket_dock_mcp.spool.lines import Excerpt, read_lines, read_range, tail_lines
from pocket_dock_mcp.spool.search import Matches, grep

MAX_BYTES = 24 * 1024
"""Of output in a reply that does not ask for more: about 8,000 tokens."""
MOST_BYTES = 256 * 1024
"""Carried twice, the second time in the structured result; as base64 it is as much as a reply may have."""
_CERTAIN = 20 * 1024
"""Bytes that are never too many, whatever they are."""
MAX_MATCHES = 100
MAX_CONTEXT = 50
SEARCH_S = 5.0

_STREAMS = {"stdout": STDOUT, "stderr": STDERR}
T = TypeVar("T", Excerpt, Matches)
Stream = Literal["stdout", "stderr"]


@dataclass(frozen=True)
class _Output:
    """Whose output is read, and which."""

    run_id: str
    stream: Stream
    unkept: int
    """Bytes at its beginning that a kept container could not keep. They are in no count."""


class OutputTools(Tools):
    """The tool function, over one manager."""

    @told
    async def read_output(
        self,
        ctx: Ctx,
        run_id: RunId,
        stream: Annotated[Stream, Field(description="Which one.")] = "stdout",
        start_line: Annotated[int | None, Field(description="First line to return, from 1.")] = None,
        lines: Annotated[int | None, Field(description="How many lines. Default: as many as fit.")] = None,
        tail: Annotated[int | None, Field(description="Return the last lines, so many, instead.")] = None,
        grep: Annotated[
            str | None, Field(description="Return the lines that match this regular expression instead.")
        ] = None,
        context: Annotated[int, Field(description="Lines around each match to return, up to 50.")] = 0,
        start_byte: Annotated[
            int | None,
            Field(description="Begin at this byte instead of a line: the reply's next_byte goes on."),
        ] = None,
        max_bytes: Annotated[
            int, Field(description="Bytes to return, up to 262144. The default is about 8,000 tokens.")
        ] = MAX_BYTES,
        encoding: Annotated[
            Literal["utf-8", "base64"],
            Field(description="base64 returns the exact bytes; utf-8 is text without control characters."),
        ] = "utf-8",
    ) -> Annotated[CallToolResult, OutputReply]:
        """Read the output of a run, also while it is running: what a reply left out is kept with the sandbox, up
        to some hundred MB per run. By lines, from the end, by search, or by bytes."""
        _check(start_line, tail, grep, start_byte, max_bytes=max_bytes, context=context, encoding=encoding)
        sandbox, run = await self._manager.open_run(owner_of(ctx), run_id)
        number = _STREAMS[stream]
        spool, of = run.run.spool(number), _Output(run_id, stream, run.run.missing[number - STDOUT])
        with sandbox.use():
            if grep is not None:
                search = partial(_search, spool, grep, context, start_byte or 0)
                found = await anyio.to_thread.run_sync(_fitting, search, _rows, max_bytes)
                return _matches(of, found)
            read = partial(_excerpt, spool, start_line, lines, tail, start_byte)
            shown = _shown_text if encoding == "utf-8" else _base64
            excerpt = await anyio.to_thread.run_sync(_fitting, read, shown, max_bytes)
        return _text(of, excerpt) if encoding == "utf-8" else _bytes(of, excerpt)


def _check(
    start_line: int | None,
    tail: int | None,
    pattern: str | None,
    start_byte: int | None,
    *,
    max_bytes: int,
    context: int,
    encoding: str,
) -> None:
    ways = {"start_line": start_line, "tail": tail, "grep": pattern}
    given = [name for name, value in ways.items() if value is not None]
    if start_byte is not None and pattern is None:
        given.append("start_byte")
    if len(given) > 1:
        raise InvalidArgumentError(f"{' and '.join(given)} do not go together; give one of them.")
    if not 1 <= max_bytes <= MOST_BYTES:
        raise InvalidArgumentError(f"max_bytes is {max_bytes}; it must be from 1 to {MOST_BYTES}.")
    if not 0 <= context <= MAX_CONTEXT:
        raise InvalidArgumentError(f"context is {context}; it must be from 0 to {MAX_CONTEXT}.")
    if pattern is not None and encoding != "utf-8":
        raise InvalidArgumentError("A search returns text; leave out the encoding.")


def _fitting(read: Callable[[int], T], shown: Callable[[T], str], max_bytes: int) -> T:
    """Return what can be read of so many bytes, or of fewer, if those take too much room in a reply."""
    while True:
        found = read(max_bytes)
        if max_bytes < _CERTAIN or wire_size(shown(found)) <= MAX_ONCE:
            return found
        max_bytes //= 2


def _excerpt(
    spool: Spool,
    start_line: int | None,
    lines: int | None,
    tail: int | None,
    start_byte: int | None,
    max_bytes: int,
) -> Excerpt:
    if tail is not None:
        return tail_lines(spool, tail, max_bytes)
    if start_byte is not None:
        return read_range(spool, start_byte, max_bytes)
    first, count = 1 if start_line is None else start_line, max_bytes if lines is None else lines
    return read_lines(spool, first, count, max_bytes)


def _search(spool: Spool, pattern: str, context: int, start_byte: int, max_bytes: int) -> Matches:
    return grep(spool, pattern, context, MAX_MATCHES, max_bytes, SEARCH_S, start_byte=start_byte)


def _shown_text(found: Excerpt) -> str:
    return neutralise(found.text)[0]


def _base64(found: Excerpt) -> str:
    return base64.b64encode(found.data).decode("ascii")


def _text(of: _Output, found: Excerpt) -> CallToolResult:
    content, removed = neutralise(found.text)
    return _reply(of, found, content, "utf-8", removed=removed)


def _bytes(of: _Output, found: Excerpt) -> CallToolResult:
    return _reply(of, found, _base64(found), "base64", removed=False)


def _reply(
    of: _Output,
    found: Excerpt,
    content: str,
    encoding: Literal["utf-8", "base64"],
    *,
    removed: bool,
) -> CallToolResult:
    structured = OutputReply(
        run_id=of.run_id,
        stream=of.stream,
        content=content,
        encoding=encoding,
        start_byte=found.start_byte,
        next_byte=found.next_byte if found.more else None,
        first_line=found.first_line,
        last_line=found.last_line,
        total_bytes=found.total_bytes,
        total_lines=found.total_lines,
        matches=None,
        control_chars_removed=removed,
    )
    if not found.data:
        return reply(" ".join([f"Nothing there: {of.stream} has {_size(found)}.", *_unkept(of)]), structured)
    where = f"bytes {found.start_byte}-{found.start_byte + len(found.data)}"
    if found.first_line is not None and encoding == "utf-8":
        where = f"lines {found.first_line}-{found.last_line}"
    parts = [f"{of.stream}, {where} of {_size(found)}{', base64' if encoding == 'base64' else ''}"]
    parts += block("output", content or "\n")
    if found.more:
        parts.append(f"There is more: go on with start_byte={found.next_byte}.")
    parts += _remarks(of, found.gap, removed=removed)
    return reply("\n".join(parts), structured)


def _rows(found: Matches) -> str:
    rows, last = [], None
    for line in found.lines:
        if last is not None and line.number is not None and line.number > last + 1:
            rows.append("--")
        last = line.number
        shown = f"{'...' if line.cut_start else ''}{line.text}{'...' if line.cut_end else ''}"
        rows.append(f"{line.number or '?'}{':' if line.matches else '-'}{shown}")
    return "\n".join(rows)


def _matches(of: _Output, found: Matches) -> CallToolResult:
    content, removed = neutralise(_rows(found))
    numbers = [line.number for line in found.lines if line.number is not None]
    shown_matches = sum(line.matches for line in found.lines)
    more = found.next_byte < found.total_bytes and (shown_matches < found.matches or not found.exact)
    structured = OutputReply(
        run_id=of.run_id,
        stream=of.stream,
        content=content,
        encoding="utf-8",
        start_byte=None,
        next_byte=found.next_byte if more else None,
        first_line=min(numbers, default=None),
        last_line=max(numbers, default=None),
        total_bytes=found.total_bytes,
        total_lines=found.total_lines,
        matches=found.matches,
        control_chars_removed=removed,
    )
    count = f"{'' if found.exact else 'at least '}{found.matches} of {found.total_lines} lines match"
    parts = [f"{of.stream}: {count}"]
    parts += block("output", content)
    if more:
        parts.append(f"There is more: go on with the same grep and start_byte={found.next_byte}.")
    parts += _remarks(of, found.gap, removed=removed)
    return reply("\n".join(parts), structured)


def _size(found: Excerpt) -> str:
    return f"{found.total_bytes} bytes in {found.total_lines} lines"


def _unkept(of: _Output) -> list[str]:
    if not of.unkept:
        return []
    return [
        f"Its first {of.unkept} bytes could not be kept while no server was there: counts begin after them."
    ]


def _remarks(of: _Output, gap: tuple[int, int] | None, *, removed: bool) -> list[str]:
    remarks = _unkept(of)
    if removed:
        remarks.append("Control characters were removed; encoding='base64' returns the exact bytes.")
    if gap is not None:
        remarks.append(f"Bytes {gap[0]}-{gap[1]} were more than could be kept and are gone.")
    return remarks
