"""`LeftRuns`: runs that were begun here and left to themselves, for whoever asks for them again."""

from __future__ import annotations

from collections.abc import Iterator

from pocket_dock_mcp.container.run import AsyncRun
from pocket_dock_mcp.container.store import OutputStore

REMEMBERED = 64
"""Ended ones that are still there, of those that nobody holds any more."""


class LeftRuns:
    """All that go on, and the latest of those that have ended, while there is room for their output.

    To be forgotten here ends no handle: one that somebody holds keeps its output.
    """

    def __init__(self, store: OutputStore) -> None:
        self._store = store
        self._runs: dict[str, AsyncRun] = {}

    def __iter__(self) -> Iterator[AsyncRun]:
        return iter(tuple(self._runs.values()))

    def add(self, run: AsyncRun) -> None:
        """Remember one that has just been started."""
        self.make_room()
        self._runs[run.id] = run

    def make_room(self) -> None:
        """Forget the oldest that have ended: what is about to be started has a right to room."""
        ended = [run.id for run in self._runs.values() if not run.is_running]
        for count, run_id in enumerate(ended):
            if len(ended) - count < REMEMBERED and not self._store.is_short_of_room:
                return
            del self._runs[run_id]

    def clear(self) -> None:
        """Forget all."""
        self._runs.clear()
