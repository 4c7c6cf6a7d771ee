"""Kept containers: what outlives who holds them, on the fake and on real engines."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import anyio
import pytest

from pocket_dock_mcp.agent.inside import wire
from pocket_dock_mcp.container.core import LiveContainer
from pocket_dock_mcp.container.launch import Launch
from pocket_dock_mcp.container.memory import MAX_META
from pocket_dock_mcp.engine.base import STDOUT, Engine
from pocket_dock_mcp.errors import (
    ContainerGoneError,
    InvalidArgumentError,
    SandboxClosedError,
    SandboxDetachedError,
    SandboxLostError,
    SandboxStateError,
)
from tests import behaviours
from tests.engines import LABELS, Deadline, eventually, is_gone, unique
from tests.kept import Kept, keeping

pytestmark = [pytest.mark.anyio, pytest.mark.contract]


@pytest.fixture
async def kept(engine: Engine, image: str, deadline: Deadline) -> AsyncIterator[Kept]:
    async with keeping(engine, image, deadline) as kept:
        yield kept


# -- detach and attach again ----------------------------------------------------------------------


async def test_output_of_a_run_is_complete_for_who_comes_later(kept: Kept) -> None:
    """It goes on while nobody is there, and neither what came before is missing nor what comes after."""
    container = await kept.create()
    started = await container.start(behaviours.FLOOD, meta={"background": True, "key": "é"})

    again = await kept.again(container)
    (run,) = again.found_runs
    result = await run.wait()

    assert (run.id, run.meta) == (started.id, {"background": True, "key": "é"})
    assert (result.status, result.stdout_bytes) == ("ok", behaviours.FLOOD_BYTES)
    assert set(run.spool(STDOUT).read(0, behaviours.FLOOD_BYTES)) == {0}


async def test_a_run_that_ended_meanwhile_is_told_as_it_ended(kept: Kept) -> None:
    """As often as somebody asks."""
    container = await kept.create()
    await container.start(behaviours.FAILING_STEP)

    for _ in range(2):
        container = await kept.again(container)
        (run,) = container.found_runs
        result = await run.wait()
        assert (result.status, result.exit_code) == ("nonzero", 3)
        assert result.stdout == "reason-42\n"


async def test_a_run_goes_on_and_is_killed_by_who_comes_later(kept: Kept) -> None:
    """With its output so far."""
    container = await kept.create()
    await container.start(behaviours.EARLY_THEN_HANG)

    again = await kept.again(container)
    (run,) = again.found_runs
    assert run.is_running
    await run.kill()
    result = await run.wait()

    assert (result.status, result.stdout) == ("killed", "early\n")


async def test_what_was_heard_of_a_run_is_known_to_who_comes_later(kept: Kept) -> None:
    """Whether it had ended, and whether anybody was told how."""
    container = await kept.create()
    heard = await container.start(behaviours.STEP)
    await heard.wait()
    unheard = await container.start(behaviours.FAILING_STEP)
    while unheard.is_running:
        await unheard.news()
    # A handle that nobody holds is one that nobody wants.
    running = await container.start(behaviours.EARLY_THEN_HANG)

    container = await kept.again(container)
    assert [(run.id, run.had_ended, run.was_heard_of) for run in container.found_runs] == [
        (heard.id, True, True),
        (unheard.id, True, False),
        (running.id, False, False),
    ]
    assert (await container.found_runs[1].wait()).status == "nonzero"
    # A round trip: an engine may drop what is under way when we hang up.
    await container.info()

    container = await kept.again(container)
    assert [run.was_heard_of for run in container.found_runs] == [True, True, False]


async def test_input_is_given_by_who_comes_later(kept: Kept) -> None:
    """As much as a program reads, and the end of it."""
    container = await kept.create()
    run = await container.start(behaviours.DRAIN_THEN_SPEAK, keep_stdin=True)
    await run.write_stdin("one\n")

    container = await kept.again(container)
    (run,) = container.found_runs
    assert run.program.keep_stdin
    with anyio.fail_after(kept.deadline(30)):
        await run.write_stdin(bytes(4 * wire.UPLOAD_WINDOW), end=True)
        result = await run.wait()

    assert (result.status, result.stdout) == ("ok", "done\n")


async def test_new_runs_and_old_ones_are_not_mixed_up(kept: Kept) -> None:
    """Requests of a new holder have numbers of their own."""
    container = await kept.create()
    for _ in range(3):
        await container.start(behaviours.EARLY_THEN_HANG)

    for _ in range(2):
        container = await kept.again(container)
        assert (await container.run(behaviours.STEP)).stdout == "step-42\n"
        assert [run.is_running for run in container.found_runs] == [True] * 3
    await container.kill_all()

    assert [(await run.wait()).status for run in container.found_runs] == ["killed"] * 3


async def test_what_nobody_wants_any_more_is_forgotten(kept: Kept) -> None:
    """A handle that is closed before its run ends counts as well, when the run has ended."""
    container = await kept.create()
    await container.run(behaviours.STEP)
    (await container.start(behaviours.STEP)).close()
    wanted = await container.start(behaviours.STEP)
    await wanted.wait()

    async def only_that_is_left() -> bool:
        nonlocal container
        container = await kept.again(container)
        return [run.id for run in container.found_runs] == [wanted.id]

    assert await eventually(only_that_is_left, kept.deadline(10))


async def test_files_and_identity_stay(kept: Kept) -> None:
    """The home, the uid, the limits."""
    container = await kept.create()
    await container.write_file("kept.txt", "kept")

    again = await kept.again(container)

    assert (await again.read_file("kept.txt")).data == b"kept"
    info = await again.info()
    assert (info.uid, info.home, info.kept) == (container.uid, container.home, "processes")
    assert info.unenforced == ()


async def test_the_newest_holder_is_served_and_the_one_before_is_told(kept: Kept) -> None:
    """Two would undo each other's work."""
    first = await kept.create()

    second = await kept.reattach()

    with anyio.fail_after(kept.deadline(15)):
        await first.wait_lost()
    with pytest.raises(SandboxDetachedError, match="Another client"):
        await first.run(behaviours.STEP)
    assert (await second.run(behaviours.STEP)).ok


async def test_who_let_go_of_it_cannot_use_it(kept: Kept) -> None:
    """A run that was waited for is unknown to this handle, and not ok."""
    container = await kept.create()
    run = await container.start(behaviours.EARLY_THEN_HANG)

    await container.detach()

    assert (await run.wait()).status == "indeterminate"
    with pytest.raises(SandboxDetachedError, match="attach to it again"):
        await container.run(behaviours.STEP)
    await container.aclose()
    assert await kept.status() == "running"


async def test_meta_is_a_little_json(kept: Kept) -> None:
    """It is refused before anything runs."""
    container = await kept.create()

    for meta in ({"x": "y" * MAX_META}, {"x": object()}):
        with pytest.raises(InvalidArgumentError, match="meta"):
            await container.start(behaviours.STEP, meta=meta)


# -- stop and resume ------------------------------------------------------------------------------


async def test_a_stopped_one_is_resumed_with_its_files(kept: Kept) -> None:
    """And with its uid and environment; what ran in it does not run any more, and has not ended well."""
    kept.wanted = replace(kept.wanted, env={"GREETING": "hello"})
    container = await kept.create()
    await container.write_file("kept.txt", "kept")
    run = await container.start(behaviours.EARLY_THEN_HANG)

    await anyio.sleep(0.2)
    await container.stop()

    result = await run.wait()
    assert (result.status, result.hint) == ("killed", "The sandbox was stopped.")
    assert result.usage.wall_s >= 0.2
    with pytest.raises(SandboxClosedError, match="Resume it"):
        await container.run(behaviours.STEP)
    await container.aclose()
    assert await kept.has_exited()

    again = await kept.resume()

    assert (await again.read_file("kept.txt")).data == b"kept"
    assert again.uid == container.uid
    assert (await again.run(behaviours.SHOW_GREETING)).stdout == "hello\n"
    assert again.found_runs == []


async def test_it_is_stopped_and_resumed_again_and_again(kept: Kept) -> None:
    """Without a pause between the two."""
    container = await kept.create()

    for _ in range(3):
        await container.stop()
        container = await kept.resume()
        assert (await container.run(behaviours.STEP)).ok
    container = await kept.again(container)
    assert (await container.run(behaviours.STEP)).ok


async def test_what_does_not_fit_its_state_is_refused(kept: Kept) -> None:
    """With the step that does."""
    container = await kept.create()
    with pytest.raises(SandboxStateError, match="Attach to it"):
        await kept.resume()
    assert (await container.run(behaviours.STEP)).ok

    await container.stop()
    with pytest.raises(SandboxStateError, match="Resume it"):
        await kept.reattach()
    kept.wanted = replace(kept.wanted, uid=None)
    with pytest.raises(InvalidArgumentError, match="uid"):
        await kept.resume()


async def test_one_with_other_labels_is_not_ours(kept: Kept) -> None:
    """A name may be anybody's."""
    container = await kept.create()
    kept.wanted = replace(kept.wanted, labels={**LABELS, "pocket-dock.nonce": "other"})

    with pytest.raises(ContainerGoneError):
        await kept.reattach()
    assert (await container.run(behaviours.STEP)).ok


async def test_one_that_is_not_kept_cannot_be_let_go_of(engine: Engine, image: str) -> None:
    """It dies with its lease, as ever."""
    async with await LiveContainer.create(engine, Launch(unique("leased"), image, LABELS)) as container:
        for refused in (container.detach, container.stop):
            with pytest.raises(SandboxStateError):
                await refused()
        assert (await container.info()).kept == "nothing"
        assert (await container.run(behaviours.STEP)).ok


@pytest.mark.parametrize("keep", [True, False])
async def test_what_runs_when_it_is_closed_was_killed(
    engine: Engine, image: str, deadline: Deadline, keep: bool
) -> None:
    """And is told so at once, with the time that it ran."""
    async with keeping(engine, image, deadline) as kept:
        kept.wanted = replace(kept.wanted, keep=keep)
        container = await kept.create()
        run = await container.start(behaviours.EARLY_THEN_HANG)
        await anyio.sleep(0.2)

        await container.destroy()

        result = await run.wait()
        assert (result.status, result.hint) == ("killed", "The sandbox was closed.")
        assert result.usage.wall_s >= 0.2


async def test_it_is_removed_in_whatever_state_it_is(kept: Kept) -> None:
    """Detached, stopped, or in use."""
    for let_go in (LiveContainer.detach, LiveContainer.stop, None):
        container = await kept.create()
        if let_go is not None:
            await let_go(container)
        await container.destroy()
        assert container.removed
        assert await eventually(lambda: is_gone(kept.engine, kept.wanted.name), kept.deadline(15))


async def test_one_that_was_removed_from_outside_is_lost(kept: Kept) -> None:
    """And so are its runs."""
    container = await kept.create()
    run = await container.start(behaviours.EARLY_THEN_HANG)

    await kept.engine.remove(kept.wanted.name)

    assert (await run.wait()).status == "lost"
    with pytest.raises(SandboxLostError):
        await container.run(behaviours.STEP)
    with pytest.raises(ContainerGoneError):
        await kept.reattach()


# -- reboot ---------------------------------------------------------------------------------------


async def test_a_reboot_ends_all_processes_and_keeps_files(kept: Kept) -> None:
    """The handle goes on to be good, and is not told that it was lost."""
    container = await kept.create()
    await container.write_file("kept.txt", "kept")
    run = await container.start(behaviours.EARLY_THEN_HANG)

    async with anyio.create_task_group() as group:
        group.start_soon(container.wait_lost)
        await container.reboot()
        assert (await run.wait()).status == "killed"
        assert (await container.read_file("kept.txt")).data == b"kept"
        assert (await container.run(behaviours.STEP)).ok
        await container.destroy()


@pytest.mark.parametrize("keep", [True, False])
async def test_a_fresh_one_takes_its_place(
    engine: Engine, image: str, deadline: Deadline, keep: bool
) -> None:
    """Of the same name, uid and environment, without its files."""
    async with keeping(engine, image, deadline, env={"GREETING": "hello"}) as kept:
        kept.wanted = replace(kept.wanted, keep=keep)
        container = await kept.create()
        await container.write_file("kept.txt", "kept")
        run = await container.start(behaviours.EARLY_THEN_HANG)

        await container.reboot(fresh=True)

        assert (await run.wait()).status == "killed"
        assert "kept.txt" not in [entry.name for entry in (await container.list_files())[0]]
        assert (await container.run(behaviours.SHOW_GREETING)).stdout == "hello\n"
        assert container.uid == kept.wanted.uid
        assert (await engine.inspect(container.name)).status == "running"
        await container.aclose()


async def test_one_that_is_not_kept_is_rebooted_too(engine: Engine, image: str) -> None:
    """By killing all that runs in it: its first program is its lease."""
    async with await LiveContainer.create(engine, Launch(unique("leased"), image, LABELS)) as container:
        await container.write_file("kept.txt", "kept")
        run = await container.start(behaviours.EARLY_THEN_HANG)

        await container.reboot()

        assert (await run.wait()).status == "killed"
        assert (await container.read_file("kept.txt")).data == b"kept"
        assert (await container.run(behaviours.STEP)).ok


async def test_one_that_cannot_be_made_anew_is_lost(kept: Kept) -> None:
    """Whoever uses it is told, and nothing hangs."""
    container = await kept.create()
    await kept.engine.remove(kept.wanted.name)

    with pytest.raises((SandboxLostError, ContainerGoneError)):
        await container.reboot()
    with pytest.raises(SandboxLostError):
        await container.run(behaviours.STEP)
