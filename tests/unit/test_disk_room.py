"""How much a disk still holds: it may run out of files before it runs out of bytes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

MIB = 1024 * 1024
_PROGRAM = """
import sys
from pocket_dock_mcp.agent.inside.facts import disk_free, room
print(room(sys.argv[1]), disk_free(sys.argv[1]))
"""


@pytest.mark.parametrize(
    ("options", "least", "most"),
    [("size=64m,nr_inodes=101", 0, 100 * 16 * 1024), ("size=1m,nr_inodes=10000", MIB // 2, MIB)],
)
def test_room_is_what_runs_out_first(tmp_path: Path, options: str, least: int, most: int) -> None:
    mounting = f'mount -t tmpfs -o {options} none "$0" && exec "$@"'
    argv = [
        "unshare",
        "-m",
        "sh",
        "-c",
        mounting,
        str(tmp_path),
        sys.executable,
        "-c",
        _PROGRAM,
        str(tmp_path),
    ]

    found = subprocess.run(argv, check=True, capture_output=True, text=True, timeout=60)

    room, free = map(int, found.stdout.split())
    assert least < room <= most
    assert room <= free
