"""Our filter of system calls, and how it reaches an engine: Docker wants its text, Podman a file to read.

The engines' own filters are made for any use of containers: Podman's lets a program make user namespaces,
use key rings and read other processes, old ones of Docker have io_uring, and both have AF_VSOCK, by which a
container without a network speaks with the machine around it. Ours (``seccomp.json``, in the format that
both engines read) allows what programs in a sandbox need and refuses the rest.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import json
import logging
import os
import tempfile
import time
from importlib import resources
from pathlib import Path

from pocket_dock_mcp.errors import EngineResponseError

OLD_S = 30 * 86_400.0
"""Age of a file of another release at which it is removed."""

HINT = (
    "Let this process and the engine see the same state directory (POCKET_DOCK_STATE_DIR), or set "
    "POCKET_DOCK_SECCOMP=engine to use the engine's own filter, which refuses less."
)

_logger = logging.getLogger(__name__)


class FilterUnreadableError(EngineResponseError):
    """The engine does not find or cannot read the file with the filter."""

    default_hint = HINT


@functools.cache
def profile() -> str:
    """Return the filter as JSON, as short as it can be."""
    text = resources.files("pocket_dock_mcp.engine").joinpath("seccomp.json").read_text(encoding="utf-8")
    return json.dumps(json.loads(text), separators=(",", ":"))


@functools.cache
def file_name() -> str:
    """Return the name of a file with the filter: of its content, so that it is right wherever it is found."""
    return f"seccomp-{hashlib.sha256(profile().encode()).hexdigest()[:32]}.json"


def ensure_file(directory: Path) -> Path:
    """Return the path of a file with the filter, written if there is none or another one.

    An engine reads it when it creates a container, and never again.

    Raises:
        OSError: it can be neither read nor written.
    """
    path = directory / file_name()
    wanted = profile().encode()
    try:
        if path.read_bytes() == wanted:
            return path
    except FileNotFoundError:
        pass
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd, draft = tempfile.mkstemp(prefix=".seccomp-", dir=directory)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(wanted)
            # A service of root reads anything; one of the same user what everybody may.
            os.fchmod(file.fileno(), 0o644)
        Path(draft).rename(path)
    except BaseException:
        Path(draft).unlink(missing_ok=True)
        raise
    _remove_old(directory, path.name)
    return path


class FilterFile:
    """The file for as long as somebody here may need it. Who is the last to let go of it removes it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._held: int | None = None

    def path(self) -> Path:
        """Return the path of the file, which is there until `close`.

        Raises:
            OSError: it can be neither read nor written.
        """
        while True:
            path = ensure_file(self._directory)
            try:
                if self._held is not None and os.path.samestat(path.stat(), os.fstat(self._held)):
                    return path
                self._let_go()
                self._held = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                # Somebody else was the last just now.
                continue
            fcntl.flock(self._held, fcntl.LOCK_SH)

    def close(self) -> None:
        """Let go of it."""
        if self._held is None:
            return
        path = self._directory / file_name()
        try:
            fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(path.stat(), os.fstat(self._held)):
                path.unlink()
        except OSError:
            # Others need it, or it is gone.
            pass
        self._let_go()

    def _let_go(self) -> None:
        if self._held is not None:
            os.close(self._held)
            self._held = None


def _remove_old(directory: Path, but: str) -> None:
    before = time.time() - OLD_S
    for other in [*directory.glob("seccomp-*.json"), *directory.glob(".seccomp-*")]:
        try:
            if other.name != but and other.stat().st_mtime < before:
                other.unlink()
        except OSError as error:
            _logger.debug("an old filter stays: %s", error)
