"""What all mirrored classes have in common: an object of the other colour, and the way to its event loop."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, Generic, ParamSpec, TypeVar, cast

from typing_extensions import Self

from pocket_dock_mcp.sync.callbacks import Worker
from pocket_dock_mcp.sync.portal import Portal, portal

A = TypeVar("A")
F = TypeVar("F")
P = ParamSpec("P")
T = TypeVar("T")

CALLBACK_DEADLINE = 10.0
"""Seconds that a call waits, at its end, for callbacks that are still to hear of what was before."""
_ENDS = frozenset({"shutdown", "aclose", "close", "__aexit__"})
"""In a process that was forked these do nothing: what they would end is its parent's."""
_HEARD_AFTER = frozenset({"wait", "send_and_wait", "shutdown", "aclose", "push", "pull"})
"""When these return, callbacks have heard of all that was before."""

_worker = Worker()
"""For callbacks of functions."""
_mirrors: dict[type[Any], type[Facade[Any]]] = {}
"""Classes of the other colour, and what they are here."""


class Facade(Generic[A]):
    """An object of the asynchronous SDK, with methods that block. Any thread may call them."""

    _async: A
    _portal: Portal

    def __init_subclass__(cls, of: type[Any] | None = None) -> None:
        super().__init_subclass__()
        if of is not None:
            _mirrors[of] = cls

    @classmethod
    def _of(cls, wrapped: object) -> Self:
        made = cls.__new__(cls)
        cast("Facade[Any]", made)._wrap(wrapped)  # noqa: SLF001  # of this very class
        return made

    def _wrap(self, wrapped: A) -> None:
        self._async = wrapped
        self._portal = portal()
        self._worker = Worker()

    def __repr__(self) -> str:
        return repr(self._async).replace("<Async", "<", 1)

    def _call(self, function: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        name = getattr(function, "__name__", "")
        if name in _ENDS and not self._portal.is_ours:
            return cast("T", None)
        try:
            result = self._portal.run(function, *args, **kwargs)
        except (KeyboardInterrupt, SystemExit):
            # What is only waited for is not ended by ending the wait.
            interrupted = getattr(self._async, "_interrupted", None)
            if interrupted is not None:
                self._portal.run(interrupted)
            raise
        if name in _HEARD_AFTER:
            self._worker.wait(CALLBACK_DEADLINE)
        return result

    def _mirrored(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._mirrored(one) for one in value]
        made = mirrored(value)
        if isinstance(made, Facade):
            # What is heard of the one and of the other is heard in order.
            made._worker = self._worker  # noqa: SLF001  # of this very class
        return made

    def _here(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call what does not wait, in the event loop's thread."""

        async def called() -> T:
            return function(*args, **kwargs)

        return self._portal.run(called)

    def _next(self, function: Callable[[], Awaitable[T]]) -> T:
        try:
            return self._call(function)
        except StopAsyncIteration:
            raise StopIteration from None

    def _loop(self, loop: AsyncIterator[T]) -> Iterator[T]:
        return _Loop(self, loop)

    def _aside(self, function: F) -> F:
        """Return a callback that is called in the thread for callbacks."""
        return _passing(self._worker, function)

    def _with_me(self, function: Callable[..., object]) -> Callable[..., object]:
        """Return a callback that gets this object in place of the one of the other colour."""
        return _passing(self._worker, function, self)


class _Loop(Iterator[T]):
    """One loop over a stream: when it is left, so is the loop of the other colour."""

    def __init__(self, stream: Facade[Any], loop: AsyncIterator[T]) -> None:
        self._stream = stream
        self._of_loop = loop

    def __next__(self) -> T:
        return self._stream._next(self._of_loop.__anext__)  # noqa: SLF001  # its own class's


def _passing(worker: Worker, function: F, *first: object) -> F:
    # What is no callback is refused as it is, by who takes it.
    if not callable(function) or inspect.iscoroutinefunction(function):
        return function
    return cast("F", worker.passing(function, *first))


def mirrored(value: Any) -> Any:
    """Return what an object of the other colour is here; other values are the same in both."""
    mirror = _mirrors.get(type(value))
    return value if mirror is None else mirror._of(value)  # noqa: SLF001  # not for users


def aside(function: F) -> F:
    """Return a callback that is called in the thread for callbacks."""
    return _passing(_worker, function)


def call(function: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function of the other colour and wait for what it returns."""
    try:
        return portal().run(function, *args, **kwargs)
    finally:
        _worker.wait(CALLBACK_DEADLINE)
