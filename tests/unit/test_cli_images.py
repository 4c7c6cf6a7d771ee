"""The commands about images where no engine is needed: progress, files, and what is wrong beforehand."""

from __future__ import annotations

import errno
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pocket_dock_mcp.cli.console import Console
from pocket_dock_mcp.cli.newfile import new_file
from pocket_dock_mcp.cli.steps import Steps, Transfer, bar, size
from pocket_dock_mcp.errors import HostFileError, ImageBuildError, InvalidArgumentError
from pocket_dock_mcp.images.references import full
from pocket_dock_mcp.output import Milestone


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def lines() -> io.StringIO:
    return io.StringIO()


def run(home: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "POCKET_DOCK_STATE_DIR": str(home / "state"),
        "POCKET_DOCK_ENGINE": f"unix://{home}/nobody.sock",
    }
    command = [sys.executable, "-m", "pocket_dock_mcp.cli.main", *argv]
    return subprocess.run(
        command, env=environ, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60
    )


@pytest.mark.parametrize("step", ["STEP 2/4: RUN make", "Step 2/4 : RUN make"])
def test_where_nothing_moves_only_what_matters_is_told_and_the_rest_if_it_fails(
    lines: io.StringIO, step: str
) -> None:
    steps = Steps(Console({}, err=lines), "dev")
    for line in (Milestone("building\x1b[31m it"), step, "compiling"):
        steps.tell(line)
    assert lines.getvalue() == "dev: building it\n"
    with pytest.raises(ImageBuildError), steps.shown_if_it_fails():
        raise ImageBuildError("It fails.")

    assert lines.getvalue().splitlines()[1:] == ["  | building it", f"  | {step}", "  | compiling"]


def test_on_a_terminal_one_line_moves_and_the_last_ones_are_shown_of_what_has_failed() -> None:
    terminal = Terminal()
    steps = Steps(Console({}, err=terminal), "dev")
    for number in range(40):
        steps.tell(f"line {number}")
    steps.tell("STEP 3/4: RUN false")
    assert "\n" not in terminal.getvalue()
    assert f"{bar(2, 4)} 3/4 dev: RUN false" in terminal.getvalue()

    steps.show_last()

    shown = [line for line in terminal.getvalue().splitlines() if "  | " in line]
    assert len(shown) == 15
    assert shown[-1].endswith("STEP 3/4: RUN false")


def test_transfers_are_told_on_terminals_only(lines: io.StringIO) -> None:
    terminal = Terminal()
    for err in (lines, terminal):
        transfer = Transfer(Console({}, err=err), "exporting", 200_000_000)
        for _ in range(150):
            transfer.add(1_000_000)

    assert lines.getvalue() == ""
    assert terminal.getvalue().endswith(f"{bar(3, 4)} exporting: 150 MB")


def test_bars_and_sizes_are_bounded() -> None:
    assert bar(0, 0) == bar(-1, 5) == f"[{'.' * 20}]"
    assert bar(9, 5) == f"[{'#' * 20}]"
    assert [size(0), size(119_203_840), size(25_000_000_000)] == ["0 MB", "119 MB", "25.0 GB"]


def test_a_new_file_replaces_the_old_one_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    with pytest.raises(TypeError), new_file(path) as file:
        file.writelines([b"half", None])  # type: ignore[list-item]
    assert path.read_text() == "old"

    with new_file(path) as file:
        file.write(b"new")
    assert path.read_text() == "new"
    assert [one.name for one in tmp_path.iterdir()] == ["file"]
    assert path.stat().st_mode & 0o777 == 0o666 & ~_umask()


def test_a_file_that_cannot_be_finished_is_no_wrong_usage(tmp_path: Path) -> None:
    with pytest.raises(HostFileError, match="No space left"), new_file(tmp_path / "file"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    assert list(tmp_path.iterdir()) == []


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@pytest.mark.parametrize("place", ["nothing/file", "folder", "x" * 300])
def test_a_place_that_cannot_be_written_is_said(tmp_path: Path, place: str) -> None:
    (tmp_path / "folder").mkdir()

    with pytest.raises(InvalidArgumentError) as caught, new_file(tmp_path / place):
        pass

    assert caught.value.hint
    assert [one.name for one in tmp_path.iterdir()] == ["folder"]


def test_a_device_is_no_file_to_replace() -> None:
    with pytest.raises(InvalidArgumentError, match="no file"), new_file(Path("/dev/full")):
        pass


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("a", "a:latest"),
        ("host:5000/a/b", "host:5000/a/b:latest"),
        ("a/b:1", "a/b:1"),
        ("0123456789ab", "0123456789ab"),
    ],
)
def test_references_get_a_tag(text: str, whole: str) -> None:
    assert full(text) == whole


@pytest.mark.parametrize("text", ["", "-o", "A b", "a:b:c"])
def test_what_is_no_reference_is_said(text: str) -> None:
    with pytest.raises(InvalidArgumentError, match="is no image"):
        full(text)


def test_without_an_engine_the_profiles_are_told_all_the_same(tmp_path: Path) -> None:
    done = run(tmp_path, "profiles", "--json")

    assert done.returncode == 0
    assert "is not known" in done.stderr
    found = {one["name"]: (one["network_default"], one["built"]) for one in json.loads(done.stdout)}
    assert found == {
        "minimal": (False, None),
        "dev": (True, None),
        "agent": (False, None),
        "embedded": (True, None),
        "node": (False, None),
        "bun": (False, None),
    }


@pytest.mark.parametrize(
    ("argv", "status", "why"),
    [
        (["build", "minimla"], 2, "Did you mean 'minimal'?"),
        (["build", "minimal"], 3, "nobody.sock"),
        (["export", "-o", "x.tar"], 2, "--profile NAME"),
        (["export", "--all"], 2, "-o"),
        (["export", "-o", "x.tar", "some/image"], 3, "nobody.sock"),
        (["export", "-o", "x.tar", "--image", "a", "B b"], 3, "nobody.sock"),
        (["import", "nothing.tar"], 2, "cannot be read"),
        (["import"], 2, "FILE"),
    ],
)
def test_what_is_wrong_is_one_line_with_the_next_step(
    tmp_path: Path, argv: list[str], status: int, why: str
) -> None:
    done = run(tmp_path, *argv)

    assert (done.returncode, done.stdout) == (status, "")
    assert len(done.stderr.splitlines()) == 1
    assert why in done.stderr
