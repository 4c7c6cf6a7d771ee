"""Calls into the event loop of the blocking SDK, and Ctrl-C before one has begun there."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time

import pytest

from pocket_dock_mcp.sync.portal import Portal


def line_of_run() -> int:
    """Return the line of `Portal.run` at which the main thread waits; 0 if it does not."""
    main = threading.main_thread().ident
    assert main is not None
    frame = sys._current_frames().get(main)
    is_waiting = frame is not None and frame.f_code.co_filename == threading.__file__
    while frame is not None and frame.f_code is not Portal.run.__code__:
        frame = frame.f_back
    return frame.f_lineno if is_waiting and frame is not None else 0


def line_changes(line: int) -> int:
    """Wait until it is another one."""
    end = time.monotonic() + 10
    while (now := line_of_run()) in (0, line) and time.monotonic() < end:
        time.sleep(0.001)
    return now


def test_a_call_that_is_given_up_before_it_begins_never_begins() -> None:
    portal = Portal()
    release = threading.Event()
    begun: list[int] = []

    async def work() -> None:
        begun.append(1)
        await asyncio.sleep(600)

    def interrupt() -> None:
        line = line_changes(0)
        os.kill(os.getpid(), signal.SIGINT)
        line_changes(line)
        release.set()

    portal.soon(lambda: release.wait(30))
    striker = threading.Thread(target=interrupt)
    striker.start()
    try:
        started = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            portal.run(work)
        assert time.monotonic() - started < 10
    finally:
        release.set()
        striker.join()
        portal.end()
    assert begun == []
