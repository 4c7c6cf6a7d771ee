"""Each surface with a few cases; the whole is ``python -m tests.fuzz`` with as many as one likes."""

from __future__ import annotations

import pytest

from tests.fuzz.harness import corpus, run
from tests.fuzz.surfaces import SURFACES

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

SECONDS = 4.0
"""For each, however busy the machine is."""
COUNTS = {
    "stdio": 40, "http": 150, "arguments": 60, "gate": 150, "agent": 100, "engine": 200, "archives": 400, "images": 300, "files": 400,
}  # fmt: skip
SEED = 20261129


@pytest.mark.parametrize("name", list(SURFACES))
async def test_nothing_but_errors_of_ours_comes_of_foreign_input(name: str) -> None:
    """After each case all is as it was: it answers, holds no more than before, and nothing is left."""
    inputs = [path.read_bytes() for path in corpus(name)]

    report = await run(SURFACES[name](), COUNTS[name], SEED, seconds=SECONDS, inputs=inputs)

    assert report.findings == [], str(report)
    assert report.attempts > len(inputs)
