"""All cases, their controls and the mutations, on each engine."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.abuse.case import Written, load_all
from tests.abuse.ground import Ground
from tests.abuse.mutations import run_mutation
from tests.abuse.runner import run_case, run_control
from tests.abuse.weakening import WEAKENINGS
from tests.engines import Target

pytestmark = [pytest.mark.anyio, pytest.mark.slow, pytest.mark.front]

CASES = {case.id: case for case in load_all()}
# Those that tests cover are run with these tests, in their own places.
RUN = [written for written in CASES.values() if written.case.steps or written.case.driver]
RUN = [written for written in RUN if not written.case.heavy]


@pytest.fixture(scope="module")
async def ground(
    target: Target, tmp_path_factory: pytest.TempPathFactory, anyio_backend: str
) -> AsyncIterator[Ground]:
    async with Ground.on(target, tmp_path_factory.mktemp("abuse")) as ground:
        yield ground


@pytest.mark.parametrize("case", RUN, ids=lambda case: case.id)
async def test_case_is_contained(ground: Ground, case: Written) -> None:
    outcome = await run_case(ground, case)

    assert outcome.result in ("contained", "not run"), outcome.reasons


@pytest.mark.parametrize("case", [case for case in RUN if case.case.http], ids=lambda case: case.id)
async def test_case_is_contained_over_http(ground: Ground, case: Written) -> None:
    outcome = await run_case(ground, case, "http")

    assert outcome.result == "contained", outcome.reasons


@pytest.mark.parametrize(
    "case",
    [case for case in RUN if not (case.case.control.none or case.case.control.tests)],
    ids=lambda case: case.id,
)
async def test_escape_would_be_seen(ground: Ground, case: Written) -> None:
    outcome = await run_control(ground, case)

    assert outcome.result in ("detected", "not run"), outcome.reasons


@pytest.mark.parametrize("name", WEAKENINGS)
async def test_weakened_field_is_noticed(ground: Ground, name: str) -> None:
    outcome = await run_mutation(ground, name, CASES)

    assert outcome.is_good, outcome.reasons
