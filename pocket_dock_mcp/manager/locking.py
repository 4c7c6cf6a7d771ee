"""Files that belong to the process that has them locked. The lock is the kernel's: who dies lets go of it."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import IO


def create_locked(path: Path, text: str = "") -> IO[str]:
    """Put a file in the place of `path`, held by us, and return it open for appending.

    It is locked under another name first: nobody ever finds it free.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.new")
    descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)
    file = os.fdopen(descriptor, "a", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        file.write(text)
        file.flush()
        temporary.rename(path)
    except BaseException:
        file.close()
        temporary.unlink(missing_ok=True)
        raise
    return file


def open_locked(path: Path) -> IO[str] | None:
    """Open a file and hold it; None where there is none, or none any more.

    Raises:
        BlockingIOError: another process holds it.
    """
    try:
        file = path.open("r", encoding="utf-8", errors="replace")
    except OSError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Another process may have removed or replaced it between our open and our lock.
        if os.path.samestat(path.stat(), os.fstat(file.fileno())):
            return file
    except FileNotFoundError:
        pass
    except OSError:
        file.close()
        raise
    file.close()
    return None


def remove_torn(directory: Path) -> None:
    """Remove what processes left that died between making a file and putting it in its place."""
    for path in directory.glob(".*.new"):
        try:
            file = open_locked(path)
        except OSError:
            # It is being made just now.
            continue
        if file is not None:
            with file:
                path.unlink(missing_ok=True)
