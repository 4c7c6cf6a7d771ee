"""The runs of one sandbox: what was started, under which key, and what of it has been told already."""

from __future__ import annotations

import collections
import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace

import anyio
from typing_extensions import Unpack

from pocket_dock_mcp.container.checkpoints import prepare
from pocket_dock_mcp.container.core import LiveContainer
from pocket_dock_mcp.container.options import RunOptions, checked_program
from pocket_dock_mcp.container.run import STREAMS, AsyncRun
from pocket_dock_mcp.engine.base import STDERR, STDOUT
from pocket_dock_mcp.errors import InvalidArgumentError, PocketDockError, RunNotFoundError
from pocket_dock_mcp.models import RunResult

REMEMBERED = 256
"""Ended runs of a sandbox whose output can still be read."""
WITH_IMAGES = 16
"""The latest of them whose images are still there for a repeated call."""
REMEMBERED_CODE = 200
"""Characters of its code that a kept container tells of a run later."""
MAX_KEYS = 10_000
MAX_KEY = 200


class SandboxRun:
    """A run under an owner's eyes."""

    def __init__(self, run: AsyncRun, *, background: bool, checkpoint: str | None = None) -> None:
        self.run = run
        self.checkpoint = checkpoint
        """The id of the copy of its session that was made, or gone back to, before it."""
        self.background = background
        """Whether it goes on when the call that began it is cancelled, and its sandbox may still idle."""
        self.shown = dict.fromkeys(STREAMS, 0)
        """How far each stream has been told in a reply."""
        self.searched = dict.fromkeys(STREAMS, 0)
        """How far each stream has been searched for something that was waited for, and found."""

    @property
    def id(self) -> str:
        """Its id."""
        return self.run.id

    async def write_stdin(self, text: str, *, end: bool) -> None:
        """Write to its standard input; what is then waited for is its answer and nothing older.

        Raises:
            InvalidArgumentError: it was begun without an input that stays open.
        """
        if not self.run.program.keep_stdin:
            message = "This run has no standard input that can be written to later."
            hint = "Start it with background=true, or give all its input in stdin at the start."
            raise InvalidArgumentError(message, hint=hint)
        self.searched = {stream: self.run.spool(stream).total for stream in STREAMS}
        await self.run.write_stdin(text, end=end)

    def told(self, output_bytes: int, *, since: bool) -> RunResult:
        """Return what is known of it, for a reply: all its output, or what is new since the last reply.

        Raises: what `AsyncRun.wait` raises.
        """
        result = self.run.result(output_bytes)
        if since:
            texts = {
                stream: self.run.spool(stream).since(self.shown[stream], output_bytes) for stream in STREAMS
            }
            new = (self.run.spool(stream).total - self.shown[stream] for stream in STREAMS)
            cut = any(count > output_bytes for count in new)
            result = replace(result, stdout=texts[STDOUT], stderr=texts[STDERR], truncated=cut)
        for stream in STREAMS:
            self.shown[stream] = self.run.spool(stream).total
        return result


@dataclass
class _Slot:
    """What one idempotency key stands for."""

    settled: anyio.Event = field(default_factory=anyio.Event)
    run: SandboxRun | None = None
    error: PocketDockError | None = None


class RunBook:
    """All runs of a sandbox that can still be asked for. The oldest that have ended are forgotten first."""

    def __init__(self, container: LiveContainer) -> None:
        self._container = container
        self._runs: collections.OrderedDict[str, SandboxRun] = collections.OrderedDict()
        self._keys: dict[str, _Slot] = {}
        self._going: dict[str, SandboxRun] = {}
        """What went on when we last looked, and what has come since."""
        self._coming = 0
        self.admit: Callable[[], object] = lambda: None
        """Raises if its owner may have no more runs at once."""

    def __iter__(self) -> Iterator[SandboxRun]:
        return iter(tuple(self._runs.values()))

    @property
    def is_attended(self) -> bool:
        """Whether a run goes on whose end somebody means to wait for."""
        return any(run.run.is_running and not run.background for run in self._runs.values())

    @property
    def is_busy(self) -> bool:
        """Whether any run goes on, as far as we follow it."""
        return any(run.run.is_running and run.run.is_followed for run in self._runs.values())

    @property
    def going(self) -> int:
        """How many go on now, or are just being started."""
        self._going = {run_id: run for run_id, run in self._going.items() if run.run.is_running}
        return self._coming + len(self._going)

    def get(self, run_id: str) -> SandboxRun | None:
        """Return a run by its id."""
        return self._runs.get(run_id)

    async def start(
        self,
        code: str,
        *,
        key: str | None,
        background: bool,
        checkpoint: str | None = None,
        **options: Unpack[RunOptions],
    ) -> SandboxRun:
        """Start a run, or return the one that was started under the same key.

        `checkpoint` is ``save`` to copy its session first, or the id of a copy to go back to first.

        Whoever comes with a key that is just being used waits for that run to be started. A key is used up
        by its first run, whatever becomes of it; unless nothing of it ever ran.

        Raises: what `LiveContainer.start` raises; and `InvalidArgumentError` for an unfit key, or one whose
            run has been forgotten; and `QuotaError` or `CapacityError` where too many go on.
        """
        if key is None:
            return await self._start(code, None, background, checkpoint, **options)
        if not 1 <= len(key) <= MAX_KEY:
            message = f"idempotency_key has {len(key)} characters; it must have 1 to {MAX_KEY}."
            raise InvalidArgumentError(message)
        slot = self._keys.get(key)
        if slot is not None and not (slot.run is not None and slot.run.run.has_not_run):
            return await _settled(slot)
        if len(self._keys) >= MAX_KEYS:
            message = "This sandbox has seen as many idempotency keys as it can remember."
            raise InvalidArgumentError(message, hint="Create a new sandbox, or call without a key.")
        slot = self._keys[key] = _Slot()
        try:
            # Not cut off half way: nobody could tell then whether it has run.
            with anyio.CancelScope(shield=True):
                slot.run = run = await self._start(code, key, background, checkpoint, **options)
        except PocketDockError as error:
            # Nothing has run. Those who wait are told the same; the key is as good as new.
            slot.error = error
            del self._keys[key]
            raise
        finally:
            slot.settled.set()
        return run

    async def _start(
        self,
        code: str,
        key: str | None,
        background: bool,
        checkpoint: str | None,
        **options: Unpack[RunOptions],
    ) -> SandboxRun:
        self.admit()
        self._forget()
        self._coming += 1
        try:
            if checkpoint is not None:
                checkpoint = await prepare(self._container, checkpoint, checked_program(code, **options))
            meta = {"key": key, "background": background, "code": code[:REMEMBERED_CODE]}
            started = await self._container.start(code, meta=meta, **options)
        finally:
            self._coming -= 1
        run = SandboxRun(started, background=background, checkpoint=checkpoint)
        self._runs[run.id] = self._going[run.id] = run
        for older in itertools.islice(reversed(self._runs.values()), WITH_IMAGES, WITH_IMAGES + 1):
            older.run.drop_images()
        return run

    def adopt(self, found: Iterable[AsyncRun]) -> None:
        """Take over what was begun by an earlier process. What it says of itself may be invented inside."""
        for run in found:
            if run.id in self._runs:
                continue
            key, background = run.meta.get("key"), run.meta.get("background") is True
            adopted = self._runs[run.id] = self._going[run.id] = SandboxRun(run, background=background)
            if isinstance(key, str) and 1 <= len(key) <= MAX_KEY:
                slot = self._keys[key] = _Slot(run=adopted)
                slot.settled.set()

    def _forget(self) -> None:
        """Let go of the oldest ended runs: of those beyond `REMEMBERED`, and more while room is short."""
        if not self._is_crowded():
            return
        for run_id, run in tuple(self._runs.items()):
            if not run.run.is_running:
                del self._runs[run_id]
                run.run.close()
                if not self._is_crowded():
                    return

    def _is_crowded(self) -> bool:
        return len(self._runs) >= REMEMBERED or self._container.is_short_of_room

    def ids(self) -> list[str]:
        """Return the ids of all that can still be asked for."""
        return list(self._runs)

    def close(self) -> None:
        """Forget all; their output goes."""
        for run in self._runs.values():
            run.run.close()
        self._runs.clear()
        self._going.clear()
        self._keys.clear()


async def _settled(slot: _Slot) -> SandboxRun:
    await slot.settled.wait()
    if slot.run is None:
        raise slot.error or RunNotFoundError
    return slot.run
