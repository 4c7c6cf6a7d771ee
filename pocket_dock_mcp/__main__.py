"""The `pocket-dock-mcp` command. `--version` and `--help` answer before anything heavy is imported."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pocket_dock_mcp.version import __version__

if TYPE_CHECKING:
    from pocket_dock_mcp.manager.access import Connect
    from pocket_dock_mcp.settings import Settings

USAGE_ERROR = 2

_HTTP_OPTIONS = {
    "host": "HTTP_HOST",
    "port": "HTTP_PORT",
    "path": "HTTP_PATH",
    "url": "HTTP_URL",
    "allowed_host": "HTTP_ALLOWED_HOSTS",
    "allowed_origin": "HTTP_ALLOWED_ORIGINS",
    "cors_origin": "HTTP_CORS_ORIGINS",
    "token_file": "TOKEN_FILE",
    "oauth_issuer": "OAUTH_ISSUER",
    "oauth_scope": "OAUTH_SCOPES",
}
"""Options of the command line, and the settings that they go before."""


def main(argv: list[str] | None = None) -> None:
    """Start the MCP server."""
    run(parse(argv), None)


def run(arguments: argparse.Namespace, connect: Connect | None) -> None:
    """Serve as the command line says, on the engine that `connect` reaches or the environment names."""
    logging.basicConfig(
        level=logging.INFO if arguments.verbose else logging.WARNING,
        stream=sys.stderr,
        format="%(asctime)s pocket-dock %(levelname)s %(message)s",
    )
    # Only now: these imports cost half a second.
    import anyio

    from pocket_dock_mcp.engine import connect as engines
    from pocket_dock_mcp.engine.endpoint import candidates
    from pocket_dock_mcp.errors import ConfigError
    from pocket_dock_mcp.settings import Settings

    try:
        settings = Settings.from_environ(environ_with(arguments, os.environ))
        # No program that we start needs to know it.
        os.environ.pop("POCKET_DOCK_TOKEN", None)
        # Only to see that it can be meant; no engine is touched before it is needed.
        candidates(os.environ, uid=os.getuid(), home=Path.home(), platform=sys.platform)
        _check_networks(settings)
        connect = connect or (lambda: engines.connect(os.environ))
        serve = _front(arguments.transport, settings)
    except ConfigError as error:
        print(f"pocket-dock-mcp: {error}", file=sys.stderr)  # noqa: T201  # before serving, to the terminal
        raise SystemExit(USAGE_ERROR) from None
    anyio.run(serve, connect)


def _check_networks(settings: Settings) -> None:
    """Read what is used later: its mistakes are told to who has made them, and not to whoever first uses it.

    Raises:
        ConfigError: it has one.
    """
    from pocket_dock_mcp.gate.ceiling import Ceiling
    from pocket_dock_mcp.gate.domains import configured_domains
    from pocket_dock_mcp.settings import variable

    Ceiling(settings.network_max, variable("network_max"))
    configured_domains(settings.package_hosts, variable("package_hosts"))
    if settings.secrets_file is not None:
        from pocket_dock_mcp.gate.secrets import read_secrets

        read_secrets(settings.secrets_file)


def _front(transport: str, settings: Settings) -> Callable[[Connect], Awaitable[None]]:
    """Return what serves. Each has imports of its own that cost time."""
    if transport == "stdio":
        from pocket_dock_mcp.server.stdio import serve_stdio

        return partial(serve_stdio, settings)
    from pocket_dock_mcp.server.http import HttpFront

    return HttpFront(settings).serve


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line; ends the process where it cannot be meant."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    given = [name for name in _HTTP_OPTIONS if getattr(arguments, name) is not None]
    if arguments.transport == "stdio" and given:
        option = given[0].replace("_", "-")
        parser.error(f"--{option} is for HTTP: say --transport http, too")
    if not all(getattr(arguments, name) for name in given):
        parser.error("an option is empty; leave it out for its default")
    return arguments


def environ_with(arguments: argparse.Namespace, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment with what the command line says instead."""
    environ = dict(environ)
    for option, setting in _HTTP_OPTIONS.items():
        value = getattr(arguments, option)
        if value is not None:
            environ[f"POCKET_DOCK_{setting}"] = ",".join(value) if isinstance(value, list) else value
    return environ


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pocket-dock-mcp",
        # A token behind "--token" would otherwise be taken for a --token-file, and shown.
        allow_abbrev=False,
        description="An MCP server that gives an LLM agent sandboxes on your own Podman or Docker. "
        "It speaks MCP on standard input and output and is usually started by an MCP client; "
        "or over HTTP, where several clients can connect.",
        epilog="POCKET_DOCK_ENGINE chooses the engine: unix:///path/to.sock, podman or docker. The other "
        "POCKET_DOCK_* variables are in the README.",
    )
    parser.add_argument("--version", action="version", version=f"pocket-dock-mcp {__version__}")
    parser.add_argument(
        "--transport",
        choices=["stdio", "http", "sse"],
        default="stdio",
        help="how clients connect (default: stdio); http and sse are one server with both: "
        "streamable HTTP at /mcp, SSE at /sse",
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="log what is done to standard error")
    http = parser.add_argument_group(
        "for HTTP",
        "Each has a variable, too (POCKET_DOCK_HTTP_PORT ...). A server that other machines can reach needs "
        "tokens. POCKET_DOCK_TOKEN is the one of a single client; a token is never an option: everybody on "
        "this machine could read it.",
    )
    http.add_argument("--host", help="address or name to listen on (default: 127.0.0.1)")
    http.add_argument("--port", help="TCP port (default: 8000); 0 takes a free one and says which")
    http.add_argument("--path", help="path of streamable HTTP (default: /mcp)")
    http.add_argument(
        "--token-file",
        type=lambda path: str(Path(path).absolute()),
        metavar="FILE",
        help="a line 'name token' for each principal; chmod 600",
    )
    http.add_argument(
        "--allowed-host",
        action="append",
        metavar="HOST",
        help="answer requests for this name, too (repeatable): box.example or box.example:8000",
    )
    http.add_argument(
        "--allowed-origin",
        action="append",
        metavar="ORIGIN",
        help="let web pages of this origin call (repeatable): https://app.example",
    )
    http.add_argument(
        "--cors-origin",
        action="append",
        metavar="ORIGIN",
        help="let web pages of this origin call and read the answers (repeatable)",
    )
    http.add_argument(
        "--oauth-issuer", metavar="URL", help="accept access tokens of this OAuth authorisation server"
    )
    http.add_argument(
        "--oauth-scope", action="append", metavar="SCOPE", help="which they have to have (repeatable)"
    )
    http.add_argument(
        "--url", help="where clients reach streamable HTTP: what OAuth tokens have to be issued for"
    )
    return parser


if __name__ == "__main__":
    main()
