"""Signals that are to end a command: they end what it does in an orderly way, or go where it wants them."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import anyio

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PASSED_ON = (*ENDING, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
"""What a program gets that a command runs."""

Taker = Callable[[int], None]


class Signals:
    """Of one command, on its event loop. Unless somebody takes them, the first that comes cancels it."""

    def __init__(self, scope: anyio.CancelScope) -> None:
        self.ended_by: int | None = None
        """The signal that has cancelled the command."""
        self._scope = scope
        self._taker: Taker = self._cancel

    @contextmanager
    def handled(self) -> Iterator[None]:
        """Handle those of `ENDING` that nobody above us wants ignored, as `nohup` does."""
        loop = asyncio.get_running_loop()
        wanted = [number for number in ENDING if signal.getsignal(number) is not signal.SIG_IGN]
        for number in wanted:
            loop.add_signal_handler(number, self._got, number)
        try:
            yield
        finally:
            for number in wanted:
                loop.remove_signal_handler(number)

    @contextmanager
    def taken(self, taker: Taker) -> Iterator[None]:
        """Have `taker` called with each signal that a program should get, while the context lasts."""
        loop, before = asyncio.get_running_loop(), self._taker
        more = [number for number in PASSED_ON if signal.getsignal(number) is signal.SIG_DFL]
        for number in more:
            loop.add_signal_handler(number, self._got, number)
        self._taker = taker
        try:
            yield
        finally:
            self._taker = before
            for number in more:
                loop.remove_signal_handler(number)

    def _got(self, number: int) -> None:
        self._taker(number)

    def _cancel(self, number: int) -> None:
        if self.ended_by is None:
            self.ended_by = number
            self._scope.cancel()
