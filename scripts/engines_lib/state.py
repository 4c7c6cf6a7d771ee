"""Where everything is kept, the lock on it, and what is told to the caller."""

from __future__ import annotations

import fcntl
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

DEFAULT_DIR = "/var/tmp/pocket-dock-engines"
DIR_VARIABLE = "POCKET_DOCK_ENGINES_DIR"

# The kernel allows 107 bytes in a unix socket's address.
LONGEST_DIR = 60


class UnfitHostError(Exception):
    """This machine cannot do what was asked; the message says what it would need."""


class EngineFailedError(Exception):
    """Something that should have worked did not."""


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def tail(log: Path, lines: int = 25) -> str:
    if not log.exists():
        return f"({log} was never written)"
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])


@dataclass(frozen=True)
class State:
    """The directory with one folder per engine, and `cache` for what takes long to build."""

    root: Path

    @classmethod
    def from_environment(cls) -> State:
        given = Path(os.environ.get(DIR_VARIABLE) or DEFAULT_DIR).absolute()
        # Mounts are found again by their path, which the kernel tells without links.
        root = given.parent.resolve() / given.name
        if len(os.fsencode(root)) > LONGEST_DIR or len(str(root).split()) > 1:
            msg = f"{DIR_VARIABLE} must have at most {LONGEST_DIR} bytes and no space: {root}"
            raise UnfitHostError(msg)
        return cls(root)

    @property
    def cache(self) -> Path:
        return self.root / "cache"

    def engine(self, name: str) -> Path:
        return self.root / name

    def create(self) -> None:
        self.root.mkdir(parents=True, exist_ok=True, mode=0o755)
        # Below a world-writable directory anybody could have put it there before us.
        if self.root.is_symlink() or self.root.stat().st_uid != os.getuid():
            msg = f"{self.root} is not ours: remove it or set {DIR_VARIABLE}"
            raise UnfitHostError(msg)
        self.cache.mkdir(exist_ok=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        self.create()
        with (self.root / "lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say("another run is at work here: waiting for it")
                fcntl.flock(file, fcntl.LOCK_EX)
            for left in self.cache.glob("*.partial"):
                remove_tree(left)
            yield


def remove_tree(path: Path) -> None:
    """Remove a tree, but nothing that a killed build left mounted in it."""
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    if any(line.split()[4].startswith(f"{path}/") for line in mounts):
        msg = f"{path} cannot be removed: something is mounted below it"
        raise EngineFailedError(msg)
    shutil.rmtree(path, ignore_errors=True)
