"""Pure: whether what a caller has given is of its type. Not everybody has a checker for that."""

from __future__ import annotations


def is_text(value: object) -> bool:
    """Whether it is a string."""
    return isinstance(value, str)


def is_whole(value: object) -> bool:
    """Whether it is a whole number; True and False are none."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: object) -> bool:
    """Whether it is a number."""
    return is_whole(value) or isinstance(value, float)
