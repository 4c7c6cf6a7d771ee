"""What `read_output` says of output that is not all there."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from pocket_dock_mcp.server import output_tools
from tests.servers import text
from tests.spools import Spools


@pytest.mark.parametrize(("unkept", "is_told"), [(0, False), (7, True)])
def test_a_beginning_that_was_not_kept_is_told_of(tmp_path: Path, unkept: int, *, is_told: bool) -> None:
    of = output_tools._Output("run", "stdout", unkept)
    with Spools(tmp_path) as spools:
        spool = spools(b"one\ntwo\n")
        read = partial(output_tools._excerpt, spool, None, None)
        search = partial(output_tools._search, spool, "two", 0, 0)
        replies = [
            output_tools._text(of, read(None, None, 100)),
            output_tools._bytes(of, read(None, 2, 100)),
            output_tools._text(of, read(None, 99, 100)),
            output_tools._matches(of, search(100)),
        ]

    assert [("first 7 bytes could not be kept" in text(one)) for one in replies] == [is_told] * 4
