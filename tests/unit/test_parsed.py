"""Small files of one directory, when it cannot be read."""

from __future__ import annotations

from pathlib import Path

import pytest

from pocket_dock_mcp.errors import StateError
from pocket_dock_mcp.manager.parsed import ParsedFiles


def test_a_directory_that_cannot_be_read_is_an_error_of_ours(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StateError, match="cannot be read"):
        ParsedFiles(tmp_path / "file", "x", Path.read_text).all()


def test_a_directory_that_is_not_there_has_nothing(tmp_path: Path) -> None:
    assert ParsedFiles(tmp_path / "none", "x", Path.read_text).all() == {}
