"""What the host has of us: processes and files."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path


def processes_with(variable: str, value: str) -> list[int]:
    """Return processes that were started with this environment variable, our own children included."""
    wanted = f"{variable}={value}".encode()
    return [pid for pid in _pids() if wanted in _read(pid, "environ").split(b"\0")]


def processes_about(names: Collection[str]) -> list[str]:
    """Return the command lines in which one of these names occurs: monitors of containers, above all."""
    wanted = [name.encode() for name in names]
    lines = [_read(pid, "cmdline") for pid in _pids() if pid != os.getpid()]
    found = [line for line in lines if any(name in line for name in wanted)]
    return [line.replace(b"\0", b" ").decode("utf-8", "replace")[:200] for line in found]


AUDIT = "audit"
"""The directory of logs that are kept on purpose when a sandbox has ended; they have bounds of their own."""


def files_under(directory: Path) -> list[Path]:
    """Return everything in a tree that is neither a directory nor an audit log."""
    found = [path for path in sorted(directory.rglob("*")) if not path.is_dir()]
    return [path for path in found if AUDIT not in path.relative_to(directory).parts[:-1]]


def _pids() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]


def _read(pid: int, what: str) -> bytes:
    try:
        return Path("/proc", str(pid), what).read_bytes()
    except OSError:
        # It has ended, or is not ours to read.
        return b""


def slowness() -> float:
    """Return how many times as long as on an idle machine something may take, by what else runs on it."""
    return max(1.0, os.getloadavg()[0] / (2 * (os.cpu_count() or 1)))


def descriptors() -> int:
    """Return how many file descriptors this process has."""
    return len(list(Path("/proc/self/fd").iterdir()))
