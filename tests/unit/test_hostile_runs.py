"""Listings of kept runs by an agent that has been taken over."""

from __future__ import annotations

import json
from typing import Any

import anyio
import pytest

from pocket_dock_mcp.agent.agent_process import KeptRun
from pocket_dock_mcp.agent.agent_transport import AgentTransport
from pocket_dock_mcp.agent.inside import wire
from pocket_dock_mcp.agent.kept_runs import MAX_REMEMBERED, _size
from pocket_dock_mcp.agent.link import AgentLink
from pocket_dock_mcp.agent.requests import Relay
from pocket_dock_mcp.agent.transport import Program
from pocket_dock_mcp.errors import AgentProtocolError
from tests.taken_over import Answer, Say, taken_over

pytestmark = pytest.mark.anyio

RUN = {"meta": None, "ended": False, "missing": [0, 0, 0]}
SECOND = wire.IDS + 1
"""The first number of the second client."""


def listing(*pages: list[dict[str, Any]], first: int = SECOND) -> Answer:
    """Return an agent that lists these runs, the last page for ever; `first` is its client's first number."""
    left = list(pages)

    def answer(header: wire.Header, say: Say) -> None:
        said: dict[str, Any] = {"home": "/h", "uid": 1000, "next": first}
        if header["op"] == "list_runs":
            said = {"runs": left.pop(0) if left else []}
        say({"kind": "reply", "id": header["id"], **said})

    return answer


def run(number: int, **fields: Any) -> dict[str, Any]:
    return {"id": number, **RUN, **fields}


async def ready(link: AgentLink, first: int = SECOND) -> AgentLink:
    """Let the link hear from where on its numbers are."""
    stream: Any = link._stream
    stream.say({"kind": "ready", "id": 0, "protocol": wire.PROTOCOL, "next": first})
    await link.wait_ready(10)
    return link


@pytest.mark.parametrize("number", [SECOND, SECOND + 5, 2 * wire.IDS - 1])
async def test_a_run_under_a_number_of_our_own_is_no_earlier_one(number: int) -> None:
    async with taken_over(listing([run(number)])) as (_, link):
        await ready(link)

        with pytest.raises(AgentProtocolError):
            await AgentTransport.rejoin(link)


async def test_runs_of_earlier_and_of_later_clients_are_found() -> None:
    known = [5, wire.IDS - 1, 2 * wire.IDS + 1]
    async with taken_over(listing([run(number) for number in known])) as (_, link):
        await ready(link)

        _, found = await AgentTransport.rejoin(link)

        assert [one.id for one in found] == known


async def test_our_own_runs_are_not_among_those_of_others() -> None:
    known = [5, SECOND, SECOND + 1, 2 * wire.IDS + 1]
    async with taken_over(listing([run(number) for number in known])) as (transport, link):
        await ready(link)

        found = await transport.others_runs()

        assert [one.id for one in found] == [5, 2 * wire.IDS + 1]


async def test_what_is_under_way_is_not_taken_up_again() -> None:
    async with taken_over(lambda _header, _say: None) as (_, link):
        number, request = link.open(None)

        with pytest.raises(AgentProtocolError):
            link.reopen(number, None)
        await link.aclose()

        assert request.answer.exception() is not None, "whoever waits for it would wait for ever"


async def test_nothing_of_ours_takes_the_place_of_what_was_taken_up() -> None:
    async with taken_over(lambda _header, _say: None) as (transport, link):
        taken = KeptRun(1, None, ended=False, heard_of=False, missing=(0, 0, 0))
        process = await transport.take_up(taken, Program("shell", "x"), lambda _stream, _data: None)

        with pytest.raises(AgentProtocolError):
            link.open(None)
        with pytest.raises(AgentProtocolError):
            link.reopen(1, None)
        await link.aclose()

        with anyio.fail_after(10), pytest.raises(Exception, match="closed"):
            await process.wait()


async def test_no_connection_takes_the_place_of_what_was_taken_up() -> None:
    async with taken_over(lambda _header, _say: None) as (_, link):
        link.reopen(1, None)

        with pytest.raises(AgentProtocolError):
            link.open_relay(Relay(lambda _data, _end: None, 1, 1))


async def test_memories_of_runs_without_end_are_an_offence() -> None:
    meta = {"x": "y" * (wire.MAX_HEADER // 2)}
    count = MAX_REMEMBERED // len(json.dumps(meta)) + 2
    pages = [[run(number, meta=meta)] for number in range(1, count + 1)]
    async with taken_over(listing(*pages)) as (_, link):
        await ready(link)

        with pytest.raises(AgentProtocolError):
            await AgentTransport.rejoin(link)


async def test_what_nests_too_deeply_to_be_measured_is_too_much() -> None:
    meta: list[Any] = []
    for _ in range(100_000):
        meta = [meta]

    assert _size(meta) > MAX_REMEMBERED
