"""What runs in a fake container: a few real enough programs, and scripted ones."""

from __future__ import annotations

import os
import posixpath
import shlex
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import anyio

from pocket_dock_mcp.agent.bundle import source_of
from pocket_dock_mcp.engine.base import STDERR, STDOUT
from pocket_dock_mcp.testing.streams import Channel

if TYPE_CHECKING:
    from pocket_dock_mcp.testing.container import FakeContainer

NOT_FOUND = 127
SIGKILL = 9


@dataclass
class Process:
    """A program under way: all that a `Program` gets."""

    argv: tuple[str, ...]
    container: FakeContainer
    stdin: Channel
    sink: Callable[[int, bytes], Awaitable[None]]
    env: Mapping[str, str]
    cwd: str = "/"
    user: str = "0:0"
    oom: bool = False
    """Set by the program: the kernel killed it for its memory."""

    async def read(self) -> bytes:
        """Return the next piece of standard input; nothing at its end."""
        chunk = await self.stdin.get()
        return chunk[1] if chunk else b""

    async def write(self, data: bytes, stream: int = STDOUT) -> None:
        """Write to standard output or error; waits while nobody takes it."""
        await self.sink(stream, data)


Program = Callable[[Process], Awaitable[int]]
"""Runs to its end and returns the exit code; below zero, as in `subprocess`, the signal that ended it.

It is cancelled when it is killed.
"""

Piece = str | bytes | tuple[int, bytes] | anyio.Event
"""Of a script's output: text or bytes of stdout, ``(stream, bytes)``, or an event to wait for."""


@dataclass(frozen=True)
class Script:
    """A program that does as it is told; see `FakeEngine.script` for the fields."""

    pieces: Sequence[Piece] = ()
    exit_code: int = 0
    signal: int | None = None
    oom: bool = False
    hang: bool = False
    lose_stream: bool = False
    raw: bytes = b""
    effect: Callable[[Process], None] | None = None

    async def __call__(self, process: Process) -> int:
        """Play the script."""
        if self.effect is not None:
            self.effect(process)
        for piece in self.pieces:
            await _play(piece, process)
        if self.raw:
            process.container.emit(STDOUT, self.raw)
        if self.lose_stream:
            process.container.lose_streams()
        if self.hang:
            await anyio.sleep_forever()
        process.oom = self.oom
        signal = SIGKILL if self.oom else self.signal
        return self.exit_code if signal is None else -signal


async def _play(piece: Piece, process: Process) -> None:
    if isinstance(piece, str):
        await process.write(piece.encode())
    elif isinstance(piece, bytes):
        await process.write(piece)
    elif isinstance(piece, tuple):
        await process.write(piece[1], piece[0])
    else:
        await piece.wait()


class Programs:
    """Finds the program for a command line: scripted ones first, then those below."""

    def __init__(self) -> None:
        self._scripted: dict[str, Program] = {}

    def add(self, text: str, program: Program) -> None:
        """Let `program` be what `text` runs; see `FakeEngine.script` for what is compared with it."""
        self._scripted[text] = program

    def find(self, argv: Sequence[str], source: str | None = None) -> Program | None:
        """Return the program, or None when there is none of that name.

        Args:
            argv: the command line.
            source: the Python source that is run instead.
        """
        for text in (source, command(argv), shlex.join(argv)):
            if text is not None and text in self._scripted:
                return self._scripted[text]
        if source is not None:
            return _find_whiteouts if source == source_of("whiteouts") else _unknown(source)
        line = command(argv)
        return _builtin(argv) if line is None else _builtin(_words(line)) or _unknown(line)


def command(argv: Sequence[str]) -> str | None:
    """Return what a shell is told to run, or None when no shell is started."""
    is_shell = len(argv) == 3 and posixpath.basename(argv[0]) in ("sh", "bash") and argv[1] == "-c"
    return argv[2] if is_shell else None


def _words(line: str) -> list[str]:
    try:
        words = shlex.split(line)
    except ValueError:
        return [line]
    return words[1:] if words[:1] == ["exec"] else words


def _builtin(words: Sequence[str]) -> Program | None:
    make = _BUILTINS.get(posixpath.basename(words[0])) if words else None
    return make(words[1:]) if make else None


def _unknown(line: str) -> Program:
    message = f"fake: there is no script for {line!r}\n".encode("utf-8", "backslashreplace")
    return Script(pieces=[(STDERR, message)], exit_code=NOT_FOUND)


def _echo(words: Sequence[str]) -> Program:
    return Script(pieces=[" ".join(words) + "\n"])


def _exit(words: Sequence[str]) -> Program:
    return Script(exit_code=int(words[0]) if words else 0)


def _cat(words: Sequence[str]) -> Program:
    async def cat(process: Process) -> int:
        while data := await process.read():
            if ">/dev/null" not in words:
                await process.write(data)
        return 0

    return cat


async def _find_whiteouts(process: Process) -> int:
    for path in process.container.files.paths():
        if posixpath.basename(path).startswith(".wh."):
            await process.write(os.fsencode(path) + b"\n")
    return 0


def _find(_words: Sequence[str]) -> Program:
    # What `container.whiteouts` asks for where there is no python3, and nothing else.
    return _find_whiteouts


def _sleep(words: Sequence[str]) -> Program:
    async def sleep(_process: Process) -> int:
        await anyio.sleep(float(words[0]))
        return 0

    return sleep


def _true(_words: Sequence[str]) -> Program:
    return Script()


def _false(_words: Sequence[str]) -> Program:
    return Script(exit_code=1)


_BUILTINS: dict[str, Callable[[Sequence[str]], Program]] = {
    "cat": _cat,
    "echo": _echo,
    "exit": _exit,
    "false": _false,
    "find": _find,
    "sleep": _sleep,
    "true": _true,
}
