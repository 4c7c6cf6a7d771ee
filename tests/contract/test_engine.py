"""What any `Engine` does with containers: one body, over the fake and over every real engine."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

import anyio
import pytest

from pocket_dock_mcp.engine.base import STDOUT, Engine
from pocket_dock_mcp.errors import (
    ContainerGoneError,
    EngineConflictError,
    ImageNotFoundError,
    ProgramNotFoundError,
    StreamLostError,
)
from tests import behaviours
from tests.engines import LABEL, LABELS, RUN, Target, eventually, is_gone, unique
from tests.lab import KEEPALIVE, NOBODY_IS_THERE, Lab

pytestmark = [pytest.mark.anyio, pytest.mark.contract]

# -- who it is ------------------------------------------------------------------------------------


async def test_an_engine_says_who_it_is_and_answers_pings(engine: Engine, target: Target) -> None:
    """Podman is not taken for Docker, and the URL is the one that was dialled."""
    await engine.ping()

    assert target.name.partition("-")[0] == engine.info.kind
    assert engine.info.cgroup_version in (1, 2)
    assert engine.info.version
    assert engine.info.identity
    assert engine.info.rootless == target.name.endswith("-rootless")


async def test_an_engine_says_how_it_is_set_up(engine: Engine) -> None:
    """What a person has to know who looks for the cause of something."""
    details = await engine.details()

    assert details.api_version
    assert details.storage_driver
    assert details.storage_dir.startswith("/")
    assert details.runtime
    assert details.runtime_version
    assert any("seccomp" in option for option in details.security_options)


# -- a container's life ---------------------------------------------------------------------------


async def test_a_created_container_is_known_with_its_name_and_labels_and_does_not_run(lab: Lab) -> None:
    """Creating starts nothing."""
    spec = lab.spec(labels={"pocket-dock.note": "a b=c"})
    container_id = await lab.create(spec)

    state = await lab.engine.inspect(container_id)

    assert state.id == container_id
    assert state.name == spec.name
    assert state.status == "created"
    assert state.exit_code is None
    assert state.labels.items() >= {**LABELS, "pocket-dock.note": "a b=c"}.items()


async def test_an_engine_says_how_a_container_was_set_up(lab: Lab) -> None:
    """What an audit holds against its rules."""
    spec = lab.spec()
    setup = await lab.engine.setup(await lab.create(spec))

    assert not setup.privileged
    assert setup.no_new_privileges
    assert setup.seccomp == "ours"
    assert (setup.network, setup.published, setup.mounts, setup.devices) == ("none", (), (), ())
    assert setup.log_driver == "none"
    assert setup.auto_remove
    assert setup.open_stdin
    assert setup.user == "0:0"
    assert setup.argv[0] == spec.argv[0]
    assert setup.runtime
    with pytest.raises(ContainerGoneError):
        await lab.engine.setup(NOBODY_IS_THERE)


async def test_a_started_container_runs(lab: Lab) -> None:
    """Started and held, it is running."""
    container_id, _ = await lab.start()

    assert (await lab.engine.inspect(container_id)).status == "running"


async def test_what_a_container_has_written_is_told_when_it_is_asked_for(lab: Lab) -> None:
    """Nothing, or the little that the engine itself puts there."""
    container_id, _ = await lab.start()

    size = (await lab.engine.inspect(container_id, size=True)).size_bytes

    assert size is not None
    assert 0 <= size < 100_000
    assert (await lab.engine.inspect(container_id)).size_bytes is None


async def test_a_container_of_an_unknown_image_is_not_created(lab: Lab) -> None:
    """The missing image is named as the reason, and no image is pulled."""
    with pytest.raises(ImageNotFoundError) as caught:
        await lab.create(lab.spec(image=NOBODY_IS_THERE))

    assert NOBODY_IS_THERE in str(caught.value)


async def test_a_name_is_given_once(lab: Lab) -> None:
    """A second container of a name is a conflict, and the first is left alone."""
    spec = lab.spec()
    first = await lab.create(spec)

    with pytest.raises(EngineConflictError):
        await lab.create(spec)

    assert (await lab.engine.inspect(first)).name == spec.name


async def test_output_written_at_once_is_not_lost_when_attached_before_start(lab: Lab) -> None:
    """A program that speaks and ends immediately is heard to the end."""
    _, stream = await lab.start("/bin/echo", "hello")

    assert await lab.output(stream) == (b"hello\n", b"")


async def test_the_two_outputs_are_told_apart(lab: Lab) -> None:
    """stdout and stderr arrive as what they are."""
    _, stream = await lab.start("/bin/sh", "-c", behaviours.BOTH_STREAMS)

    assert await lab.output(stream) == (b"out\n", b"err\n")


async def test_what_is_sent_comes_back_whole_and_in_order(lab: Lab) -> None:
    """A megabyte through `cat`, while both directions are under way."""
    _, stream = await lab.start("/bin/cat")
    sent = b"".join(b"%07d\n" % number for number in range(125_000))

    assert await lab.echo(stream, [sent]) == sent


async def test_one_call_of_send_is_never_interleaved_with_another(lab: Lab) -> None:
    """Tasks that send at once, each more than a pipe holds, do not cut into each other's bytes."""
    _, stream = await lab.start("/bin/cat")
    pieces = [bytes([letter]) * 200_000 for letter in b"abcdef"]

    echoed = await lab.echo(stream, pieces)

    cuts = [echoed[at : at + 200_000] for at in range(0, len(echoed), 200_000)]
    assert sorted(cuts) == sorted(pieces)


async def test_when_the_first_program_ends_the_container_vanishes(lab: Lab) -> None:
    """Nobody has to remove it."""
    container_id, stream = await lab.start("/bin/sh", "-c", "exit 3")

    assert await lab.output(stream) == (b"", b"")
    assert await lab.gone(container_id)


@pytest.mark.lease
@pytest.mark.parametrize("init", [False, True], ids=["bare", "under-init"])
async def test_closing_the_stream_ends_the_container(lab: Lab, init: bool) -> None:
    """The stream is the lease: without it the program reads the end of its input, ends, and all is gone."""
    container_id, stream = await lab.start(*KEEPALIVE, init=init)

    await stream.aclose()

    assert await lab.gone(container_id)


async def test_the_end_of_input_reaches_the_program(lab: Lab) -> None:
    """`send_eof` lets a program that reads to the end come to its end."""
    container_id, stream = await lab.start()

    await stream.send_eof()

    assert await lab.gone(container_id)


async def test_a_closed_stream_refuses_and_closing_again_is_quiet(lab: Lab) -> None:
    """Sending into a closed stream is an error of ours; closing twice is none."""
    _, stream = await lab.start()
    await stream.aclose()

    with pytest.raises(StreamLostError):
        await stream.send(b"too late")
    await stream.aclose()


async def test_closing_a_stream_wakes_who_waits_for_it(lab: Lab) -> None:
    """A receive under way ends when the stream is closed, one way or the other."""
    _, stream = await lab.start()
    woken = anyio.Event()

    async def wait() -> None:
        try:
            assert await stream.receive() is None
        except StreamLostError:
            pass
        woken.set()

    with anyio.fail_after(lab.deadline(15)):
        async with anyio.create_task_group() as group:
            group.start_soon(wait)
            await anyio.wait_all_tasks_blocked()
            await stream.aclose()
            await woken.wait()


async def test_a_kept_container_is_stopped_and_starts_again(lab: Lab) -> None:
    """At once, whatever its program thinks of it, and attached to before it starts as the first time."""
    spec = replace(lab.spec("/bin/sh", "-c", behaviours.EARLY_THEN_HANG), keep=True)
    container_id = await lab.create(spec)

    async def exited() -> bool:
        return (await lab.engine.inspect(container_id)).status == "exited"

    for _ in range(2):
        stream = await lab.attach(container_id)
        await lab.engine.start(container_id)
        with anyio.fail_after(lab.deadline(15)):
            assert await stream.receive() == (STDOUT, b"early\n")
        await lab.engine.stop(container_id)
        assert await eventually(exited, lab.deadline(15))
    await lab.engine.stop(container_id)
    assert await exited()

    await lab.engine.remove(container_id)
    await lab.engine.stop(container_id)


async def test_a_kept_container_stays_when_its_program_ends(lab: Lab) -> None:
    """It still ends with its lease, if that is what its program does."""
    container_id = await lab.create(replace(lab.spec(), keep=True))
    stream = await lab.attach(container_id)
    await lab.engine.start(container_id)

    await stream.aclose()

    async def exited() -> bool:
        state = await lab.engine.inspect(container_id)
        return (state.status, state.exit_code) == ("exited", 0)

    assert await eventually(exited, lab.deadline(15))


async def test_removing_kills_what_runs_and_ends_its_stream(lab: Lab) -> None:
    """No matter what the program thinks of it."""
    container_id, stream = await lab.start("/bin/sleep", "600")

    await lab.engine.remove(container_id)

    assert await lab.gone(container_id)
    try:
        assert await lab.output(stream) == (b"", b"")
    except StreamLostError:
        pass


async def test_a_container_that_never_started_can_be_removed(lab: Lab) -> None:
    """With a stream open on it or not."""
    idle, attached = await lab.create(lab.spec()), await lab.create(lab.spec())
    await lab.attach(attached)

    for container_id in (idle, attached):
        await lab.engine.remove(container_id)

        assert await is_gone(lab.engine, container_id)


async def test_removing_what_is_gone_is_quiet(lab: Lab) -> None:
    """Twice is as good as once, and never was as good as gone."""
    container_id = await lab.create(lab.spec())

    for _ in range(3):
        await lab.engine.remove(container_id)
    await lab.engine.remove("0" * 64)


async def test_removing_what_is_just_going_by_itself_is_quiet(lab: Lab) -> None:
    """The engine's own removal and ours, both at once: ours must not complain."""
    held = [await lab.start() for _ in range(4)]

    for container_id, stream in held:
        await stream.aclose()
        await lab.engine.remove(container_id)

    for container_id, _ in held:
        assert await lab.gone(container_id)


async def test_a_missing_program_is_named_as_such_and_leaves_nothing(lab: Lab) -> None:
    """The container of an image without the program can be removed, and is not left behind."""
    container_id = await lab.create(lab.spec("/no/such/program"))

    async def attach_and_start() -> None:
        # Podman 4.3 prepares the program for whoever attaches, and says it then.
        await lab.attach(container_id)
        await lab.engine.start(container_id)

    with pytest.raises(ProgramNotFoundError):
        await attach_and_start()

    await lab.engine.remove(container_id)
    assert await lab.gone(container_id)


Verb = Callable[[Engine, str], Awaitable[object]]
_VERBS: dict[str, Verb] = {
    "inspect": lambda engine, gone: engine.inspect(gone),
    "attach": lambda engine, gone: engine.attach(gone),
    "start": lambda engine, gone: engine.start(gone),
    "exec": lambda engine, gone: engine.exec(gone, ["/bin/true"], user="0:0"),
    "commit": lambda engine, gone: engine.commit(gone, "localhost/pocket-dock-test-gone:1", labels=LABELS),
}


@pytest.mark.parametrize("verb", list(_VERBS))
async def test_a_container_that_is_gone_is_reported_gone(lab: Lab, verb: str) -> None:
    """Every verb about one container says the same when there is none."""
    container_id = await lab.create(lab.spec())
    await lab.engine.remove(container_id)

    with pytest.raises(ContainerGoneError):
        await _VERBS[verb](lab.engine, container_id)


async def test_containers_are_found_by_label_in_any_state(lab: Lab) -> None:
    """By key or by key and value; created and running ones alike, and no others."""
    mark = unique("mark")
    idle = await lab.create(lab.spec(labels={"pocket-dock.mark": mark}))
    running, _ = await lab.start()
    labelled = await lab.create(lab.spec(labels={"pocket-dock.mark": mark}))

    found = {state.id: state for state in await lab.engine.containers(f"pocket-dock.mark={mark}")}
    ours = {state.id: state for state in await lab.engine.containers(f"{LABEL}={RUN}")}
    by_key = {state.id for state in await lab.engine.containers("pocket-dock.mark")}

    assert found.keys() == {idle, labelled}
    assert found[idle].status == "created"
    assert found[idle].name == (await lab.engine.inspect(idle)).name
    assert found[idle].labels["pocket-dock.mark"] == mark
    assert ours[running].status == "running"
    assert by_key >= {idle, labelled}
    assert running not in by_key
    assert await lab.engine.containers(f"pocket-dock.mark={mark}-other") == []


# -- exec -----------------------------------------------------------------------------------------


async def test_an_exec_tells_its_output_and_its_exit_code(lab: Lab) -> None:
    """Both streams, and the engine's word on how it ended."""
    container_id, _ = await lab.start()

    talk = await lab.exec(container_id, "/bin/sh", "-c", behaviours.BOTH_STREAMS)
    assert await lab.output(talk) == (b"out\n", b"err\n")
    assert await lab.exit_code(talk) == 0

    fail = await lab.exec(container_id, "/bin/sh", "-c", "exit 3")
    assert await lab.output(fail) == (b"", b"")
    assert await lab.exit_code(fail) == 3


async def test_an_exec_takes_input_to_its_end(lab: Lab) -> None:
    """What is sent is read, and the end of the input ends a program that waits for it."""
    container_id, _ = await lab.start()
    stream = await lab.exec(container_id, "/bin/cat")

    assert await lab.echo(stream, [b"one\n", b"two\n"]) == b"one\ntwo\n"
    await stream.send_eof()
    assert await lab.exit_code(stream) == 0


async def test_an_exec_gets_user_environment_and_directory(lab: Lab) -> None:
    """As they were asked for."""
    container_id, _ = await lab.start()

    user = await lab.exec(container_id, "/bin/sh", "-c", behaviours.SHOW_USER, user="4242:4242")
    assert await lab.output(user) == (b"4242\n", b"")

    env = {"GREETING": 'hello = "world" $HOME'}
    greeting = await lab.exec(container_id, "/bin/sh", "-c", behaviours.SHOW_GREETING, env=env)
    assert await lab.output(greeting) == (b'hello = "world" $HOME\n', b"")

    directory = await lab.exec(container_id, "/bin/sh", "-c", behaviours.SHOW_DIRECTORY, cwd="/tmp")
    assert await lab.output(directory) == (b"/tmp\n", b"")


async def test_an_exec_that_goes_on_is_reported_running(lab: Lab) -> None:
    """No exit code before there is one."""
    container_id, _ = await lab.start()
    stream = await lab.exec(container_id, "/bin/sh", "-c", behaviours.EARLY_THEN_HANG)
    with anyio.fail_after(lab.deadline(15)):
        assert await stream.receive() == (STDOUT, b"early\n")

    state = await stream.state()

    assert state.running
    assert state.exit_code is None


async def test_an_exec_of_a_missing_program_is_no_success(lab: Lab) -> None:
    """Either the engine refuses, or the exec ends with what a shell says for a missing command."""
    container_id, _ = await lab.start()

    try:
        stream = await lab.exec(container_id, "/no/such/program")
        await lab.output(stream)
        assert await lab.exit_code(stream) in (126, 127)
    except ProgramNotFoundError:
        pass


async def test_an_exec_needs_a_running_container(lab: Lab) -> None:
    """In one that was only created it is a conflict."""
    container_id = await lab.create(lab.spec())

    with pytest.raises(EngineConflictError):
        await lab.exec(container_id, "/bin/true")
