"""The tests of this directory take an npm registry; they are left out only where somebody says so."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.conformance.npm import WITHOUT, Programs, installed

_HERE = Path(__file__).parent
_left_out = pytest.StashKey[int]()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave them out if the environment says so."""
    if not os.environ.get(WITHOUT):
        return
    ours = [item for item in items if _HERE in item.path.parents]
    items[:] = [item for item in items if item not in ours]
    config.stash[_left_out] = len(ours)
    config.hook.pytest_deselected(items=ours)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say that they were."""
    if count := config.stash.get(_left_out, 0):
        line = f"NOT RUN, because {WITHOUT} is set: {count} tests of conformance to the protocol"
        terminalreporter.write_line(line, yellow=True)


@pytest.fixture(scope="session")
def programs() -> Programs:
    """Return the conformance runner and the Inspector, installed."""
    return installed()
