"""Names that mark what is deleted in the layers of images, without any container."""

from __future__ import annotations

import os
from pathlib import Path

from pocket_dock_mcp.agent.inside import whiteouts


def found(root: Path, skipped: set[bytes] | None = None) -> set[str]:
    paths = whiteouts.found(os.fsencode(root), skipped or set())
    return {os.fsdecode(path).removeprefix(f"{root}/") for path in paths}


def test_they_are_found_at_any_depth_whatever_they_are(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / ".wh.file").touch()
    (tmp_path / ".wh.dir").mkdir()
    (tmp_path / ".wh.dir" / ".wh..wh..opq").touch()
    (tmp_path / ".wh.link").symlink_to("nowhere")
    (tmp_path / os.fsdecode(b".wh.\xff")).touch()
    for name in (".wh", "wh.x", "x.wh.y", ".WH.z"):
        (tmp_path / name).touch()

    assert found(tmp_path) == {
        "a/b/.wh.file", ".wh.dir", ".wh.link", os.fsdecode(b".wh.\xff")
    }  # fmt: skip


def test_paths_that_are_too_long_for_an_engine_are_found_where_they_begin_to_be(tmp_path: Path) -> None:
    deep = tmp_path
    name = "d" * 200
    while len(os.fsencode(deep)) <= whiteouts.MAX_PATH:
        deep /= name
        deep.mkdir()
    (deep / "f").touch()

    assert found(tmp_path) == {str(deep.relative_to(tmp_path))}


def test_links_are_not_followed_and_other_file_systems_not_entered(tmp_path: Path) -> None:
    for name in ("there", "mounted"):
        (tmp_path / name).mkdir()
        (tmp_path / name / ".wh.x").touch()
    (tmp_path / "link").symlink_to("there")

    assert found(tmp_path, {os.fsencode(tmp_path / "mounted")}) == {"there/.wh.x"}


def test_what_cannot_be_listed_is_passed_by(tmp_path: Path) -> None:
    (tmp_path / "gone").symlink_to("nowhere")
    assert found(tmp_path / "gone") == set()


def test_mount_points_are_read_as_the_kernel_writes_them() -> None:
    mounts = rb"""36 35 98:0 / / rw,noatime - overlay overlay rw
37 36 0:5 / /a\040b\134c rw - tmpfs tmpfs rw
38 36 0:6 / /proc rw - proc proc rw
"""
    assert whiteouts.elsewhere(mounts) == {b"/", rb"/a b\c", b"/proc"}
