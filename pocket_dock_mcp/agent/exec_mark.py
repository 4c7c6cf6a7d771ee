"""The mark behind a program's output, where only the engine's stream says whether all of it has come.

A stream that breaks between two pieces looks like one that ends, and by the time the engine is asked, the
program may have ended well: its output would be short of something, and nobody would be told. So a shell
runs the program, and writes a mark that nobody knows before when it is over. A program that looks for the
mark and prints it deceives nobody but its owner.

The shell then waits for a line: `RELEASE`, or the end of its input. Podman loses what it has not read of a
program that ends, and so nothing ends before all has come.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from pocket_dock_mcp.agent.transport import OnOutput
from pocket_dock_mcp.engine.base import STDERR

SIGNALLED = 128
"""From this exit code on the shell may have been killed before it wrote its mark. That is no good end."""

RELEASE = b"\n"

_SCRIPT = 'm=$1; shift; {run}; c=$?; printf %s "$m" >&2; read -r _; exit "$c"'
_WITHOUT_INPUT, _WITH_INPUT = _SCRIPT.format(run='"$@" </dev/null'), _SCRIPT.format(run='"$@"')


class Marked:
    """Takes a program's output as it comes, and leaves the mark out."""

    def __init__(self, on_output: OnOutput) -> None:
        self._on_output = on_output
        self._mark = secrets.token_hex(16).encode()
        self._held = b""
        self._is_complete = False

    def command(self, argv: Sequence[str], *, has_input: bool = False) -> list[str]:
        """Return what runs `argv` and then writes the mark. It must not read beyond its input."""
        script = _WITH_INPUT if has_input else _WITHOUT_INPUT
        return ["/bin/sh", "-c", script, "sh", self._mark.decode(), *argv]

    @property
    def is_complete(self) -> bool:
        """Whether the mark has come, so that whoever wrote it may end."""
        return self._is_complete

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
