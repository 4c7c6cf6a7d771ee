"""Names that people give to sandboxes and snapshots."""

from __future__ import annotations

import pytest

from pocket_dock_mcp.errors import InvalidArgumentError
from pocket_dock_mcp.manager.naming import check_title


@pytest.mark.parametrize("name", ["", "a name", "naïve: 日本語 #1"])
def test_a_name_may_be_what_can_be_printed(name: str) -> None:
    check_title(name)


@pytest.mark.parametrize("name", ["a\x1b]0;b\x07", "two\nlines", "right \u202etfel", "a\0b", "\u200b"])
def test_a_name_that_would_act_on_a_terminal_is_refused(name: str) -> None:
    with pytest.raises(InvalidArgumentError, match="cannot be printed"):
        check_title(name)
