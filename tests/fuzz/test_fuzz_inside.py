"""The surface that needs a container, on a real engine."""

from __future__ import annotations

import pytest

from tests.engines import Target
from tests.fuzz.harness import run
from tests.fuzz.inside import Inside

pytestmark = [pytest.mark.anyio, pytest.mark.front]

SECONDS = 4.0
COUNT = 150
SEED = 20261129


async def test_no_frame_ends_an_agent(target: Target) -> None:
    """It answers after each, unless it was none."""
    report = await run(Inside(target), COUNT, SEED, seconds=SECONDS)

    assert report.findings == [], str(report)
    assert report.attempts
