"""Where this machine's npm gets its packages, and as whom: its ``.npmrc`` files and its environment."""

from __future__ import annotations

import base64
import binascii
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pocket_dock_mcp.host.texts import home_of, read_text

_NPM = "npmjs.org"
DEFAULT_REGISTRY = f"https://registry.{_NPM}/"

_VARIABLE = re.compile(r"(?<!\\)\$\{([^${}]+)\}")
_SCOPE = re.compile(r"@[^:/\s]+:registry")


@dataclass(frozen=True, slots=True)
class NpmSettings:
    """What it uses."""

    registry: str = DEFAULT_REGISTRY
    scoped: tuple[str, ...] = ()
    """Registries of packages of one scope."""
    authorizations: Mapping[str, str] = field(default_factory=dict, repr=False)
    """What it says to be known, by place: a host (with the port, if one is named) and a path below which that
    is valid, ``npm.example/team/``. A header's value."""


def read_npm(environ: Mapping[str, str], root: Path = Path("/")) -> NpmSettings:
    """Read them. A file that cannot be read says nothing.

    Args:
        environ: of whoever the settings are of.
        root: of the file system.
    """
    small = {name.lower(): value for name, value in environ.items() if name.lower().startswith("npm_config_")}
    said: dict[str, str] = {}
    for path in _files(environ, small, root):
        said.update(_parse(read_text(path), environ))
    scoped = tuple(sorted({value for name, value in said.items() if _SCOPE.fullmatch(name)}))
    registry = small.get("npm_config_registry") or said.get("registry") or DEFAULT_REGISTRY
    return NpmSettings(registry, scoped, dict(_authorizations(said)))


def _files(environ: Mapping[str, str], small: Mapping[str, str], root: Path) -> Iterator[Path]:
    """Yield its files, the one that holds most last."""
    node = shutil.which("node", path=environ.get("PATH"))
    if said := small.get("npm_config_globalconfig"):
        yield Path(said)
    else:
        if node is not None:
            yield Path(node).resolve().parents[1] / "etc/npmrc"
        yield root / "usr/etc/npmrc"
        yield root / "etc/npmrc"
    yield Path(small.get("npm_config_userconfig") or home_of(environ) / ".npmrc")


def _parse(text: str, environ: Mapping[str, str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for line in text.splitlines():
        name, equals, value = line.strip().partition("=")
        if equals and not line.lstrip().startswith((";", "#")):
            value = value.strip().strip("\"'")
            found[name.strip()] = _VARIABLE.sub(lambda match: environ.get(match[1], match[0]), value)
    return found


def _authorizations(said: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield places and what is said there; the last of several for one place is the one in force."""
    for name, value in said.items():
        place, _, kind = name.rpartition(":")
        host, _, path = place.removeprefix("//").partition("/")
        if not place.startswith("//") or not host or not value:
            continue
        where = f"{host.lower()}/{path}"
        if kind == "_authToken":
            yield where, f"Bearer {value}"
        elif kind == "_auth":
            yield where, f"Basic {value}"
        elif kind == "_password" and (user := said.get(f"{place}:username")):
            yield where, f"Basic {_basic(user, value)}"


def _basic(user: str, encoded: str) -> str:
    try:
        password = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        password = encoded.encode()
    return base64.b64encode(user.encode() + b":" + password).decode()
