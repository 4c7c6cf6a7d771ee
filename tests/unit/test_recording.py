"""Histories of containers that are of no project: so many, and the latest."""

from __future__ import annotations

import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import cast

from pocket_dock_mcp.manager.recording import MAX_AGE_S, MAX_DIRECTORIES, Recorder, histories_path
from pocket_dock_mcp.manager.sandbox import Sandbox, SandboxRequest


def sandbox(name: str, **said: str) -> Sandbox:
    """Return all of a sandbox that matters here."""
    request = SandboxRequest(image="minimal", container_name=name, **said)  # type: ignore[arg-type]
    return cast("Sandbox", SimpleNamespace(request=request, container=SimpleNamespace(name=name)))


def test_only_so_many_are_kept_and_those_that_were_used_last(tmp_path: Path) -> None:
    histories = histories_path(tmp_path)
    for number in range(MAX_DIRECTORIES + 20):
        path = histories / f"box-{number:03}"
        path.mkdir(parents=True)
        os.utime(path, (time.time() - 10_000 + number,) * 2)
    os.utime(histories / f"box-{MAX_DIRECTORIES + 19}", (time.time() - MAX_AGE_S - 10,) * 2)
    recorder = Recorder(tmp_path)

    assert recorder.open(sandbox("new")) is not None
    left = sorted(path.name for path in histories.iterdir())
    assert len(left) == MAX_DIRECTORIES
    assert left[-1] == "new"
    assert left[-2] == f"box-{MAX_DIRECTORIES + 18}"


def test_it_goes_with_its_container_and_no_other(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path)
    for name in ("one", "other"):
        recorder.open(sandbox(name))
    recorder.remove(SandboxRequest("minimal", container_name="one"), "one")
    recorder.remove(SandboxRequest("minimal", container_name="x"), "../history/other")

    assert [path.name for path in histories_path(tmp_path).iterdir()] == ["other"]


def test_what_a_model_makes_for_a_moment_has_none(tmp_path: Path) -> None:
    assert Recorder(tmp_path).open(sandbox("")) is None
    assert not histories_path(tmp_path).exists()


def test_a_project_that_is_gone_has_no_history_and_is_not_made_again(tmp_path: Path) -> None:
    gone = tmp_path / "gone"

    assert Recorder(tmp_path).open(sandbox("box", project_root=str(gone))) is None
    assert not gone.exists()
