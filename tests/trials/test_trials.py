"""The long trials, with small counts: the scripts beside this file take them."""

from __future__ import annotations

import pytest

from tests.engines import Target
from tests.trials import faults, soak, steps, transfer
from tests.trials.operations import OPERATIONS

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


async def test_outcomes_behind_a_faulty_cable_are_right_or_honest(target: Target, image: str) -> None:
    count = 3 * len(OPERATIONS)
    report = await faults.trial(target.url, count, seed=7, parallel=4, image=image)

    assert report.violations == []
    assert report.runs.total() == count
    assert report.struck.total() > count / 4


async def test_an_engine_that_goes_at_each_step_of_a_create_is_found_again(
    target: Target, image: str
) -> None:
    report = await steps.trial(target.url, operations=["create"], image=image)

    assert report.violations == []
    assert len(report.steps) >= 6


async def test_what_a_server_holds_does_not_grow(target: Target) -> None:
    report = await soak.trial(target.url, 160, seed=1, samples=2)

    assert report.violations == []
    assert report.errors == {}
    assert report.calls.total() >= 160


async def test_many_files_and_a_large_one_move_in_flat_memory(target: Target, image: str) -> None:
    report = await transfer.trial(target.url, files=200, megabytes=16, image=image)

    assert report.violations == []
    assert set(report.ratios) == {"push", "pull"}
