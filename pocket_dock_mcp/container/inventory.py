"""All that is in a tree of a container, told by a program of its user and checked line by line."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pocket_dock_mcp.agent.bundle import source_of
from pocket_dock_mcp.container.arguments import checked_path
from pocket_dock_mcp.container.core import LiveContainer
from pocket_dock_mcp.errors import CompareError
from pocket_dock_mcp.models import MIB, FileType

MAX_ENTRIES = 200_000
MAX_BYTES = 64 * MIB
"""Of what the program says."""
MAX_HASHED = 20_000
"""Paths in one question."""
WALK_TIMEOUT_S = 60.0
HASH_TIMEOUT_S = 30.0
_GRACE_S = 10.0
_NARROW = "Give the path of the directory that matters."
_MAX_INT = 1 << 64
_HASH_DIGITS = 64
_MAX_PATH = 16 * 1024
_NUMBERS = 6
"""In an entry, between its type and what a link points to."""
_TYPES: dict[object, FileType] = {
    "f": "file", "d": "directory", "l": "symlink", "p": "fifo", "s": "socket", "o": "device",
}  # fmt: skip


class Entry(NamedTuple):
    """One file of whatever type, as ``lstat`` says."""

    type: FileType
    mode: int
    """Permission bits."""
    uid: int
    size: int
    mtime_ns: int
    inode: int
    ctime_ns: int
    target: str | None
    """Of a symbolic link."""


@dataclass(slots=True)
class Tree:
    """What the user can see of a tree."""

    entries: dict[str, Entry] = field(default_factory=dict)
    """By absolute path."""
    closed: frozenset[str] = frozenset()
    """Directories that could not be listed."""
    skipped: frozenset[str] = frozenset()
    """Where other file systems begin, that are no part of it."""
    missing: bool = False
    """Whether its root is not there."""
    deep: frozenset[str] = frozenset()
    """Those of the closed ones that are too far down to be looked into."""
    root: str = ""
    """Where the path that was asked for leads; the tree is empty if that is elsewhere."""
    link: str | None = None
    """What leads there: a symbolic link that is a part of the path, and not its last."""
    is_lost: bool = False
    """Whether the directory that `root` would be in is not there."""


async def walk(container: LiveContainer, root: str, skipped: Sequence[str] = ()) -> Tree:
    """Return all entries of a tree, or where its path leads if that is through symbolic links.

    Raises:
        CompareError: there are too many files, or something in the container tampered with it.
        And what `LiveContainer.run` raises.
    """
    order = {"op": "walk", "root": root, "max_entries": MAX_ENTRIES, "skipped": list(skipped)}
    tree = Tree()
    end: dict[str, Any] = {}
    for line in await _lines(container, order, WALK_TIMEOUT_S):
        match line:
            case ["in", str(path), list(items)]:
                _add(tree, root, path, items)
            case ["end", dict(fields)]:
                end = fields
            case _:
                raise _nonsense()
    if end.get("more") is True:
        raise CompareError(f"There are more than {MAX_ENTRIES} files below {root!r}.", hint=_NARROW)
    tree.missing = "missing" in end
    tree.closed, tree.skipped, tree.deep = (
        frozenset(_strings(end.get(name, []))) for name in ("closed", "skipped", "deep")
    )
    tree.root, tree.is_lost = root, end.get("lost") is True
    if "real" in end:
        tree.root, tree.link = (_path(end.get(name)) for name in ("real", "link"))
    return tree


async def walk_both(old: LiveContainer, new: LiveContainer, root: str) -> tuple[Tree, Tree]:
    """Return a tree as it was and as it is. Links in its path are followed if they lead to one place.

    Raises:
        CompareError: the path is one thing in the one state and another in the other.
        And what `walk` raises.
    """
    for _ in range(2):
        before = await walk(old, root)
        after = await walk(new, root, sorted(before.skipped))
        if before.root == after.root == root:
            return before, after
        if before.root != after.root and not (before.is_lost or after.is_lost):
            break
        # Where its directory is missing, the path says nothing of what is meant.
        root = before.root if after.is_lost else after.root
    links = {tree.link: None for tree in (after, before) if tree.link is not None}
    paths = [path for path in {**links, after.root: None, before.root: None} if path != root]
    message = (
        f"{root!r} is {after.root!r} now and was {before.root!r}: {' and '.join(map(repr, links))} "
        "is or was a symbolic link."
    )
    raise CompareError(message, hint=f"Give one of these paths instead: {', '.join(map(repr, paths))}.")


async def hashes(container: LiveContainer, paths: Sequence[str]) -> dict[str, str | None]:
    """Return hashes by path: empty for what cannot be read, None where there was no time.

    Raises: what `walk` raises.
    """
    found: dict[str, str | None] = {}
    for at in range(0, len(paths), MAX_HASHED):
        some = paths[at : at + MAX_HASHED]
        order = {"op": "hash", "paths": some, "timeout_s": HASH_TIMEOUT_S}
        lines = [*await _lines(container, order, HASH_TIMEOUT_S)]
        if len(lines) != len(some) + 1:
            raise _nonsense()
        found.update(zip(some, map(_hash, lines), strict=False))
    return found


async def _lines(container: LiveContainer, order: dict[str, Any], timeout_s: float) -> Iterator[object]:
    result = await container.run(
        source_of("inventory"),
        language="python",
        # Nobody can put modules there for it to import.
        cwd="/",
        stdin=json.dumps(order),
        timeout_s=timeout_s + _GRACE_S,
        output_bytes=MAX_BYTES,
    )
    if result.status == "timeout" or result.truncated:
        raise CompareError(f"Not all of it could be looked at in {timeout_s:g} s.", hint=_NARROW)
    if result.status != "ok":
        said = result.stderr.strip()[-300:] or "it said nothing"
        message = f"The files could not be looked at ({result.status}): {said}"
        raise CompareError(message)
    return map(_parsed, result.stdout.splitlines())


def _parsed(line: str) -> object:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        raise _nonsense() from None


def _add(tree: Tree, root: str, directory: str, items: Sequence[object]) -> None:
    if directory and not _is_below(directory, root):
        raise _nonsense()
    for item in items:
        match item:
            case [str(name), str(kind), *numbers]:
                path = posixpath.join(directory, name) if directory else root
                if directory and (not name or "/" in name or "\0" in name or name in (".", "..")):
                    raise _nonsense()
                tree.entries[path] = _entry(kind, numbers)
            case _:
                raise _nonsense()
    if len(tree.entries) > 2 * MAX_ENTRIES:
        raise _nonsense()


def _is_below(path: str, root: str) -> bool:
    return path == posixpath.normpath(path) and (path == root or path.startswith(root.rstrip("/") + "/"))


def _entry(kind: str, numbers: Sequence[object]) -> Entry:
    target: str | None = None
    match numbers:
        case [*first, str(last)] if kind == "l":
            numbers, target = first, last
    values = [n for n in numbers if type(n) is int and -_MAX_INT < n < _MAX_INT]
    if kind not in _TYPES or len(values) != len(numbers) or len(values) != _NUMBERS:
        raise _nonsense()
    mode, uid, size, mtime_ns, inode, ctime_ns = values
    return Entry(_TYPES[kind], mode, uid, size, mtime_ns, inode, ctime_ns, target)


def _hash(line: object) -> str | None:
    match line:
        case ["hash", None]:
            return None
        case ["hash", str(digits)] if len(digits) in (0, _HASH_DIGITS):
            return digits
    raise _nonsense()


def _path(value: object) -> str:
    if not isinstance(value, str) or not _is_below(value, "/") or "\0" in value or len(value) > _MAX_PATH:
        raise _nonsense()
    return value


def _strings(value: object) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise _nonsense()
    return value


def where(container: LiveContainer, path: str | None) -> str:
    """Return the absolute path of a tree; all files for None. ``..`` is taken as it reads.

    Raises:
        InvalidArgumentError: it cannot be a path.
    """
    if path is None:
        return "/"
    checked = checked_path(path)
    whole = posixpath.normpath(posixpath.join(container.home, checked))
    return "/" + whole.lstrip("/")


def _nonsense() -> CompareError:
    return CompareError(
        "What was said of the files makes no sense: something in the sandbox tampered with it."
    )
