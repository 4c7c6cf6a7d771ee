"""Callbacks of the blocking SDK: in a thread of their own, one after the other, so that they may block."""

from __future__ import annotations

import logging
import os
import queue
import threading
from collections.abc import Callable
from typing import Any

logger = logging.getLogger(__name__)

MAX_WAITING = 64 * 1024 * 1024
"""Characters that may wait for slow callbacks. More are not told of, and that is logged."""


class Worker:
    """Calls what it is told to, in order; its thread begins with the first call and ends when it is idle."""

    IDLE_S = 1.0

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[tuple[Callable[..., object], tuple[Any, ...]]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._waiting = 0
        self._dropped = False

    def call(self, function: Callable[..., object], *args: Any) -> None:
        """Have it called, and do not wait."""
        size = _size(args)
        with self._lock:
            if self._waiting + size > MAX_WAITING:
                if not self._dropped:
                    logger.warning("callbacks are too slow: they are not told of all output")
                self._dropped = True
                return
            self._dropped = False
            self._waiting += size
            self._calls.put((function, args))
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, name="pocket-dock-callbacks", daemon=True)
                self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                function, args = self._calls.get(timeout=self.IDLE_S)
            except queue.Empty:
                with self._lock:
                    if self._calls.empty():
                        self._thread = None
                        return
                continue
            try:
                function(*args)
            except Exception:
                logger.exception("a callback failed")
            with self._lock:
                self._waiting -= _size(args)

    def wait(self, timeout: float) -> None:
        """Wait until all that it was told to call was called, or the time is over; not from within."""
        with self._lock:
            thread = self._thread
        if thread is None or thread is threading.current_thread():
            return
        done = threading.Event()
        self.call(done.set)
        done.wait(timeout)

    def passing(self, function: Callable[..., object], *first: object) -> Callable[..., object]:
        """Return what has `function` called by this worker, with `first` in place of its first arguments."""
        pid = os.getpid()

        def passed(*args: object) -> None:
            if os.getpid() == pid:
                self.call(function, *first, *args[len(first) :])

        return passed


def _size(args: tuple[Any, ...]) -> int:
    return sum(len(one) for one in args if isinstance(one, str))
