"""What a command says, and where: results to standard output, all that is about them to standard error."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal, TextIO

from pocket_dock_mcp.errors import ConfigError, PocketDockError
from pocket_dock_mcp.output import neutralise

if TYPE_CHECKING:
    from pocket_dock_mcp.cli.signals import Signals

Colour = Literal["red", "yellow", "green", "dim", "bold"]

_CODES: dict[Colour, str] = {"red": "31", "yellow": "33", "green": "32", "dim": "2", "bold": "1"}
_BROKEN_PIPE, _FAILED = 141, 1
_MAX_DENIALS = 10
_ERASE_LINE = "\r\x1b[K"
_SENTENCE_END = re.compile(r"(?<=[.!?]) ")
_TOOL = re.compile(
    r"\b(?:create|list|fork)_sandbox(?:es)?\b|\b(?:create_new|list)_containers?\b|\b(?:kill|attach)\("
)


class Console:
    """A command's way to the user. Colours and progress are for terminals only.

    What cannot be written to does not keep a command from its work; `finish` tells of it.
    """

    def __init__(
        self,
        environ: Mapping[str, str],
        *,
        out: TextIO | None = None,
        err: TextIO | None = None,
    ) -> None:
        """Look at the streams.

        Args:
            environ: of the process: ``NO_COLOR`` (anything but empty) and ``TERM=dumb`` mean no colours.
            out: instead of standard output.
            err: instead of standard error.
        """
        self.as_json = False
        """Whether the result is one JSON document, and nothing else goes to standard output."""
        self.signals: Signals | None = None
        """Those that are to end the command, while it runs."""
        # Python has none for a stream that was closed before it began.
        self._out: TextIO | None = out or sys.stdout
        self._err: TextIO | None = err or sys.stderr
        self._failure: OSError | None = None
        if isinstance(self._out, io.TextIOWrapper):
            # Names of files may be no text.
            self._out.reconfigure(errors="surrogateescape" if _is_utf8(self._out) else "backslashreplace")
        plain = bool(environ.get("NO_COLOR")) or environ.get("TERM") == "dumb"
        self._colours = not plain and _is_terminal(self._out)
        self._live = environ.get("TERM") != "dumb" and _is_terminal(self._err)
        self._shown = ""

    def say(self, line: str = "") -> None:
        """Print a line of the result."""
        self.clear()
        if self._out is None:
            self._failure = OSError(errno.EBADF, "it is closed")
        if self._failure is not None:
            return
        try:
            print(line, file=self._out)
        except OSError as error:
            self._failure = error

    def give(self, document: object) -> None:
        """Print the result as JSON."""
        self.say(json.dumps(document, indent=2, ensure_ascii=True))

    def shown(self, text: str) -> str:
        """Return somebody's text for a line: harmless on a terminal, as it is for a program that reads."""
        if _is_terminal(self._out):
            return plain(text)
        return text.replace("\n", "\\n")

    def not_written(self, error: OSError) -> int:
        """Return what a command exits with that could not write its bytes; say why, if nobody knows."""
        if error.errno == errno.EPIPE:
            # Whoever closed a pipe has seen enough; a program of the system would have died of it like this.
            return _BROKEN_PIPE
        self.note(f"pocket-dock: standard output cannot be written: {error.strerror}")
        return _FAILED

    def note(self, line: str) -> None:
        """Print a line about what is done to standard error."""
        self.clear()
        self._tell(f"{line}\n")

    @property
    def is_live(self) -> bool:
        """Whether progress is shown, in a line that moves; elsewhere it may be told in plain lines."""
        return self._live

    def progress(self, line: str) -> None:
        """Show what is being done, in one line that the next one replaces; on a terminal only."""
        if not self._live or line == self._shown:
            return
        self._shown = line
        self._tell(f"{_ERASE_LINE}{neutralise(line)[0][:100]}")

    def clear(self) -> None:
        """Take the line of progress away."""
        if self._shown:
            self._tell(_ERASE_LINE)
            self._shown = ""

    def flush(self) -> bool:
        """Hand on what is buffered now; return whether there is still somebody to read it."""
        try:
            if self._out is not None and self._failure is None:
                self._out.flush()
        except OSError as error:
            self._failure = error
        return self._failure is None

    def finish(self) -> bool:
        """Hand on what is still buffered; return whether all could be printed, and say if not."""
        try:
            if self._out is not None:
                self._out.flush()
        except OSError as error:
            self._failure = self._failure or error
        if self._failure is None:
            return True
        if self._out is not None:
            # Python would complain at exit about what is still buffered.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._out.fileno())
        if not isinstance(self._failure, BrokenPipeError):
            # Whoever closed a pipe has seen enough.
            self.note(f"pocket-dock: standard output cannot be written: {self._failure.strerror}")
        return False

    def _tell(self, text: str) -> None:
        if self._err is None:
            return
        try:
            print(text, end="", file=self._err, flush=True)
        except OSError:
            # There is nobody left to tell. Python would exit with 120 for what is still buffered.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._err.fileno())
            self._err = None

    def paint(self, text: str, colour: Colour) -> str:
        """Return the text in a colour, where there are colours."""
        return f"\x1b[{_CODES[colour]}m{text}\x1b[0m" if self._colours else text


# As Python shows texts. An apostrophe in a word begins none.
_QUOTED = r"""(?<!\w)'(?:[^'\\]|\\.)*'(?!\w)|(?<!\w)"(?:[^"\\]|\\.)*"(?!\w)"""

_IN_OUR_WORDS = {
    "timeout_s": "--timeout",
    "timeout=": "--timeout ",
    "memory_mb": "--mem-limit",
    "mem_limit": "--mem-limit",
    "cpu_percent": "--cpu-percent",
    "pids_limit": "--pids-limit",
    "disk_mb": "--disk-limit",
    "disk_limit": "--disk-limit",
    "shm_size": "--shm-size",
    "idle_timeout": "--idle-timeout",
    "background=true": "--detach",
    "detach=True": "--detach",
    "write_file": "pocket-dock write",
    "persist=True": "--persist",
}
"""What is called otherwise in the tools and in the SDK."""

_COMMANDS = {
    "run_command": "pocket-dock run",
    "run_code": "pocket-dock run",
    "read_file": "pocket-dock read",
}
"""What does in a shell what a tool does, for advice only: a message may be about a file of such a name."""


def in_our_words(text: str) -> str:
    """Return what is said to a model or in the SDK with the names of the command line."""
    return _replaced(text, _IN_OUR_WORDS)


def _replaced(text: str, words: Mapping[str, str]) -> str:
    """Return a text with other words, but not within quotes or longer names: those are the user's."""
    whole = "|".join(map(re.escape, sorted(words, key=len, reverse=True)))
    found = re.compile(rf"{_QUOTED}|(?<![\w./\\-])(?:{whole})(?:(?<==)|(?![\w/\\-]|\.\w))")
    return found.sub(lambda match: words.get(match[0], match[0]), text)


def denied(denials: Sequence[str]) -> str:
    """Return in one line what the network of a run's sandbox did not let through."""
    shown = "; ".join(denials[:_MAX_DENIALS])
    left = len(denials) - _MAX_DENIALS
    return f"the network denied: {shown}{f'; and {left} more' if left > 0 else ''}"


def told(error: PocketDockError) -> str:
    """Return an error in one line for people at a shell. The tools that its advice names are for models."""
    # In a file keys have the names that they have there.
    message = error.message if isinstance(error, ConfigError) else in_our_words(error.message)
    return " ".join(f"{message} {advice(error)}".split())


def error_document(error: PocketDockError) -> dict[str, object]:
    """Return an error for the JSON of a command."""
    return {"error": {"code": error.code, "message": error.message, "hint": advice(error)}}


def advice(error: PocketDockError) -> str:
    """Return the next step, for people at a shell."""
    if isinstance(error, ConfigError):
        return error.hint
    sentences = _SENTENCE_END.split(error.hint)
    ours = [sentence for sentence in sentences if not _TOOL.search(sentence)]
    if len(ours) < len(sentences):
        ours.append("To see what there is: pocket-dock list")
    return _replaced(" ".join(ours), {**_IN_OUR_WORDS, **_COMMANDS})


def _is_utf8(stream: io.TextIOWrapper) -> bool:
    return stream.encoding.lower().replace("-", "") == "utf8"


def _is_terminal(stream: TextIO | None) -> bool:
    return stream is not None and stream.isatty()


def plain(text: str) -> str:
    """Return text on one line that cannot act on a terminal: an engine or a program may have written it.

    Surrogates, which no stream takes, stand escaped.
    """
    return neutralise(text.replace("\n", " "))[0].encode("utf-8", "backslashreplace").decode("utf-8")
