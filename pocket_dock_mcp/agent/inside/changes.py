"""Which files each run created, modified and deleted, as the kernel tells by inotify.

Below the roots every directory has a watch, and the names in it are remembered: a file that is renamed over
another modifies it. What is told:

- Files, links and the like, by path. A directory, with "/" at its end, only where nothing in it is told: when
  it is or was empty. If one is renamed, its files are deleted there and created here.
- Modified is what was replaced, or was open for writing, is closed (by the end of its process at the latest)
  and has really changed since the run began: sqlite opens for writing to read. Not told: a change of mode or
  times alone, ``truncate(2)`` by path, a write by another hard link.
- Nothing of ``__pycache__`` and of our own ``.pocket-dock-*``. Of what tools keep for themselves (``.cache``,
  ``.git``, ``node_modules``, ``site-packages``) one level: a new package is one entry, ``site-packages/x/``.

There are bounds, for hostile users and for large trees; where something was missed, `incomplete` says so. The
kernel charges instance and watches to the user, and directories are read with the user's rights: who swaps a
link under us shows us what they may see themselves. No file is opened, ever.
"""

from __future__ import annotations

import collections
import ctypes
import errno
import fcntl
import os
import stat
import struct
import sys
import termios
import time
from typing import Any, ContextManager, Deque, Dict, Iterable, List, Optional, Sequence, Set, Tuple

MAX_DIRECTORIES = 2048
MAX_NAMES = 50_000  # over all directories; and as many changes of one run
READ_SIZE = 64 * 1024
MAX_FLUSH = 5 * 1024 * 1024  # bytes of events in one call; the kernel's default queue of 16,384 is less
MAX_SCAN = 60_000  # entries of directories in one call, about 0.1 s; a directory itself counts like some
DIRECTORY_COST = 20
MAX_CHECKS = 2_000  # files of one report that are looked at
MAX_LOOKS = 10_000  # files that may be open, about 20 ms
RESCAN_SHARE = 0.05  # of the time at most, for finding out again what was missed

IN_CLOSE_WRITE, IN_MOVED_FROM, IN_MOVED_TO, IN_CREATE, IN_DELETE = 0x8, 0x40, 0x80, 0x100, 0x200
IN_Q_OVERFLOW, IN_IGNORED, IN_ISDIR = 0x4000, 0x8000, 0x40000000
IN_ONLYDIR, IN_DONT_FOLLOW, IN_EXCL_UNLINK = 0x1000000, 0x2000000, 0x4000000
# Not IN_MODIFY: it wakes us for every write(), and tells nothing that the end of the writer does not.
_WATCH = IN_CLOSE_WRITE | IN_MOVED_FROM | IN_MOVED_TO | IN_CREATE | IN_DELETE | IN_ONLYDIR | IN_EXCL_UNLINK

_EVENT = struct.Struct("iIII")
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
_SHALLOW = frozenset((b".cache/", b".git/", b"node_modules/", b"site-packages/"))

# What a run has done to a name: nothing (0) or one of these. A rule says what that becomes by what is next.
_CREATED, _WRITTEN, _REPLACED, _DELETED = 1, 2, 3, 4
_APPEARS = (_CREATED, _CREATED, _REPLACED, _REPLACED, _REPLACED)
_IS_REPLACED = (_REPLACED, _CREATED, _REPLACED, _REPLACED, _REPLACED)
_IS_WRITTEN = (_WRITTEN, _CREATED, _WRITTEN, _REPLACED, _REPLACED)
_VANISHES = (_DELETED, 0, _DELETED, _DELETED, _DELETED)


class Token:
    """A run under way: what has changed since it began, by directory and name."""

    def __init__(self, incomplete: bool) -> None:
        self.began = time.clock_gettime_ns(5)  # CLOCK_REALTIME_COARSE, that of file times
        self.incomplete = incomplete
        self.states: Dict[bytes, Dict[bytes, int]] = {}
        self.size = 0

    def note(self, path: bytes, name: bytes, rule: Tuple[int, ...]) -> None:
        states = self.states.setdefault(path, {})
        old = states.get(name, 0)
        new = rule[old]
        if new and not old and self.size >= MAX_NAMES:
            self.incomplete = True
        elif new:
            states[name] = new
            self.size += not old
        elif old:
            del states[name]
            self.size -= 1
        if not states:
            del self.states[path]


class _Directory:
    """A watched directory. Names and paths of directories end in "/" throughout."""

    __slots__ = ("children", "names", "path", "shallow", "wd")

    def __init__(self, path: bytes, wd: int, shallow: bool) -> None:
        self.path = path
        self.wd = wd  # negative once it is no longer watched
        self.shallow = shallow
        self.names: Set[bytes] = set()
        self.children: Dict[bytes, _Directory] = {}  # those that are watched


class Changes:
    """Watches the roots. No call raises, and each does a bounded amount of work."""

    def __init__(self, roots: Sequence[str], as_user: ContextManager[object]) -> None:
        self._as_user = as_user
        libc = ctypes.CDLL(None, use_errno=True)
        self._add_watch, self._rm_watch = libc.inotify_add_watch, libc.inotify_rm_watch
        with as_user:
            self._fd: int = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
            if self._fd < 0:
                raise OSError(ctypes.get_errno(), "inotify_init1")
        self._watched: Dict[int, _Directory] = {}
        self._count = 0
        self._tokens: List[Token] = []
        self._new: Dict[bytes, Tuple[_Directory, bytes]] = {}
        self._lost = False
        self._rescan_after = 0.0
        self._top = _Directory(b"/", 0, False)
        # Sorted: one may be in another. Not "/": it is too much, and /proc is in it.
        self._roots = sorted({os.fsencode(root).strip(b"/") + b"/" for root in roots} - {b"/"})
        self._visit([(self._top, root) for root in self._roots])

    @classmethod
    def open(cls, roots: Sequence[str], as_user: ContextManager[object]) -> Optional[Changes]:
        """Return None where there is no inotify, or none left for this user."""
        try:
            return cls(roots, as_user)
        except (OSError, AttributeError):
            return None

    def fileno(self) -> int:
        return self._fd

    def close(self) -> None:
        os.close(self._fd)
        self._fd = -1

    def on_readable(self) -> None:
        """Take in some of the events."""
        self._catch_up(READ_SIZE, False)

    def begin(self) -> Token:
        """A run starts: nothing of what was before is its business."""
        self._catch_up(MAX_FLUSH, True)
        token = Token(self._lost)
        self._tokens.append(token)
        return token

    def end(self, token: Token, limit: int, alive: bool = False) -> Dict[str, Any]:
        """Say what has changed since `begin`: sorted, in all at most `limit` paths, the more prominent ones.

        Prominent is what is near to a root and not hidden. A size is None where the user cannot look.
        `alive`: processes of the run go on, so look also for what was written to files that are still open.
        """
        self._catch_up(MAX_FLUSH, True)
        report: Dict[str, Any] = {"created": [], "modified": [], "deleted": [], "counts": [0, 0, 0]}
        try:
            self._tokens.remove(token)
            if token.states or alive:
                with self._as_user:
                    if alive:
                        self._look_for_written(token)
                    _fill(report, token, limit, self._roots)
        except Exception:
            sys.excepthook(*sys.exc_info())
            token.incomplete = True
        report["incomplete"] = token.incomplete
        return report

    # -- events -----------------------------------------------------------------------------------

    def _catch_up(self, most: int, whole: bool) -> None:
        """Take in the events that there are by now, but no more than `most` bytes."""
        try:
            (left,) = struct.unpack("i", fcntl.ioctl(self._fd, termios.FIONREAD, b"\0\0\0\0"))
            while left > 0 and most > 0:
                buffer = os.read(self._fd, READ_SIZE)
                left -= len(buffer)
                most -= len(buffer)
                self._take(buffer)
            if self._new:
                new, self._new = self._new, {}  # only now: what is moved about may not be there any more
                self._visit(new.values())
            if whole and left > 0:
                self._miss()
            if whole and self._lost:
                self._recover()
        except Exception:
            sys.excepthook(*sys.exc_info())
            self._miss()

    def _miss(self) -> None:
        """Something was not seen, or cannot be watched."""
        self._lost = True
        for token in self._tokens:
            token.incomplete = True

    def _note(self, directory: _Directory, names: Iterable[bytes], rule: Tuple[int, ...]) -> None:
        for token in self._tokens:
            for name in names:
                token.note(directory.path, name, rule)

    def _take(self, buffer: bytes) -> None:
        offset, size = 0, len(buffer)
        unpack, watched = _EVENT.unpack_from, self._watched
        while offset < size:
            wd, mask, _cookie, length = unpack(buffer, offset)
            name = buffer[offset + 16 : offset + 16 + length].rstrip(b"\0")
            offset += 16 + length
            directory = watched.get(wd)
            if directory is None:
                if mask & IN_Q_OVERFLOW:
                    self._miss()
            elif mask & IN_IGNORED:
                self._forget(directory, False)
            elif name and not _is_noise(name):
                self._on_name(directory, mask, name + b"/" if mask & IN_ISDIR else name)

    def _on_name(self, directory: _Directory, mask: int, name: bytes) -> None:
        known = name in directory.names
        if mask & (IN_CREATE | IN_MOVED_TO):
            rule = _IS_REPLACED if known else _APPEARS
            if not known and self._count >= MAX_NAMES:
                self._miss()
            elif not known:
                self._count += 1
                directory.names.add(name)
            if mask & IN_ISDIR and not directory.shallow:
                self._new[directory.path + name] = (directory, name)
        elif not known:
            return  # it went before its directory was read
        elif mask & IN_CLOSE_WRITE:
            rule = _IS_WRITTEN
        else:
            rule = _VANISHES
            self._count -= 1
            directory.names.discard(name)
            self._new.pop(directory.path + name, None)
            if name in directory.children:
                self._forget(directory.children.pop(name))
        self._note(directory, (name,), rule)

    def _forget(self, top: _Directory, unwatch: bool = True) -> None:
        """Whatever was in it is gone. The kernel may keep the watch of one that was just being deleted."""
        doomed = [top]
        while doomed:
            directory = doomed.pop()
            if self._watched.pop(directory.wd, None) is None:
                continue
            if unwatch or directory is not top:
                self._rm_watch(self._fd, directory.wd)
            directory.wd = -1
            self._count -= len(directory.names)
            self._note(directory, directory.names, _VANISHES)
            doomed.extend(directory.children.values())

    # -- directories ------------------------------------------------------------------------------

    def _recover(self) -> None:
        """Compare everything with what is known. But not all the time, nor while it is too much anyway."""
        began = time.monotonic()
        full = len(self._watched) >= MAX_DIRECTORIES or self._count >= MAX_NAMES
        if not full and began >= self._rescan_after:
            self._lost = False
            self._visit([(self._top, root) for root in self._roots], MAX_DIRECTORIES * DIRECTORY_COST)
            self._rescan_after = began + (time.monotonic() - began) / RESCAN_SHARE

    def _visit(self, places: Iterable[Tuple[_Directory, bytes]], more: int = 0) -> None:
        """Watch and read these directories and what is in them, breadth first."""
        queue = collections.deque(places)
        left = MAX_SCAN + more
        with self._as_user:
            while queue and left > 0:
                parent, name = queue.popleft()
                left -= DIRECTORY_COST
                directory = self._enter(parent, name) if parent.wd >= 0 else None
                if directory is not None:
                    left -= self._scan(directory, queue, left)
        if queue:
            self._miss()

    def _enter(self, parent: _Directory, name: bytes) -> Optional[_Directory]:
        """Watch a directory; return it if it is to be read."""
        path = parent.path + name
        old = parent.children.get(name)
        if old is None and len(self._watched) >= MAX_DIRECTORIES:
            self._miss()
            return None
        mask = _WATCH if parent is self._top else _WATCH | IN_DONT_FOLLOW  # a root may be the image's link
        wd = self._add_watch(self._fd, path[:-1], mask)
        if wd < 0:
            number = ctypes.get_errno()
            if number not in _GONE and not (number == errno.EACCES and _is_foreign(path[:-1])):
                self._miss()
            return None
        known = self._watched.get(wd)
        if known is old is not None:
            return old
        if known is not None:
            if known.path[1:] in self._roots or parent.path.startswith(known.path):
                # A root in another or by another name; or somebody renames things, and more events come.
                return None
            self._forget(known, False)
        if old is not None:
            self._forget(old)
        directory = _Directory(path, wd, name in _SHALLOW)
        self._watched[wd] = parent.children[name] = directory
        return directory

    def _look_for_written(self, token: Token) -> None:
        """Find what has changed without being closed. Slow, but IN_MODIFY would cost at every write()."""
        if self._count > MAX_LOOKS:
            token.incomplete = True
            return
        for directory in self._watched.values():
            for name in directory.names:
                try:
                    status = os.lstat(directory.path + name)
                except OSError:
                    continue
                if stat.S_ISREG(status.st_mode) and status.st_mtime_ns >= token.began:
                    token.note(directory.path, name, _IS_WRITTEN)

    def _scan(self, directory: _Directory, queue: Deque[Tuple[_Directory, bytes]], most: int) -> int:
        """Read a directory and put those in it into the queue. Returns how many entries it took."""
        names: Set[bytes] = set()
        room, seen = MAX_NAMES - self._count + len(directory.names), 0
        try:
            with os.scandir(directory.path[:-1]) as entries:
                for entry in entries:
                    seen += 1
                    if not _is_noise(entry.name):
                        names.add(entry.name + b"/" if entry.is_dir(follow_symlinks=False) else entry.name)
                    if seen >= most or len(names) > room:
                        self._miss()
                        names |= directory.names
                        break
        except OSError as error:
            if error.errno not in _GONE:
                self._miss()
            return seen
        for name in directory.children.keys() - names:
            self._forget(directory.children.pop(name))
        self._note(directory, directory.names - names, _VANISHES)
        self._note(directory, names - directory.names, _APPEARS)
        self._count += len(names) - len(directory.names)
        directory.names = names
        if not directory.shallow:
            queue.extend((directory, name) for name in names if name.endswith(b"/"))
        return seen


def _fill(report: Dict[str, Any], token: Token, room: int, roots: List[bytes]) -> None:
    listed: Tuple[List[Tuple[bytes, Optional[int]]], ...] = ([], [], [])
    checks = MAX_CHECKS
    for parent in sorted(token.states, key=lambda path: _rank(path, roots)):
        states = token.states[parent]
        for name in sorted(states, key=lambda name: (name[:1] == b".", name)) if room > 0 else states:
            path, state, size = parent + name, states[name], None
            if path in token.states:
                continue
            if checks > 0 and (state == _WRITTEN or (room > 0 and state != _DELETED)):
                checks -= 1
                size = _size(path, token.began if state == _WRITTEN else 0)
                if size == -1:
                    continue
            report["counts"][state // 2] += 1
            if room > 0:
                room -= 1
                listed[state // 2].append((path, size))
    for kind, entries in zip(("created", "modified", "deleted"), listed):
        report[kind] = [[os.fsdecode(path), size] for path, size in sorted(entries)]
    report["deleted"] = [path for path, _ in report["deleted"]]


def _size(path: bytes, since: int) -> Optional[int]:
    """Return a file's size; -1 if it is not there or has not changed; None if the user cannot look."""
    try:
        status = os.lstat(path)
    except OSError as error:
        return -1 if error.errno in _GONE else None
    if status.st_ctime_ns < since:
        return -1
    return 0 if path.endswith(b"/") else status.st_size


def _is_noise(name: bytes) -> bool:
    return name == b"__pycache__" or name.startswith(b".pocket-dock-")


def _is_foreign(path: bytes) -> bool:
    """Whether it is somebody else's, and the user can do nothing in it."""
    try:
        status = os.lstat(path)
    except OSError:
        return False
    return status.st_uid != os.geteuid() and not status.st_mode & stat.S_IWOTH


def _rank(path: bytes, roots: List[bytes]) -> Tuple[bool, int, bytes]:
    inner = next((path[len(root) :] for root in roots if path.startswith(root, 1)), path)
    return b"/." in inner, inner.count(b"/"), path
