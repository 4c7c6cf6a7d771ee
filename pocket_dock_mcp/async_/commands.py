"""Pure: what is to be run, as the core takes it."""

from __future__ import annotations

import math
import posixpath
import shlex
from collections.abc import Sequence

from pocket_dock_mcp.async_.checks import is_number, is_whole
from pocket_dock_mcp.container.arguments import LANGUAGES, MAX_OUTPUT_BYTES, MAX_TIMEOUT_S, is_of
from pocket_dock_mcp.errors import InvalidArgumentError


def code_of(command: str | Sequence[str], lang: str | None) -> tuple[str, str]:
    """Return code and its language, or ``bash``, which is none of its own.

    A sequence is a program and its arguments, of which no shell changes any.

    Raises:
        InvalidArgumentError: nothing of the kind can be run.
    """
    if isinstance(command, str):
        language = language_of(lang)
        return command, "bash" if lang is not None and lang.lower() == "bash" else language
    if not _is_sequence(command):
        message = f"command is of the type {type(command).__name__}; it must be text, or a sequence of text."
        raise InvalidArgumentError(message)
    if lang is not None:
        message = "lang is given with a sequence, which is a program and its arguments."
        raise InvalidArgumentError(message, hint="Give the code as text, or leave lang out.")
    return shell_command(command), "shell"


def _is_sequence(command: object) -> bool:
    return isinstance(command, Sequence) and not isinstance(command, (bytes, bytearray, memoryview))


def shell_command(argv: Sequence[str]) -> str:
    """Return the shell command that becomes this program with exactly these arguments.

    Raises:
        InvalidArgumentError: no program can have them.
    """
    if not argv or not argv[0]:
        message = "There is nothing to run: the program has no name."
        raise InvalidArgumentError(message)
    for argument in argv:
        if not is_of(argument, str):
            message = f"An argument is of the type {type(argument).__name__}; it must be a string."
            raise InvalidArgumentError(message, hint="Use str(...) of it.")
        if "\0" in argument:
            message = "An argument contains a NUL character."
            raise InvalidArgumentError(message)
    # In place of the shell, so that signals and endings are the program's own. Some shells' exec has options
    # and some have not even "--", so a name that begins like one is left to env.
    via = "env -- " if argv[0].startswith("-") else ""
    return f"exec {via}{shlex.join(argv)}"


def language_of(lang: str | None) -> str:
    """Return the language that is meant; None is a shell. A session's shell is bash where there is one.

    Raises:
        InvalidArgumentError: there is no such language.
    """
    if lang is None:
        return "shell"
    found = LANGUAGES.get(lang.lower()) if is_of(lang, str) else None
    if found is None:
        message = f"lang is {lang!r}; it must be one of: {', '.join(sorted(LANGUAGES))}."
        raise InvalidArgumentError(message)
    return found


def checked_timeout(timeout: float | None) -> float | None:
    """Return a time limit as the core takes it; None and infinity are none.

    Raises:
        InvalidArgumentError: it makes no sense.
    """
    if timeout is None or timeout == math.inf:
        return None
    if not is_number(timeout) or not 0 < timeout <= MAX_TIMEOUT_S:
        message = f"timeout is {timeout!r}; it must be more than 0 and at most {MAX_TIMEOUT_S:g} seconds."
        raise InvalidArgumentError(message, hint="For no limit at all, give math.inf.")
    return timeout


def check_max_output(max_output: int) -> None:
    """Refuse a cap on output that makes no sense. Raises `InvalidArgumentError`."""
    if not is_whole(max_output) or not 0 < max_output <= MAX_OUTPUT_BYTES:
        message = f"max_output is {max_output!r}; it must be from 1 to {MAX_OUTPUT_BYTES} bytes."
        raise InvalidArgumentError(message, hint="For more, have it written to a file and pull that.")


def directory(workdir: str, cwd: str | None) -> str | None:
    """Return where a run begins; None is the home directory."""
    if cwd is None:
        return workdir or None
    # What is no string is refused where all paths are.
    if not workdir or not is_of(cwd, str) or cwd.startswith(("/", "~", "$")):
        return cwd
    return posixpath.join(workdir, cwd)
