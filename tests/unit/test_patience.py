"""Work that is not cut off half way, whichever way its caller is cancelled: as anyio does it, or asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import anyio
import pytest

from pocket_dock_mcp.async_.pieces import Piece
from pocket_dock_mcp.beside import patiently
from pocket_dock_mcp.errors import SandboxClosedError

pytestmark = pytest.mark.anyio


async def test_patient_work_ends_after_its_caller_was_cancelled_and_its_outcome_is_had() -> None:
    may_end, had = anyio.Event(), []

    async def work() -> str:
        await may_end.wait()
        return "made"

    async def caller() -> None:
        had.append(await patiently(work, 30))
        await anyio.sleep_forever()

    async with anyio.create_task_group() as group:
        group.start_soon(caller)
        await anyio.wait_all_tasks_blocked()
        group.cancel_scope.cancel()
        may_end.set()
    assert had == ["made"]


async def test_what_patient_work_raises_is_raised_as_it_is() -> None:
    async def work() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await patiently(work, 30)


async def test_patience_has_an_end() -> None:
    had: list[str] = []

    async def caller() -> None:
        await patiently(anyio.sleep_forever, 0.05)
        had.append("returned")

    with anyio.fail_after(20):
        async with anyio.create_task_group() as group:
            group.start_soon(caller)
            await anyio.wait_all_tasks_blocked()
            group.cancel_scope.cancel()
    assert had == []


@pytest.mark.parametrize("is_done_first", [False, True])
async def test_a_piece_that_nobody_waits_for_any_more_is_undone(is_done_first: bool) -> None:
    may_end, steps = asyncio.Event(), []

    async def work() -> str:
        try:
            with anyio.CancelScope(shield=True):
                await may_end.wait()
        finally:
            steps.append("worked")
        return "made"

    async def undo(made: str) -> None:
        await asyncio.sleep(0)
        steps.append(f"undid {made}")

    async with anyio.create_task_group() as group:
        piece = Piece(work, undo)
        group.start_soon(piece.run)
        waiting = asyncio.ensure_future(piece.wait())
        await asyncio.sleep(0)
        if is_done_first:
            # In the same turn of the loop: it is ready, and whoever waited is gone.
            may_end.set()
            await until(lambda: bool(steps))
        waiting.cancel()
        await asyncio.sleep(0)
        may_end.set()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    assert steps == ["worked", "undid made"]


async def until(check: Callable[[], bool]) -> None:
    while not check():
        await asyncio.sleep(0)


async def test_a_piece_tells_what_came_of_it() -> None:
    async def make() -> str:
        return "made"

    async def fail() -> str:
        raise ZeroDivisionError

    async with anyio.create_task_group() as group:
        made, failed = Piece(make), Piece(fail)
        for piece in (made, failed):
            group.start_soon(piece.run)
        assert await made.wait() == "made"
        with pytest.raises(ZeroDivisionError):
            await failed.wait()


async def test_a_piece_whose_own_task_is_ended_says_so() -> None:
    piece: Piece[None] = Piece(anyio.sleep_forever)
    task = asyncio.ensure_future(piece.run())
    waiting = asyncio.ensure_future(piece.wait())
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(SandboxClosedError):
        await waiting
    with pytest.raises(asyncio.CancelledError):
        await task
