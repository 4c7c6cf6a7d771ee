"""What a kept container remembers of runs, read as if it had been taken over."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from pocket_dock_mcp.agent.kept_runs import _kept_run
from pocket_dock_mcp.agent.transport import Program
from pocket_dock_mcp.container.memory import MAX_META, recalled, remembered
from pocket_dock_mcp.errors import AgentProtocolError, InvalidArgumentError
from pocket_dock_mcp.models import RunLimits

RUN = f"run-{'0123456789abcdef' * 2}"
PROGRAM = Program(
    language="python",
    code="secret()",
    env={"TOKEN": "secret"},
    stdin=b"secret",
    cwd="/tmp",
    timeout_s=5.0,
    session="s",
    limits=RunLimits(cpu_s=1.5, memory_bytes=1 << 30, processes=7, output_bytes=99),
)


def test_what_is_remembered_comes_back_without_secrets() -> None:
    said = json.loads(json.dumps(remembered(RUN, PROGRAM, {"key": "k"})))

    memory = recalled(said)

    assert memory is not None
    assert (memory.run_id, memory.meta) == (RUN, {"key": "k"})
    program = memory.program
    assert (program.language, program.cwd, program.timeout_s, program.session) == ("python", "/tmp", 5.0, "s")
    assert program.limits == PROGRAM.limits
    assert not program.keep_stdin
    assert "secret" not in json.dumps(said)


def test_ids_of_older_releases_are_known() -> None:
    memory = recalled(remembered("run-0123456789abcdef", PROGRAM, {}))

    assert memory is not None
    assert memory.run_id == "run-0123456789abcdef"


@pytest.mark.parametrize(("said", "kept"), [(True, True), (False, False), (1, False), (None, False)])
def test_whether_input_may_come_later_comes_back(said: object, kept: bool) -> None:
    memory = recalled({**remembered(RUN, replace(PROGRAM, keep_stdin=True), {}), "stdin": said})

    assert memory is not None
    assert memory.program.keep_stdin is kept
    assert recalled(remembered(RUN, replace(PROGRAM, keep_stdin=True), {})).program.keep_stdin  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "change",
    [
        {"run": "run-1"},
        {"run": RUN + "\n"},
        {"run": 5},
        {"language": "perl"},
        {"language": ["python"]},
        {"began": None},
        {"began": float("nan")},
        {"began": True},
        {"began": "1"},
        {"meta": None},
        {"meta": [1]},
        {"limits": None},
        {"limits": [1, 2, 3]},
    ],
)
def test_what_was_not_written_by_us_is_nothing(change: dict[str, Any]) -> None:
    assert recalled({**remembered(RUN, PROGRAM, {}), **change}) is None


@pytest.mark.parametrize("said", [None, [], "x", 5, {}])
def test_something_else_is_nothing(said: object) -> None:
    assert recalled(said) is None


def test_odd_limits_and_names_are_none() -> None:
    said = {**remembered(RUN, PROGRAM, {}), "limits": [-1, "x", True, float("inf")], "cwd": 1, "session": {}}

    memory = recalled(said)

    assert memory is not None
    assert memory.program.limits == RunLimits()
    assert (memory.program.cwd, memory.program.session) == (None, None)


@pytest.mark.parametrize("meta", [{"x": "y" * MAX_META}, {"x": {1, 2}}, {"x": b"y"}])
def test_meta_that_cannot_be_kept_is_refused(meta: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentError, match="meta"):
        remembered(RUN, PROGRAM, meta)


@pytest.mark.parametrize(
    "said",
    [
        None,
        [],
        {},
        {"id": 1, "missing": [0, 0]},
        {"id": 1, "missing": [0, 0, -1]},
        {"id": 1, "missing": [0, 0, True]},
        {"id": 1, "missing": [0, 0, 0, "x"]},
        {"id": "1", "missing": [0, 0, 0]},
        {"id": True, "missing": [0, 0, 0]},
        {"missing": [0, 0, 0]},
        {"id": 0, "missing": [0, 0, 0]},
    ],
)
def test_a_listing_of_nonsense_is_an_offence(said: object) -> None:
    with pytest.raises(AgentProtocolError):
        _kept_run(said, 0)
