"""What `pocket-dock push` and `pull` say of how much they have moved."""

from __future__ import annotations

import io

import pytest

from pocket_dock_mcp.cli.console import Console
from pocket_dock_mcp.cli.transfer import Progress, report
from pocket_dock_mcp.models import TransferProgress, Transferred


@pytest.mark.parametrize(
    ("files", "links", "count", "said"),
    [
        (1, 1, 1, "pulled 1 file, 1 link, 1 byte to /x\n"),
        (0, 2, 0, "pulled 0 files, 2 links, 0 bytes to /x\n"),
        (2, 0, 9_999, "pulled 2 files, 9999 bytes to /x\n"),
        (2, 0, 999_999, "pulled 2 files, 999 kB to /x\n"),
        (2, 0, 1_000_000, "pulled 2 files, 1 MB to /x\n"),
    ],
)
def test_what_was_moved_is_counted_in_words_that_fit(files: int, links: int, count: int, said: str) -> None:
    out = io.StringIO()
    moved = Transferred("/x", files=files, directories=1, symlinks=links, bytes=count)
    report(Console({}, out=out), "pulled", moved)

    assert out.getvalue() == said


def test_progress_of_a_little_is_in_bytes() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    err = Terminal()
    Progress(Console({"TERM": "xterm"}, err=err), "pull").tell(TransferProgress(1, 500, 20_000))

    assert "pull: 1 file, 500 bytes of 20 kB, " in err.getvalue()
    assert "0 MB" not in err.getvalue()
