"""A single-threaded event loop: file descriptors, timers, and the end of child processes."""

from __future__ import annotations

import heapq
import os
import select
import signal
import sys
import time
from typing import Callable, Dict, List, Optional, Tuple

Callback = Callable[[], object]

READ = select.EPOLLIN
WRITE = select.EPOLLOUT


class Timer:
    """A pending callback; `cancel` makes it a no-op."""

    __slots__ = ("callback", "when")

    def __init__(self, when: float, callback: Callback) -> None:
        self.when = when
        self.callback: Optional[Callback] = callback

    def cancel(self) -> None:
        self.callback = None

    def __lt__(self, other: Timer) -> bool:
        return self.when < other.when


class Loop:
    """Calls back when a descriptor is ready, a time has come, or a child has changed."""

    def __init__(self, on_child: Callback) -> None:
        self._epoll = select.epoll()
        self._callbacks: Dict[int, Callback] = {}
        self._timers: List[Timer] = []
        self._on_child = on_child
        self.soon: List[Callback] = []
        """Called once, before anything is waited for."""
        wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        # The handler itself does nothing; the byte in the pipe is what wakes the loop, without a race.
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        self._wake = wake_read
        self.watch(wake_read, READ, self._woken)

    def watch(self, fd: int, events: int, callback: Callback) -> None:
        if fd in self._callbacks:
            self._epoll.modify(fd, events)
        else:
            self._epoll.register(fd, events)
        self._callbacks[fd] = callback

    def unwatch(self, fd: int) -> None:
        if self._callbacks.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def later(self, delay: float, callback: Callback) -> Timer:
        timer = Timer(time.monotonic() + delay, callback)
        heapq.heappush(self._timers, timer)
        return timer

    def run(self) -> None:
        while True:
            self._run_soon()
            for fd, _events in self._poll():
                callback = self._callbacks.get(fd)
                if callback is not None and not _done(callback):
                    # It would be called for ever.
                    self.unwatch(fd)
            self._run_timers()

    def _run_soon(self) -> None:
        if self.soon:
            todo, self.soon = self.soon, []
            for callback in todo:
                _done(callback)

    def _poll(self) -> List[Tuple[int, int]]:
        timeout = -1.0
        while self._timers and self._timers[0].callback is None:
            heapq.heappop(self._timers)
        if self._timers:
            timeout = max(0.0, self._timers[0].when - time.monotonic())
        if self.soon:
            timeout = 0.0
        return self._epoll.poll(timeout)

    def _run_timers(self) -> None:
        now = time.monotonic()
        while self._timers and self._timers[0].when <= now:
            callback = heapq.heappop(self._timers).callback
            if callback is not None:
                _done(callback)

    def _woken(self) -> None:
        try:
            os.read(self._wake, 4096)
        except BlockingIOError:
            pass
        self._on_child()


def _done(callback: Callback) -> bool:
    """Call it. A fault of ours must not end the sandbox; what it was goes to the engine's stderr stream."""
    try:
        callback()
    except Exception:
        sys.excepthook(*sys.exc_info())
        return False
    return True
