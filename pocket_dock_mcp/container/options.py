"""How a run can be asked for: its options, checked, as a `Program`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypedDict

from typing_extensions import Unpack

from pocket_dock_mcp.agent.transport import Program
from pocket_dock_mcp.container.arguments import (
    checked_code,
    checked_environment,
    checked_limits,
    checked_path,
    checked_session,
    checked_terminal,
    checked_timeout,
    in_bash,
    input_bytes,
    language_of,
)
from pocket_dock_mcp.models import RunLimits


class RunOptions(TypedDict, total=False):
    """Options of a run; all may be left out."""

    language: str
    """``shell`` (the default: the image's ``/bin/sh``), ``bash``, ``python`` or ``javascript``."""
    timeout_s: float | None
    """Wall seconds after which all its processes are killed; None for no limit."""
    cwd: str | None
    """Absolute, or relative to the home directory; None is the home directory, or where its session is."""
    env: Mapping[str, str] | None
    """On top of the sandbox's environment."""
    stdin: str | bytes | None
    """What the program reads; None is nothing."""
    keep_stdin: bool
    """Leave standard input open for `AsyncRun.write_stdin`."""
    session: str | None
    """The persistent interpreter or shell to run it in; a new name begins one."""
    limits: RunLimits
    """Limits of this run alone, besides its time."""
    tty: tuple[int, int] | None
    """Rows and columns of a terminal for it, on which stdout and stderr are one."""


def checked_program(code: str, **options: Unpack[RunOptions]) -> Program:
    """Return what is to be run. Raises `InvalidArgumentError` for what can never work."""
    said = options.get("language", "shell")
    language = language_of(said)
    cwd, session = options.get("cwd"), checked_session(options.get("session"))
    code = checked_code(code, language)
    # The shell of a session is bash already, wherever the image has it.
    if said.lower() == "bash" and session is None:
        code = checked_code(in_bash(code), language)
    return Program(
        language=language,
        code=code,
        env=checked_environment(options.get("env") or {}),
        cwd=None if cwd is None else checked_path(cwd),
        stdin=input_bytes(options.get("stdin")),
        keep_stdin=options.get("keep_stdin", False),
        timeout_s=checked_timeout(options.get("timeout_s")),
        limits=checked_limits(options.get("limits") or RunLimits()),
        session=session,
        tty=checked_terminal(options.get("tty"), session),
    )
