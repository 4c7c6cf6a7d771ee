"""Pure: the lines of a text that are most like a piece which is not in it.

Bounded in time whatever the text: no line is split off but those that something points to.
"""

from __future__ import annotations

import difflib
import itertools
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

_MAX_PROBES = 16
_MAX_HITS = 1000
"""Places of one probe that are counted."""
_MAX_CANDIDATES = 40
_MAX_SHOWN_LINES = 12
_MAX_SHOWN = 1500
"""Characters."""
_REACH = 500
"""Characters in which the ends of a line are looked for."""
_MARGIN = 50
"""Characters that are shown around what was found in a longer line."""
_MIN_LIKENESS = 0.4
_TOKEN = re.compile(r"\w+|[^\w\s]")
_MAX_TOKENS = 150


@dataclass(frozen=True, slots=True)
class Near:
    """Lines of a text, with their numbers."""

    shown: str
    white_space: bool
    """Whether they differ from what was looked for in white space only."""


def nearest_lines(text: str, wanted: str) -> Near | None:
    """Return the lines that are most like `wanted`, or None when none are."""
    wanted = wanted.strip("\n")
    height = min(wanted.count("\n") + 1, _MAX_SHOWN_LINES)
    reach = min(len(wanted) + _MARGIN, _REACH)
    tokens = _tokens(wanted)
    best, likeness = (0, 0), _MIN_LIKENESS
    for start in _candidates(text, wanted):
        end = _end(text, start, height, reach)
        found = difflib.SequenceMatcher(None, tokens, _tokens(text[start:end]), autojunk=False).ratio()
        if found > likeness:
            best, likeness = (start, end), found
    window = text[slice(*best)]
    if not window:
        return None
    squeezed = "".join(wanted.split())[:_MAX_SHOWN]
    return Near(_numbered(text, best[0], window), squeezed in "".join(window.split()))


def _candidates(text: str, wanted: str) -> list[int]:
    """Return where windows begin that lines or words of `wanted` point to, those with most pointers first."""
    votes = Counter[int]()
    for probe, lines_before in _probes(wanted):
        places = list(itertools.islice(_find(text, probe), _MAX_HITS))
        for place in places[:_MAX_CANDIDATES]:
            # What is everywhere tells little.
            votes[_start(text, place, lines_before)] += len(probe) * _MAX_HITS // len(places)
    return [start for start, _ in votes.most_common(_MAX_CANDIDATES)]


def _find(text: str, probe: str) -> Iterator[int]:
    place = text.find(probe)
    while place >= 0:
        yield place
        place = text.find(probe, place + len(probe))


def _probes(wanted: str) -> Iterator[tuple[str, int]]:
    """Return pieces that tell: whole lines, then long words; each with the number of lines before it."""
    lines = list(enumerate(wanted.split("\n", _MAX_PROBES)[:_MAX_PROBES]))
    whole = [(line.strip()[:_REACH], number) for number, line in lines if len(line.strip()) > 3]
    words = [(word, number) for number, line in lines for word in re.findall(r"\w{3,}", line[:_REACH])]
    seen = set[str]()
    for probes in (whole, words):
        fresh = {probe: number for probe, number in reversed(probes) if probe not in seen}
        seen |= set(fresh)
        yield from sorted(fresh.items(), key=lambda item: -len(item[0]))[:_MAX_PROBES]


def _start(text: str, place: int, lines_before: int) -> int:
    """Return where the line begins that is so many lines before a place."""
    start = place
    for _ in range(lines_before + 1):
        floor = max(start - _REACH, 0)
        before = text.rfind("\n", floor, start)
        if before < 0:
            return floor if floor == 0 else max(start - _MARGIN, 0)
        start = before
    return start + 1


def _end(text: str, start: int, height: int, reach: int) -> int:
    end = start
    for _ in range(height):
        ceiling = min(end + max(reach, _MARGIN), len(text))
        end = text.find("\n", end, ceiling) + 1
        if end == 0:
            return ceiling
    return end


def _tokens(text: str) -> list[str]:
    return _TOKEN.findall(text[: _MAX_TOKENS * 20])[:_MAX_TOKENS]


def _numbered(text: str, start: int, window: str) -> str:
    first = text.count("\n", 0, start) + 1
    lines = window[:_MAX_SHOWN].removesuffix("\n").split("\n")
    if start > 0 and text[start - 1] != "\n":
        lines[0] = f"…{lines[0]}"
    return "\n".join(f"{number}: {line.rstrip()}" for number, line in enumerate(lines, first))
