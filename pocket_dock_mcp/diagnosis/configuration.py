"""Settings and versions: what can be said before any engine is asked."""

from __future__ import annotations

import importlib.metadata
import itertools
import os
import platform
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from pocket_dock_mcp.diagnosis.findings import Finding, some
from pocket_dock_mcp.diagnosis.remedies import FIX
from pocket_dock_mcp.engine.endpoint import Plan, candidates
from pocket_dock_mcp.errors import ConfigError, PocketDockError
from pocket_dock_mcp.gate.ceiling import Ceiling
from pocket_dock_mcp.gate.opening import gates
from pocket_dock_mcp.settings import PREFIX, Settings, variable
from pocket_dock_mcp.version import __version__

OLDEST_PYTHON = (3, 10)
OLDEST_SDK = (2, 2)


def read_settings(environ: Mapping[str, str]) -> tuple[Settings, list[Finding]]:
    """Return the settings, without those that are not valid, and what was found."""
    try:
        settings = Settings.from_environ(environ)
    except ConfigError as error:
        valid = _valid_part(environ)
        left_out = some(sorted(name for name in environ if name not in valid), most=30)
        finding = Finding(
            "configuration.settings",
            "problem",
            "Settings are not valid; the server does not start with them",
            f"{error.message} What follows is said as if these were not set: {left_out}.",
            "Correct or unset these variables where the server is configured (in an MCP client: under env).",
        )
        return Settings.from_environ(valid), [finding]
    given = sorted(name for name in environ if name.startswith(PREFIX) and environ[name].strip())
    detail = ", ".join(f"{name}={environ[name]}" for name in given) or "all at their defaults"
    return settings, [Finding("configuration.settings", "ok", "Settings are valid", detail)]


def unmended() -> Finding:
    """Say that nothing is mended with settings that are not valid: it might be in the wrong place."""
    detail = "With settings that are not valid it might have been done in the wrong state directory."
    remedy = f"{FIX}   # again, when the settings are valid"
    return Finding("configuration.fix", "problem", "Nothing was mended", detail, remedy)


def _valid_part(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment without those of our variables that are not valid beside the others."""
    part = {name: value for name, value in environ.items() if not name.startswith(PREFIX)}
    left = [name for name in environ if name not in part]
    # A setting may be valid with its ceiling only, which comes later, or neither of them without the other.
    for count in (1, 1, 2):
        for names in itertools.combinations(left, count):
            more = {**part, **{name: environ[name] for name in names}}
            if not part.keys() & set(names) and _are_valid(more):
                part = more
    return part


def _are_valid(environ: Mapping[str, str]) -> bool:
    try:
        Settings.from_environ(environ)
    except ConfigError:
        return False
    return True


def read_plan(environ: Mapping[str, str]) -> tuple[Plan | None, list[Finding]]:
    """Return where an engine is to be looked for, unless a variable makes that impossible."""
    home = Path(environ.get("HOME") or Path.home())
    try:
        return candidates(environ, uid=os.getuid(), home=home, platform=sys.platform), []
    except ConfigError as error:
        return None, [
            Finding(
                "engine.address", "problem", "The engine's address is not valid", error.message, error.hint
            )
        ]


def versions() -> Iterator[Finding]:
    """Look at the Python and the SDK that we run on."""
    ours = f"pocket-dock-mcp {__version__}"
    python = platform.python_version()
    if sys.version_info >= OLDEST_PYTHON:
        yield Finding("configuration.python", "ok", f"Python {python}, {ours}", sys.executable)
    else:
        yield Finding(
            "configuration.python",
            "problem",
            f"Python {python} is too old",
            f"{ours} needs 3.10 or later.",
            "uv tool install --python 3.12 pocket-dock-mcp",
        )
    try:
        sdk = importlib.metadata.version("mcp")
    except importlib.metadata.PackageNotFoundError:
        sdk = "0"
    if _numbers(sdk) >= OLDEST_SDK and _numbers(sdk) < (3,):
        yield Finding("configuration.sdk", "ok", f"MCP SDK {sdk}")
    else:
        yield Finding(
            "configuration.sdk",
            "problem",
            f"MCP SDK {sdk} does not fit" if sdk != "0" else "The MCP SDK is missing",
            "The server needs mcp>=2.2,<3.",
            "python -m pip install 'mcp>=2.2,<3'",
        )


def registries(settings: Settings, environ: Mapping[str, str]) -> Finding:
    """Look at what sandboxes reach with network packages, and at what else is set of their networks."""
    try:
        Ceiling(settings.network_max, variable("network_max"))
        domains = gates(settings, environ)("packages").domains
    except PocketDockError as error:
        remedy = error.hint or "Correct it where the server is configured."
        return Finding(
            "configuration.network", "problem", "A network setting fits nothing", error.message, remedy
        )
    return Finding(
        "configuration.network",
        "ok",
        "The package registries of this machine are known",
        some(dict.fromkeys(str(domain) for domain in domains), most=30),
    )


def _numbers(version: str) -> tuple[int, ...]:
    parts = version.split(".")[:2]
    return tuple(int(part) if part.isdigit() else 0 for part in parts)
