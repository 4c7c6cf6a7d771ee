"""Answers of an agent that has been taken over, of which there is more than was asked for."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest

from pocket_dock_mcp.agent.agent_transport import AgentTransport
from pocket_dock_mcp.agent.inside import wire
from pocket_dock_mcp.errors import AgentProtocolError
from tests.taken_over import Answer, Say, taken_over

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024
FLOOD = 64 * MIB
"""Bytes after which a flood that nobody stops is at its end."""
STATUS = {"size": 10, "mode": 0o644, "mtime": 1.5, "version": "v"}
ENTRY = {**STATUS, "name": "a", "type": "file"}

Ask = Callable[[AgentTransport], Awaitable[object]]
ASKED: dict[str, Ask] = {
    "read": lambda transport: transport.read("/x", offset=0, length=10),
    "write": lambda transport: transport.write("/x", b"data", mode=None),
    "list of one": lambda transport: transport.list_directory("/x", limit=1),
    "long list": lambda transport: transport.list_directory("/x", limit=10_000),
}


def flood() -> tuple[list[int], Answer]:
    """Return what counts its bytes, and an agent that sends data for as long as it has credit."""
    sent = [0]

    def answer(header: wire.Header, say: Say) -> None:
        room = header["n"] if header["op"] == "credit" else wire.WINDOW
        while room > 0 and sent[0] < FLOOD:
            amount = min(room, wire.MAX_PAYLOAD)
            say({"kind": "data", "id": header["id"], "s": 1}, b"x" * amount)
            room, sent[0] = room - amount, sent[0] + amount

    return sent, answer


def pieces(reply: dict[str, Any], *data: bytes, last: bytes = b"") -> Answer:
    """Return an agent that sends data, and then a reply with some more."""

    def answer(header: wire.Header, say: Say) -> None:
        for piece in data:
            say({"kind": "data", "id": header["id"], "s": 1}, piece)
        say({"kind": "reply", "id": header["id"], **reply}, last)

    return answer


@pytest.mark.parametrize("what", ASKED)
async def test_a_flood_of_data_within_its_windows_breaks_the_link(what: str) -> None:
    sent, answer = flood()
    async with taken_over(answer) as (transport, link):
        with anyio.fail_after(20), pytest.raises(AgentProtocolError, match="more than was asked for"):
            await ASKED[what](transport)

        assert isinstance(link.broken, AgentProtocolError)
        assert sent[0] <= 2 * wire.WINDOW


@pytest.mark.parametrize(
    ("data", "last"),
    [((b"x" * 11,), b""), ((b"x" * 10,), b"x"), ((), b"x" * 11)],
    ids=["data", "both", "last"],
)
async def test_one_byte_too_many_breaks_the_link(data: tuple[bytes, ...], last: bytes) -> None:
    async with taken_over(pieces(STATUS, *data, last=last)) as (transport, link):
        with pytest.raises(AgentProtocolError, match="more than was asked for"):
            await transport.read("/x", offset=0, length=10)

        assert isinstance(link.broken, AgentProtocolError)


async def test_as_much_as_was_asked_for_is_no_offence() -> None:
    async with taken_over(pieces(STATUS, b"12345", b"678", last=b"90")) as (transport, link):
        found = await transport.read("/x", offset=0, length=10)

        assert found.data == b"1234567890"
        assert link.broken is None


async def test_the_longest_name_there_can_be_is_listed() -> None:
    name = "\udcff" * wire.MAX_PATH
    line = json.dumps({**ENTRY, "name": name, "uid": 2**32 - 1, "mtime": -1.0123456789e-300}).encode() + b"\n"
    async with taken_over(pieces({"truncated": False}, line)) as (transport, _):
        entries, more = await transport.list_directory("/x", limit=1)

        assert [entry.name for entry in entries] == [name]
        assert not more
