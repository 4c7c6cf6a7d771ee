"""Pure: the arguments of a container's methods, checked before anything is asked of anybody."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping

from pocket_dock_mcp.agent.inside import wire
from pocket_dock_mcp.errors import InvalidArgumentError
from pocket_dock_mcp.models import MIB, Language, RunLimits

MAX_TIMEOUT_S = 86_400.0
MAX_OUTPUT_BYTES = 64 * MIB
MAX_STDIN_BYTES = 64 * MIB
MAX_LIMIT = 2.0**53
MAX_SIDE = 65_535
"""Rows or columns of a terminal: the kernel has 16 bits for each."""
MAX_PORT = 65_535
_SESSION = re.compile(r"[A-Za-z0-9_.-]{1,64}")

LANGUAGES: dict[str, Language] = {
    "python": "python", "python3": "python", "py": "python", "shell": "shell", "sh": "shell", "bash": "shell",
    "javascript": "javascript", "js": "javascript", "node": "javascript",
}  # fmt: skip


def is_of(value: object, *kinds: type) -> bool:
    """Whether a value is of a type. Not everybody has a checker for what is annotated."""
    return isinstance(value, kinds)


def language_of(language: str) -> Language:
    """Return the language that a name stands for. Raises `InvalidArgumentError` otherwise."""
    try:
        return LANGUAGES[language.lower()]
    except KeyError:
        names = ", ".join(sorted(LANGUAGES))
        message = f"language is {language!r}; it must be one of: {names}."
        raise InvalidArgumentError(message) from None


def in_bash(code: str) -> str:
    """Return the shell command that becomes bash with that code; where there is none, the shell says so."""
    return f"exec bash -c -- {shlex.quote(code)}"


def checked_code(code: str, language: Language) -> str:
    """Return code that can be run in that language. Raises `InvalidArgumentError` otherwise."""
    if not code.strip():
        message = "There is nothing to run: the code is empty."
        raise InvalidArgumentError(message)
    _refuse_nul("code", code)
    size = len(encoded("the code", code))
    limit = wire.MAX_CODE if language == "python" else wire.MAX_COMMAND
    if size > limit:
        raise InvalidArgumentError(
            f"The code has {size} bytes; a {language} run takes at most {limit}.",
            hint="Write it to a file with write_file and run that file.",
        )
    return code


def checked_environment(env: Mapping[str, str]) -> dict[str, str]:
    """Return environment variables that a program can have. Raises `InvalidArgumentError` otherwise."""
    if not is_of(env, Mapping):
        message = f"env is of the type {type(env).__name__}; it must be a mapping of strings to strings."
        raise InvalidArgumentError(message)
    size = 0
    for name, value in env.items():
        _require_text("the name of an environment variable", name)
        _require_text(f"the environment variable {name}", value)
        if not name or "=" in name or not name.isprintable():
            message = f"{name!r} is no name of an environment variable."
            raise InvalidArgumentError(message)
        _refuse_nul(f"the environment variable {name}", value)
        size += len(name.encode()) + len(encoded(f"the environment variable {name}", value))
    if size > wire.MAX_ENVIRONMENT:
        message = f"The environment has {size} bytes; it may have {wire.MAX_ENVIRONMENT}."
        raise InvalidArgumentError(message, hint="Write large values to a file with write_file.")
    return dict(env)


def checked_path(path: str) -> str:
    """Return a path that can exist, relative to the home directory where ``~`` stands for it.

    Raises:
        InvalidArgumentError: it cannot exist.
    """
    _require_text("the path", path)
    _refuse_nul("the path", path)
    if not path:
        message = "The path is empty."
        raise InvalidArgumentError(message)
    if path.startswith(("$HOME", "${HOME}")):
        message = f"{path!r} begins with a variable, and no shell expands it here."
        raise InvalidArgumentError(message, hint="Use ~/..., an absolute path, or one relative to the home.")
    if len(encoded("the path", path)) > wire.MAX_PATH:
        message = f"The path is longer than {wire.MAX_PATH} bytes."
        raise InvalidArgumentError(message)
    if path == "~" or path.startswith("~/"):
        return path[2:].lstrip("/") or "./"
    return path


def _require_text(what: str, value: object) -> None:
    if not isinstance(value, str):
        message = f"{what} is of the type {type(value).__name__}; it must be a string."
        raise InvalidArgumentError(message, hint="Use str(...) of it.")


def encoded(what: str, value: object) -> bytes:
    """Return text as the bytes that it stands for (PEP 383), and bytes as they are.

    Raises:
        InvalidArgumentError: it is neither, or has half a surrogate pair, which stands for nothing.
    """
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    if not isinstance(value, str):
        message = f"{what} is of the type {type(value).__name__}; it must be a string or bytes."
        raise InvalidArgumentError(message)
    try:
        return value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        message = f"{what} has half a surrogate pair at character {error.start}, which is no text."
        raise InvalidArgumentError(message, hint="Decode JSON and UTF-16 whole, or give bytes.") from None


def _refuse_nul(what: str, text: str) -> None:
    if "\0" in text:
        message = f"{what} contains a NUL character."
        raise InvalidArgumentError(message)


def input_bytes(stdin: str | bytes | None) -> bytes | None:
    """Return standard input as bytes. Raises `InvalidArgumentError` otherwise."""
    data = None if stdin is None else encoded("stdin", stdin)
    if data is not None and len(data) > MAX_STDIN_BYTES:
        message = f"stdin has {len(data)} bytes; it may have {MAX_STDIN_BYTES}."
        raise InvalidArgumentError(message, hint="Write it to a file with write_file and redirect from it.")
    return data


def checked_timeout(timeout_s: float | None) -> float | None:
    """Return a time limit that makes sense. Raises `InvalidArgumentError` otherwise."""
    if timeout_s is not None and not 0 < timeout_s <= MAX_TIMEOUT_S:
        message = f"timeout_s is {timeout_s:.15g}; it must be more than 0 and at most {MAX_TIMEOUT_S:g}."
        raise InvalidArgumentError(message)
    return timeout_s


def check_output_bytes(output_bytes: int) -> None:
    """Refuse a cap on output that makes no sense. Raises `InvalidArgumentError` otherwise."""
    if not 0 < output_bytes <= MAX_OUTPUT_BYTES:
        message = f"output_bytes is {output_bytes}; it must be from 1 to {MAX_OUTPUT_BYTES}."
        raise InvalidArgumentError(message)


def checked_limits(limits: RunLimits) -> RunLimits:
    """Return limits of a run that make sense. Raises `InvalidArgumentError` otherwise."""
    for name, value, least in (
        ("cpu_s", limits.cpu_s, 0.01),
        ("memory_bytes", limits.memory_bytes, 1024 * 1024),
        ("processes", limits.processes, 1),
        ("output_bytes", limits.output_bytes, 1),
    ):
        if value is not None and not least <= value <= MAX_LIMIT:
            message = f"{name} is {value:.15g}; it must be at least {least:.15g}."
            raise InvalidArgumentError(message)
    return limits


def checked_session(name: str | None) -> str | None:
    """Return the name of a session. Raises `InvalidArgumentError` if it is none."""
    if name is not None and not _SESSION.fullmatch(name):
        message = f"{name[:80]!r} is no name of a session."
        raise InvalidArgumentError(message, hint="Use 1 to 64 letters, digits, '-', '_' or '.'.")
    return name


def checked_terminal(size: tuple[int, int] | None, session: str | None) -> tuple[int, int] | None:
    """Return the size of a terminal. Raises `InvalidArgumentError` if there can be none."""
    if size is None:
        return None
    if session is not None:
        message = "A session has no terminal."
        raise InvalidArgumentError(message, hint="Give session or tty, not both.")
    if not _is_terminal(size):
        message = (
            f"A terminal of {size!r} characters (columns, rows) cannot be; each is from 1 to {MAX_SIDE}."
        )
        raise InvalidArgumentError(message)
    return size


def _is_terminal(size: object) -> bool:
    if not isinstance(size, (tuple, list)) or len(size) != 2:
        return False
    return all(isinstance(side, int) and 1 <= side <= MAX_SIDE for side in size)


def check_port(port: int | None) -> None:
    """Refuse a TCP port that there cannot be. Raises `InvalidArgumentError`."""
    if port is not None and not 1 <= port <= MAX_PORT:
        message = f"port is {port}; it must be from 1 to {MAX_PORT}."
        raise InvalidArgumentError(message)
