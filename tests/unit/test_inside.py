"""What runs in containers has to run on their Python."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

from pocket_dock_mcp.agent import bundle, inside
from pocket_dock_mcp.agent.inside import early, wire

OLDEST = (3, 8)
MODULES = sorted(Path(inside.__path__[0]).glob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_a_module_has_no_syntax_that_the_oldest_python_does_not_know(path: Path) -> None:
    ast.parse(path.read_text(encoding="utf-8"), feature_version=OLDEST)


def test_what_is_told_early_is_told_as_later() -> None:
    assert (early.PROTOCOL, early.MOST) == (wire.PROTOCOL, wire.MAX_PAYLOAD)
    assert {name.removeprefix("agent.") for name in early.FIRST} <= set(bundle._MODULES)
    for value in (
        None,
        True,
        False,
        0,
        -7,
        0.25,
        'a "b"\n\0é\udcff',
        [],
        ["lo", None],
        {"a": {"b": [1, "x"]}},
    ):
        assert json.loads(early.encoded(value)) == value
