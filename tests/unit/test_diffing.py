"""Comparing trees and texts, without any container."""

from __future__ import annotations

import itertools
import json
import random
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from pocket_dock_mcp.agent.inside import facts
from pocket_dock_mcp.agent.inside import inventory as inside
from pocket_dock_mcp.container import inventory
from pocket_dock_mcp.container.diffing import Candidates, TreeDiff, candidates
from pocket_dock_mcp.container.inventory import Entry, Tree
from pocket_dock_mcp.container.linediff import MAX_LINE, unified
from pocket_dock_mcp.errors import CompareError
from pocket_dock_mcp.server import render_diff

USER = 1_234_567
_inodes = itertools.count(1)


def entry(**fields: Any) -> Entry:
    values = {
        "type": "file", "mode": 0o644, "uid": USER, "size": 1, "mtime_ns": 1, "inode": next(_inodes),
        "ctime_ns": 1, "target": None,
    }  # fmt: skip
    return Entry(**{**values, **fields})


def compared(old: dict[str, Entry], new: dict[str, Entry], **trees: Any) -> Candidates:
    return candidates(Tree(old, **trees), Tree(new), {USER})


def changed(found: Candidates) -> list[tuple[str, str]]:
    return sorted((pair.change, pair.path) for pair in found.changed)


def test_one_file_on_disk_is_not_looked_into() -> None:
    same = entry()

    assert compared({"/a": same}, {"/a": same}) == Candidates([], [], [])


def test_a_file_of_the_same_size_is_looked_into_when_the_user_may_have_written_it() -> None:
    theirs = {"uid": 0}
    pairs: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
        "/mine": ({}, {}),
        "/touched": ({"mtime_ns": 1}, {"mtime_ns": 2}),
        "/theirs": (theirs, theirs),
        "/theirs-and-open": ({**theirs, "mode": 0o666}, {**theirs, "mode": 0o666}),
        "/theirs-and-touched": (theirs, {**theirs, "mtime_ns": 2}),
        "/replaced": (theirs, {}),
    }
    found = compared(
        {path: entry(**old) for path, (old, _) in pairs.items()},
        {path: entry(**new) for path, (_, new) in pairs.items()},
    )

    assert found.changed == []
    assert {pair.path for pair in found.suspects} == set(pairs) - {"/theirs"}


def test_types_modes_targets_and_sizes_count_and_times_do_not() -> None:
    directory = {"type": "directory", "mode": 0o755}
    link = {"type": "symlink", "mode": 0o777, "target": "a"}
    old = {
        "/size": entry(),
        "/mode": entry(),
        "/type": entry(),
        "/dir": entry(**directory, mtime_ns=1),
        "/closed": entry(**directory),
        "/link": entry(**link),
        "/same": entry(**link),
        "/gone": entry(),
    }
    new = {
        "/size": entry(size=2),
        "/mode": entry(mode=0o600),
        "/type": entry(**directory),
        "/dir": entry(**directory, size=4096, mtime_ns=2),
        "/closed": entry(type="directory", mode=0o700),
        "/link": entry(**{**link, "target": "b"}),
        "/same": entry(**link),
        "/new": entry(),
    }

    assert changed(compared(old, new)) == [
        ("created", "/new"),
        ("deleted", "/gone"),
        *(("modified", f"/{name}") for name in ("closed", "link", "mode", "size", "type")),
    ]


def test_what_we_do_ourselves_is_no_change() -> None:
    cached = entry(uid=0)
    new = {
        "/usr/lib/python3/__pycache__/re.pyc": cached,
        facts.PARKED[0]: entry(),
        "/home/sandbox/__pycache__/mine.pyc": entry(),
        "/etc/hosts": entry(size=9),
    }
    found = compared({"/etc/hosts": entry()}, new, skipped=frozenset({"/etc/hosts"}))

    assert changed(found) == [("created", "/home/sandbox/__pycache__/mine.pyc")]


def test_sockets_which_no_image_holds_are_left_out() -> None:
    socket = entry(type="socket")
    new = {"/new": socket, "/was-file": socket, "/other": entry()}

    found = compared({"/gone": socket, "/was-file": entry(), "/other": socket}, new)

    assert changed(found) == [("created", "/other"), ("deleted", "/was-file")]


def test_what_is_in_a_directory_that_cannot_be_listed_is_unknown_and_not_gone() -> None:
    shut = entry(type="directory", mode=0)
    old = {"/d": entry(type="directory", mode=0o755), "/d/e": entry(type="directory"), "/d/e/f": entry()}
    found = candidates(Tree(old), Tree({"/d": shut}, closed=frozenset({"/d"})), {USER})

    assert changed(found) == [("modified", "/d")]
    assert found.unreadable == ["/d"]


@pytest.mark.parametrize(
    ("mode", "owner", "may_have_changed"),
    [(0o700, 0, False), (0o744, 0, False), (0o711, 0, True), (0o733, 0, True), (0o000, USER, True)],
)
def test_what_the_user_can_neither_enter_nor_write_into_has_not_changed(
    mode: int, owner: int, *, may_have_changed: bool
) -> None:
    was = entry(type="directory", mode=mode, uid=owner, ctime_ns=1)
    shut = frozenset({"/root"})
    found = candidates(
        Tree({"/root": was}, closed=shut), Tree({"/root": was._replace(ctime_ns=2)}, closed=shut), {USER}
    )

    assert changed(found) == []
    assert found.unreadable == (["/root"] if may_have_changed else [])


# -- what the program inside says -----------------------------------------------------------------


def test_the_program_lists_names_of_any_kind_and_hashes(tmp_path: Path) -> None:
    (tmp_path / "a\nb").write_text("x")
    Path(str(tmp_path) + "/\udcff").write_text("y")
    (tmp_path / "link").symlink_to("nowhere")
    dig = "import os\nfor _ in range(30): os.mkdir('d' * 200); os.chdir('d' * 200)"
    subprocess.run([sys.executable, "-c", dig], cwd=tmp_path, check=True)
    lines = list(inside.answer({"op": "walk", "root": str(tmp_path), "max_entries": 100, "skipped": []}))

    assert lines[-1] == ["end", {"more": False, "closed": [], "deep": [], "skipped": lines[-1][1]["skipped"]}]
    assert lines[0][1] == ""
    names = {item[0]: item[1] for item in lines[1][2]}
    assert names == {"a\nb": "f", "\udcff": "f", "link": "l", "d" * 200: "d"}
    assert len(lines) == 33
    paths = [f"{tmp_path}/a\nb", f"{tmp_path}/link", f"{tmp_path}", f"{tmp_path}/none"]
    hashes = list(inside.answer({"op": "hash", "paths": paths, "timeout_s": 5}))
    assert [len(line[1]) for line in hashes[:-1]] == [64, 0, 0, 0]
    late = {"op": "hash", "paths": paths[:1], "timeout_s": -1}
    assert list(inside.answer(late)) == [["hash", None], ["end", {}]]
    subprocess.run(["rm", "-r", str(tmp_path / ("d" * 200))], check=True)


def test_a_path_through_a_link_is_told_and_not_walked(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "file").write_text("x")
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "dangling").symlink_to("nowhere")

    def end(path: str) -> dict[str, Any]:
        order = {"op": "walk", "root": f"{tmp_path}/{path}", "max_entries": 100, "skipped": []}
        return dict(list(inside.answer(order))[-1][1])

    assert end("link/file") == {"real": f"{tmp_path}/real/file", "link": f"{tmp_path}/link", "lost": False}
    assert end("dangling/file")["lost"]
    assert end("none/file")["lost"]
    assert "real" not in {**end("link"), **end("real/file"), **end("real")}


def test_what_is_too_deep_is_not_said_to_be_shut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inside, "MAX_DEPTH", 1)
    (tmp_path / "a" / "b").mkdir(parents=True)
    order = {"op": "walk", "root": str(tmp_path), "max_entries": 100, "skipped": []}
    end = list(inside.answer(order))[-1][1]
    assert end["deep"] == end["closed"] == [f"{tmp_path}/a/b"]
    deep = frozenset({"/b"})
    found = candidates(Tree(), Tree({"/b": entry(type="directory")}, closed=deep, deep=deep), {USER})
    assert (found.unreadable, found.too_deep) == ([], 1)


def test_mounts_are_left_out_but_for_whole_ones_in_memory() -> None:
    mounts = rb"""1 0 0:1 / / rw - overlay overlay rw
2 1 0:2 / /proc rw - proc proc rw
3 1 0:3 / /home/sandbox rw - tmpfs tmpfs rw
4 1 8:1 /containers/1/hosts /etc/hosts rw - ext4 /dev/sda1 rw
5 1 0:4 /containers/1/.containerenv /run/.containerenv rw - tmpfs tmpfs rw
6 1 0:5 / /with\040space rw shared:1 - xfs /dev/sdb rw
"""
    assert inside.foreign(mounts) == {
        "/proc", "/sys", "/dev", "/etc/hosts", "/run/.containerenv", "/with space"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("directory", "items"),
    [
        ("/elsewhere", []),
        ("/root/../etc", []),
        ("/root", [["..", "f", 0, 0, 0, 0, 0, 0]]),
        ("/root", [["a/b", "f", 0, 0, 0, 0, 0, 0]]),
        ("/root", [["a", "x", 0, 0, 0, 0, 0, 0]]),
        ("/root", [["a", "f", 0, 0, 0, 0, 0]]),
        ("/root", [["a", "f", 0, 0, 0, 0, 0, True]]),
        ("/root", [["a", "f", 0, 0, 0, 0, 0, 1 << 70]]),
        ("/root", [["a", "l", 0, 0, 0, 0, 0, 0, {}]]),
        ("/root", [None]),
    ],
)
def test_nonsense_is_refused(directory: str, items: list[Any]) -> None:
    with pytest.raises(CompareError):
        inventory._add(Tree(), "/root", directory, json.loads(json.dumps(items)))


# -- lines ----------------------------------------------------------------------------------------


def applied(old: str, diff: str) -> str:
    """Return what a unified diff makes of a text, or fail if it does not fit."""
    lines = old.split("\n")
    lines = [f"{line}\n" for line in lines[:-1]] + ([lines[-1]] if lines[-1] else [])
    out: list[str] = []
    at = 0
    sign = " "
    for line in diff.splitlines():
        if head := re.fullmatch(r"@@ -(\d+)(?:,(\d+))? \+\d+(?:,\d+)? @@", line):
            start = int(head[1]) - (head[2] != "0")
            out += lines[at:start]
            at = start
        elif line.startswith("\\"):
            if sign != "-":
                out[-1] = out[-1].removesuffix("\n")
        else:
            sign = line[0]
            if sign != "+":
                assert lines[at].removesuffix("\n") == line[1:]
                at += 1
            if sign != "-":
                out.append(line[1:] + "\n")
    return "".join(out + lines[at:])


@pytest.mark.parametrize("seed", range(40))
def test_a_diff_makes_the_new_text_of_the_old_one(seed: int) -> None:
    source = random.Random(seed)
    words = [str(source.randrange(source.choice((3, 10, 1000)))) for _ in range(source.randrange(60))]
    old = "".join(f"{word}\n" for word in words)
    for _ in range(source.randrange(8)):
        at = source.randrange(len(words) + 1)
        words[at : at + source.randrange(3)] = [str(source.randrange(9))] * source.randrange(3)
    new = "".join(f"{word}\n" for word in words).removesuffix(source.choice(("\n", "")))

    diff, truncated = unified(old, new, 1_000_000)

    assert not truncated
    assert applied(old, diff) == new
    assert bool(diff) == (old != new)


def test_a_diff_of_hostile_texts_takes_no_time() -> None:
    texts = [
        ("\n".join(str(n % 150) for n in range(50_000)), "\n".join(str(n * 7 % 150) for n in range(50_000))),
        ("x\n" * 200_000, "y\n" * 200_000),
        ("\n".join(map(str, range(50_000))), "\n".join(map(str, reversed(range(50_000))))),
        ("x" * 500_000, "y" * 500_000),
    ]
    began = time.process_time()
    for old, new in texts:
        diff, truncated = unified(old, new, 8000)
        assert truncated
        assert len(diff) <= 8000 + MAX_LINE
    assert time.process_time() - began < 5


def test_what_a_model_reads_says_what_is_left_out() -> None:
    found = TreeDiff(
        (), (3, 0, 1), "", diff_truncated=True, unreadable=1, unchecked=2, unreadable_paths=("/home/a\nb",)
    )

    shown = render_diff.compared("sb-1", "start", found).content[0]

    lines = getattr(shown, "text", "").splitlines()
    assert [line for line in lines if not line.startswith("---")] == [
        "Since start: 3 modified, 0 created, 1 deleted.",
        "? /home/a\\nb",
        "4 more paths: give a path to see less at once.",
        "Not all differences are shown: give a path, or read_file.",
        "2 files told as modified could not be compared in time.",
        "1 path may have changed and cannot be read by the user: see ?.",
    ]


def test_the_true_cause_is_said_and_structured_text_is_as_safe_as_the_shown_one() -> None:
    found = TreeDiff(
        (),
        (2, 0, 0),
        "+\x1b[31m\u202e\n",
        diff_truncated=False,
        unreadable=0,
        unchecked=0,
        too_large=2,
        too_deep=1,
    )

    result = render_diff.compared("sb-1", "start", found)

    lines = getattr(result.content[0], "text", "").splitlines()
    assert lines[-2:] == [
        "2 files too large for a text diff: read_file shows a part.",
        "1 directory too deep to be compared: give a path in there.",
    ]
    assert not [line for line in lines if "Not all" in line]
    assert result.structured_content is not None
    assert (result.structured_content["diff"], result.structured_content["diff_truncated"]) == ("+\n", True)
