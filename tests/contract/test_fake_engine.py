"""What a test can arrange with the fake beyond the port: faults, and programs that do as they are told."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
import pytest

from pocket_dock_mcp.agent.inside import wire
from pocket_dock_mcp.agent.link import AgentLink, RemoteError
from pocket_dock_mcp.container.core import LiveContainer
from pocket_dock_mcp.container.launch import Launch
from pocket_dock_mcp.engine.base import STDERR
from pocket_dock_mcp.errors import (
    AgentProtocolError,
    AgentTimeoutError,
    ContainerGoneError,
    EngineTimeoutError,
    EngineUnavailableError,
    ImageNotFoundError,
    LimitsNotEnforcedError,
    SandboxLostError,
    StreamLostError,
)
from pocket_dock_mcp.models import ContainerSpec, Limits
from pocket_dock_mcp.testing import FakeEngine, Process
from tests.agents import Agent, open_container
from tests.engines import eventually, is_gone

pytestmark = pytest.mark.anyio

IMAGE = FakeEngine.IMAGE
LABELS = {"pocket-dock.test": "fake"}


@pytest.fixture
async def fake(anyio_backend: str) -> AsyncIterator[FakeEngine]:
    """Return an engine of the test's own."""
    fake = FakeEngine()
    yield fake
    await fake.aclose()


@pytest.fixture
async def agent(fake: FakeEngine) -> AsyncIterator[Agent]:
    """Return an agent on it."""
    agent = await Agent.start(fake, IMAGE, lambda seconds: seconds)
    yield agent
    await agent.link.aclose()


# -- faults of the engine -------------------------------------------------------------------------


async def test_a_verb_fails_as_often_as_it_was_told_to(fake: FakeEngine) -> None:
    """And then works again."""
    fake.fail("ping", EngineTimeoutError("slow"), times=2)

    for _ in range(2):
        with pytest.raises(EngineTimeoutError):
            await fake.ping()
    await fake.ping()

    assert fake.calls == ["ping"] * 3


async def test_a_verb_waits_for_its_event(fake: FakeEngine) -> None:
    """So that a test decides what happens first."""
    event = anyio.Event()
    fake.delay("ping", event)
    done = anyio.Event()

    async def ping() -> None:
        await fake.ping()
        done.set()

    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            group.start_soon(ping)
            await anyio.wait_all_tasks_blocked()
            assert not done.is_set()
            event.set()
            await done.wait()


async def test_an_engine_that_is_down_answers_nothing_and_loses_its_streams(
    fake: FakeEngine, agent: Agent
) -> None:
    """Whoever waits is told, and the containers' leases are over."""
    run = await agent.spawn("sleep 600")

    fake.go_down()

    with pytest.raises(StreamLostError):
        await run.wait()
    with pytest.raises(EngineUnavailableError):
        await fake.containers("pocket-dock.test")
    fake.come_up()
    assert await eventually(lambda: is_gone(fake, agent.container_id), 5)


async def test_a_container_can_be_left_behind(fake: FakeEngine) -> None:
    """As by an engine that failed to remove it: it is seen exited, and its stream has ended."""
    fake.fail("auto_remove", EngineUnavailableError("no"))
    spec = ContainerSpec("left", IMAGE, ("/bin/sh", "-c", "exit 3"), LABELS, Limits())
    container_id = await fake.create(spec)
    stream = await fake.attach(container_id)
    await fake.start(container_id)

    with anyio.fail_after(5):
        assert await stream.receive() is None

    state = await fake.inspect(container_id)
    assert (state.status, state.exit_code) == ("exited", 3)
    await fake.remove(container_id)
    assert await is_gone(fake, container_id)


async def test_an_image_comes_from_a_registry_that_has_it(fake: FakeEngine) -> None:
    """And from no other."""
    fake.add_image("registry/there:1", remote=True)

    with pytest.raises(ImageNotFoundError):
        await fake.image("registry/there:1")
    assert [line async for line in fake.pull("registry/there:1")] == ["Pulling registry/there:1"]
    assert (await fake.image("registry/there:1")).tags == ("registry/there:1",)


# -- faults of the stream and of the agent --------------------------------------------------------


@pytest.mark.parametrize("clean", [False, True])
@pytest.mark.parametrize("after", [0, 1, 7, 8, 20, 45, 100, 400])
async def test_a_stream_that_is_cut_anywhere_is_a_lost_stream(
    fake: FakeEngine, after: int, clean: bool
) -> None:
    """After any number of bytes, and also when it looks like a normal end."""
    fake.cut_next_stream(after=after, clean=clean)

    async def ping_until_it_breaks() -> None:
        agent = await Agent.start(fake, IMAGE, lambda seconds: seconds)
        while True:
            await agent.call("ping")

    with pytest.raises(StreamLostError):
        await ping_until_it_breaks()

    assert await eventually(lambda: _has_none(fake), 5)


async def _has_none(fake: FakeEngine) -> bool:
    return await fake.containers("pocket-dock.test") == []


@pytest.mark.parametrize(
    "raw",
    [
        b"\xff" * 8,
        b"\0\0\0\2\0\0\0\0[]",
        b"\0\0\0\2\0\0\0\0{}",
        b"\0\0\0\4\0\0\0\0nope",
        b'\0\0\0\x19\0\0\0\0{"kind":"reply","id":999}',
        b'\0\0\0\x18\0\0\0\0{"kind":"boom","id":"1"}',
        b'\0\0\0\x17\0\0\0\1{"kind":"relay","id":2}x',
    ],
)
async def test_a_frame_that_the_protocol_does_not_allow_ends_the_link(
    fake: FakeEngine, agent: Agent, raw: bytes
) -> None:
    """Nothing that comes after it is believed."""
    fake.script("evil", raw=raw, hang=True)
    run = await agent.spawn("evil")

    with pytest.raises(AgentProtocolError):
        await run.wait()
    assert isinstance(agent.link.broken, AgentProtocolError)


async def test_an_agent_that_is_silent_is_given_up(fake: FakeEngine, agent: Agent) -> None:
    """After the request's deadline, and for good."""
    fake.agent.silent.add("ping")

    with pytest.raises(AgentTimeoutError):
        await agent.link.call("ping", deadline=0.01)
    with pytest.raises(AgentTimeoutError):
        await agent.call("stats")


async def test_an_agent_that_does_not_read_is_given_up(fake: FakeEngine, agent: Agent) -> None:
    """The deadline of a request covers the time that it takes to send it."""
    await _fill(fake, agent)

    with anyio.fail_after(5), pytest.raises(AgentTimeoutError):
        await agent.link.call("ping", deadline=0.01)


async def test_what_comes_in_is_read_although_nothing_can_be_sent(fake: FakeEngine, agent: Agent) -> None:
    """Else both sides wait for each other for ever: the link's reader must not wait for room to send."""
    event = anyio.Event()
    fake.script("flood", pieces=[event, bytes(wire.WINDOW)])
    run = await agent.spawn("flood")
    await agent.call("ping")
    await _fill(fake, agent)

    event.set()

    with anyio.fail_after(5):
        await run.said(bytes(wire.WINDOW))


async def _fill(fake: FakeEngine, agent: Agent) -> None:
    """Make the agent deaf and send until nothing more can be sent."""
    fake.agent.deaf = True
    request_id, _ = agent.link.open(None)
    with anyio.move_on_after(0.01):
        while True:
            await agent.link.send(request_id, {"op": "data"}, bytes(wire.MAX_PAYLOAD))


@pytest.mark.parametrize(
    ("greeting", "error"), [(b"", AgentTimeoutError), (b"Welcome to the machine\n", AgentProtocolError)]
)
async def test_who_does_not_greet_is_no_agent(
    fake: FakeEngine, greeting: bytes, error: type[Exception]
) -> None:
    """Neither who says nothing nor who says something else."""
    fake.agent.greeting = greeting
    _, stream = await open_container(fake, IMAGE)
    link = AgentLink(stream)

    with pytest.raises(error):
        await link.wait_ready(0.01)

    await link.aclose()


async def test_a_dropped_limit_shows_in_the_facts(fake: FakeEngine) -> None:
    """So that a sandbox of such an engine is not handed out."""
    fake.agent.facts["pids_limit"] = None

    with pytest.raises(LimitsNotEnforcedError, match="pids"):
        await LiveContainer.create(fake, Launch(name="limits", image=IMAGE, labels=LABELS))

    assert await _has_none(fake)


# -- programs -------------------------------------------------------------------------------------


async def test_a_script_says_and_does_what_it_was_told(fake: FakeEngine, agent: Agent) -> None:
    """Output in pieces, on both streams, an effect on the files, and an exit code."""

    def make_a_file(process: Process) -> None:
        process.container.files.write(f"{process.cwd}/made", b"content")

    fake.script(
        "work", stdout="a", stderr="b", pieces=["c", b"d", (STDERR, b"e")], effect=make_a_file, exit_code=3
    )

    run = await agent.run("work")

    assert (run.stdout, run.stderr, run.end["code"]) == (b"acd", b"be", 3)
    assert (await agent.read(f"{agent.home}/made"))[0] == b"content"


async def test_a_script_goes_on_when_its_event_comes(fake: FakeEngine, agent: Agent) -> None:
    """Not before."""
    event = anyio.Event()
    fake.script("work", pieces=["before", event, "after"])
    run = await agent.spawn("work")
    await run.said(b"before")
    await agent.call("ping")
    assert run.stdout == b"before"

    event.set()
    await run.wait()

    assert run.stdout == b"beforeafter"


async def test_a_script_runs_out_of_memory(fake: FakeEngine, agent: Agent) -> None:
    """As the kernel would have it."""
    fake.script("x = bytes(10**12)", oom=True)

    end = (await agent.run(source="x = bytes(10**12)")).end

    assert (end["oom"], end["code"], end["signal"]) == (True, None, 9)


async def test_a_script_loses_the_stream_in_the_middle(fake: FakeEngine, agent: Agent) -> None:
    """After its output."""
    fake.script("doomed", stdout="last words", lose_stream=True)
    run = await agent.spawn("doomed")

    with pytest.raises(StreamLostError):
        await run.wait()


async def test_a_command_without_a_script_says_so(agent: Agent) -> None:
    """Loud enough for who wrote the test."""
    run = await agent.run("make test")

    assert run.end["code"] == 127
    assert b"there is no script for 'make test'" in run.stderr


async def test_a_program_of_the_tests_own_reads_and_writes(fake: FakeEngine, agent: Agent) -> None:
    """Whatever a script cannot do."""

    async def shout(process: Process) -> int:
        while data := await process.read():
            await process.write(data.upper())
        return 7

    fake.program("shout", shout)
    run = await agent.spawn("shout", stdin=True)
    await run.feed(b"hello")
    end = await run.wait()

    assert (run.stdout, end["code"]) == (b"HELLO", 7)


async def test_what_a_program_of_the_tests_own_raises_comes_out_at_the_end(anyio_backend: str) -> None:
    """A test that is wrong does not pass in silence."""
    fake = FakeEngine()

    async def broken(_process: Process) -> int:
        raise ZeroDivisionError

    fake.program("/bin/sh -c broken", broken)
    container_id = await fake.create(
        ContainerSpec("broken", IMAGE, ("/bin/sh", "-c", "broken"), LABELS, Limits())
    )
    await fake.start(container_id)

    await anyio.wait_all_tasks_blocked()

    with pytest.raises(ZeroDivisionError):
        await fake.aclose()


async def test_a_snapshot_is_a_copy(fake: FakeEngine, agent: Agent) -> None:
    """What is done to the container later is not in it."""
    await agent.write(f"{agent.home}/file", b"before")
    await fake.commit(agent.container_id, "snapshot:1", labels=LABELS)
    await agent.write(f"{agent.home}/file", b"after")

    copy = await Agent.start(fake, "snapshot:1", lambda seconds: seconds, uid=agent.facts["uid"])

    assert (await copy.read(f"{copy.home}/file"))[0] == b"before"
    await copy.aclose()


async def test_the_fake_serves_what_is_built_on_the_port(fake: FakeEngine) -> None:
    """A container of the core: run, files, and what becomes of it when it is lost."""
    container = await LiveContainer.create(fake, Launch(name="core", image=IMAGE, labels=LABELS))
    result = await container.run("echo hello")
    assert (result.status, result.stdout) == ("ok", "hello\n")
    timed_out = await container.run("sleep 600", timeout_s=0.05)
    assert timed_out.status == "timeout"
    await container.write_file("file", "content")
    assert (await container.read_file("file")).data == b"content"

    await fake.remove(fake.container("core").id)

    with pytest.raises(ContainerGoneError):
        fake.container("core")
    with pytest.raises(SandboxLostError):
        await container.read_file("file")
    await container.aclose()


async def test_a_request_after_the_agent_refused_another_is_served(agent: Agent) -> None:
    """A refusal is not the end."""
    with pytest.raises(RemoteError):
        await agent.call("stat", path="/nowhere")

    await agent.call("ping")
