"""The `pocket-dock-mcp` command. `--version` and `--help` answer before anything heavy is imported."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from pathlib import Path

from pocket_dock_mcp.version import __version__

USAGE_ERROR = 2


def main(argv: list[str] | None = None) -> None:
    """Start the MCP server."""
    arguments = _parser().parse_args(argv)
    logging.basicConfig(
        level=logging.INFO if arguments.verbose else logging.WARNING,
        stream=sys.stderr,
        format="%(asctime)s pocket-dock %(levelname)s %(message)s",
    )
    # Only now: these imports cost half a second.
    import anyio

    from pocket_dock_mcp.engine.connect import connect
    from pocket_dock_mcp.engine.endpoint import candidates
    from pocket_dock_mcp.errors import ConfigError
    from pocket_dock_mcp.server.stdio import serve_stdio
    from pocket_dock_mcp.settings import Settings

    try:
        settings = Settings.from_environ(os.environ)
        # Only to see that it can be meant; no engine is touched before it is needed.
        candidates(os.environ, uid=os.getuid(), home=Path.home(), platform=sys.platform)
    except ConfigError as error:
        print(f"pocket-dock-mcp: {error}", file=sys.stderr)  # noqa: T201  # before serving, to the terminal
        raise SystemExit(USAGE_ERROR) from None
    anyio.run(serve_stdio, settings, lambda: connect(os.environ))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pocket-dock-mcp",
        description="An MCP server that gives an LLM agent sandboxes on your own Podman or Docker. "
        "It speaks MCP on standard input and output and is usually started by an MCP client.",
        epilog="POCKET_DOCK_ENGINE chooses the engine: unix:///path/to.sock, podman or docker. The other "
        "POCKET_DOCK_* variables are in the README.",
    )
    parser.add_argument("--version", action="version", version=f"pocket-dock-mcp {__version__}")
    parser.add_argument("--transport", choices=["stdio"], default="stdio", help="how clients connect (stdio)")
    parser.add_argument("-v", "--verbose", action="store_true", help="log what is done to standard error")
    return parser


if __name__ == "__main__":
    main()
