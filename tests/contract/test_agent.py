"""What any agent does behind its link: one body, over the fake's and over the real one."""

from __future__ import annotations

import os

import anyio
import pytest

from pocket_dock_mcp.agent.inside import wire
from pocket_dock_mcp.agent.link import RemoteError
from pocket_dock_mcp.engine.base import STDOUT, Engine, Stream
from pocket_dock_mcp.errors import StreamLostError
from tests import behaviours
from tests.agents import ENVIRONMENT, LIMITS, Agent, open_container
from tests.engines import Deadline, eventually, is_gone

pytestmark = [pytest.mark.anyio, pytest.mark.contract]

MEGABYTE = 1_000_000


# -- greeting -------------------------------------------------------------------------------------


async def test_init_tells_what_holds_inside(agent: Agent) -> None:
    """The limits that were asked for, two capabilities, and no interface but the loopback."""
    facts = agent.facts
    two = 1 << 6 | 1 << 7

    assert facts["protocol"] == wire.PROTOCOL
    assert facts["memory_limit"] == LIMITS.memory_bytes
    assert facts["pids_limit"] == LIMITS.pids
    assert facts["cpus"] == LIMITS.cpus
    assert facts["interfaces"] == ["lo"]
    assert facts["no_new_privs"] == "1"
    assert facts["seccomp"] == "2"
    assert {name: int(mask, 16) for name, mask in facts["caps"].items()} == {
        "CapInh": 0, "CapPrm": two, "CapEff": two, "CapBnd": 0, "CapAmb": 0,
    }  # fmt: skip
    assert facts["home"] == "/home/sandbox"
    assert facts["python"].startswith("3.")
    assert facts["uid"] >= 1000


async def test_a_ping_is_answered(agent: Agent) -> None:
    """And again."""
    for _ in range(3):
        assert (await agent.call("ping"))["kind"] == "reply"


async def test_an_unknown_request_is_refused_and_no_harm_done(own_agent: Agent) -> None:
    """It is answered, so that nobody waits for ever, and the next one is served."""
    with pytest.raises(RemoteError) as caught:
        await own_agent.link.call("no_such_op", deadline=own_agent.deadline(15))

    assert (caught.value.stage, caught.value.reason) == ("agent", "internal")
    await own_agent.call("ping")


# -- programs -------------------------------------------------------------------------------------


async def test_a_program_tells_its_output_and_its_exit_code(agent: Agent) -> None:
    """Seen to exit with 0, on nobody's wish, within its time."""
    run = await agent.run("echo hello")

    assert run.stdout == b"hello\n"
    assert run.stderr == b""
    assert run.end["kind"] == "exit"
    assert run.end["code"] == 0
    assert run.end["signal"] is None
    assert run.end["ended_by"] is None
    assert not run.end["oom"]
    assert run.end["wall"] >= 0
    assert run.end["cpu"] >= 0
    assert run.end["peak"] > 0


async def test_stdout_and_stderr_are_told_apart(agent: Agent) -> None:
    """Each arrives as what it is."""
    run = await agent.run(behaviours.BOTH_STREAMS)

    assert (run.stdout, run.stderr) == (b"out\n", b"err\n")


@pytest.mark.parametrize("code", [0, 1, 3, 126, 127, 255])
async def test_every_exit_code_is_the_programs_own(agent: Agent, code: int) -> None:
    """127 too: it does not pass for a program that could not be started."""
    run = await agent.run(f"exit {code}")

    assert (run.end["code"], run.end["signal"]) == (code, None)


@pytest.mark.parametrize(
    ("command", "signal"), [(behaviours.DIE_OF_KILL, 9), (behaviours.DIE_OF_TERM, 15)], ids=["kill", "term"]
)
async def test_a_program_that_dies_of_a_signal_has_no_exit_code(
    agent: Agent, command: str, signal: int
) -> None:
    """The signal is told, and that it was not ours."""
    run = await agent.run(command)

    assert (run.end["code"], run.end["signal"]) == (None, signal)
    assert run.end["ended_by"] is None


@pytest.mark.parametrize(
    ("source", "stdout", "code"),
    [
        (behaviours.SOURCE, b"42\n", 0),
        (behaviours.FAILING_SOURCE, b"", 1),
        (behaviours.LONG_SOURCE, b"700000\n", 0),
    ],
    ids=["short", "failing", "of-several-frames"],
)
async def test_a_python_source_runs(agent: Agent, source: str, stdout: bytes, code: int) -> None:
    """However long it is."""
    run = await agent.run(source=source)

    assert (run.stdout, run.end["code"]) == (stdout, code)


async def test_a_program_starts_at_home_with_the_environment_of_init(agent: Agent, folder: str) -> None:
    """And with what the run adds, in the directory that it names."""
    await agent.write(f"{folder}/file", b"")

    assert (await agent.run(behaviours.SHOW_DIRECTORY)).stdout == f"{agent.home}\n".encode()
    assert (await agent.run(behaviours.SHOW_HOME)).stdout == f"{agent.home}\n".encode()
    assert (await agent.run(behaviours.SHOW_INIT)).stdout == f"{ENVIRONMENT['FROM_INIT']}\n".encode()
    there = await agent.run(behaviours.SHOW_DIRECTORY, cwd=folder)
    relative = await agent.run(behaviours.SHOW_DIRECTORY, cwd=folder.removeprefix(f"{agent.home}/"))
    greeting = await agent.run(behaviours.SHOW_GREETING, env={"GREETING": "a 'b' \"c\" $HOME\né"})

    assert there.stdout == f"{folder}\n".encode()
    assert relative.stdout == f"{folder}\n".encode()
    assert greeting.stdout == "a 'b' \"c\" $HOME\né\n".encode()


async def test_a_program_runs_as_the_user(agent: Agent) -> None:
    """Whose number is the one that init told."""
    assert (await agent.run(behaviours.SHOW_USER)).stdout == f"{agent.facts['uid']}\n".encode()


async def test_a_missing_program_is_an_error_of_the_exec(agent: Agent) -> None:
    """Not an exit code, which would be the program's."""
    assert await _refused(agent, ["no-such-program"]) == ("exec", "ENOENT")


async def test_an_argument_that_no_kernel_takes_is_an_error_of_the_exec(agent: Agent) -> None:
    """128 KiB is the limit of one; a program that gets as much as that is started."""
    longest = "x" * wire.MAX_COMMAND

    assert await _refused(agent, ["echo", longest + "x"]) == ("exec", "E2BIG")
    assert (await agent.run(["echo", longest])).stdout == longest.encode() + b"\n"


async def test_the_longest_argument_may_be_of_any_characters(own_agent: Agent) -> None:
    """It is counted in bytes, whatever they take on the wire."""
    longest = "é" * (wire.MAX_COMMAND // 2)

    assert (await own_agent.run(["echo", longest])).stdout == longest.encode() + b"\n"


@pytest.mark.parametrize(("name", "code"), [("missing", "ENOENT"), ("file", "ENOTDIR")])
async def test_a_directory_that_cannot_be_entered_is_an_error_of_its_own(
    agent: Agent, folder: str, name: str, code: str
) -> None:
    """The program is not started anywhere else instead."""
    await agent.write(f"{folder}/file", b"")

    assert await _refused(agent, ["echo"], cwd=f"{folder}/{name}") == ("cwd", code)


async def test_runs_do_not_mix(agent: Agent) -> None:
    """Ten at a time, each with its own output and its own end."""
    runs = [await agent.spawn(f"echo {number}; exit {number}") for number in range(10)]

    for number, run in enumerate(runs):
        end = await run.wait()

        assert (run.stdout, end["code"]) == (b"%d\n" % number, number)


# -- output ---------------------------------------------------------------------------------------


async def test_a_flood_arrives_whole(agent: Agent) -> None:
    """Eight windows full of output, none of it after the end."""
    run = await agent.run(behaviours.FLOOD)

    assert len(run.stdout) == behaviours.FLOOD_BYTES
    assert run.end["code"] == 0


async def test_a_flood_stops_where_nobody_takes_it(engine: Engine, image: str, deadline: Deadline) -> None:
    """Without credit one window arrives and no more; others are served; credit sets it going again."""
    container_id, stream = await open_container(engine, image)
    peer = _Peer(stream, deadline)
    try:
        await peer.expect("ready")
        await peer.send(1, "init", uid=1_234_567, home="/home/sandbox", processes=50, env={})
        await peer.expect("reply")
        argv = ["/bin/sh", "-c", behaviours.FLOOD]
        await peer.send(2, "spawn", argv=argv, env={}, cwd=None, timeout=None)
        await peer.data(2, wire.WINDOW)

        await peer.send(3, "ping")
        await peer.expect("reply")
        assert peer.received[2] == wire.WINDOW

        await peer.send(2, "credit", n=1000)
        await peer.data(2, wire.WINDOW + 1000)
        await peer.send(2, "credit", n=behaviours.FLOOD_BYTES)
        await peer.expect("exit")
        assert peer.received[2] == behaviours.FLOOD_BYTES
    finally:
        await stream.aclose()
    await eventually(lambda: is_gone(engine, container_id), deadline(15))


# -- input ----------------------------------------------------------------------------------------


async def test_without_input_a_program_reads_its_end_at_once(agent: Agent) -> None:
    """And does not hang."""
    run = await agent.run("cat")

    assert (run.stdout, run.end["code"]) == (b"", 0)


async def test_input_reaches_the_program_to_the_last_byte(agent: Agent) -> None:
    """More than all windows hold, while as much comes back."""
    data = os.urandom(3 * MEGABYTE)
    run = await agent.spawn("cat", stdin=True)

    with anyio.fail_after(agent.deadline(60)):
        await run.feed(data)
    end = await run.wait()

    assert run.stdout == data
    assert end["code"] == 0


async def test_input_that_nobody_reads_does_not_hang_the_sender(agent: Agent) -> None:
    """The program ends, and what was not read is nobody's loss."""
    run = await agent.spawn("exit 5", stdin=True)

    with anyio.fail_after(agent.deadline(60)):
        await run.feed(bytes(3 * MEGABYTE))
    end = await run.wait()

    assert end["code"] == 5


async def test_input_for_a_run_that_takes_none_is_spent(agent: Agent) -> None:
    """It does not hang the sender either."""
    run = await agent.spawn(behaviours.EARLY_THEN_HANG)

    with anyio.fail_after(agent.deadline(60)):
        await run.feed(bytes(3 * MEGABYTE))
    await agent.call("kill", run=run.id)

    assert (await run.wait())["ended_by"] == "killed"


# -- ends that are ours ---------------------------------------------------------------------------


async def test_a_time_limit_ends_a_run_and_says_so(agent: Agent) -> None:
    """What it wrote before is kept."""
    run = await agent.run(behaviours.EARLY_THEN_HANG, timeout=agent.deadline(1))

    assert run.stdout == b"early\n"
    assert run.end["ended_by"] == "timeout"
    assert (run.end["code"], run.end["signal"]) == (None, 9)


async def test_a_time_limit_of_next_to_nothing_is_kept(agent: Agent) -> None:
    """Also when it is over before the program has begun."""
    run = await agent.run("sleep 600", timeout=0.0001)

    assert run.end["ended_by"] == "timeout"


async def test_a_run_that_ends_in_time_is_not_timed_out(agent: Agent) -> None:
    """The limit does nothing then."""
    run = await agent.run("exit 3", timeout=agent.deadline(30))

    assert run.end["code"] == 3
    assert run.end["ended_by"] is None


async def test_a_kill_ends_a_run_and_all_that_it_has_started(agent: Agent) -> None:
    """Also what has made itself a session of its own."""
    run = await agent.spawn(behaviours.DAEMONS_THEN_HANG)
    await run.said(b"started\n")

    await agent.call("kill", run=run.id)
    end = await run.wait()

    assert end["ended_by"] == "killed"
    assert (end["code"], end["signal"]) == (None, 9)
    assert await agent.processes() == 0


@pytest.mark.parametrize("kind", ["command", "source"])
async def test_a_kill_right_behind_the_start_is_not_lost(agent: Agent, kind: str) -> None:
    """However early it comes."""
    for _ in range(5):
        run = (
            await agent.spawn("sleep 600")
            if kind == "command"
            else await agent.spawn(None, source=behaviours.HANGING_SOURCE)
        )
        await agent.call("kill", run=run.id)

        assert (await run.wait(30))["ended_by"] == "killed"


async def test_a_kill_leaves_other_runs_alone(agent: Agent) -> None:
    """The one goes, the other goes on."""
    doomed = await agent.spawn(behaviours.EARLY_THEN_HANG)
    other = await agent.spawn("cat", stdin=True)
    await doomed.said(b"early")

    await agent.call("kill", run=doomed.id)
    await doomed.wait()
    with anyio.fail_after(agent.deadline(15)):
        await other.feed(b"still here")
    end = await other.wait()

    assert (other.stdout, end["code"]) == (b"still here", 0)


async def test_a_kill_of_what_has_ended_is_quiet(agent: Agent) -> None:
    """Or of what never was."""
    run = await agent.run("echo hello")

    await agent.call("kill", run=run.id)
    await agent.call("kill", run=10**9)


async def test_killing_everything_ends_all_runs(agent: Agent) -> None:
    """Each is told that it was killed, and nothing is left when the answer comes."""
    runs = [await agent.spawn(behaviours.DAEMONS_THEN_HANG) for _ in range(3)]
    for run in runs:
        await run.said(b"started\n")

    await agent.call("kill_all")

    assert await agent.processes() == 0
    for run in runs:
        assert (await run.wait())["ended_by"] == "killed"


async def test_a_signal_reaches_the_program(agent: Agent) -> None:
    """And is what it ended of, not a kill of ours."""
    run = await agent.spawn(behaviours.EARLY_THEN_HANG)
    await run.said(b"early\n")

    await agent.call("signal", run=run.id, signal=15)
    end = await run.wait()

    assert (end["code"], end["signal"], end["ended_by"]) == (None, 15, None)


async def test_the_processes_of_the_user_are_counted(agent: Agent) -> None:
    """None when nothing runs, some while something does."""
    assert await agent.processes() == 0
    run = await agent.spawn(behaviours.EARLY_THEN_HANG)
    await run.said(b"early\n")

    assert await agent.processes() >= 1
    assert (await agent.call("stats"))["memory"] > 0


# -- the lease ------------------------------------------------------------------------------------


@pytest.mark.lease
async def test_closing_the_link_removes_the_container_whatever_runs_in_it(own_agent: Agent) -> None:
    """Daemons included."""
    run = await own_agent.spawn(behaviours.DAEMONS_THEN_HANG)
    await run.said(b"started\n")

    await own_agent.link.aclose()

    assert await eventually(lambda: is_gone(own_agent.engine, own_agent.container_id), own_agent.deadline(15))
    with pytest.raises(StreamLostError):
        await run.wait()


@pytest.mark.direct
async def test_the_lease_ends_although_both_directions_are_stuck(
    engine: Engine, image: str, deadline: Deadline
) -> None:
    """Output that nobody reads, input that nobody takes: closing the stream removes the container."""
    container_id, stream = await open_container(engine, image)
    peer = _Peer(stream, deadline)
    await peer.expect("ready")
    await peer.send(1, "init", uid=1_234_567, home="/home/sandbox", processes=50, env={})
    await peer.expect("reply")
    argv = ["/bin/sh", "-c", behaviours.DELUGE]
    await peer.send(2, "spawn", argv=argv, env={}, cwd=None, timeout=None)
    await peer.send(2, "credit", n=10**12)
    with anyio.move_on_after(deadline(2)):
        for _ in range(_MORE_FRAMES_THAN_ANY_ENGINE_BUFFERS):
            await stream.send(wire.encode({"op": "data", "id": 999}, bytes(wire.MAX_PAYLOAD)))

    await stream.aclose()

    assert await eventually(lambda: is_gone(engine, container_id), deadline(15))


_MORE_FRAMES_THAN_ANY_ENGINE_BUFFERS = 500


@pytest.mark.lease
async def test_when_the_container_goes_whoever_waits_is_told(own_agent: Agent) -> None:
    """A run under way, and every later request."""
    run = await own_agent.spawn(behaviours.EARLY_THEN_HANG)
    await run.said(b"early\n")

    await own_agent.engine.remove(own_agent.container_id)

    with pytest.raises(StreamLostError):
        await run.wait()
    with pytest.raises(StreamLostError):
        await own_agent.call("ping")


# -- helpers --------------------------------------------------------------------------------------


async def _refused(agent: Agent, argv: list[str], *, cwd: str | None = None) -> tuple[str, str]:
    run = await agent.spawn(argv, cwd=cwd)
    with pytest.raises(RemoteError) as caught:
        await run.wait()
    return caught.value.stage, caught.value.reason


class _Peer:
    """The host's side without a link: gives credit only when told to."""

    def __init__(self, stream: Stream, deadline: Deadline) -> None:
        self._stream = stream
        self._deadline = deadline
        self._decoder = wire.Decoder()
        self._finals: list[str] = []
        self.received: dict[int, int] = {}

    async def send(self, request_id: int, op: str, **fields: object) -> None:
        await self._stream.send(wire.encode({"op": op, "id": request_id, **fields}))

    async def expect(self, kind: str) -> None:
        """Read until the next final frame and see that it is of this kind."""
        with anyio.fail_after(self._deadline(30)):
            while not self._finals:
                await self._read()
        assert self._finals.pop(0) == kind

    async def data(self, request_id: int, amount: int) -> None:
        """Read until so much data has come on a request."""
        with anyio.fail_after(self._deadline(30)):
            while self.received.get(request_id, 0) < amount:
                await self._read()

    async def _read(self) -> None:
        chunk = await self._stream.receive()
        assert chunk is not None, "the stream ended"
        assert chunk[0] == STDOUT, chunk
        for header, payload in self._decoder.feed(chunk[1]):
            if header["kind"] == "data":
                self.received[header["id"]] = self.received.get(header["id"], 0) + len(payload)
            elif header["kind"] != "credit":
                self._finals.append(header["kind"])
