"""Trees that are too deep for an engine to remove."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pocket_dock_mcp.agent.inside.leaving import MOST_LEVELS, Shallow


def chain(top: Path, levels: int) -> None:
    fd = os.open(top, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir("d", dir_fd=fd)
        child = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = child
    os.close(os.open("end", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
    os.close(fd)


def deepest(top: Path) -> int:
    """Return how many levels there are, counted as far as a path can name them."""
    found = 0
    for path, _, _ in os.walk(top):
        found = max(found, len(Path(path).relative_to(top).parts))
    return found


@pytest.mark.parametrize("levels", [3, MOST_LEVELS - 3, 1200, 2600])
def test_what_is_too_deep_is_moved_up_and_nothing_is_lost(tmp_path: Path, levels: int) -> None:
    chain(tmp_path, levels)

    shallow = Shallow(str(tmp_path), lambda _: False)
    shallow.make([str(tmp_path)])

    assert deepest(tmp_path) <= MOST_LEVELS
    assert bool(shallow.count) == (levels >= MOST_LEVELS)
    assert len([path for path, _, _ in os.walk(tmp_path)]) == levels + 1
    assert [files for _, _, files in os.walk(tmp_path) if files] == [["end"]]


def test_it_ends_when_time_is_over(tmp_path: Path) -> None:
    chain(tmp_path, 1200)

    shallow = Shallow(str(tmp_path), lambda _: True)
    shallow.make([str(tmp_path)])

    assert shallow.count == 0
