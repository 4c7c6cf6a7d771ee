"""A file system in memory: as much of Linux's path rules as the agent's file operations can show.

Names are text as :func:`os.fsdecode` gives it, so that any bytes are a name. Errors are `OSError`s with
their errno; a path into ``/proc`` is a `ProcfsError`, because the agent refuses it on its own account.
"""

from __future__ import annotations

import copy
import errno
import io
import itertools
import os
import tarfile
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from pocket_dock_mcp.models import FileType

MAX_LINKS = 40
MAX_NAME = 255

READ, WRITE, SEARCH = 4, 2, 1

_STANDARD: tuple[tuple[str, FileType, int], ...] = (
    ("/dev", "directory", 0o755),
    ("/dev/null", "device", 0o666),
    ("/dev/zero", "device", 0o666),
    ("/dev/shm", "directory", 0o1777),  # noqa: S108  # a path in a fake container
    ("/etc", "directory", 0o755),
    ("/etc/passwd", "file", 0o644),
    ("/etc/shadow", "file", 0o600),
    ("/home", "directory", 0o755),
    ("/proc", "directory", 0o555),
    ("/proc/self", "directory", 0o555),
    ("/root", "directory", 0o700),
    ("/tmp", "directory", 0o1777),  # noqa: S108
    ("/usr", "directory", 0o755),
)


_serials = itertools.count(1)


class ProcfsError(Exception):
    """The path leads into ``/proc``."""


@dataclass
class Node:
    """A file, directory, link or special file."""

    type: FileType
    mode: int
    uid: int = 0
    data: bytes = b""
    """A file's content, or a link's target."""
    mtime: float = field(default_factory=time.time)
    entries: dict[str, Node] = field(default_factory=dict)
    serial: int = field(default_factory=lambda: next(_serials))
    """An inode number: of this node and no other."""

    @property
    def version(self) -> str:
        """Another one after each change, as the agent gives it."""
        return f"{self.serial}-{self.size}-{self.mtime}"

    @property
    def size(self) -> int:
        """As ``lstat`` says; a directory's is a made-up constant."""
        return 4096 if self.type == "directory" else len(self.data)

    def allows(self, uid: int, want: int) -> bool:
        """Whether the permission bits give `uid` this right; root has no privilege here, as in a sandbox."""
        bits = self.mode >> 6 if self.uid == uid else self.mode
        return bits & want == want

    def require(self, uid: int, want: int) -> None:
        """Raise EACCES unless `uid` has this right."""
        if not self.allows(uid, want):
            raise _error(errno.EACCES)


@dataclass
class Place:
    """Where a path leads: an existing node, or a name that is free in an existing directory."""

    path: str
    parent: Node
    name: str
    node: Node | None

    def existing(self) -> Node:
        """Return the node; raises ENOENT when nothing is there."""
        if self.node is None:
            raise _error(errno.ENOENT)
        return self.node


class FileTree:
    """A root directory and everything below it. `copy` is a snapshot."""

    def __init__(self) -> None:
        self.root = Node("directory", 0o755)
        for path, kind, mode in _STANDARD:
            self.make(path, kind, mode=mode)

    def copy(self) -> FileTree:
        """Return an independent copy, as a commit makes one."""
        return copy.deepcopy(self)

    def make(self, path: str, kind: FileType, *, data: bytes = b"", mode: int = 0o644, uid: int = 0) -> Node:
        """Put a node at `path`, whatever the permissions say, making missing parents."""
        *parents, name = _parts(path)
        directory = self.root
        for parent in parents:
            directory = directory.entries.setdefault(parent, Node("directory", 0o755, uid))
        directory.entries[name] = Node(kind, mode, uid, data)
        return directory.entries[name]

    def write(self, path: str, data: bytes, *, mode: int = 0o644, uid: int = 0) -> None:
        """Put a file at `path`; see `make`."""
        self.make(path, "file", data=data, mode=mode, uid=uid)

    def read(self, path: str) -> bytes:
        """Return a file's content, whatever the permissions say."""
        return self._node(path).data

    def exists(self, path: str) -> bool:
        """Whether something is at `path`; links are not followed."""
        try:
            self._node(path)
        except FileNotFoundError:
            return False
        return True

    def paths(self) -> Iterator[str]:
        """Return the paths of everything below the root, whatever the permissions say."""
        todo = [("", self.root)]
        while todo:
            path, node = todo.pop()
            for name, child in node.entries.items():
                yield f"{path}/{name}"
                todo.append((f"{path}/{name}", child))

    def _node(self, path: str) -> Node:
        node = self.root
        for part in _parts(path):
            if part not in node.entries:
                raise _error(errno.ENOENT)
            node = node.entries[part]
        return node

    def walk(self, path: str, uid: int, *, follow: bool = True, parents: bool = False) -> Place:
        """Follow `path` as the kernel would for `uid`.

        Args:
            path: absolute.
            uid: whose rights count.
            follow: whether a link at the very end is followed.
            parents: make the missing directories.
        """
        trail = [("", self.root)]
        todo = deque(_parts(path))
        links = 0
        while todo:
            name = todo.popleft()
            if name == "..":
                trail = trail[:-1] or trail
                continue
            node = _lookup(trail[-1][1], name, uid)
            if node is not None and node.type == "symlink" and (todo or follow):
                links += 1
                if links > MAX_LINKS:
                    raise _error(errno.ELOOP)
                target = os.fsdecode(node.data)
                todo.extendleft(reversed(_parts(target)))
                trail = trail[:1] if target.startswith("/") else trail
            elif not todo:
                return Place(_path(trail, name), trail[-1][1], name, node)
            else:
                self._enter(trail, name, node, uid if parents else None)
        return Place(_path(trail), trail[-1][1], ".", trail[-1][1])

    def _enter(self, trail: list[tuple[str, Node]], name: str, node: Node | None, maker: int | None) -> None:
        if node is None:
            if maker is None:
                raise _error(errno.ENOENT)
            node = _add(trail[-1][1], name, Node("directory", 0o755, maker))
        if node.type != "directory":
            raise _error(errno.ENOTDIR)
        trail.append((name, node))
        if _path(trail) == "/proc":
            raise ProcfsError

    def pack(self) -> bytes:
        """Return files, directories and links as a tar archive; nothing else survives."""
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            todo = [("", self.root)]
            while todo:
                path, node = todo.pop()
                todo += [(f"{path}/{name}".lstrip("/"), child) for name, child in node.entries.items()]
                if path and node.type in _TAR_TYPES:
                    _pack(archive, path, node)
        return buffer.getvalue()

    def unpack(self, tar: bytes) -> None:
        """Add the members of a tar archive. Raises `tarfile.TarError`."""
        with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
            for member in archive:
                self._unpack(archive, member)

    def _unpack(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        if not _parts(member.name):
            return
        if member.isdir():
            self.make(member.name, "directory", mode=member.mode)
        elif member.issym():
            self.make(member.name, "symlink", data=os.fsencode(member.linkname), mode=0o777)
        elif (file := archive.extractfile(member)) is not None:
            self.write(member.name, file.read(), mode=member.mode)


_TAR_TYPES = {"file": tarfile.REGTYPE, "directory": tarfile.DIRTYPE, "symlink": tarfile.SYMTYPE}


def _pack(archive: tarfile.TarFile, path: str, node: Node) -> None:
    member = tarfile.TarInfo(path)
    member.type, member.mode, member.mtime = _TAR_TYPES[node.type], node.mode, int(node.mtime)
    if node.type == "symlink":
        member.linkname = os.fsdecode(node.data)
    if node.type == "file":
        member.size = len(node.data)
    archive.addfile(member, io.BytesIO(node.data))


def replace(place: Place, data: bytes, mode: int | None, uid: int) -> None:
    """Write a file at a walk's end, as the agent does: a new file takes the old one's place."""
    if mode is None:
        mode = 0o644 if place.node is None else place.node.mode & 0o777
    place.parent.entries[place.name] = Node("file", mode, uid, data)


def append(place: Place, data: bytes, mode: int | None, uid: int) -> Node:
    """Add to a file at a walk's end, or make it, as the agent does; return it."""
    node = place.node
    if node is None:
        place.parent.require(uid, WRITE | SEARCH)
        node = place.parent.entries[place.name] = Node("file", 0o644, uid)
    else:
        node.require(uid, WRITE)
    if mode is not None:
        node.mode = mode
    node.data += data
    node.mtime = time.time()
    return node


def _lookup(directory: Node, name: str, uid: int) -> Node | None:
    if len(os.fsencode(name)) > MAX_NAME:
        raise _error(errno.ENAMETOOLONG)
    directory.require(uid, SEARCH)
    return directory.entries.get(name)


def _add(directory: Node, name: str, node: Node) -> Node:
    directory.require(node.uid, WRITE | SEARCH)
    directory.entries[name] = node
    return node


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")]


def _path(trail: list[tuple[str, Node]], name: str | None = None) -> str:
    names = [step for step, _ in trail[1:]] + ([] if name is None else [name])
    return "/" + "/".join(names)


def _error(number: int) -> OSError:
    return OSError(number, os.strerror(number))
