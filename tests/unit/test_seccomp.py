"""Our filter of system calls: what it says, and the file that Podman reads it from."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from pocket_dock_mcp.agent.inside import filtered
from pocket_dock_mcp.engine.seccomp import OLD_S, FilterFile, ensure_file, file_name, profile

RULES: list[dict[str, Any]] = json.loads(profile())["syscalls"]


def answers(name: str) -> set[tuple[str, int | None]]:
    """What becomes of a call, whatever its arguments."""
    return {(rule["action"], rule.get("errnoRet")) for rule in RULES if name in rule["names"]}


def test_whatever_is_not_named_is_refused_as_if_the_kernel_had_it_not() -> None:
    filter_ = json.loads(profile())

    assert (filter_["defaultAction"], filter_["defaultErrnoRet"]) == ("SCMP_ACT_ERRNO", 38)


def test_no_other_machine_language_is_let_in() -> None:
    assert all(not known["subArchitectures"] for known in json.loads(profile())["archMap"])


@pytest.mark.parametrize(
    "name", [name for name, *_ in filtered.CALLS if name not in ("mark", "clone", "clone3")]
)
def test_what_the_agent_tries_is_refused_in_all_cases(name: str) -> None:
    (refusal,) = {refusal for known, *_, refusal in filtered.CALLS if known == name}
    assert answers(name) == {("SCMP_ACT_ERRNO", refusal)}


def test_a_rule_is_about_one_call_or_about_any_arguments() -> None:
    plain = [name for rule in RULES if "args" not in rule for name in rule["names"]]
    particular = {name for rule in RULES if "args" in rule for name in rule["names"]}

    assert len(plain) == len(set(plain))
    assert not particular & set(plain)


def test_the_filter_has_a_mark() -> None:
    assert answers("nfsservctl") == {("SCMP_ACT_ERRNO", filtered.MARK)}


def test_where_there_is_another_filter_or_none_the_agent_says_so() -> None:
    assert "mark" in (filtered.let_through() or ())


def test_the_file_is_written_once_and_readable(tmp_path: Path) -> None:
    path = ensure_file(tmp_path / "new")
    first = path.stat()

    assert path == tmp_path / "new" / file_name()
    assert path.read_text() == profile()
    assert stat.S_IMODE(first.st_mode) == 0o644
    assert ensure_file(tmp_path / "new").stat().st_ino == first.st_ino


@pytest.mark.parametrize("content", [b"", b"{}", b"x" * 100_000])
def test_a_file_that_is_not_whole_is_replaced(tmp_path: Path, content: bytes) -> None:
    (tmp_path / file_name()).write_bytes(content)

    assert ensure_file(tmp_path).read_text() == profile()
    assert [path.name for path in tmp_path.iterdir()] == [file_name()]


def test_files_of_other_releases_go_when_they_are_old(tmp_path: Path) -> None:
    old, young, foreign = (tmp_path / name for name in ("seccomp-0.json", "seccomp-1.json", "notes.json"))
    for path in (old, young, foreign):
        path.write_text("{}")
    for path in (old, foreign):
        os.utime(path, (0, path.stat().st_mtime - 2 * OLD_S))

    ensure_file(tmp_path)

    assert {path.name for path in tmp_path.iterdir()} == {file_name(), young.name, foreign.name}


def test_the_file_goes_with_the_last_who_needs_it(tmp_path: Path) -> None:
    first, second = FilterFile(tmp_path), FilterFile(tmp_path)
    path = first.path()
    assert second.path() == path

    first.close()
    assert path.read_text() == profile()
    second.close()
    assert list(tmp_path.iterdir()) == []
    assert first.path().read_text() == profile()

    path.unlink()
    assert first.path().read_text() == profile()
    first.close()
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(OSError, match="file"):
        ensure_file(tmp_path / "file" / "below")
