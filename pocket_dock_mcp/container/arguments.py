"""Pure: the arguments of a container's methods, checked before anything is asked of anybody."""

from __future__ import annotations

import os
from collections.abc import Mapping

from pocket_dock_mcp.agent.inside import wire
from pocket_dock_mcp.errors import InvalidArgumentError
from pocket_dock_mcp.models import MIB, Language

MAX_TIMEOUT_S = 86_400.0
MAX_OUTPUT_BYTES = 64 * MIB
MAX_STDIN_BYTES = 64 * MIB

_LANGUAGES: dict[str, Language] = {
    "python": "python", "python3": "python", "py": "python", "shell": "shell", "sh": "shell", "bash": "shell",
}  # fmt: skip


def language_of(language: str) -> Language:
    """Return the language that a name stands for. Raises `InvalidArgumentError` otherwise."""
    try:
        return _LANGUAGES[language.lower()]
    except KeyError:
        names = ", ".join(sorted(_LANGUAGES))
        message = f"language is {language!r}; it must be one of: {names}."
        raise InvalidArgumentError(message) from None


def checked_code(code: str, language: Language) -> str:
    """Return code that can be run in that language. Raises `InvalidArgumentError` otherwise."""
    if not code.strip():
        message = "There is nothing to run: the code is empty."
        raise InvalidArgumentError(message)
    _refuse_nul("code", code)
    size = len(code.encode("utf-8", "surrogateescape"))
    limit = wire.MAX_CODE if language == "python" else wire.MAX_COMMAND
    if size > limit:
        raise InvalidArgumentError(
            f"The code has {size} bytes; a {language} run takes at most {limit}.",
            hint="Write it to a file with write_file and run that file.",
        )
    return code


def checked_environment(env: Mapping[str, str]) -> dict[str, str]:
    """Return environment variables that a program can have. Raises `InvalidArgumentError` otherwise."""
    for name, value in env.items():
        if not name or "=" in name or not name.isprintable():
            message = f"{name!r} is no name of an environment variable."
            raise InvalidArgumentError(message)
        _refuse_nul(f"the environment variable {name}", value)
    size = sum(
        len(name.encode()) + len(value.encode("utf-8", "surrogateescape")) for name, value in env.items()
    )
    if size > wire.MAX_ENVIRONMENT:
        message = f"The environment has {size} bytes; it may have {wire.MAX_ENVIRONMENT}."
        raise InvalidArgumentError(message, hint="Write large values to a file with write_file.")
    return dict(env)


def checked_path(path: str) -> str:
    """Return a path that can exist. Raises `InvalidArgumentError` otherwise."""
    _refuse_nul("the path", path)
    if not path:
        message = "The path is empty."
        raise InvalidArgumentError(message)
    if len(os.fsencode(path)) > wire.MAX_PATH:
        message = f"The path is longer than {wire.MAX_PATH} bytes."
        raise InvalidArgumentError(message)
    return path


def _refuse_nul(what: str, text: str) -> None:
    if "\0" in text:
        message = f"{what} contains a NUL character."
        raise InvalidArgumentError(message)


def input_bytes(stdin: str | bytes | None) -> bytes | None:
    """Return standard input as bytes. Raises `InvalidArgumentError` otherwise."""
    data = stdin.encode("utf-8", "surrogateescape") if isinstance(stdin, str) else stdin
    if data is not None and len(data) > MAX_STDIN_BYTES:
        message = f"stdin has {len(data)} bytes; it may have {MAX_STDIN_BYTES}."
        raise InvalidArgumentError(message, hint="Write it to a file with write_file and redirect from it.")
    return data


def checked_timeout(timeout_s: float | None) -> float | None:
    """Return a time limit that makes sense. Raises `InvalidArgumentError` otherwise."""
    if timeout_s is not None and not 0 < timeout_s <= MAX_TIMEOUT_S:
        message = f"timeout_s is {timeout_s:g}; it must be more than 0 and at most {MAX_TIMEOUT_S:g}."
        raise InvalidArgumentError(message)
    return timeout_s


def check_output_bytes(output_bytes: int) -> None:
    """Refuse a cap on output that makes no sense. Raises `InvalidArgumentError` otherwise."""
    if not 0 < output_bytes <= MAX_OUTPUT_BYTES:
        message = f"output_bytes is {output_bytes}; it must be from 1 to {MAX_OUTPUT_BYTES}."
        raise InvalidArgumentError(message)
