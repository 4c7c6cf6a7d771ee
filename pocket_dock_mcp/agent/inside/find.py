"""A program of the sandbox's user: lists a tree, picks by name, looks into files. Not a part of the agent.

Reads one JSON object from standard input and writes one as the last line of standard output. It trusts
nothing in the tree: links are not followed, only regular files are opened and none of them is waited for,
and a timer interrupts whatever takes too long, a regular expression included.
"""

from __future__ import annotations

import collections
import itertools
import json
import os
import re
import signal
import stat
import sys
import time
from typing import Any, Callable, Deque, Dict, FrozenSet, Iterable, Iterator, List, Optional, Tuple

VENDORED = frozenset({"node_modules", "__pycache__"})
MAX_ENTRIES = 100_000
"""Of one directory."""
MAX_ALTERNATIVES = 200
"""That the braces of a glob may stand for."""
MAX_TEXT = 240
"""Characters of one matching line."""
FIRST_PIECE = 64 * 1024
"""Enough to tell a binary file by."""
PIECE = 1024 * 1024
TICK = 0.25
MAX_TICKS = 8
"""For which one line may be searched."""

States = FrozenSet[int]
START: States = frozenset({0})


class BadPatternError(Exception):
    """The glob or the regular expression is none."""

    def __init__(self, what: str, detail: str) -> None:
        Exception.__init__(self, what, detail)
        self.what = what
        self.detail = detail


class TimeUpError(BaseException):
    """Raised by the timer, wherever the program is. No OSError, which much of it survives."""


class SlowPatternError(BaseException):
    """The regular expression does not come to an end on one line."""


class Glob:
    """A glob as a machine that takes the names along a path: its states are places in a list of components.

    A component is the pattern of one name, or None for any number of names.
    """

    def __init__(self, glob: str) -> None:
        parts = [part for part in glob.split("/") if part not in ("", ".")]
        if not glob.startswith("./") and "/" not in glob.rstrip("/"):
            parts.insert(0, "**")
        if parts and parts[-1] == "**":
            parts.append("*")
        self._texts = parts
        self._components = [None if part == "**" else name_pattern(part) for part in parts]
        self._only_directories = glob.endswith("/")

    def step(self, states: States, name: str) -> Tuple[States, bool]:
        """Take one name; return the new states, and whether the glob named what is otherwise skipped."""
        reached = set()
        named = False
        for state in self._closure(states):
            component = self._components[state]
            if component is None:
                reached.add(state)
            elif component(name):
                reached.add(state + 1)
                named = named or self._texts[state] == name or self._texts[state].startswith(".")
        return frozenset(reached), named

    def _closure(self, states: States) -> Iterator[int]:
        for state in states:
            while state < len(self._components):
                yield state
                if self._components[state] is not None:
                    break
                state += 1

    def matches(self, states: States, is_directory: bool) -> bool:
        return len(self._components) in states and (is_directory or not self._only_directories)

    def goes_on(self, states: States) -> bool:
        return any(state < len(self._components) for state in states)


class Globs:
    """All that a glob with braces stands for."""

    def __init__(self, glob: str) -> None:
        self._globs = [Glob(one) for one in alternatives(glob)]
        self.start: List[States] = [START] * len(self._globs)

    def step(self, states: List[States], name: str) -> Tuple[List[States], bool]:
        pairs = [glob.step(states[at], name) for at, glob in enumerate(self._globs)]
        return [one for one, _ in pairs], any(named for _, named in pairs)

    def matches(self, states: List[States], is_directory: bool) -> bool:
        return any(glob.matches(states[at], is_directory) for at, glob in enumerate(self._globs))

    def goes_on(self, states: List[States]) -> bool:
        return any(glob.goes_on(states[at]) for at, glob in enumerate(self._globs))


def alternatives(glob: str) -> List[str]:
    """Return the globs that braces stand for: ``*.{py,toml}`` is two."""
    found = re.search(r"\{([^{}]*,[^{}]*)\}", glob)
    if found is None:
        return [glob]
    results = []
    for choice in found.group(1).split(","):
        results += alternatives(glob[: found.start()] + choice + glob[found.end() :])
        if len(results) > MAX_ALTERNATIVES:
            raise BadPatternError("glob", "its braces stand for too many patterns")
    return results


def name_pattern(text: str) -> Callable[[str], Optional[object]]:
    """Return a function that matches one name: ``*``, ``?`` and ``[...]`` as in a shell."""
    out: List[str] = []
    at = 0
    while at < len(text):
        char = text[at]
        at += 1
        if char == "*":
            if out[-1:] != [".*"]:
                out.append(".*")
        elif char == "?":
            out.append(".")
        elif char == "[":
            end = text.find("]", at + (2 if text[at : at + 1] in ("!", "^") else 1))
            if end < 0:
                raise BadPatternError("glob", "a [ is not closed")
            inside, at = text[at:end].replace("\\", "\\\\").replace("[", "\\["), end + 1
            out.append("[%s]" % ("^" + inside[1:] if inside[0] in "!^" else inside))
        else:
            out.append(re.escape(char))
    try:
        return re.compile("".join(out), re.DOTALL).fullmatch
    except re.error as error:
        raise BadPatternError("glob", str(error)) from None


class Search:
    """One search and what it has found so far."""

    def __init__(self, order: Dict[str, Any]) -> None:
        self.found: List[List[Any]] = []
        self.counts = {"binary": 0, "unreadable": 0, "skipped": 0}
        self.more = False
        self._root: str = order["root"]
        self._max_results: int = order["max_results"]
        self._room: int = order["max_bytes"]
        self._hidden: bool = order["hidden"]
        self._globs = None if order["glob"] is None else Globs(order["glob"])
        self._regex = None if order["grep"] is None else compiled(order["grep"])
        literal = order["grep"] if order["grep"] and not set(order["grep"]) & set(".^$*+?{}[]\\|()") else None
        self._literal: Optional[str] = literal
        self._queue: Deque[Tuple[str, List[States]]] = collections.deque()
        # Which piece of which file is being searched, and which line of it: what the timer looks at.
        self._piece = 0
        self._line = 0
        self._seen = (0, 0, 0)

    def run(self) -> None:
        """Look through the tree level by level, so that what is near comes first."""
        status = os.stat(self._root)
        start = [] if self._globs is None else self._globs.start
        if stat.S_ISDIR(status.st_mode):
            self._queue.append(("", start))
        else:
            kind = "file" if stat.S_ISREG(status.st_mode) else "other"
            self._visit("", os.path.basename(self._root), kind, start)
        # Endless, and full of what is no file.
        foreign = {device(path) for path in ("/proc", "/sys")} - {status.st_dev}
        while self._queue and not self._is_full():
            relative, states = self._queue.popleft()
            path = os.path.join(self._root, relative)
            try:
                if not relative or os.lstat(path).st_dev not in foreign:
                    self._list(path, relative, states)
            except OSError:
                if not relative:
                    raise
                self.counts["unreadable"] += 1
        if self._is_full():
            self.found.pop()
            self.more = True

    def _is_full(self) -> bool:
        """Whether there is one result more than is wanted, which is how it is known that there are more."""
        return len(self.found) > self._max_results or self._room < 0

    def _list(self, path: str, relative: str, states: List[States]) -> None:
        with os.scandir(path) as entries:
            names = [(entry.name, type_of(entry)) for entry in itertools.islice(entries, MAX_ENTRIES + 1)]
        if len(names) > MAX_ENTRIES:
            self.more = True
        for name, kind in sorted(names[:MAX_ENTRIES]):
            self._visit(os.path.join(relative, name), name, kind, states)
            if self._is_full():
                return

    def _visit(self, relative: str, name: str, kind: str, states: List[States]) -> None:
        named, is_match, goes_on = self._hidden or not relative, True, True
        if self._globs is not None:
            states, by_glob = self._globs.step(states, name)
            named = named or by_glob
            is_match, goes_on = self._globs.matches(states, kind == "directory"), self._globs.goes_on(states)
        if not named and (name in VENDORED or name.startswith(".")):
            self.counts["skipped"] += 1
            return
        if kind == "directory" and goes_on:
            self._queue.append((relative, states))
        if not is_match:
            return
        if self._regex is None:
            self._add([relative, kind, self._size(relative)])
        elif kind == "file":
            try:
                self._grep(relative)
            except OSError:
                self.counts["unreadable"] += 1

    def _size(self, relative: str) -> int:
        try:
            return os.lstat(os.path.join(self._root, relative) if relative else self._root).st_size
        except OSError:
            return 0

    def _add(self, item: List[Any]) -> None:
        self.found.append(item)
        self._room -= len(json.dumps(item))

    # -- in files ---------------------------------------------------------------------------------

    def _grep(self, relative: str) -> None:
        path = os.path.join(self._root, relative) if relative else self._root
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC | (os.O_NOFOLLOW if relative else 0)
        fd = os.open(path, flags)
        try:
            if stat.S_ISREG(os.fstat(fd).st_mode):
                self._grep_pieces(relative, pieces(fd))
        finally:
            self._line = 0
            os.close(fd)

    def _grep_pieces(self, relative: str, texts: Iterable[bytes]) -> None:
        number = 1
        for data in texts:
            self._piece += 1
            if b"\0" in data:
                self.counts["binary"] += 1
                return
            text = data.decode("utf-8", "surrogateescape")
            if self._literal is None or self._literal in text:
                self._grep_lines(relative, number, text.replace("\r\n", "\n").split("\n"))
            if self._is_full():
                return
            number += data.count(b"\n")

    def _grep_lines(self, relative: str, number: int, lines: List[str]) -> None:
        if lines and not lines[-1]:
            lines.pop()
        assert self._regex is not None
        search = self._regex.search
        for self._line, line in enumerate(lines, number):
            found = search(line)
            if found is not None:
                self._add([relative, self._line, around(line, found.start(), found.end())])
                if self._is_full():
                    return

    # -- time -------------------------------------------------------------------------------------

    def limit(self, seconds: float) -> None:
        """Raise in the main program when the time is up, or when it is stuck on one line."""
        end = time.monotonic() + seconds

        def tick(_number: int, _frame: object) -> None:
            *seen, ticks = self._seen
            stuck = self._line > 0 and seen == [self._piece, self._line]
            self._seen = (self._piece, self._line, ticks + 1 if stuck else 0)
            if self._seen[2] >= MAX_TICKS:
                raise SlowPatternError
            if time.monotonic() > end:
                raise TimeUpError

        signal.signal(signal.SIGALRM, tick)
        signal.setitimer(signal.ITIMER_REAL, TICK, TICK)


def compiled(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise BadPatternError("grep", str(error)) from None


def pieces(fd: int) -> Iterator[bytes]:
    """Return a file in pieces that end with a line, unless a line is longer than a piece."""
    rest = b""
    size = FIRST_PIECE
    while True:
        data = os.read(fd, size)
        if not data:
            break
        size = PIECE
        cut = data.rfind(b"\n") + 1
        if cut or len(rest) >= PIECE:
            yield rest + data[:cut]
            rest = data[cut:]
        else:
            rest += data
    if rest:
        yield rest


def around(line: str, start: int, end: int) -> str:
    """Return a line, or of a long one what is around the match."""
    if len(line) <= MAX_TEXT:
        return line
    left = max(min(start - MAX_TEXT // 4, len(line) - MAX_TEXT), 0)
    if end - left <= MAX_TEXT // 2:
        left = max(left - MAX_TEXT // 4, 0)
    shown = line[left : left + MAX_TEXT]
    return ("…" if left else "") + shown + ("…" if left + MAX_TEXT < len(line) else "")


def type_of(entry: os.DirEntry[str]) -> str:
    try:
        if entry.is_symlink():
            return "symlink"
        if entry.is_dir(follow_symlinks=False):
            return "directory"
        return "file" if entry.is_file(follow_symlinks=False) else "other"
    except OSError:
        return "other"


def device(path: str) -> int:
    try:
        return os.stat(path).st_dev
    except OSError:
        return -1


def answer(order: Dict[str, Any]) -> Dict[str, Any]:
    """Search, and return what there is to say of it."""
    try:
        search = Search(order)
    except BadPatternError as error:
        return {"error": error.what, "detail": error.detail}
    stopped = False
    search.limit(order["timeout_s"])
    try:
        search.run()
    except TimeUpError:
        stopped = True
    except SlowPatternError:
        return {"error": "slow", "detail": ""}
    except OSError as error:
        return {"error": "root", "detail": error.errno}
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return {"found": search.found, "more": search.more, "stopped": stopped, **search.counts}


def main() -> None:
    reply = answer(json.loads(sys.stdin.buffer.read()))
    sys.stdout.write("\n" + json.dumps(reply) + "\n")


if __name__ == "__main__":
    main()
