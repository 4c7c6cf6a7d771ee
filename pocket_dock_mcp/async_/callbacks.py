"""Who wants to hear what a container's detached runs print, and how they end."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ParamSpec

from pocket_dock_mcp.engine.base import STDERR, STDOUT
from pocket_dock_mcp.errors import InvalidArgumentError

if TYPE_CHECKING:
    from pocket_dock_mcp.async_.container import AsyncContainer

P = ParamSpec("P")
logger = logging.getLogger(__name__)

Remove = Callable[[], None]
"""Call it to undo what it was returned by. Any number of times."""


class Listeners:
    """Functions that are called one after the other, as they were registered; what one raises is logged."""

    def __init__(self) -> None:
        self._functions: list[tuple[object, Callable[..., object]]] = []

    def __bool__(self) -> bool:
        return bool(self._functions)

    def add(self, function: Callable[..., object]) -> Remove:
        """Call it from now on; returns what undoes it.

        Raises:
            InvalidArgumentError: it cannot be called, or only be awaited.
        """
        _require_callable(function)
        if inspect.iscoroutinefunction(function):
            message = "A callback is an async function, and nobody would await it."
            raise InvalidArgumentError(message, hint="Give an ordinary one; it may start a task.")
        # The same function may be registered twice.
        entry = (object(), function)
        self._functions.append(entry)

        def remove() -> None:
            if entry in self._functions:
                self._functions.remove(entry)

        return remove

    def call(self, *args: Any) -> None:
        """Call all of them."""
        for entry in tuple(self._functions):
            # One that was called before may have removed it.
            if entry in self._functions:
                try:
                    entry[1](*args)
                except Exception:
                    logger.exception("a callback failed")


def _require_callable(function: object) -> None:
    if not callable(function):
        message = f"A callback is of the type {type(function).__name__}; it must be a function."
        raise InvalidArgumentError(message)


class Callbacks:
    """The listeners of one container."""

    def __init__(self) -> None:
        self._output = {STDOUT: Listeners(), STDERR: Listeners()}
        self.exit = Listeners()

    def output(self, stream: int) -> Listeners:
        """Return those who listen to a stream."""
        return self._output[stream]

    def heard(self, container: AsyncContainer, stream: int, text: str) -> None:
        """Tell what a detached run has printed."""
        if text:
            self._output[stream].call(container, text)
