"""Names and passwords for hosts, in the format that FTP's client once had and everybody has taken over."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path

from pocket_dock_mcp.host.texts import read_text


def read_netrc(path: Path) -> Mapping[str, tuple[str, str]]:
    """Return (login, password) by host. What cannot be read, or is no such file, has none."""
    lexer = shlex.shlex(read_text(path), posix=True)
    lexer.whitespace_split = True
    lexer.commenters = ""
    try:
        words = list(lexer)
    except ValueError:
        return {}
    found: dict[str, dict[str, str]] = {}
    entry: dict[str, str] = {}
    pairs = iter(words)
    for word in pairs:
        if word == "machine":
            # The first one of a host holds.
            entry = found.setdefault(next(pairs, "").partition("/")[0].lower(), {})
        elif word == "default":
            entry = {}
        elif word in ("login", "password", "account"):
            entry.setdefault(word, next(pairs, ""))
    return {
        host: (entry["login"], entry["password"])
        for host, entry in found.items()
        if host and "login" in entry and "password" in entry
    }
