"""Answers of an agent that has been taken over: numbers that no float takes, kinds that are no text."""

from __future__ import annotations

import math
from typing import Any

import pytest

from pocket_dock_mcp.agent.agent_process import _run_end, int_of, number_of
from pocket_dock_mcp.agent.inside import wire
from pocket_dock_mcp.agent.link import AgentLink, RemoteError
from pocket_dock_mcp.agent.remote_errors import session_error
from pocket_dock_mcp.agent.transport import Report
from pocket_dock_mcp.container.memory import recalled
from pocket_dock_mcp.engine.base import STDOUT
from pocket_dock_mcp.errors import AgentProtocolError, RequestRefusedError, SessionDiedError
from pocket_dock_mcp.testing.streams import Channel, FakeStream

EXIT: dict[str, Any] = {"kind": "exit", "code": 0, "wall": 0.1, "cpu": 0.1, "peak": 1}
FILES = {"created": [["a", 1]], "modified": [], "deleted": [], "counts": [1, 0, 0]}
HUGE = 10**400


def short(value: object) -> str:
    return repr(value)[:8]


ODD_NUMBERS = [HUGE, -HUGE, 2**63, math.inf, -math.inf, math.nan, "1", True, [], None]


@pytest.mark.parametrize("value", ODD_NUMBERS, ids=short)
def test_what_is_no_number_that_can_be_is_an_offence(value: object) -> None:
    with pytest.raises(AgentProtocolError):
        number_of({"n": value}, "n")
    with pytest.raises(AgentProtocolError):
        int_of({"n": value}, "n")


@pytest.mark.parametrize("value", [HUGE, math.inf, math.nan, -1, "x", [1], {"a": 1}], ids=short)
@pytest.mark.parametrize("where", ["size", "counts"])
def test_sizes_of_changed_files_that_cannot_be_are_an_offence(value: object, where: str) -> None:
    files = {**FILES, "created": [["a", value]]} if where == "size" else {**FILES, "counts": [value, 0, 0]}

    with pytest.raises(AgentProtocolError):
        _run_end({**EXIT, "files": files}, Report())


def test_a_memory_with_numbers_that_cannot_be_is_none() -> None:
    said = {"run": f"run-{'0' * 16}", "language": "shell", "meta": {}, "began": 1, "limits": [None] * 4}

    assert recalled(said) is not None
    assert recalled({**said, "began": HUGE}) is None
    memory = recalled({**said, "timeout": HUGE})
    assert memory is not None
    assert memory.program.timeout_s is None


def test_a_reason_that_is_no_text_does_not_matter() -> None:
    error = RemoteError({"stage": "session", "code": "died", "why": [], "signal": 9})

    assert isinstance(session_error(error, "s"), SessionDiedError)


def test_a_refusal_that_nobody_expects_is_one_of_our_errors() -> None:
    error = RemoteError({"stage": "\x1b[2J", "code": {"a": 1}})

    assert isinstance(error, RequestRefusedError)
    assert error.code == "request_refused"
    assert "\x1b" not in str(error)


@pytest.mark.anyio
@pytest.mark.parametrize("kind", [[], {}, ["reply"], None, 1])
async def test_a_kind_that_is_no_text_is_an_offence(kind: object) -> None:
    stream = FakeStream(Channel())
    link = AgentLink(stream)
    stream.output.put_nowait(STDOUT, wire.encode({"kind": kind, "id": 0}))
    try:
        with pytest.raises(AgentProtocolError):
            await link.wait_ready(10)
    finally:
        await link.aclose()


@pytest.mark.anyio
async def test_a_first_number_that_cannot_be_is_an_offence() -> None:
    stream = FakeStream(Channel())
    link = AgentLink(stream)
    stream.output.put_nowait(
        STDOUT, wire.encode({"kind": "ready", "id": 0, "protocol": wire.PROTOCOL, "next": HUGE})
    )
    try:
        with pytest.raises(AgentProtocolError):
            await link.wait_ready(10)
    finally:
        await link.aclose()
