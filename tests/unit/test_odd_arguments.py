"""Numbers that JSON can say and nobody can count in, in a call of a tool."""

from __future__ import annotations

import math

import pytest

from pocket_dock_mcp.errors import InvalidArgumentError
from pocket_dock_mcp.server.arguments import refuse_odd_numbers


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 10**400, -(10**400), 2**63, 1e300], ids=str)
def test_a_number_that_cannot_be_is_refused_by_its_name(value: float) -> None:
    with pytest.raises(InvalidArgumentError, match="memory_mb") as caught:
        refuse_odd_numbers({"name": "x", "memory_mb": value})

    assert len(str(caught.value)) < 200


def test_all_others_are_judged_where_they_are_used() -> None:
    refuse_odd_numbers({"a": 0, "b": -1.5, "c": True, "d": None, "e": "NaN", "f": [math.nan], "g": 2**53})
