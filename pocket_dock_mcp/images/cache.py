"""Files that take long to make: made by one process at a time, seen when complete, kept for some days."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import anyio

from pocket_dock_mcp.errors import ImageBuildError

MAX_AGE = 7 * 24 * 3600.0
"""Seconds. Older, and it lacks a week of security updates."""
_POLL = 0.2
"""Seconds between two looks at a lock: waiting inside ``flock`` could not be cancelled."""


def cache_directory(environ: Mapping[str, str]) -> Path:
    """Return our folder of files that may go at any time."""
    base = environ.get("XDG_CACHE_HOME") or ""
    # A relative one is to be ignored, says the specification.
    root = Path(base) if base.startswith("/") else Path(environ.get("HOME") or Path.home()) / ".cache"
    return root / "pocket-dock"


async def keep(
    path: Path,
    make: Callable[[Path], Awaitable[None]],
    progress: Callable[[str], None],
    *,
    anew: bool = False,
) -> Path:
    """Return a file, made anew by `make` unless a fresh one is there. Old ones of its kind are removed.

    Args:
        path: its name is ``<kind>-<hash><suffix>``. One of a kind is made at a time.
        make: writes the path that it is given, or raises.
        progress: gets a line for the user when another process is at it.
        anew: make it, although there is one that is not old.

    Raises:
        ImageBuildError: the folder cannot be written.
    """
    kind = path.name.partition("-")[0]
    async with _locked(path.with_name(f"{kind}.lock"), progress):
        if is_fresh(path) and not anew:
            return path
        _remove_old(path.parent, kind)
        partial = path.with_suffix(".partial")
        try:
            await make(partial)
            partial.rename(path)
        finally:
            partial.unlink(missing_ok=True)
        return path


def is_fresh(path: Path) -> bool:
    """Whether the file is there and not too old."""
    try:
        age = time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return False
    return age < MAX_AGE


def _remove_old(folder: Path, kind: str) -> None:
    """Remove what nobody would use any more, and what one who held the lock has left half made."""
    for path in folder.glob(f"{kind}-*"):
        if path.suffix == ".partial" or not is_fresh(path):
            path.unlink(missing_ok=True)


@asynccontextmanager
async def _locked(path: Path, progress: Callable[[str], None]) -> AsyncIterator[None]:
    """Keep other processes out. The kernel lets the lock go with the process, however it dies."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ImageBuildError(
            f"The folder {str(path.parent)!r} cannot be written: {error.strerror}.",
            hint="Set XDG_CACHE_HOME to a folder that can.",
        ) from error
    try:
        if not _try_lock(lock):
            progress("waiting for another process that makes a base image")
            while not _try_lock(lock):  # noqa: ASYNC110  # a lock of the kernel has no event
                await anyio.sleep(_POLL)
        yield
    finally:
        os.close(lock)


def _try_lock(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
