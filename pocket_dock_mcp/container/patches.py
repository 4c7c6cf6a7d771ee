"""Pure: a text in which pieces are replaced, and the unified diff of it all.

Each replacement is known by its place, so the diff costs what was changed and not what the file holds.
"""

from __future__ import annotations

import difflib
import itertools
import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

MAX_DIFF = 4000
"""Characters of a diff."""
MAX_LINE = 200
"""Characters of one line in it."""
_CONTEXT = 2
"""Lines before and after a change."""
_REACH = 2000
"""Characters before and after a change in which their ends are looked for: lines can be megabytes."""
_MAX_PATCHES = 200
_MAX_LINES = 200
"""Of one hunk."""


@dataclass(frozen=True, slots=True)
class _Patch:
    """``old`` of the first text has become ``new`` of the present one: pairs of start and end."""

    old: tuple[int, int]
    new: tuple[int, int]


class Patches:
    """A text and the changes that led to it; outside of them it is as it was."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._first = text
        self._patches: list[_Patch] = []
        self._known: float = math.inf
        """Up to where the patches are kept: a diff shows no more than the first of them."""

    def replace(self, places: Sequence[int], length: int, new: str) -> None:
        """Replace the `length` characters at each place; the places ascend and do not overlap."""
        self._track(self._near(places, length), length, len(new) - length)
        pieces = []
        done = 0
        for place in places:
            pieces += [self.text[done:place], new]
            done = place + length
        self.text = "".join([*pieces, self.text[done:]])

    def _near(self, places: Sequence[int], length: int) -> Sequence[int]:
        """Return the places of which all that came before is known."""
        if self._known == math.inf:
            return places
        count = bisect_right(places, self._known - length)
        if count < len(places) and places[count] < self._known:
            self._known = places[count]
            self._patches = [patch for patch in self._patches if patch.new[1] <= self._known]
        return places[:count]

    def _track(self, places: Sequence[int], length: int, growth: int) -> None:
        merged = list(itertools.islice(_merge(self._patches, places, length, growth), _MAX_PATCHES + 1))
        self._known += growth * len(places)
        self._patches = merged[:_MAX_PATCHES]
        if len(merged) > _MAX_PATCHES:
            self._known = self._patches[-1].new[1]

    def diff(self) -> tuple[str, bool]:
        """Return the hunks of a unified diff, as many as fit, and whether something is left out."""
        out: list[str] = []
        size = 0
        truncated = self._known != math.inf
        hunks = _Hunks(self._first, self.text)
        for patch in _in_whole_lines(self._first, self.text, self._patches):
            shown, whole = hunks.render(patch)
            truncated = truncated or not whole
            size += len(shown)
            if size > MAX_DIFF:
                # The first is shown as far as it goes, any other whole or not at all.
                return "".join(out) or _head(shown), True
            out.append(shown)
        return "".join(out), truncated


def _merge(patches: Sequence[_Patch], places: Sequence[int], length: int, growth: int) -> Iterator[_Patch]:
    """Return the patches after one more edit: those that touch its places become one with them."""
    earlier, later = list(reversed(patches)), list(reversed(places))
    ahead = 0  # of a place in the present text, compared with the same place in the first one
    shift = 0  # by which the edit moves a place of the present text
    while earlier or later:
        start = end = min([patch.new[0] for patch in earlier[-1:]] + later[-1:])
        old_start, new_start = start - ahead, start + shift
        while True:
            if earlier and earlier[-1].new[0] <= end:
                patch = earlier.pop()
                end = max(end, patch.new[1])
                ahead = patch.new[1] - patch.old[1]
            elif later and later[-1] <= end:
                end = max(end, later.pop() + length)
                shift += growth
            else:
                break
        yield _Patch((old_start, end - ahead), (new_start, end + shift))


def _in_whole_lines(old: str, new: str, patches: Sequence[_Patch]) -> Iterator[_Patch]:
    """Return the patches with the lines around them; those whose lines touch become one."""
    pending: _Patch | None = None
    for patch in patches:
        # As many lines after it in both texts, though it may end with a line in one of them alone.
        after = _CONTEXT + (not (_begins_line(old, patch.old[1]) and _begins_line(new, patch.new[1])))
        grown = _Patch(_grown(old, *patch.old, after), _grown(new, *patch.new, after))
        if pending is not None and grown.old[0] <= pending.old[1]:
            grown = _Patch((pending.old[0], grown.old[1]), (pending.new[0], grown.new[1]))
        elif pending is not None:
            yield pending
        pending = grown
    if pending is not None:
        yield pending


def _begins_line(text: str, place: int) -> bool:
    return place == 0 or text[place - 1] == "\n"


def _grown(text: str, start: int, end: int, after: int) -> tuple[int, int]:
    first, last = max(start - _REACH, 0), min(end + _REACH, len(text))
    for _ in range(_CONTEXT + 1):
        start = text.rfind("\n", first, max(start, first))
        if start < 0:
            start = first - 1
            break
    for _ in range(after):
        end = text.find("\n", end, last) + 1
        if end == 0:
            end = last
            break
    return start + 1, end


class _Hunks:
    """Renders hunks in ascending order; counts the lines up to them."""

    def __init__(self, old: str, new: str) -> None:
        self._texts = (old, new)
        self._counted = [0, 0]
        self._lines = [1, 1]

    def render(self, hunk: _Patch) -> tuple[str, bool]:
        """Return one hunk of a unified diff, and whether it is all of it."""
        before, after = (_split(self._texts[0][slice(*hunk.old)]), _split(self._texts[1][slice(*hunk.new)]))
        starts = self._line(0, hunk.old[0]), self._line(1, hunk.new[0])
        header = f"@@ -{starts[0]},{len(before)} +{starts[1]},{len(after)} @@\n"
        whole = max(len(before), len(after)) <= _MAX_LINES
        return header + "".join(_compare(before[:_MAX_LINES], after[:_MAX_LINES])), whole

    def _line(self, which: int, place: int) -> int:
        self._lines[which] += self._texts[which].count("\n", self._counted[which], place)
        self._counted[which] = place
        return self._lines[which]


def _split(text: str) -> list[str]:
    # Not `splitlines`, which knows ends of lines that editors and compilers do not.
    lines = text.split("\n")
    return lines[:-1] if lines[-1] == "" else lines


def _compare(before: list[str], after: list[str]) -> Iterator[str]:
    matcher = difflib.SequenceMatcher(None, before, after, autojunk=False)
    for tag, i, j, k, m in matcher.get_opcodes():
        if tag == "equal":
            yield from (_line(" ", line, 0) for line in before[i:j])
            continue
        same = [_common(one, other) for one, other in zip(before[i:j], after[k:m], strict=False)]
        same += [0] * max(j - i, m - k)
        yield from (_line("-", line, at) for line, at in zip(before[i:j], same, strict=False))
        yield from (_line("+", line, at) for line, at in zip(after[k:m], same, strict=False))


def _common(one: str, other: str) -> int:
    """Return how many characters two lines begin with in common."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _line(sign: str, line: str, at: int) -> str:
    """Return a line of a diff; of a long one what is around `at`."""
    line = line.removesuffix("\r")
    if len(line) <= MAX_LINE:
        return f"{sign}{line}\n"
    start = min(max(at - MAX_LINE // 2, 0), len(line) - MAX_LINE)
    end = start + MAX_LINE
    return f"{sign}{'…' if start else ''}{line[start:end]}{'…' if end < len(line) else ''}\n"


def _head(text: str) -> str:
    """Return as many whole lines as fit."""
    return text[: text.rfind("\n", 0, MAX_DIFF) + 1]
