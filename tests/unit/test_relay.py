"""What an agent says of connections, volumes and devices: taken as the word of somebody hostile."""

from __future__ import annotations

from typing import Any

import pytest

from pocket_dock_mcp.agent.exec_facts import parse_mounts
from pocket_dock_mcp.agent.found import parse_found
from pocket_dock_mcp.agent.requests import Incoming, Relay
from pocket_dock_mcp.agent.transport import DeviceFound, Found, MountFound
from pocket_dock_mcp.errors import AgentProtocolError

pytestmark = pytest.mark.anyio

MOUNTINFO = r"""
1 2 0:3 / / rw,relatime - overlay overlay rw
2 1 8:1 /srv/a /data\040with\134\011odd ro,nosuid shared:1 - ext4 /dev/sda1 rw
3 1 8:1 /srv/b /data rw,nosuid - ext4 /dev/sda1 rw
4 1 8:1 /srv/c /data ro - ext4 /dev/sda1 rw
short
""".strip()


class Heard:
    def __init__(self) -> None:
        self.said: list[tuple[bytes, bool]] = []
        self.relay = Relay(lambda data, end: self.said.append((data, end)), 100, 50)

    def take(self, payload: bytes = b"", **fields: Any) -> None:
        self.relay.take({"kind": "relay", "id": 1, **fields}, payload)


async def test_bytes_and_the_end_of_them_are_handed_on() -> None:
    heard = Heard()
    heard.take(b"a" * 60)
    heard.take(b"b", end=True)
    assert heard.said == [(b"a" * 60, False), (b"b", True)]


@pytest.mark.parametrize(
    "frames",
    [
        [(b"a" * 101, {})],
        [(b"a" * 100, {}), (b"a", {})],
        [(b"", {})],
        [(b"", {"end": False})],
        [(b"a", {"end": 1})],
        [(b"a", {"end": None})],
        [(b"", {"end": True}), (b"a", {})],
        [(b"", {"end": True}), (b"", {"end": True})],
    ],
)
async def test_what_a_connection_cannot_say_is_an_offence(frames: list[tuple[bytes, dict[str, Any]]]) -> None:
    heard = Heard()
    *before, (payload, fields) = frames
    for data, more in before:
        heard.take(data, **more)
    with pytest.raises(AgentProtocolError):
        heard.take(payload, **fields)


async def test_a_program_that_connects_is_announced_once_and_then_heard() -> None:
    said: list[bytes] = []
    relay = Incoming(lambda data, _end: said.append(data), 100, 50)
    relay.take({"kind": "accepted", "id": 1}, b"")
    relay.take({"kind": "relay", "id": 1}, b"a")
    assert relay.accepted.done()
    assert said == [b"a"]


@pytest.mark.parametrize(
    "frames",
    [
        [("relay", b"a")],
        [("accepted", b"a")],
        [("accepted", b""), ("accepted", b"")],
        [("accepted", b""), ("relay", b"a" * 101)],
    ],
)
async def test_what_comes_before_a_program_has_connected_is_an_offence(
    frames: list[tuple[str, bytes]],
) -> None:
    relay = Incoming(lambda _data, _end: None, 100, 50)
    *before, (kind, payload) = frames
    for earlier, data in before:
        relay.take({"kind": earlier, "id": 1}, data)
    with pytest.raises(AgentProtocolError):
        relay.take({"kind": kind, "id": 1}, payload)


async def test_a_connection_that_we_have_made_is_not_announced() -> None:
    with pytest.raises(AgentProtocolError):
        Heard().relay.take({"kind": "accepted", "id": 1}, b"a")


def test_what_was_found_is_read() -> None:
    mount, device = {"device": 1, "inode": 2, "read_only": True}, {"block": False, "number": [1, 3]}
    usable = {"readable": True, "writable": False}
    said = {"volumes": {"/a": mount, "/b": None}, "devices": {"/dev/x": {**device, **usable}}, "boot": "id"}
    assert parse_found(said) == Found(
        {"/a": MountFound(1, 2, True), "/b": None}, {"/dev/x": DeviceFound(False, (1, 3), True, False)}, "id"
    )
    assert parse_found({"volumes": {}, "devices": {}, "boot": 3}) == Found({}, {})


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"volumes": {}},
        {"volumes": [], "devices": {}},
        {"volumes": {"/a": {}}, "devices": {}},
        {"volumes": {"/a": {"device": "1", "inode": 2, "read_only": True}}, "devices": {}},
        {"volumes": {"/a": {"device": 1, "inode": 2, "read_only": 1}}, "devices": {}},
        {"volumes": {}, "devices": {"/dev/x": True}},
        {"volumes": {}, "devices": {"/dev/x": {"block": False, "number": [1], "readable": True}}},
    ],
)
def test_what_makes_no_sense_is_an_offence(said: dict[str, Any]) -> None:
    with pytest.raises(AgentProtocolError):
        parse_found(said)


def test_what_a_shell_has_found_is_read() -> None:
    paths = ["/data with\\\todd", "/data", "/none"]
    answer = f"1 2\n3 4\n5 6\nboot-1\n{MOUNTINFO}"
    assert parse_mounts(answer, paths) == Found(
        {paths[0]: MountFound(1, 2, True), "/data": MountFound(3, 4, True), "/none": None}, {}, "boot-1"
    )


@pytest.mark.parametrize("answer", ["", "1 2", "\n", "x y\nboot\n", "1 2\nboot\nnonsense"])
def test_a_shell_that_answers_nothing_has_found_nothing(answer: str) -> None:
    assert parse_mounts(answer, ["/data"]).volumes == {"/data": None}
