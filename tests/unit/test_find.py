"""The program that searches in sandboxes, on this machine's files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from pocket_dock_mcp.agent.inside import find
from pocket_dock_mcp.agent.inside.find import Globs


def search(root: Path | str, **wanted: Any) -> dict[str, Any]:
    """Run the program and return its answer."""
    order = {
        "glob": None,
        "grep": None,
        "max_results": 100,
        "max_bytes": 100_000,
        "hidden": False,
        "timeout_s": 10,
    }
    done = subprocess.run(
        [sys.executable, "-I", find.__file__],
        input=json.dumps({"root": str(root), **order, **wanted}).encode(),
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def paths(answer: dict[str, Any]) -> list[str]:
    return [item[0] for item in answer["found"]]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in (
        "a.py",
        "b.txt",
        "src/a.py",
        "src/deep/er/c.py",
        "src/d.ts",
        "node_modules/x/y.js",
        ".git/config",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"first line\nthis is {name}\n")
    (tmp_path / ".env").write_text("SECRET=1\n")
    (tmp_path / "link").symlink_to("src")
    (tmp_path / "loop").symlink_to(".")
    os.mkfifo(tmp_path / "fifo")
    return tmp_path


def test_a_tree_is_listed_level_by_level_without_links_and_what_is_hidden(tree: Path) -> None:
    answer = search(tree)

    assert answer["found"][:2] == [["a.py", "file", 24], ["b.txt", "file", 25]]
    assert [(path, kind) for path, kind, _ in answer["found"][2:]] == [
        ("fifo", "other"), ("link", "symlink"), ("loop", "symlink"), ("src", "directory"),
        ("src/a.py", "file"), ("src/d.ts", "file"), ("src/deep", "directory"), ("src/deep/er", "directory"),
        ("src/deep/er/c.py", "file"),
    ]  # fmt: skip
    assert (answer["more"], answer["stopped"], answer["skipped"]) == (False, False, 3)


@pytest.mark.parametrize(
    ("glob", "expected"),
    [
        ("*.py", ["a.py", "src/a.py", "src/deep/er/c.py"]),
        ("./*.py", ["a.py"]),
        ("src/*.py", ["src/a.py"]),
        ("src/**/*.py", ["src/a.py", "src/deep/er/c.py"]),
        ("**/er/**", ["src/deep/er/c.py"]),
        ("src/**", ["src/a.py", "src/d.ts", "src/deep", "src/deep/er", "src/deep/er/c.py"]),
        ("*.{py,ts}", ["a.py", "src/a.py", "src/d.ts", "src/deep/er/c.py"]),
        ("{src/deep,nowhere}/**/*.py", ["src/deep/er/c.py"]),
        ("?.py", ["a.py", "src/a.py", "src/deep/er/c.py"]),
        ("[!b-z].py", ["a.py", "src/a.py"]),
        ("src/", ["src"]),
        ("deep", ["src/deep"]),
        (".env", [".env"]),
        (".git/**", [".git/config"]),
        ("node_modules/**/*.js", ["node_modules/x/y.js"]),
        ("A.PY", []),
    ],
)
def test_a_glob_is_matched_as_people_mean_it(tree: Path, glob: str, expected: list[str]) -> None:
    assert paths(search(tree, glob=glob)) == expected


def test_what_is_hidden_is_found_when_it_is_wanted(tree: Path) -> None:
    assert paths(search(tree, grep="SECRET|this is .git")) == []
    assert paths(search(tree, grep="SECRET|this is .git", hidden=True)) == [".env", ".git/config"]
    assert paths(search(tree / ".git")) == ["config"]


def test_lines_are_found_with_their_numbers(tree: Path) -> None:
    assert search(tree, grep="this is .*py$", glob="src/*")["found"] == [["src/a.py", 2, "this is src/a.py"]]
    assert paths(search(tree, grep="first")) == ["a.py", "b.txt", "src/a.py", "src/d.ts", "src/deep/er/c.py"]
    assert search(tree / "b.txt", grep="(?i)FIRST")["found"] == [["", 1, "first line"]]
    assert paths(search(tree / "link", grep="first")) == ["a.py", "d.ts", "deep/er/c.py"]


def test_results_are_as_many_as_wanted_and_it_is_said_that_there_are_more(tree: Path) -> None:
    two, all_of_it = search(tree, glob="*.py", max_results=2), search(tree, glob="*.py", max_results=3)
    assert (paths(two), two["more"]) == (["a.py", "src/a.py"], True)
    assert (len(all_of_it["found"]), all_of_it["more"]) == (3, False)
    one = search(tree / "a.py", grep="i", max_results=1)
    assert (one["found"], one["more"]) == ([["", 1, "first line"]], True)
    small = search(tree, max_bytes=60)
    assert (paths(small), small["more"]) == (["a.py", "b.txt"], True)


def test_files_of_any_content_are_searched_by_lines(tmp_path: Path) -> None:
    (tmp_path / "crlf").write_bytes(b"one\r\ntwo\r\n")
    (tmp_path / "latin").write_bytes(b"caf\xe9 two\n")
    (tmp_path / "utf8").write_text("zwei, dva, \u4e8c, two", encoding="utf-8")
    (tmp_path / "binary").write_bytes(b"two\0two\n")
    (tmp_path / "empty").write_bytes(b"")

    answer = search(tmp_path, grep="two$")

    assert answer["found"] == [
        ["crlf", 2, "two"], ["latin", 1, "caf\udce9 two"], ["utf8", 1, "zwei, dva, \u4e8c, two"],
    ]  # fmt: skip
    assert answer["binary"] == 1
    assert search(tmp_path, grep="^.., \\w+, [\u4e00-\u9fff]", glob="utf8")["found"] == []
    assert paths(search(tmp_path, grep="\\b[\u4e00-\u9fff]\\b")) == ["utf8"]


def test_lines_are_counted_over_the_pieces_of_a_large_file(tmp_path: Path) -> None:
    lines = [f"line {number} {'x' * (number % 97)}" for number in range(1, 60_001)]
    (tmp_path / "large").write_text("\n".join(lines))

    for number in (1, 1234, 30_000, 60_000):
        assert search(tmp_path, grep=f"line {number}\\b")["found"] == [["large", number, lines[number - 1]]]
        assert search(tmp_path, grep=f"line {number} ")["found"] == [["large", number, lines[number - 1]]]


def test_a_long_line_is_shown_around_the_match(tmp_path: Path) -> None:
    (tmp_path / "long").write_text("a" * 3_000_000 + "NEEDLE" + "b" * 3_000_000 + "\nNEEDLE\n")

    (_, first, text), (_, second, rest) = search(tmp_path, grep="NEED.E")["found"]

    assert (first, second, rest) == (1, 2, "NEEDLE")
    assert len(text) <= 242
    assert text.startswith("…aaa")
    assert text.endswith("bbb…")
    assert "aNEEDLEb" in text


def test_names_may_be_any_bytes(tmp_path: Path) -> None:
    names = [b"new\nline", b"\xff\xfe", "é".encode(), b"-n", b" "]
    for name in names:
        Path(os.fsdecode(os.path.join(os.fsencode(tmp_path), name))).write_text("content")  # noqa: PTH118

    assert {os.fsencode(path) for path in paths(search(tmp_path))} == set(names)
    assert {os.fsencode(path) for path in paths(search(tmp_path, grep="content"))} == set(names)


def test_a_hostile_tree_cannot_hang_it(tmp_path: Path) -> None:
    deep = tmp_path / "deep"
    deep.mkdir()
    directory = os.open(deep, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("d" * 20, dir_fd=directory)
        inner = os.open("d" * 20, os.O_RDONLY, dir_fd=directory)
        os.close(directory)
        directory = inner
    os.close(directory)
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "endless").symlink_to("/dev/zero")
    began = time.monotonic()

    answer = search(tmp_path, grep="x")

    assert time.monotonic() - began < 5
    assert (answer["found"], answer["unreadable"]) == ([], 1)
    assert len(paths(search(tmp_path, max_results=10_000, max_bytes=1_000_000))) < 1000
    subprocess.run(["rm", "-rf", deep], check=True)


def test_proc_and_sys_are_not_entered_from_above() -> None:
    assert paths(search("/", glob="{proc,sys}/*", timeout_s=3)) == []
    assert paths(search("/proc/self", glob="./status")) == ["status"]


def test_a_pattern_that_backtracks_for_ever_is_ended(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("fine\n" + "a" * 100 + "!\n")
    began = time.monotonic()

    assert search(tmp_path, grep="(a+)+$")["error"] == "slow"
    assert time.monotonic() - began < 5


def test_the_time_limit_ends_a_search_with_what_it_has(tmp_path: Path) -> None:
    for number in range(400):
        (tmp_path / f"{number:03}").write_text("found\n" + "x" * 1000 + "!\n")

    answer = search(tmp_path, grep="found|(x*)*y|(x{1,30}){1,4}y", timeout_s=1)

    assert answer["stopped"]
    assert 0 < len(answer["found"]) < 100


@pytest.mark.parametrize(
    ("wanted", "error"),
    [
        ({"grep": "(a"}, "grep"),
        ({"grep": "a{99999999999999999999}"}, "grep"),
        ({"glob": "[a"}, "glob"),
        ({"glob": "[z-a]"}, "glob"),
        ({"glob": "{a,b}" * 12}, "glob"),
    ],
)
def test_a_pattern_that_is_none_is_told(tmp_path: Path, wanted: dict[str, str], error: str) -> None:
    answer = search(tmp_path, **wanted)

    assert answer["error"] == error
    assert answer["detail"]


def test_a_place_that_is_none_is_told(tmp_path: Path) -> None:
    assert search(tmp_path / "nowhere") == {"error": "root", "detail": 2}


def test_a_glob_of_many_stars_costs_no_time() -> None:
    globs = Globs("/".join(["**", "*a*"] * 10))
    states = globs.start
    began = time.monotonic()

    for _ in range(200):
        states, _named = globs.step(states, "a" * 50)

    assert time.monotonic() - began < 1
    assert globs.matches(states, is_directory=False)
