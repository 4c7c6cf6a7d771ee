"""The mark behind a program's output, where only the engine's stream says whether all of it has come.

A stream that breaks between two pieces looks like one that ends, and by the time the engine is asked, the
program may have ended well: its output would be short of something, and nobody would be told. So a shell
runs the program, and writes a mark that nobody knows before when it is over. A program that looks for the
mark and prints it deceives nobody but its owner.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from pocket_dock_mcp.agent.transport import OnOutput
from pocket_dock_mcp.engine.base import STDERR

SIGNALLED = 128
"""From this exit code on the shell may have been killed before it wrote its mark. That is no good end."""

_SCRIPT = 'm=$1; shift; "$@"; c=$?; printf %s "$m" >&2; exit "$c"'


class Marked:
    """Takes a program's output as it comes, and leaves the mark out."""

    def __init__(self, on_output: OnOutput) -> None:
        self._on_output = on_output
        self._mark = secrets.token_hex(16).encode()
        self._held = b""
        self._is_complete = False

    def command(self, argv: Sequence[str]) -> list[str]:
        """Return what runs `argv` and writes the mark behind it."""
        return ["/bin/sh", "-c", _SCRIPT, "sh", self._mark.decode(), *argv]

    def take(self, stream: int, data: bytes) -> None:
        """Take a piece; what may be the beginning of the mark is held back."""
        if stream == STDERR and not self._is_complete:
            data = self._held + data
            before, found, after = data.partition(self._mark)
            if found:
                self._is_complete, self._held, data = True, b"", before + after
            else:
                keep = self._beginning(data)
                self._held, data = data[len(data) - keep :], data[: len(data) - keep]
        if data:
            self._on_output(stream, data)

    def has_all(self, exit_code: int) -> bool:
        """Say at the stream's end whether that was all of it; hands out what was held back."""
        held, self._held = self._held, b""
        if held:
            self._on_output(STDERR, held)
        return self._is_complete or exit_code >= SIGNALLED

    def _beginning(self, data: bytes) -> int:
        """Return how many of the last bytes are a beginning of the mark."""
        longest = min(len(self._mark) - 1, len(data))
        return next((n for n in range(longest, 0, -1) if self._mark.startswith(data[-n:])), 0)
