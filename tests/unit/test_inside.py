"""What runs in containers has to run on their Python."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from pocket_dock_mcp.agent import inside

OLDEST = (3, 8)
MODULES = sorted(Path(inside.__path__[0]).glob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_a_module_has_no_syntax_that_the_oldest_python_does_not_know(path: Path) -> None:
    ast.parse(path.read_text(encoding="utf-8"), feature_version=OLDEST)
