"""Pure: two texts as a unified diff, in bounded time whatever they are.

Lines that both texts have exactly once are what everything else is aligned by; only what is between two of
them, and short, is compared line with line.
"""

from __future__ import annotations

import difflib
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

MAX_LINE = 400
"""Characters of one line that are shown."""
_CONTEXT = 3
_MAX_COMPARED = 200
"""Lines between two anchors that are compared with each other."""
_MAX_WORK = 2_000_000
"""Pairs of lines that are compared in all."""

Block = tuple[int, int, int]
"""Where equal lines are in the old text, where in the new one, and how many."""


@dataclass(frozen=True, slots=True)
class _Change:
    """Lines of the old text and what has become of them."""

    old: tuple[int, int]
    new: tuple[int, int]


def unified(old: str, new: str, max_characters: int) -> tuple[str, bool]:
    """Return the hunks, as many as fit, and whether something is left out. Nothing for equal texts."""
    before, after = _lines(old), _lines(new)
    out: list[str] = []
    room = max_characters
    cut = False
    for hunk in _hunks(_changes(before, after)):
        for line in _render(hunk, before, after):
            shown = line if len(line) <= MAX_LINE else f"{line[:MAX_LINE]}…"
            cut = cut or shown is not line
            room -= len(shown) + 1
            if room < 0:
                return "".join(out), True
            out.append(f"{shown}\n")
    return "".join(out), cut


def _lines(text: str) -> list[str]:
    """Return the lines with their ends, so that the last one differs if only one text ends with a newline."""
    lines = text.split("\n")
    whole = [f"{line}\n" for line in lines[:-1]]
    return [*whole, lines[-1]] if lines[-1] else whole


def _changes(old: Sequence[str], new: Sequence[str]) -> Iterator[_Change]:
    at_old = at_new = 0
    for block_old, block_new, count in [*_matching(old, new), (len(old), len(new), 0)]:
        if block_old > at_old or block_new > at_new:
            yield _Change((at_old, block_old), (at_new, block_new))
        at_old, at_new = block_old + count, block_new + count


def _matching(old: Sequence[str], new: Sequence[str]) -> list[Block]:
    """Return blocks of equal lines, ascending in both texts."""
    first, last = _common_ends(old, new, 0, len(old), 0, len(new))
    blocks: list[Block] = [(0, 0, first)]
    work = _MAX_WORK
    at_old = at_new = first
    end_old, end_new = len(old) - last, len(new) - last
    for anchor_old, anchor_new in [*_anchors(old, new, first, end_old, end_new), (end_old, end_new)]:
        if anchor_old < at_old or anchor_new < at_new:
            # A match before it has grown over it.
            continue
        head, tail = _common_ends(old, new, at_old, anchor_old, at_new, anchor_new)
        blocks.append((at_old, at_new, head))
        rows, columns = anchor_old - at_old - head - tail, anchor_new - at_new - head - tail
        if 0 < rows <= _MAX_COMPARED and 0 < columns <= _MAX_COMPARED and rows * columns <= work:
            work -= rows * columns
            blocks += _compared(old, new, (at_old + head, rows), (at_new + head, columns))
        blocks.append((anchor_old - tail, anchor_new - tail, tail))
        at_old, at_new = anchor_old, anchor_new
    blocks.append((end_old, end_new, last))
    return [block for block in blocks if block[2]]


def _compared(
    old: Sequence[str], new: Sequence[str], in_old: tuple[int, int], in_new: tuple[int, int]
) -> Iterator[Block]:
    start_old, start_new = in_old[0], in_new[0]
    matcher = difflib.SequenceMatcher(
        None,
        old[start_old : start_old + in_old[1]],
        new[start_new : start_new + in_new[1]],
        autojunk=False,
    )
    for found_old, found_new, count in matcher.get_matching_blocks():
        yield start_old + found_old, start_new + found_new, count


def _common_ends(
    old: Sequence[str], new: Sequence[str], old_start: int, old_end: int, new_start: int, new_end: int
) -> tuple[int, int]:
    """Return how many lines are equal at the beginning of two stretches, and at the end of the rest."""
    shorter = min(old_end - old_start, new_end - new_start)
    first = 0
    while first < shorter and old[old_start + first] == new[new_start + first]:
        first += 1
    last = 0
    while last < shorter - first and old[old_end - 1 - last] == new[new_end - 1 - last]:
        last += 1
    return first, last


def _anchors(
    old: Sequence[str], new: Sequence[str], start: int, old_end: int, new_end: int
) -> list[tuple[int, int]]:
    """Return the longest ascending row of lines that are in both texts exactly once."""
    counts_old, counts_new = Counter(old[start:old_end]), Counter(new[start:new_end])
    places = {new[at]: at for at in range(start, new_end) if counts_new[new[at]] == 1}
    pairs = [
        (at, places[old[at]])
        for at in range(start, old_end)
        if counts_old[old[at]] == 1 and old[at] in places
    ]
    # Patience sorting: the top of each pile, and for each pair what lies on the pile before it.
    tops: list[int] = []
    top_pairs: list[int] = []
    before: list[int] = []
    for number, (_, place) in enumerate(pairs):
        pile = bisect_left(tops, place)
        before.append(top_pairs[pile - 1] if pile else -1)
        tops[pile : pile + 1] = [place]
        top_pairs[pile : pile + 1] = [number]
    row = []
    at = top_pairs[-1] if top_pairs else -1
    while at >= 0:
        row.append(pairs[at])
        at = before[at]
    return row[::-1]


def _hunks(changes: Iterator[_Change]) -> Iterator[list[_Change]]:
    """Return the changes in groups whose context touches."""
    group: list[_Change] = []
    for change in changes:
        if group and change.old[0] - group[-1].old[1] > 2 * _CONTEXT:
            yield group
            group = []
        group.append(change)
    if group:
        yield group


def _render(group: Sequence[_Change], old: Sequence[str], new: Sequence[str]) -> Iterator[str]:
    lead = min(_CONTEXT, group[0].old[0])
    trail = min(_CONTEXT, len(old) - group[-1].old[1])
    old_range = (group[0].old[0] - lead, group[-1].old[1] + trail)
    new_range = (group[0].new[0] - lead, group[-1].new[1] + trail)
    yield f"@@ -{_range(*old_range)} +{_range(*new_range)} @@"
    at = old_range[0]
    for change in group:
        yield from _marked(" ", old[at : change.old[0]])
        yield from _marked("-", old[slice(*change.old)])
        yield from _marked("+", new[slice(*change.new)])
        at = change.old[1]
    yield from _marked(" ", old[at : old_range[1]])


def _marked(mark: str, lines: Sequence[str]) -> Iterator[str]:
    for line in lines:
        yield mark + line.removesuffix("\n")
        if not line.endswith("\n"):
            yield "\\ No newline at end of file"


def _range(start: int, end: int) -> str:
    # As diff has it: of no lines, the line before them.
    count = end - start
    return f"{start + (count > 0)},{count}" if count != 1 else str(start + 1)
