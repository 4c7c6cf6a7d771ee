"""Pure: whether what a caller has given is of its type. Not everybody has a checker for that."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from pocket_dock_mcp.errors import InvalidArgumentError

_IN_WORDS = {str: "a string", int: "a whole number", bool: "True or False", list: "a list", tuple: "a tuple"}


def is_whole(value: object) -> bool:
    """Whether it is a whole number; True and False are none."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: object) -> bool:
    """Whether it is a number."""
    return is_whole(value) or isinstance(value, float)


def check_whole(name: str, value: object) -> None:
    """Refuse what is no whole number. Raises `InvalidArgumentError`."""
    if not is_whole(value):
        message = f"{name} is {value!r}; it must be a whole number."
        raise InvalidArgumentError(message)


def check_kinds(given: Mapping[str, object], kinds: Mapping[str, tuple[type, ...]]) -> None:
    """Refuse arguments that are not of the types that they may be of. None is what is left out.

    Raises:
        InvalidArgumentError: names the first one.
    """
    for name, kind in kinds.items():
        value = given[name]
        is_odd = isinstance(value, bool) and bool not in kind
        if value is not None and (is_odd or not isinstance(value, kind)):
            wanted = " or ".join(_IN_WORDS.get(one, one.__name__) for one in kind)
            message = f"{name} is of the type {type(value).__name__}; it must be {wanted}."
            raise InvalidArgumentError(message)


def check_choice(name: str, value: object, choices: Collection[str]) -> None:
    """Refuse what is none of a few words. None is what is left out. Raises `InvalidArgumentError`."""
    if value is not None and not (isinstance(value, str) and value in choices):
        message = f"{name} is {value!r}; it must be {' or '.join(map(repr, choices))}."
        raise InvalidArgumentError(message)
