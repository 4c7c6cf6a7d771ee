"""The error tree as callers rely on it."""

from __future__ import annotations

import inspect
from typing import cast

from pocket_dock_mcp import errors
from pocket_dock_mcp.errors import PocketDockError

CLASSES = cast(
    "list[type[PocketDockError]]",
    [cls for _, cls in inspect.getmembers(errors, inspect.isclass) if cls.__module__ == errors.__name__],
)


def test_every_error_descends_from_the_root() -> None:
    assert all(issubclass(cls, PocketDockError) for cls in CLASSES)


def test_every_leaf_has_a_code_of_its_own() -> None:
    leaves = [
        cls for cls in CLASSES if not any(other is not cls and issubclass(other, cls) for other in CLASSES)
    ]
    codes = [cls.code for cls in leaves]

    assert len(set(codes)) == len(codes)


def test_every_error_is_drawn_in_the_tree() -> None:
    assert all(cls.__name__ in (errors.__doc__ or "") for cls in CLASSES if cls is not PocketDockError)


def test_errors_are_caught_by_their_standard_parents() -> None:
    assert issubclass(errors.SandboxFileNotFoundError, FileNotFoundError)
    assert issubclass(errors.EngineTimeoutError, TimeoutError)
    assert issubclass(errors.InvalidArgumentError, ValueError)


def test_a_message_is_capped_and_cannot_act_on_a_terminal() -> None:
    error = PocketDockError("\x1b[2J" + "x" * 10_000_000, hint="do\nthis")

    assert len(str(error)) < 3000
    assert "\x1b" not in str(error)
    assert "\n" not in str(error)


def test_an_error_with_an_os_error_parent_keeps_its_message() -> None:
    error = errors.SandboxFileNotFoundError("'/x' does not exist.", hint="Look.")

    assert str(error) == "'/x' does not exist. Look."
    assert (error.code, error.hint) == ("file_not_found", "Look.")
