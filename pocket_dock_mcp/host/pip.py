"""Where this machine's pip gets its packages, by its configuration files and its environment."""

from __future__ import annotations

import configparser
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pocket_dock_mcp.host.texts import home_of, read_text

DEFAULT_INDEX = "https://pypi.org/simple"

_SECTIONS = ("global", "download", "install")
"""Those that say where packages are from; of two the last one holds."""
_TRUE = ("1", "y", "yes", "t", "true", "on")


@dataclass(frozen=True, slots=True)
class PipSettings:
    """What it uses."""

    index_url: str | None = DEFAULT_INDEX
    """None where it uses no index at all."""
    extra_index_urls: tuple[str, ...] = ()
    find_links: tuple[str, ...] = ()
    trusted_hosts: tuple[str, ...] = ()
    """That it believes without a certificate."""


def read_pip(environ: Mapping[str, str], root: Path = Path("/")) -> PipSettings:
    """Read them. A file that cannot be read says nothing.

    Args:
        environ: of whoever the settings are of.
        root: of the file system.
    """
    said: dict[str, str] = {}
    for path in _files(environ, root):
        said.update(_parse(read_text(path)))
    for name in ("index-url", "extra-index-url", "find-links", "trusted-host", "no-index"):
        # An empty variable is no setting, as pip has it.
        if value := environ.get(f"PIP_{name.upper().replace('-', '_')}"):
            said[name] = value
    has_index = said.get("no-index", "").strip().lower() not in _TRUE
    return PipSettings(
        index_url=(said.get("index-url", "").strip() or DEFAULT_INDEX) if has_index else None,
        extra_index_urls=tuple(said.get("extra-index-url", "").split()) if has_index else (),
        find_links=tuple(said.get("find-links", "").split()),
        trusted_hosts=tuple(said.get("trusted-host", "").split()),
    )


def _files(environ: Mapping[str, str], root: Path) -> Iterator[Path]:
    """Yield its files, the one that holds most last."""
    named = environ.get("PIP_CONFIG_FILE", "")
    if named == os.devnull:
        return
    home = home_of(environ)
    for folder in reversed(environ.get("XDG_CONFIG_DIRS", "").split(os.pathsep)):
        yield (Path(folder) if folder else root / "etc/xdg") / "pip/pip.conf"
    yield root / "Library/Application Support/pip/pip.conf"
    yield root / "etc/pip.conf"
    yield home / ".pip/pip.conf"
    yield home / "Library/Application Support/pip/pip.conf"
    yield Path(environ.get("XDG_CONFIG_HOME") or home / ".config") / "pip/pip.conf"
    if environment := environ.get("VIRTUAL_ENV"):
        yield Path(environment) / "pip.conf"
    if named:
        yield Path(named)


def _parse(text: str) -> dict[str, str]:
    parser = configparser.RawConfigParser(strict=False)
    try:
        parser.read_string(text)
    except configparser.Error:
        return {}
    found: dict[str, str] = {}
    for section in _SECTIONS:
        if parser.has_section(section):
            found.update({key.replace("_", "-"): value for key, value in parser.items(section)})
    return found
