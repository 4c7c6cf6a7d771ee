"""Handles to runs that nobody holds any more: found anywhere, and their room given back."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import anyio
import anyio.from_thread
import anyio.lowlevel
import pytest

from pocket_dock_mcp.agent.transport import Program
from pocket_dock_mcp.container.run import AsyncRun
from pocket_dock_mcp.engine.base import STDOUT
from pocket_dock_mcp.errors import AgentError
from pocket_dock_mcp.models import Limits, RunStatus
from pocket_dock_mcp.spool import Spool, SpoolBudget
from tests.engines import eventually
from tests.spools import Spools


class CollectingBudget(SpoolBudget):
    """Has garbage collected while it is locked, as any code may that makes an object."""

    def left(self) -> int:
        gc.collect()
        return super().left()


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Spools]:
    gc.collect()
    with Spools(tmp_path / "spool") as spools:
        yield spools


async def fate(error: AgentError) -> tuple[RunStatus, str]:
    raise AssertionError(error)


def drop_a_run(spool: Spool) -> None:
    """Leave the handle to a run that has printed to a spool, for the collector of garbage to find."""
    run = AsyncRun(Program("shell", "true"), {STDOUT: spool}, Limits(), fate)
    run.itself = run  # type: ignore[attr-defined]  # a cycle, so that counting references is not enough


async def in_a_thread(function: Callable[[], object]) -> None:
    """Call what may never return, in a thread that nothing waits for then."""
    done = anyio.Event()
    token = anyio.lowlevel.current_token()

    def work() -> None:
        function()
        anyio.from_thread.run_sync(done.set, token=token)

    threading.Thread(target=work, daemon=True).start()
    with anyio.fail_after(10):
        await done.wait()


@pytest.mark.anyio
@pytest.mark.parametrize("prints", ["another", "the same"])
async def test_one_is_found_while_its_spool_or_its_budget_is_locked(make: Spools, prints: str) -> None:
    budget = CollectingBudget(1000)
    dropped = make(b"x" * 100, budget=budget)
    other = make(budget=budget)
    drop_a_run(dropped)

    await in_a_thread(lambda: (other if prints == "another" else dropped).append(b"y" * 10))

    async def is_given_back() -> bool:
        return budget.used_bytes == (10 if prints == "another" else 0)

    await eventually(is_given_back, within=5)


def test_one_is_found_when_its_event_loop_is_closed(tmp_path: Path) -> None:
    def files() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    async def begin_and_leave() -> None:
        spool = Spool(SpoolBudget(1000), tmp_path / "spool", cap_bytes=1000, memory_bytes=10)
        before = files()
        spool.append(b"x" * 100)
        assert files() == before + 1
        drop_a_run(spool)

    before = files()
    anyio.run(begin_and_leave)
    gc.collect()

    assert files() == before
