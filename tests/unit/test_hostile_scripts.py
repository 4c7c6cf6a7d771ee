"""Answers of scripts in images without python3, where a program of the sandbox answers in their place."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence

import anyio
import pytest

from pocket_dock_mcp.agent.exec_facts import parse_facts, parse_mounts
from pocket_dock_mcp.agent.exec_transport import ExecTransport
from pocket_dock_mcp.agent.meter import parse_meter
from pocket_dock_mcp.engine.base import STDERR, STDOUT, ExecStream
from pocket_dock_mcp.errors import AgentProtocolError
from pocket_dock_mcp.models import Facts
from pocket_dock_mcp.testing import FakeEngine
from pocket_dock_mcp.testing.streams import Channel, FakeExecStream, FakeStream

pytestmark = pytest.mark.anyio

PIECE = b"x" * 64 * 1024
FLOOD = 1024
"""Pieces after which a flood that nobody stops is at its end."""
HEAD = b"10 81a4 1700000000 5 10 2023-11-14 22:13:20.0 +0000\n"

Ask = Callable[[ExecTransport], Awaitable[object]]
ASKED: dict[str, Ask] = {
    "read": lambda transport: transport.read("/x", offset=0, length=10),
    "write": lambda transport: transport.write("/x", b"1", mode=None),
    "append": lambda transport: transport.write("/x", b"1", mode=None, append=True),
    "list": lambda transport: transport.list_directory("/x", limit=3),
    "long list": lambda transport: transport.list_directory("/x", limit=10_000),
    "stats": lambda transport: transport.stats(),
    "provide": lambda transport: transport.provide(["/x"], []),
}


class Answer(FakeExecStream):
    """What an exec says: some pieces, and then the mark that makes it whole."""

    def __init__(self, mark: str, pieces: Sequence[bytes]) -> None:
        super().__init__(Channel())
        self.exit_code = 0
        self.told = 0
        self._pieces = pieces
        self._mark: bytes | None = mark.encode()

    async def receive(self) -> tuple[int, bytes] | None:
        """Return the next piece."""
        await anyio.lowlevel.checkpoint()
        if self.told < len(self._pieces):
            self.told += 1
            return STDOUT, self._pieces[self.told - 1]
        mark, self._mark = self._mark, None
        return None if mark is None else (STDERR, mark)


class Impostor(FakeEngine):
    """An engine whose execs all answer the same."""

    def __init__(self, *pieces: bytes) -> None:
        super().__init__()
        self.answers: list[Answer] = []
        self._pieces = pieces

    async def exec(
        self,
        container_id: str,
        argv: Sequence[str],
        *,
        user: str,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
    ) -> ExecStream:
        """Answer."""
        self.answers.append(Answer(argv[4], self._pieces))
        return self.answers[-1]


def sandbox(engine: FakeEngine) -> ExecTransport:
    return ExecTransport(engine, "c", FakeStream(Channel()), Facts(uid=1000, home="/h"), {})


@pytest.mark.parametrize("what", ASKED)
async def test_a_flood_is_an_offence_and_not_kept(what: str) -> None:
    engine = Impostor(*[PIECE] * FLOOD)
    with anyio.fail_after(20), pytest.raises(AgentProtocolError, match="more than was asked for"):
        await ASKED[what](sandbox(engine))

    assert engine.answers[0].told <= FLOOD / 8


ODD = [
    b"",
    b"junk\n",
    b"\xff\n",
    b"\0",
    b"x x x x\n",
    b"x x x\nname\0",
    b"1e9 81a4 1 v\n",
    b"81a4 \xc2\xb2 1\nname\0",
    b"81a4 -1 1\nname\0",
    b"81a4 1 inf\nname\0",
    b"81a4 1 nan\nname\0",
    b"81a4 1 1e400\nname\0",
    b"1 81a4 nan v\n",
    b"-1 81a4 1 v\n",
    b"%d 81a4 1 v\n" % 2**63,
    b"1 %s /x\n" % (b"9" * 400),
    b"2 5 /x\n",
    b"0 -5 /x\n",
]


@pytest.mark.parametrize("what", ["read", "write", "append", "list"])
@pytest.mark.parametrize("said", ODD, ids=lambda said: repr(said[:20]))
async def test_what_does_not_parse_is_an_offence(what: str, said: bytes) -> None:
    if (what, said) in {("list", b""), ("list", b"\0")}:
        assert await ASKED[what](sandbox(Impostor(said))) == ([], False)
        return

    with pytest.raises(AgentProtocolError, match="makes no sense"):
        await ASKED[what](sandbox(Impostor(said)))


async def test_more_of_a_file_than_was_asked_for_is_an_offence() -> None:
    with pytest.raises(AgentProtocolError):
        await sandbox(Impostor(HEAD, b"12345678901")).read("/x", offset=0, length=10)


async def test_as_much_as_was_asked_for_is_no_offence() -> None:
    found = await sandbox(Impostor(HEAD, b"1234567890")).read("/x", offset=0, length=10)

    assert (found.data, found.size, found.mode, found.mtime) == (b"1234567890", 10, 0o644, 1.7e9)
    assert found.version == "5 10 2023-11-14 22:13:20.0 +0000"


async def test_a_listing_of_the_longest_names_is_no_offence() -> None:
    entries = [b"81a4 5 1700000000\n%05d%s\0" % (number, b"x" * 250) for number in range(10_001)]

    found, more = await sandbox(Impostor(*entries)).list_directory("/x", limit=10_000)

    assert (len(found), more) == (10_000, True)


@pytest.mark.parametrize(
    "said",
    [
        "net eth0 junk",
        "memory.max \u00b2",
        "pids.max " + "9" * 5000,
        f"cpu.max {'9' * 400} 1",
        f"cpu.cfs_quota_us x\ncpu.max {'9' * 5000} 7",
    ],
    ids=lambda said: said[:20],
)
def test_facts_that_do_not_parse_are_an_offence(said: str) -> None:
    with pytest.raises(AgentProtocolError, match="makes no sense"):
        parse_facts(said, 1000)


@pytest.mark.parametrize("number", ["\u00b2", "9" * 5000])
def test_mounts_that_do_not_parse_are_an_offence(number: str) -> None:
    said = f"{number} 1\nboot\n1 2 0:1 / /x rw - tmpfs tmpfs rw\n"

    with pytest.raises(AgentProtocolError, match="makes no sense"):
        parse_mounts(said, ["/x"])


@pytest.mark.parametrize("number", ["\u00b2", "9" * 5000, "-1", "x", ""])
def test_counters_that_do_not_parse_are_not_known(number: str) -> None:
    said = f"memory {number}\nnet eth0 {number} 0 0 0 0 0 0 0 {number}\nnow {number}x\npids 7\n"

    assert parse_meter(said.encode()) == {"network": [], "pids": 7, "now": None}
