"""Starts the Inspector with a server of this checkout: see scripts/inspector."""

from __future__ import annotations

import os
import sys

from tests.conformance.npm import installed

_MODES = ("--web", "--tui", "--cli")


def main(arguments: list[str]) -> None:
    """Become the Inspector."""
    programs = installed()
    if not arguments or arguments[0] not in _MODES:
        variables = [
            f"{name}={value}" for name, value in os.environ.items() if name.startswith("POCKET_DOCK_")
        ]
        given = [word for variable in variables for word in ("-e", variable)]
        arguments = ["--cli", *given, sys.executable, "-m", "pocket_dock_mcp", *arguments]
    command = programs.command("mcp-inspector", *arguments)
    os.execve(command[0], command, {**os.environ, "PATH": programs.environ["PATH"]})


if __name__ == "__main__":
    main(sys.argv[1:])
