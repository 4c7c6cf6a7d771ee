"""The long trials, with small counts: the scripts beside this file take them."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path

import pytest

from tests.engines import Target
from tests.trials import crosstalk, faults, soak, steps, timing, transfer
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


@pytest.mark.fake_too
@pytest.mark.front
@pytest.mark.timeout(600)
async def test_each_of_many_clients_gets_its_own_replies(target: Target, image: str, tmp_path: Path) -> None:
    clients = 40 if target.is_fake else 12
    report = await crosstalk.trial(target, image, tmp_path, clients, rounds=1, at_once=2)

    assert report.violations == []
    assert report.clients.total() == clients
    assert report.replies == clients * 7
    assert report.most_at_once > clients


def test_a_reply_that_is_anothers_is_noticed() -> None:
    report = crosstalk.Report()
    mine, hers = crosstalk.canary(), crosstalk.canary()
    check = crosstalk.Checks({mine}, report)
    good = {"jsonrpc": "2.0", "id": 3, "result": {"stdout": mine}}
    check("run_code", 3, mine, json.dumps(good))
    assert report.violations == []
    for bad in ({**good, "id": 4}, {**good, "result": {"stdout": hers}}, {**good, "result": [mine, hers]}):
        check("run_code", 3, mine, json.dumps(bad))
    assert len(report.violations) == 3


def test_the_rank_test_tells_what_differs_and_nothing_else() -> None:
    chance = random.Random(5)
    noise = [[chance.gauss(10, 3) for _ in range(200)] for _ in range(40)]
    p_values = [timing.rank_test(first, second)[1] for first, second in itertools.pairwise(noise)]
    assert sum(p < 0.05 for p in p_values) < 8
    assert not any(timing.compared("", "", *two).differs(40) for two in itertools.pairwise(noise))
    slower = [value + 3 for value in noise[1]]
    assert timing.compared("", "", slower, noise[0]).differs(40)
    assert timing.rank_test(noise[0], noise[0])[0] == pytest.approx(0.5, abs=0.01)
