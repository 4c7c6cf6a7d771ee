"""The output of one run, for `pocket-dock logs`: from its log, or from its sandbox while it goes on."""

from __future__ import annotations

import codecs
import os
from collections.abc import AsyncGenerator, AsyncIterator, Collection
from contextlib import aclosing
from typing import TYPE_CHECKING

import anyio

from pocket_dock_mcp.cli import exits
from pocket_dock_mcp.cli.console import Console
from pocket_dock_mcp.cli.reaching import reaching
from pocket_dock_mcp.container.store import STREAM_BYTES
from pocket_dock_mcp.errors import PocketDockError, RunNotFoundError
from pocket_dock_mcp.output import neutralise
from pocket_dock_mcp.projects.outputs import Tail, read_output
from pocket_dock_mcp.projects.runlog import is_alive

if TYPE_CHECKING:
    from pocket_dock_mcp.cli.logs import Logged

REPLAY_S = 10.0
"""Seconds for the output of a run that its sandbox has to tell again, before what is there has to do."""
LOOK_S = 0.2
"""Seconds between looks at a log that another process writes."""


class Printer:
    """Writes each stream to our own of that number; on a terminal, nothing that could act on it."""

    def __init__(self, streams: Collection[int]) -> None:
        self._streams = streams
        decoder = codecs.getincrementaldecoder("utf-8")
        self._decoders = {fd: decoder("replace") if os.isatty(fd) else None for fd in streams}
        self.has_printed = False

    def write(self, stream: int, data: bytes) -> None:
        """Print a piece.

        Raises:
            OSError: nobody takes it.
        """
        if stream not in self._streams or not data:
            return
        self.has_printed = True
        decoder = self._decoders[stream]
        if decoder is not None:
            data = neutralise(decoder.decode(data))[0].encode()
        while data:
            data = data[os.write(stream, data) :]


async def print_output(
    chosen: Logged, console: Console, streams: Collection[int], *, is_followed: bool
) -> int:
    """Print what a run has printed, and what it still prints if it is followed."""
    if console.as_json:
        return await _document(chosen, console)
    printer = Printer(streams)
    try:
        if is_followed and chosen.entry.get("status") == "running":
            await _follow(chosen, printer)
        else:
            async for stream, data in _kept(chosen):
                await _in_thread(printer, stream, data)
    except BrokenPipeError:
        # Who closed it has seen enough.
        return exits.FAILED
    except OSError as error:
        console.note(f"pocket-dock: the output cannot be written: {error.strerror}")
        return exits.FAILED
    if not printer.has_printed:
        console.note(f"pocket-dock: {_why_nothing(chosen)}")
    elif chosen.entry.get("log_cut"):
        console.note("pocket-dock: only a part of the output was kept (max_log_size)")
    return exits.OK


async def _document(chosen: Logged, console: Console) -> int:
    path = chosen.log.output_path(chosen.entry)
    texts = {1: bytearray(), 2: bytearray()}
    async for stream, data in _kept(chosen):
        texts[stream] += data
    streams = {
        name: bytes(texts[stream]).decode(errors="replace") for stream, name in ((1, "stdout"), (2, "stderr"))
    }
    console.give(
        {
            "sandbox": chosen.sandbox,
            **chosen.entry,
            "has_log": path is not None or any(texts.values()),
            **streams,
        }
    )
    return exits.OK


async def _kept(chosen: Logged) -> AsyncIterator[tuple[int, bytes]]:
    """Yield what a run has printed so far, as its log has it, or its sandbox where nobody writes that now."""
    if chosen.entry.get("status") == "running" and not is_alive(chosen.entry.get("pid")):
        is_reached = False
        async with aclosing(_inside(chosen)) as pieces:
            async for stream, data in pieces:
                is_reached = True
                yield stream, data
        if is_reached:
            return
    path = chosen.log.output_path(chosen.entry)
    for stream, data in [] if path is None else read_output(path):
        yield stream, data


async def _inside(chosen: Logged) -> AsyncGenerator[tuple[int, bytes], None]:
    """Yield what a run that was left to itself has printed so far; nothing if that cannot be had."""
    from pocket_dock_mcp.manager.recording import so_far

    try:
        async with reaching(chosen.sandbox) as reached:
            found = reached.sandbox.runs.get(chosen.entry["id"])
            if found is None:
                return
            found.run.follow()
            with anyio.move_on_after(REPLAY_S):
                if found.run.had_ended:
                    await found.run.outcome()
                # Whose answer comes after the output that there was by then.
                await reached.live.look_for_runs()
            for stream in (1, 2):
                for piece in so_far(found.run, stream, STREAM_BYTES):
                    yield stream, piece
    except PocketDockError:
        return


def _why_nothing(chosen: Logged) -> str:
    if chosen.entry.get("status") == "running":
        return "the run has printed nothing yet, or nothing that is kept"
    return "the run printed nothing, or its output was not kept (logging.auto_log, retention_days)"


async def _follow(chosen: Logged, printer: Printer) -> None:
    """Print a run's output from its beginning until it ends.

    Through its sandbox if that can be reached; else as its log grows, which another process writes.

    Raises:
        PocketDockError: it can neither be reached, nor does anybody write its log.
    """
    try:
        async with reaching(chosen.sandbox) as reached:
            found = reached.sandbox.runs.get(chosen.entry["id"])
            if found is not None:
                async for stream, data in found.run.pieces():
                    await _in_thread(printer, stream, data)
                return
            unreached: PocketDockError = RunNotFoundError()
    except PocketDockError as error:
        unreached = error
    if not is_alive(chosen.entry.get("pid")):
        raise unreached
    await _tail(chosen, printer)


async def _tail(chosen: Logged, printer: Printer) -> None:
    path = chosen.log.expected_path(chosen.entry)
    tail = Tail(path)
    try:
        while True:
            # In this order: what is written before the end is noted is read.
            is_over = not _goes_on(chosen)
            for stream, data in tail.read():
                await _in_thread(printer, stream, data)
            if is_over:
                return
            await anyio.sleep(LOOK_S)
    finally:
        tail.close()


def _goes_on(chosen: Logged) -> bool:
    run_id = chosen.entry["id"]
    now: dict[str, object] = next(
        (entry for entry in reversed(chosen.log.entries()) if entry["id"] == run_id), {}
    )
    return now.get("status") == "running" and is_alive(now.get("pid"))


async def _in_thread(printer: Printer, stream: int, data: bytes) -> None:
    """Print where nobody else has to wait for a reader that is slow."""
    await anyio.to_thread.run_sync(printer.write, stream, data, abandon_on_cancel=True)
