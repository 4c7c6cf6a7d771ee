"""What a command says, and where: results to standard output, all that is about them to standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Literal, TextIO

from pocket_dock_mcp.output import neutralise

Colour = Literal["red", "yellow", "green", "dim", "bold"]

_CODES: dict[Colour, str] = {"red": "31", "yellow": "33", "green": "32", "dim": "2", "bold": "1"}
_ERASE_LINE = "\r\x1b[K"


class Console:
    """A command's way to the user. Colours and progress are for terminals only."""

    def __init__(
        self,
        environ: Mapping[str, str],
        *,
        as_json: bool = False,
        out: TextIO | None = None,
        err: TextIO | None = None,
    ) -> None:
        """Look at the streams.

        Args:
            environ: of the process: ``NO_COLOR`` (anything but empty) and ``TERM=dumb`` mean no colours.
            as_json: whether the result is one JSON document, and nothing else goes to standard output.
            out: instead of standard output.
            err: instead of standard error.
        """
        self.as_json = as_json
        self._out = out or sys.stdout
        self._err = err or sys.stderr
        plain = bool(environ.get("NO_COLOR")) or environ.get("TERM") == "dumb"
        self._colours = not plain and self._out.isatty()
        self._live = environ.get("TERM") != "dumb" and self._err.isatty()
        self._shown = ""

    def say(self, line: str = "") -> None:
        """Print a line of the result."""
        self.clear()
        print(line, file=self._out)

    def give(self, document: object) -> None:
        """Print the result as JSON."""
        self.clear()
        print(json.dumps(document, indent=2, ensure_ascii=True), file=self._out)

    def note(self, line: str) -> None:
        """Print a line about what is done to standard error."""
        self.clear()
        print(line, file=self._err, flush=True)

    def progress(self, line: str) -> None:
        """Show what is being done, in one line that the next one replaces; on a terminal only."""
        if not self._live or line == self._shown:
            return
        self._shown = line
        print(f"{_ERASE_LINE}{neutralise(line)[0][:100]}", end="", file=self._err, flush=True)

    def clear(self) -> None:
        """Take the line of progress away."""
        if self._shown:
            print(_ERASE_LINE, end="", file=self._err, flush=True)
            self._shown = ""

    def paint(self, text: str, colour: Colour) -> str:
        """Return the text in a colour, where there are colours."""
        return f"\x1b[{_CODES[colour]}m{text}\x1b[0m" if self._colours else text
