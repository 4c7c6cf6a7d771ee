"""A single-threaded event loop: file descriptors, timers, and the end of child processes."""

import heapq
import os
import select
import signal
import time

READ = select.EPOLLIN
WRITE = select.EPOLLOUT


class Timer:
    """A pending callback; `cancel` makes it a no-op."""

    __slots__ = ("callback", "when")

    def __init__(self, when, callback):
        self.when = when
        self.callback = callback

    def cancel(self):
        self.callback = None

    def __lt__(self, other):
        return self.when < other.when


class Loop:
    """Calls back when a descriptor is ready, a time has come, or a child has changed."""

    def __init__(self, on_child):
        self._epoll = select.epoll()
        self._callbacks = {}
        self._timers = []
        self._on_child = on_child
        wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        # The handler itself does nothing; the byte in the pipe is what wakes the loop, without a race.
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        self._wake = wake_read
        self.watch(wake_read, READ, self._woken)

    def watch(self, fd, events, callback):
        if fd in self._callbacks:
            self._epoll.modify(fd, events)
        else:
            self._epoll.register(fd, events)
        self._callbacks[fd] = callback

    def unwatch(self, fd):
        if self._callbacks.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def later(self, delay, callback):
        timer = Timer(time.monotonic() + delay, callback)
        heapq.heappush(self._timers, timer)
        return timer

    def run(self):
        while True:
            for fd, _events in self._poll():
                callback = self._callbacks.get(fd)
                if callback is not None:
                    callback()
            self._run_timers()

    def _poll(self):
        timeout = -1
        while self._timers and self._timers[0].callback is None:
            heapq.heappop(self._timers)
        if self._timers:
            timeout = max(0.0, self._timers[0].when - time.monotonic())
        return self._epoll.poll(timeout)

    def _run_timers(self):
        now = time.monotonic()
        while self._timers and self._timers[0].when <= now:
            callback = heapq.heappop(self._timers).callback
            if callback is not None:
                callback()

    def _woken(self):
        try:
            os.read(self._wake, 4096)
        except BlockingIOError:
            pass
        self._on_child()
