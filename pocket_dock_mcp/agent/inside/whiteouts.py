"""A program of the sandbox's user: prints which files no image can hold. Not a part of the agent.

A layer of an image says with the name ``.wh.NAME`` that NAME is deleted (OCI image specification, layers:
"Whiteouts"); so a file that is called so is not in an image that is made of it. Nor is one whose path is too
long for a system call once the engine has put that of its storage before it.
"""

from __future__ import annotations

import os
import re
import sys
from typing import Iterator, Set

PREFIX = b".wh."
MAX_PATH = 3500
"""Bytes of a path. Engines lose files from about 3,950 on; Linux takes 4,095, of theirs and ours together."""
MOST = 20
"""Paths that are printed: enough to see what is going on."""


def elsewhere(mounts: bytes) -> Set[bytes]:
    """Return where other file systems are mounted, which are in no image: of ``/proc/self/mountinfo``."""
    places = (line.split()[4] for line in mounts.splitlines())
    return {re.sub(rb"\\([0-7]{3})", lambda code: bytes([int(code[1], 8)]), place) for place in places}


def found(top: bytes, skipped: Set[bytes]) -> Iterator[bytes]:
    """Return the paths of all such files, as far as the user can see them."""
    todo = [top]
    while todo:
        try:
            with os.scandir(todo.pop()) as entries:
                for entry in entries:
                    if entry.name.startswith(PREFIX) or len(entry.path) > MAX_PATH:
                        yield entry.path
                    elif entry.is_dir(follow_symlinks=False) and entry.path not in skipped:
                        todo.append(entry.path)
        except OSError:
            # Gone meanwhile, or somebody else's, where the user can have put nothing.
            continue


def main() -> None:
    with open("/proc/self/mountinfo", "rb") as file:
        skipped = elsewhere(file.read())
    for _, path in zip(range(MOST), found(b"/", skipped)):
        sys.stdout.buffer.write(path + b"\n")


if __name__ == "__main__":
    main()
