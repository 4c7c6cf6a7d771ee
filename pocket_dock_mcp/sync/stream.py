# Written by scripts/mirror.py from async_/stream.py; change that, and run scripts/mirror.py again.
"""`ExecStream`: the output of a program, piece by piece as it comes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

from pocket_dock_mcp.async_.stream import AsyncExecStream, StreamChunk
from pocket_dock_mcp.models import RunResult as ExecResult
from pocket_dock_mcp.sync.facade import Facade


class ExecStream(Facade[Any], of=AsyncExecStream):
    """The output of a program as it comes; an iterator of `StreamChunk`. Made by `Container.run`.

    A program that prints faster than the loop takes it waits. Leaving the loop before its end kills the
    program, and so does cancelling it.

        for chunk in c.run("make all", stream=True):
            print(chunk.data, end="")
    """

    def __iter__(self) -> Iterator[StreamChunk]:
        return self._loop(self._async.__aiter__())

    def __next__(self) -> StreamChunk:
        return cast("StreamChunk", self._next(self._async.__anext__))

    @property
    def result(self) -> ExecResult:
        """What came of the program, when the loop is over: how it ended, and all output up to `max_output`.

        Raises:
            StreamNotEnded: the loop is not over.
        """
        return cast("ExecResult", self._async.result)

    def close(self) -> None:
        """Kill the program, if it has not ended, and see it end. Idempotent; `result` tells then."""
        self._call(self._async.aclose)
