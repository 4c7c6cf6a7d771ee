"""Which cases there are to be: the ids of the catalogue that the suite follows. Other numbers are ours."""

from __future__ import annotations

from collections.abc import Collection, Mapping

IDS: Mapping[str, tuple[int, ...]] = {
    "A": (1, 2, 3, 5, 6, 7, 9, 10, 11, 13, 14, 15, 17),
    "B": (1, 2, 3, 5, 6, 7, 9, 10, 11, 13, 14, 15),
    "C": (1, 2, 3, 5, 6, 7, 9, 10, 11, 13, 14, 15, 17),
    "D": (1, 2, 3, 5, 6, 7, 9, 10, 11, 13, 14, 15, 17, 18, 19, 21, 22),
    "E": (1, 2, 3, 5, 6, 7, 9, 10, 11),
    "F": (1, 2, 3, 5, 6, 7, 9, 10, 11, 13, 14, 15, 17, 18, 19, 21, 22, 23),
    "G": (1, 2, 3, 5, 6, 7, 9, 10, 11),
    "H": (1, 2, 3, 5, 6, 7, 9, 10, 11, 13, 14, 15, 17, 18, 19),
    "I": (1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 13, 14, 15),
    "J": (1, 2, 3, 5, 6, 7, 9, 10, 11, 13),
    "K": (1, 2, 3, 5, 6, 7, 9, 10, 11, 13, 14, 15, 17),
    "L": (1, 2, 3, 5, 6, 7, 9, 10, 11, 13, 14),
}


def missing(there: Collection[str]) -> list[str]:
    """Return ids of the catalogue for which there is no case."""
    wanted = [f"{section}{number}" for section, numbers in IDS.items() for number in numbers]
    return [name for name in wanted if name not in there]
