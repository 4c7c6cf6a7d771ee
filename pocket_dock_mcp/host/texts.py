"""Small files of this machine, read whole."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path

from pocket_dock_mcp.errors import ConfigError

MAX_BYTES = 1_048_576
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def home_of(environ: Mapping[str, str]) -> Path:
    """Return the home directory of whoever an environment is of."""
    return Path(environ.get("HOME") or Path.home())


def read_text(path: Path) -> str:
    """Return a file's text, up to `MAX_BYTES`; nothing if it cannot be read."""
    try:
        # It may be a pipe that nobody writes to.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return ""
    try:
        return os.read(descriptor, MAX_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""
    finally:
        os.close(descriptor)


def read_private(path: Path, what: str) -> str:
    """Return the text of a file that nobody else can read. It is the open file that is looked at.

    Args:
        path: of the file.
        what: it is, for messages, such as ``token file``.

    Raises:
        ConfigError: it cannot be read, others can read or write it, or it is too large or no text.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise ConfigError(f"The {what} {path} cannot be read: {error.strerror}.") from None
    try:
        _require_private(path, what, os.fstat(descriptor))
        with os.fdopen(descriptor, encoding="utf-8", closefd=False) as file:
            return file.read(MAX_BYTES)
    except UnicodeDecodeError:
        raise ConfigError(f"The {what} {path} is no UTF-8 text.") from None
    finally:
        os.close(descriptor)


def _require_private(path: Path, what: str, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise ConfigError(f"The {what} {path} is no regular file.")
    if status.st_mode & _OTHERS:
        raise ConfigError(f"Others can read or write the {what} {path}. Run: chmod 600 {path}")
    if status.st_uid not in (os.geteuid(), 0):
        raise ConfigError(f"The {what} {path} belongs to another user (uid {status.st_uid}).")
    if status.st_size > MAX_BYTES:
        raise ConfigError(f"The {what} {path} is larger than {MAX_BYTES} bytes.")
