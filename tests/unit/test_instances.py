"""The directories of a project's containers: what is on record in them, and what names cannot do."""

from __future__ import annotations

import importlib
import itertools
import sys
from pathlib import Path

import pytest

from pocket_dock_mcp.errors import InvalidArgumentError, StateError
from pocket_dock_mcp.projects import init_project, toml
from pocket_dock_mcp.projects.instances import (
    InstanceMetadata,
    ensure_instance_dir,
    instance_path,
    list_instance_dirs,
    read_instance_metadata,
    remove_instance_dir,
    write_instance_metadata,
)

HOSTILE = [
    "",
    'a "quoted" \\ text',
    "two\nlines\r\n\ttab",
    "\x00\x01\x1f\x7f\x80\x9f",
    "# no comment",
    "]\n[table]\nkey = 1",
    "'''\"\"\"",
    "ünï\u2028\u202e\U0001f600",
    "\ud800 alone",
    "true",
    "x" * 10_000,
]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return init_project(tmp_path / "p")


# -- TOML --------------------------------------------------------------------------------------------


def test_whatever_is_written_is_read_again() -> None:
    document: toml.Document = {
        **{f"text {index}": text for index, text in enumerate(HOSTILE) if "\ud800" not in text},
        "whole": 2**53,
        "part": -0.25,
        "large": 1e300,
        "yes": True,
        "": 0,
        "table": {'k"\\\n': "v", "a.b": 1},
        "empty": {},
    }

    assert toml.loads(toml.dumps(document)) == document


@pytest.mark.skipif(sys.version_info < (3, 11), reason="no tomllib to compare with")
def test_what_is_written_is_toml() -> None:
    tomllib = importlib.import_module("tomllib")
    document: toml.Document = {
        "part": 1e16,
        "table": {**{text: text for text in HOSTILE if "\ud800" not in text}},
        **{f"t{index}": text for index, text in enumerate(HOSTILE)},
    }
    text = toml.dumps(document)

    assert tomllib.loads(text) == toml.loads(text)


@pytest.mark.parametrize("text", ["x", "a = ", "a = [1]", "a = null", "= 1", "a = 1 # x", 'a = "', "a = {}"])
def test_what_this_module_cannot_have_written_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # whoever reads asks no more
        toml.loads(text)


# -- directories -------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", HOSTILE)
def test_what_is_on_record_is_read_again(value: str, root: Path) -> None:
    directory = ensure_instance_dir(root, "box")
    metadata = InstanceMetadata("box", "p", value, profile=value, ports={value: 80}, cpu_percent=50.0, pid=1)
    write_instance_metadata(directory, metadata)
    found = read_instance_metadata(directory)

    assert found is not None
    assert found.image == value.replace("\ud800", "\ufffd")
    assert (found.name, found.ports, found.cpu_percent) == ("box", {found.image: 80}, 50.0)


def test_nobody_else_may_read_it_and_nothing_is_left_half_written(root: Path) -> None:
    directory = ensure_instance_dir(root, "box")
    for image in ("one", "two"):
        write_instance_metadata(directory, InstanceMetadata("box", "p", image))

    assert sorted(path.name for path in directory.iterdir()) == ["data", "instance.toml", "logs"]
    for path in (directory.parent, directory, directory / "data", directory / "logs"):
        assert path.stat().st_mode & 0o777 == 0o700
    assert (directory / "instance.toml").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "/etc", "a/b", "a\0b", "-x", ".x", "x" * 64, "a\n"])
def test_a_name_cannot_lead_out(name: str, root: Path) -> None:
    for act in (instance_path, ensure_instance_dir, remove_instance_dir):
        with pytest.raises(InvalidArgumentError):
            act(root, name)


@pytest.mark.parametrize("where", ["instances", "instances/box", "instances/box/logs"])
def test_nothing_is_written_through_a_link(where: str, root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    link = root / ".pocket-dock" / where
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(outside)

    with pytest.raises(StateError, match="it is a link"):
        ensure_instance_dir(root, "box")
    assert not list(outside.iterdir())


def test_a_directory_that_cannot_be_made_is_told(root: Path) -> None:
    (root / ".pocket-dock" / "instances").write_text("in the way")

    with pytest.raises(StateError, match="cannot be made"):
        ensure_instance_dir(root, "box")


def test_they_are_listed_and_removed_with_all_that_is_in_them(root: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").touch()
    for name in ("b", "a", "c"):
        ensure_instance_dir(root, name)
    (instance_path(root, "b") / "data" / "link").symlink_to(precious)
    (instance_path(root, "b").parent / "stray").touch()
    (instance_path(root, "b").parent / "linked").symlink_to(precious)

    assert [path.name for path in list_instance_dirs(root)] == ["a", "b", "c"]
    assert remove_instance_dir(root, "b")
    assert remove_instance_dir(root, "b")
    assert [path.name for path in list_instance_dirs(root)] == ["a", "c"]
    assert (precious / "file").exists()


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\xff",
        b"name = 1\n",
        b"ports = 3\n",
        b"persist = 1\n",
        b"[ports]\n" + b"[" * 60_000,
        b"x" * 10**6,
    ],
)
def test_a_record_that_is_none_is_none_or_blank(raw: bytes, root: Path) -> None:
    directory = ensure_instance_dir(root, "box")
    (directory / "instance.toml").write_bytes(raw)
    found = read_instance_metadata(directory)

    assert found is None or found == InstanceMetadata("box", "", "")


def test_a_project_without_containers_has_none(root: Path, tmp_path: Path) -> None:
    assert list(itertools.chain(list_instance_dirs(root), list_instance_dirs(tmp_path / "none"))) == []
