"""A directory in a file, and out of it again, without any container."""

from __future__ import annotations

import errno
import io
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from pocket_dock_mcp.agent.inside import parcel
from pocket_dock_mcp.container.workspace import _errno

ROOM = 1 << 30


def packed(root: Path, room: int = ROOM) -> bytes:
    file = io.BytesIO()
    parcel.Packer(file, room).pack(str(root))
    return file.getvalue()


def unpacked(data: bytes, into: Path) -> None:
    into.mkdir(exist_ok=True)
    fd = os.open(into, os.O_RDONLY)
    try:
        parcel.Unpacker(io.BytesIO(data), fd).unpack()
    finally:
        os.close(fd)


def described(root: Path) -> dict[str, tuple[Any, ...]]:
    found = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        content: object = path.read_bytes() if stat.S_ISREG(status.st_mode) else None
        if stat.S_ISLNK(status.st_mode):
            content = str(path.readlink())
        links = status.st_nlink if stat.S_ISREG(status.st_mode) else 0
        found[str(path.relative_to(root))] = (status.st_mode, status.st_mtime_ns, links, content)
    return found


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    (root / "d" / "e").mkdir(parents=True)
    (root / "d" / "e" / "f").write_text("x" * (3 * parcel.PIECE // 2))
    (root / "hard").hardlink_to(root / "d" / "e" / "f")
    (root / "empty").touch()
    (root / "setuid").write_text("s")
    (root / "setuid").chmod(0o4711)
    (root / "link").symlink_to("/etc/passwd")
    (root / "a\nb").write_text("1")
    Path(f"{root}/\udcff").write_text("2")
    os.mkfifo(root / "fifo", 0o640)
    with (root / "holes").open("wb") as file:
        file.seek(1 << 32)
        file.write(b"end")
    os.utime(root / "d" / "e", ns=(1, 123_456_789))
    (root / "d" / "e").chmod(0o500)
    return root


def test_all_comes_back_as_it_was(tree: Path, tmp_path: Path) -> None:
    (tree / "holes").rename(tmp_path / "holes")
    before = described(tree)

    unpacked(packed(tree), tmp_path / "copy")

    assert described(tmp_path / "copy") == before
    assert (tmp_path / "copy" / "hard").samefile(tmp_path / "copy" / "d" / "e" / "f")


def test_holes_take_no_room(tree: Path, tmp_path: Path) -> None:
    data = packed(tree)

    assert len(data) < 4 * parcel.PIECE
    unpacked(data, tmp_path / "copy")
    status = (tmp_path / "copy" / "holes").stat()
    assert (status.st_size, status.st_blocks < 1000) == ((1 << 32) + 3, True)


def test_it_replaces_what_is_in_its_way(tree: Path, tmp_path: Path) -> None:
    (tree / "holes").unlink()
    copy = tmp_path / "copy"
    (copy / "d").mkdir(parents=True)
    (copy / "empty").write_text("full")
    (copy / "link").symlink_to(tmp_path / "elsewhere")
    (copy / "other").write_text("stays")

    unpacked(packed(tree), copy)

    found = described(copy)
    assert found.pop("other")[3] == b"stays"
    assert found == described(tree)
    assert not (tmp_path / "elsewhere").exists()


def test_what_does_not_fit_is_an_error(tree: Path) -> None:
    with pytest.raises(OSError, match="no room") as caught:
        packed(tree, room=parcel.PIECE)
    assert caught.value.errno == errno.ENOSPC


def test_one_that_is_cut_anywhere_is_damaged(tmp_path: Path) -> None:
    (tmp_path / "tree" / "d").mkdir(parents=True)
    (tmp_path / "tree" / "d" / "f").write_text("content")
    (tmp_path / "tree" / "l").symlink_to("x")
    data = packed(tmp_path / "tree")

    for at in range(len(data)):
        with pytest.raises((parcel.DamagedError, ValueError)):
            unpacked(data[:at], tmp_path / "copy")
    unpacked(data, tmp_path / "copy")


@pytest.mark.parametrize("name", ["..", ".", "", "a/b", "/etc/x"])
def test_a_forged_one_leads_nowhere_else(tmp_path: Path, name: str) -> None:
    file = io.BytesIO()
    packer = parcel.Packer(file, ROOM)
    file.write(parcel.MAGIC)
    packer._note("f", {"d": 0, "n": name, "m": 0o644, "t": 0}, size=1)
    packer._frame(b"Z", b"")

    with pytest.raises(parcel.DamagedError):
        unpacked(file.getvalue(), tmp_path / "copy")


@pytest.mark.parametrize(
    ("answer", "number"),
    [
        (b'{"done": true}\n', 0),
        (b'{"errno": 28}\n', 28),
        (b"", None),
        (b"[" * 5000, None),
        (b'{"done": 1}', None),
        (b'{"errno": -1}', None),
        (b'{"errno": "x"}', None),
    ],
)
def test_only_a_plain_answer_counts(answer: bytes, number: int | None) -> None:
    assert _errno(answer) == number
