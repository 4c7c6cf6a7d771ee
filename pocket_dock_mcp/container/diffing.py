"""What is different between the files of two containers: created, modified, deleted, and in which lines.

Names, types, modes and contents count; times and owners do not. What is the same file on the engine's disk is
not looked into, and what another user than the sandbox's owns cannot have been changed by it.
"""

from __future__ import annotations

import codecs
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import anyio.to_thread

from pocket_dock_mcp.agent.inside import facts, wire
from pocket_dock_mcp.container import linediff
from pocket_dock_mcp.container.core import LiveContainer
from pocket_dock_mcp.container.inventory import Entry, Tree, hashes, walk_both
from pocket_dock_mcp.errors import FileError, InvalidArgumentError, SandboxFileNotFoundError
from pocket_dock_mcp.models import FileType
from pocket_dock_mcp.output import escaped, visible

MAX_TEXT_BYTES = 512 * 1024
"""Of a file that is compared line by line."""
MAX_FILE_DIFF = 8 * 1024
"""Characters of one file's diff."""
MAX_NAMES = 64 * 1024
"""Characters of all paths that are told."""
MAX_UNREADABLE = 10
"""Paths that are named of those that nobody could look into."""
BINARY, TOO_LARGE = "binary", "too large for a text diff"
"""What `FileChange.notes` says of files that have no lines to show."""
_OTHERS_MAY_WRITE = 0o022
_OTHERS_MAY_ENTER = 0o011
_OURS = frozenset({"/etc/passwd", "/etc/group", "/etc/hosts"})
"""The agent puts the user's uid and the machine's names into them."""

ChangeKind = Literal["modified", "created", "deleted"]


@dataclass(frozen=True, slots=True)
class FileChange:
    """One path that is not as it was."""

    path: str
    """Absolute. Undecodable bytes are kept as surrogate escapes."""
    change: ChangeKind
    type: FileType
    size: int
    """In bytes now; of something deleted, as it was."""
    notes: tuple[str, ...] = ()
    """What else there is to say: another type, mode or target, no text."""


@dataclass(frozen=True, slots=True)
class TreeDiff:
    """How the files of a sandbox differ from an earlier state.

    A directory is told only if nothing in it is.
    """

    changes: tuple[FileChange, ...]
    """Modified, created, deleted, and each by path; perhaps fewer than there are."""
    counts: tuple[int, int, int]
    """How many were modified, created and deleted: true totals."""
    diff: str
    """Of text files, unified; as many as fit. What does not show stands escaped, in names and in lines."""
    diff_truncated: bool
    """Whether lines are left out for want of room."""
    unreadable: int
    """Files and directories that may have changed and that the sandbox user may not read."""
    unchecked: int
    """Files of the same size that there was no time to compare; they are told as modified."""
    too_large: int = 0
    """Changed files that are too large for a text diff."""
    too_deep: int = 0
    """Directories that are so deep that nobody looked into them."""
    unreadable_paths: tuple[str, ...] = ()
    """The first of those that are counted as unreadable."""


@dataclass(slots=True)
class _Pair:
    """One path in both states."""

    path: str
    old: Entry | None
    new: Entry | None

    @property
    def change(self) -> ChangeKind:
        return "created" if self.old is None else "deleted" if self.new is None else "modified"

    @property
    def shown(self) -> Entry:
        entry = self.new or self.old
        if entry is None:
            raise ValueError(self.path)
        return entry


@dataclass(slots=True)
class Candidates:
    """What a comparison without contents finds."""

    changed: list[_Pair]
    suspects: list[_Pair]
    """Files of the same size whose contents have to be looked at."""
    unreadable: list[str]
    too_deep: int = 0


async def compare(
    old: LiveContainer, new: LiveContainer, root: str, *, max_paths: int, max_diff: int
) -> TreeDiff:
    """Compare a tree of two containers.

    Args:
        old: the earlier state.
        new: the later one, in which programs may be running.
        root: absolute; see `inventory.where`.
        max_paths: how many changed paths to return.
        max_diff: how many characters of diffs.

    Raises:
        SandboxFileNotFoundError: there is no such path in either.
        And what `inventory.walk` raises.
    """
    if max_paths < 1 or max_diff < 0:
        message = "max_paths must be at least 1, and max_diff not negative."
        raise InvalidArgumentError(message)
    before, after = await walk_both(old, new, root)
    if before.missing and after.missing:
        message = f"{root!r} does not exist, and did not."
        raise SandboxFileNotFoundError(message, hint="Leave path out to compare all files.")
    for tree, home in ((before, old.home), (after, new.home)):
        if home in tree.entries:
            # We make it, in the one container of a directory and in the other perhaps of a mount.
            tree.entries[home] = tree.entries[home]._replace(mode=0)
    found = await anyio.to_thread.run_sync(candidates, before, after, {old.uid, new.uid})
    changed, unreadable, unchecked = await _settle(old, new, found)
    pairs = sorted(_without_full_directories(changed), key=_rank)
    texts = _Texts(old, new, max_diff)
    told: list[FileChange] = []
    room = MAX_NAMES
    for pair in pairs[:max_paths]:
        room -= len(pair.path) + len(pair.shown.target or "")
        if room < 0 and told:
            break
        told.append(await texts.tell(pair))
    texts.truncated |= any(pair.shown.type == "file" for pair in pairs[len(told) :])
    kinds = [pair.change for pair in pairs]
    return TreeDiff(
        changes=tuple(told),
        counts=(kinds.count("modified"), kinds.count("created"), kinds.count("deleted")),
        diff="".join(texts.out),
        diff_truncated=texts.truncated,
        unreadable=len(unreadable),
        unchecked=unchecked,
        too_large=texts.too_large,
        too_deep=found.too_deep,
        unreadable_paths=tuple(sorted(unreadable)[:MAX_UNREADABLE]),
    )


def candidates(before: Tree, after: Tree, uids: set[int]) -> Candidates:
    """Pure: compare what ``lstat`` says."""
    found = Candidates([], [], [])
    skipped = before.skipped | after.skipped
    closed = before.closed | after.closed
    for path in before.entries.keys() | after.entries.keys():
        old, new = _kept(before.entries.get(path)), _kept(after.entries.get(path))
        if old is None and new is None:
            continue
        if _is_ours(path, old, new, uids) or path in skipped:
            continue
        pair = _Pair(path, old, new)
        if old is None or new is None:
            # Nobody knows what is in a directory that cannot be listed.
            if not _is_hidden(path, closed):
                found.changed.append(pair)
        elif _differs(old, new):
            found.changed.append(pair)
        elif old.type == "file" and _may_differ(old, new, uids):
            found.suspects.append(pair)
        if path in closed and not _is_known_in(old, new, uids):
            if path in before.deep | after.deep:
                found.too_deep += 1
            else:
                found.unreadable.append(path)
    return found


def _kept(entry: Entry | None) -> Entry | None:
    """Return an entry that an image can hold: sockets are in no snapshot, and would seem new for ever."""
    return None if entry is not None and entry.type == "socket" else entry


def _is_ours(path: str, old: Entry | None, new: Entry | None, uids: set[int]) -> bool:
    """Whether we, and not the user's programs, have made the difference."""
    if path in facts.PARKED or (path in _OURS and len(uids) > 1):
        return True
    # PID 1 is root, and its interpreter caches what it imports; programs cannot make a file of root's.
    only = new if old is None else old if new is None else None
    return only is not None and only.uid == 0 and "/__pycache__" in path


def _is_hidden(path: str, closed: frozenset[str]) -> bool:
    if not closed:
        return False
    parts = path.split("/")
    return any("/".join(parts[:count]) in closed for count in range(2, len(parts)))


def _is_same(old: Entry, new: Entry) -> bool:
    """Whether both are one file on the engine's disk, unchanged since both states were one."""
    return old.inode == new.inode and old.ctime_ns == new.ctime_ns


def _is_known_in(old: Entry | None, new: Entry | None, uids: set[int]) -> bool:
    """Whether nothing can have changed in a directory that nobody could look into."""
    if old is not None and new is not None and _is_same(old, new):
        return True
    return all(
        one is None or not (one.uid in uids or one.mode & (_OTHERS_MAY_WRITE | _OTHERS_MAY_ENTER))
        for one in (old, new)
    )


def _differs(old: Entry, new: Entry) -> bool:
    """Whether they differ without a look at contents."""
    if (old.type, old.mode, old.target) != (new.type, new.mode, new.target):
        return True
    return old.type == "file" and old.size != new.size


def _may_differ(old: Entry, new: Entry, uids: set[int]) -> bool:
    if _is_same(old, new):
        return False
    theirs = not {old.uid, new.uid} & uids and not new.mode & _OTHERS_MAY_WRITE
    return not (theirs and old.mtime_ns == new.mtime_ns)


async def _settle(
    old: LiveContainer, new: LiveContainer, found: Candidates
) -> tuple[list[_Pair], list[str], int]:
    """Look into the suspects; return what has changed, what could not be read, and how many were not."""
    paths = sorted(pair.path for pair in found.suspects)
    if not paths:
        return found.changed, found.unreadable, 0
    before, after = await hashes(old, paths), await hashes(new, paths)
    changed, unreadable, unchecked = list(found.changed), list(found.unreadable), 0
    for pair in found.suspects:
        one, other = before[pair.path], after[pair.path]
        if one == "" or other == "":
            unreadable.append(pair.path)
        elif one is None or other is None:
            unchecked += 1
            changed.append(pair)
        elif one != other:
            changed.append(pair)
    return changed, unreadable, unchecked


def _without_full_directories(changed: Sequence[_Pair]) -> Iterator[_Pair]:
    """Leave out created and deleted directories that something told is in."""
    full = set()
    for pair in changed:
        path = pair.path.rpartition("/")[0]
        while path and path not in full:
            full.add(path)
            path = path.rpartition("/")[0]
    for pair in changed:
        if pair.change == "modified" or pair.shown.type != "directory" or pair.path not in full:
            yield pair


def _rank(pair: _Pair) -> tuple[int, bytes]:
    return get_args(ChangeKind).index(pair.change), pair.path.encode("utf-8", "surrogateescape")


class _Texts:
    """The diffs of text files, until there is no more room."""

    def __init__(self, old: LiveContainer, new: LiveContainer, room: int) -> None:
        self._old = old
        self._new = new
        self._room = room
        self.out: list[str] = []
        self.truncated = False
        self.too_large = 0

    async def tell(self, pair: _Pair) -> FileChange:
        """Return what there is to say of a path; the lines that differ go into `out`."""
        entry = pair.shown
        notes = [*_notes(pair)]
        if any(one is not None and one.type == "file" for one in (pair.old, pair.new)):
            notes += await self._compare(pair)
        size = entry.size if entry.type == "file" else 0
        return FileChange(pair.path, pair.change, entry.type, size, tuple(notes))

    async def _compare(self, pair: _Pair) -> list[str]:
        if max(entry.size for entry in (pair.old, pair.new) if entry is not None) > MAX_TEXT_BYTES:
            self.too_large += 1
            return [TOO_LARGE]
        if len(os.fsencode(pair.path)) >= wire.MAX_PATH:
            return ["its path is too long to be opened"]
        if self._room <= 0:
            self.truncated = True
            return []
        try:
            before = await _content(self._old, pair.path, pair.old)
            after = await _content(self._new, pair.path, pair.new)
        except FileError:
            return ["could not be read"]
        old, new = _text(before), _text(after)
        if old is None or new is None:
            return [BINARY]
        hunks, cut = await anyio.to_thread.run_sync(
            linediff.unified, old, new, min(self._room, MAX_FILE_DIFF)
        )
        hunks, is_short = _fitted(visible(hunks), min(self._room, MAX_FILE_DIFF))
        cut |= is_short
        if hunks:
            name = escaped(pair.path)[0]
            head = f"--- {_name(name, pair.old)}\n+++ {_name(name, pair.new)}\n"
            self.out += [head, hunks, "...\n" if cut else ""]
            self._room -= len(head) + len(hunks)
        self.truncated |= cut
        return []


def _notes(pair: _Pair) -> Iterable[str]:
    old, new = pair.old, pair.new
    entry = pair.shown
    if entry.target is not None and (old is None or new is None or old.target != new.target):
        yield f"to {entry.target}"
    if old is None or new is None:
        return
    if old.type != new.type:
        yield f"was a {old.type}"
    elif old.mode != new.mode:
        yield f"mode {old.mode:o} is now {new.mode:o}"
    if old.type == new.type == "file" and old.size != new.size:
        yield f"had {old.size} bytes"
    if old.target is not None and old.target != new.target:
        yield f"was to {old.target}"


async def _content(container: LiveContainer, path: str, entry: Entry | None) -> bytes:
    if entry is None or entry.type != "file":
        return b""
    return (await container.read_file(path, max_bytes=MAX_TEXT_BYTES)).data


def _text(data: bytes) -> str | None:
    if b"\0" in data:
        return None
    try:
        # The last character may be cut, should the file have grown meanwhile.
        return codecs.getincrementaldecoder("utf-8")().decode(data)
    except UnicodeDecodeError:
        return None


def _fitted(lines: str, room: int) -> tuple[str, bool]:
    """Return as many whole lines as fit, and whether that is less than all."""
    if len(lines) <= room:
        return lines, False
    return lines[: lines.rfind("\n", 0, room) + 1], True


def _name(path: str, entry: Entry | None) -> str:
    return "/dev/null" if entry is None or entry.type != "file" else path
