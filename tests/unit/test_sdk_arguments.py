"""What the SDK makes of what its callers say, before any engine is asked."""

from __future__ import annotations

import math
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pocket_dock_mcp.async_ import AsyncContainerPool, create_new_container
from pocket_dock_mcp.async_.commands import check_max_output, checked_timeout, code_of, directory
from pocket_dock_mcp.async_.create import base_of
from pocket_dock_mcp.async_.names import checked_image_name
from pocket_dock_mcp.async_.processes import _of_json, _of_lines
from pocket_dock_mcp.async_.sizes import size_of, size_text
from pocket_dock_mcp.errors import ConfigError, InvalidArgumentError

ODD = [
    "",
    " ",
    "a b",
    "$HOME",
    "`id`",
    "it's",
    '"',
    "\\",
    "a\nb",
    "-n",
    "--",
    "*",
    "~",
    "a=b",
    "é",
    "\udcff",
    "\t",
]


@pytest.mark.parametrize(
    ("said", "meant"),
    [("256m", 256 << 20), ("1g", 1 << 30), ("1.5 GB", 3 << 29), ("64KiB", 65_536), ("12", 12), (7, 7)],
)
def test_sizes_are_read_as_people_write_them(said: str | int, meant: int) -> None:
    assert size_of("mem_limit", said) == meant


@pytest.mark.parametrize("said", ["", "m", "-1m", "1x", "1e3", 0, -5, True, None, 1.5, "1" * 30, "٣m"])
def test_what_is_no_size_is_refused_with_an_example(said: object) -> None:
    with pytest.raises(InvalidArgumentError, match=r"mem_limit.*256m"):
        size_of("mem_limit", said)


def test_sizes_are_told_as_the_seed_tells_them() -> None:
    assert size_text(int(42.1 * (1 << 20))) == "42.1 MB"
    assert size_text(256 << 20) == "256 MB"
    assert size_text((1 << 20) - 1) == "1 MB"
    assert size_text(0) == "0 B"
    assert size_text(5 << 40) == "5 TB"


@pytest.mark.parametrize("shell", ["sh", "bash", "dash"])
def test_a_sequence_is_run_exactly_whatever_the_shell(shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell}")
    code, language = code_of(["printf", "%s\\0", *ODD], None)
    assert language == "shell"
    done = subprocess.run([shell, "-c", code], capture_output=True, check=True)
    assert done.stdout == "".join(f"{one}\0" for one in ODD).encode("utf-8", "surrogateescape")


@pytest.mark.parametrize("argv", [[], [""], ["a", "b\0c"], ["a", 1], b"ls", 7, None, [b"ls"]])
def test_what_no_program_can_be_run_with_is_refused(argv: Any) -> None:
    with pytest.raises(InvalidArgumentError):
        code_of(argv, None)


def test_languages_have_the_names_that_people_use_and_no_others() -> None:
    for lang, meant in (("BASH", "bash"), ("SH", "shell"), ("node", "javascript"), ("python", "python")):
        assert code_of("x", lang) == ("x", meant)
    for lang in ("ruby", "", "pythn"):
        with pytest.raises(InvalidArgumentError, match=r"lang.*node.*python"):
            code_of("x", lang)
    with pytest.raises(InvalidArgumentError, match="sequence"):
        code_of(["x"], "python")


def test_time_limits_and_caps_that_make_no_sense_are_refused() -> None:
    assert checked_timeout(math.inf) is None
    assert checked_timeout(0.1) == 0.1
    for timeout in (0, -1, math.nan, 1e9, "30", True):
        with pytest.raises(InvalidArgumentError, match=r"timeout.*math\.inf"):
            checked_timeout(timeout)  # type: ignore[arg-type]
    for most in (0, -1, 1 << 40, 1.5, "10"):
        with pytest.raises(InvalidArgumentError, match="max_output"):
            check_max_output(most)  # type: ignore[arg-type]


def test_a_run_begins_in_the_working_directory() -> None:
    assert directory("", None) is None
    assert directory("/srv/app", None) == "/srv/app"
    assert directory("/srv/app", "src") == "/srv/app/src"
    assert directory("work", "/tmp") == "/tmp"
    assert directory("work", "~/x") == "~/x"


def test_images_of_users_have_names_of_their_own() -> None:
    assert checked_image_name("my-tools") == "my-tools:latest"
    assert checked_image_name("localhost:5000/a/b:v2") == "localhost:5000/a/b:v2"
    bad = (
        "",
        "A B",
        "x@sha256:" + "0" * 64,
        "0" * 64,
        "localhost/pocket-dock/minimal",
        "x:",
        'x" y',
        "x\ny",
        None,
    )
    for name in bad:
        with pytest.raises(InvalidArgumentError):
            checked_image_name(name)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"mem_limit": "1m"}, "mem_limit.*32m"),
        ({"mem_limit": "lots"}, "mem_limit.*256m"),
        ({"cpu_percent": 0}, "cpu_percent.*100 is one core"),
        ({"cpu_percent": "50"}, "cpu_percent"),
        ({"pids_limit": 1}, "pids_limit.*16"),
        ({"pids_limit": 10.5}, "pids_limit"),
        ({"disk_limit": "1k"}, "disk_limit"),
        ({"shm_size": "1g", "mem_limit": "64m"}, "shm_size"),
        ({"timeout": 0}, "timeout"),
        ({"network": "bridge"}, "network.*open"),
        ({"idle_timeout": 0.1}, "idle_timeout"),
        ({"name": ""}, "name"),
        ({"image": "x", "profile": "minimal"}, "image, profile and snapshot"),
        ({"image": ""}, "empty"),
        ({"profile": ""}, "empty"),
        ({"profile": "nope"}, "no profile 'nope'"),
        ({"profile": "mininal"}, "Did you mean 'minimal'"),
        ({"profile": "docker.io/library/zzz"}, "no profile.*minimal, dev"),
        ({"workdir": "$HOME/x"}, "variable"),
        ({"workdir": ""}, "empty"),
        ({"engine": "podman", "socket_path": "/x"}, "socket_path"),
    ],
)
@pytest.mark.anyio
async def test_options_that_can_never_work_say_what_may_be(
    options: dict[str, Any], says: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("POCKET_DOCK_STATE_DIR", str(tmp_path))
    monkeypatch.setenv("POCKET_DOCK_ENGINE", "unix:///nobody/listens")
    with pytest.raises(InvalidArgumentError, match=says):
        await create_new_container(**options)


@pytest.mark.anyio
async def test_a_pool_is_of_a_profile_or_an_image_and_not_of_what_is_called_so_by_mistake(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("POCKET_DOCK_STATE_DIR", str(tmp_path))
    with pytest.raises(InvalidArgumentError, match="Did you mean 'minimal'"):
        AsyncContainerPool(profile="mininal")
    with pytest.raises(InvalidArgumentError, match="Only one"):
        AsyncContainerPool(profile="dev", image="dev")


def test_the_default_may_be_a_profile_or_an_image() -> None:
    assert base_of("localhost/mine:1", None, None) == "localhost/mine:1"
    assert base_of("localhost/mine:1", None, "dev") == "dev"
    assert base_of("minimal", "debian", None) == "debian"


@pytest.mark.anyio
async def test_an_engine_that_cannot_be_is_refused_as_an_argument_or_a_setting(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("POCKET_DOCK_STATE_DIR", str(tmp_path))
    with pytest.raises(ConfigError):
        await create_new_container(engine="rkt")


def test_what_a_container_says_of_its_processes_is_not_believed() -> None:
    for said in ("", "[", "{}", "[1]", "[[1]]", '[["a", 1, "S", 0, 0, ["x"]]]', '[[1, 1, "SS", 0, 0, []]]'):
        assert list(_of_json(said)) == []
    assert list(_of_json('[[1, 1, "S", 0, -5, ["x"]], [1e400, 1, "S", 0, 0, ["x"]]]')) == []
    (one,) = _of_json('[[7, 1, "S", 0.5, 4096, ["sh", "-c"]]]')
    assert one.as_text() == {
        "PID": "7", "PPID": "1", "STAT": "S", "TIME": "0.50", "RSS": "4", "COMMAND": "sh -c"
    }  # fmt: skip
    assert [p.pid for p in _of_lines("3\n3 (sh) S 1 0\n5 (a) b) R 3 0\nx\n" + "9" * 99 + " (a) S 1 0")] == [5]


def test_the_package_has_every_name_of_the_blocking_sdk_and_imports_it_when_one_is_wanted() -> None:
    program = (
        "import sys, pocket_dock_mcp as package\n"
        "from pocket_dock_mcp import errors\n"
        "assert 'pocket_dock_mcp.sync' not in sys.modules\n"
        "from pocket_dock_mcp import *\n"
        "from pocket_dock_mcp import sync\n"
        "assert {*sync.__all__} <= {*package.__all__}, {*sync.__all__} ^ {*package.__all__}\n"
        "assert all(getattr(package, name) is getattr(sync, name) for name in sync.__all__)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
