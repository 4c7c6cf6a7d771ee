"""A program of the sandbox's user: lists all there is in a tree, or hashes files. Not a part of the agent.

Reads one JSON object from standard input and writes one JSON list a line. It trusts nothing in the tree:
links are not followed, only regular files are opened and none of them is waited for.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
import sys
import time
from typing import Any, Dict, Iterator, List, Optional, Set, Tuple

PSEUDO = frozenset({"/proc", "/sys", "/dev"})
MAX_DEPTH = 1000
PIECE = 1024 * 1024
REACH = 3500
"""Bytes of a path that one system call is given: it takes 4096."""
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_REGULAR = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_NOFOLLOW | os.O_CLOEXEC

_TYPES = {
    stat.S_IFREG: "f",
    stat.S_IFDIR: "d",
    stat.S_IFLNK: "l",
    stat.S_IFIFO: "p",
    stat.S_IFSOCK: "s",
}


def foreign(mounts: bytes) -> Set[str]:
    """Return where other file systems are mounted: what the engine mounts over single files, say.

    Whole ones in memory do not count: the user's files may be there.
    """
    found = set(PSEUDO)
    for line in mounts.splitlines():
        fields, _, kind = line.partition(b" - ")
        root, where = fields.split()[3:5]
        where = where.replace(b"\\040", b" ").replace(b"\\011", b"\t").replace(b"\\012", b"\n")
        if where != b"/" and (root != b"/" or kind.split()[0] != b"tmpfs"):
            found.add(os.fsdecode(where.replace(b"\\134", b"\\")))
    return found


def opened(path: str, flags: int) -> int:
    """Open a path of any length."""
    raw = os.fsencode(path)
    at: Optional[int] = None
    try:
        while len(raw) > REACH:
            cut = raw.rfind(b"/", 1, REACH)
            following = os.open(raw[:cut], _DIRECTORY, dir_fd=at)
            if at is not None:
                os.close(at)
            at, raw = following, raw[cut + 1 :]
        return os.open(raw, flags, dir_fd=at)
    finally:
        if at is not None:
            os.close(at)


class Walk:
    """All entries of a tree, directory by directory."""

    def __init__(self, order: Dict[str, Any], skipped: Set[str]) -> None:
        self._left: int = order["max_entries"]
        self._skipped = skipped
        self._closed: List[str] = []
        self._deep: List[str] = []
        self._queue: List[Tuple[str, int]] = []

    def lines(self, root: str) -> Iterator[List[Any]]:
        parts = root.split("/")
        above = ["/".join(parts[:count]) for count in range(2, len(parts))]
        is_skipped = any(path in self._skipped for path in [*above, root])
        parent = os.path.realpath(os.path.dirname(root))
        is_lost = not os.path.lexists(parent)
        real = os.path.join(parent, parts[-1])
        links = [path for path in above if os.path.islink(path)]
        if real != root and links and not is_skipped:
            yield ["end", {"real": real, "link": links[0], "lost": is_lost}]
            return
        try:
            status = os.lstat(root)
        except OSError as error:
            yield ["end", {"missing": error.errno, "lost": is_lost}]
            return
        if not is_skipped:
            yield ["in", "", [described(root, status, lambda: os.readlink(root))]]
            if stat.S_ISDIR(status.st_mode):
                self._queue.append((root, 0))
        while self._queue and self._left > 0:
            path, depth = self._queue.pop()
            yield ["in", path, self._entries(path, depth)]
        yield [
            "end",
            {
                "more": self._left <= 0,
                "closed": self._closed,
                "deep": self._deep,
                "skipped": sorted(self._skipped),
            },
        ]

    def _entries(self, path: str, depth: int) -> List[Any]:
        found = []
        try:
            fd = opened(path, _DIRECTORY)
        except OSError:
            self._closed.append(path)
            return []
        try:
            with os.scandir(fd) as entries:
                for entry in entries:
                    whole = os.path.join(path, entry.name)
                    if whole not in self._skipped:
                        found.append(self._described(fd, entry, whole, depth))
        except OSError:
            self._closed.append(path)
        finally:
            os.close(fd)
        self._left -= len(found)
        return [one for one in found if one is not None]

    def _described(self, fd: int, entry: os.DirEntry[str], whole: str, depth: int) -> Optional[List[Any]]:
        try:
            status = entry.stat(follow_symlinks=False)
            told = described(entry.name, status, lambda: os.readlink(entry.name, dir_fd=fd))
        except OSError:
            # Gone meanwhile.
            return None
        if stat.S_ISDIR(status.st_mode):
            if depth < MAX_DEPTH:
                self._queue.append((whole, depth + 1))
            else:
                self._closed.append(whole)
                self._deep.append(whole)
        return told


def described(name: str, status: os.stat_result, target: Any) -> List[Any]:
    kind = _TYPES.get(stat.S_IFMT(status.st_mode), "o")
    told = [
        name,
        kind,
        stat.S_IMODE(status.st_mode),
        status.st_uid,
        status.st_size,
        status.st_mtime_ns,
        status.st_ino,
        status.st_ctime_ns,
    ]
    if kind == "l":
        told.append(target())
    return told


def hashed(path: str, end: float) -> Optional[str]:
    """Return a file's hash; an empty one if it cannot be read, None if there is no time for it."""
    if time.monotonic() > end:
        return None
    try:
        fd = opened(path, _REGULAR)
    except OSError:
        return ""
    digest = hashlib.sha256()
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return ""
        for at, data in filled(fd):
            digest.update(b"%d:" % at + data)
            if time.monotonic() > end:
                return None
        return digest.hexdigest()
    except OSError:
        return ""
    finally:
        os.close(fd)


def filled(fd: int) -> Iterator[Tuple[int, bytes]]:
    """Return the pieces of a file that are not all zero, and where: holes may be terabytes."""
    at = 0
    while True:
        try:
            at = os.lseek(fd, at, os.SEEK_DATA) // PIECE * PIECE
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
        data = os.pread(fd, PIECE, at)
        if not data:
            return
        if data.count(0) != len(data):
            yield at, data.rstrip(b"\0")
        at += PIECE


def answer(order: Dict[str, Any]) -> Iterator[List[Any]]:
    """Do what is asked for, line by line."""
    if order["op"] == "hash":
        end = time.monotonic() + order["timeout_s"]
        for path in order["paths"]:
            yield ["hash", hashed(path, end)]
        yield ["end", {}]
        return
    with open("/proc/self/mountinfo", "rb") as file:
        skipped = foreign(file.read()) | set(order["skipped"])
    for line in Walk(order, skipped).lines(order["root"]):
        yield line


def main() -> None:
    order = json.loads(sys.stdin.buffer.read())
    for line in answer(order):
        sys.stdout.write(json.dumps(line, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
