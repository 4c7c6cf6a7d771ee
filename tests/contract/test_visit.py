"""Kept containers that several use at once: one holds it, others visit, on the fake and on real engines."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
import pytest

from pocket_dock_mcp.agent.bridge import bridge
from pocket_dock_mcp.agent.inside import wire
from pocket_dock_mcp.container.core import LiveContainer
from pocket_dock_mcp.engine.base import STDOUT, Engine, Stream
from pocket_dock_mcp.errors import (
    SandboxBusyError,
    SandboxClosedError,
    SandboxDetachedError,
    SandboxLostError,
    SandboxStateError,
)
from tests import behaviours
from tests.engines import Deadline, eventually, is_gone
from tests.kept import Kept, keeping

pytestmark = [pytest.mark.anyio, pytest.mark.contract]

MOST = 16


@pytest.fixture
async def kept(engine: Engine, image: str, deadline: Deadline) -> AsyncIterator[Kept]:
    async with keeping(engine, image, deadline) as kept:
        yield kept


async def found_by(container: LiveContainer) -> dict[str, bool]:
    """Return which runs others have begun, and whether they had ended."""
    await container.look_for_runs()
    return {run.id: run.had_ended for run in container.found_runs}


# -- side by side ---------------------------------------------------------------------------------


async def test_all_use_it_at_the_same_time(kept: Kept) -> None:
    """Each gets the answers to its own requests."""
    holder = await kept.create()
    guests = [await kept.visit() for _ in range(2)]
    everybody = [holder, *guests]
    outputs: dict[str, str] = {}

    async def use(number: int, container: LiveContainer) -> None:
        path = f"file-{number}"
        for turn in range(5):
            await container.write_file(path, f"{number}-{turn}")
            outputs[path] = (await container.read_file(path)).data.decode()
            assert (await container.run(behaviours.STEP)).stdout == "step-42\n"

    async with anyio.create_task_group() as group:
        for number, container in enumerate(everybody):
            group.start_soon(use, number, container)

    assert outputs == {f"file-{number}": f"{number}-4" for number in range(3)}
    for container in everybody:
        assert {entry.name for entry in (await container.list_files())[0]} >= set(outputs)
        assert (await container.info()).uid == holder.uid


async def test_who_leaves_ends_nothing_but_his_own_runs(kept: Kept) -> None:
    """Those that are to stay go on, and who comes later finds them, with all of their output."""
    holder = await kept.create()
    holders = await holder.start(behaviours.EARLY_THEN_HANG)
    guest = await kept.visit()
    brief = await guest.start(behaviours.EARLY_THEN_HANG)
    lasting = await guest.start(behaviours.EARLY_THEN_HANG, meta={"background": True})
    await lasting.news()

    await guest.aclose()

    assert ((await brief.wait()).status, (await lasting.wait()).status) == ("killed", "indeterminate")
    with pytest.raises(SandboxClosedError, match="was left"):
        await guest.run(behaviours.STEP)
    later = await kept.visit()

    async def brief_has_ended() -> bool:
        return (await found_by(await kept.visit())) == {holders.id: False, brief.id: True, lasting.id: False}

    await eventually(brief_has_ended, kept.deadline(10))
    assert holders.is_running
    assert list(await found_by(holder)) == [brief.id, lasting.id]
    for container in (later, holder):
        (found,) = [run for run in container.found_runs if run.id == lasting.id]
        assert found.meta == {"background": True}
        assert not found.is_followed
        while not found.spool(STDOUT).total:
            await found.news()
        assert found.read() == "early\n"
    await later.found_runs[-1].kill()
    assert [(await run.wait()).status for run in (found, later.found_runs[-1])] == ["killed"] * 2
    assert (await holder.run(behaviours.STEP)).ok


async def test_a_run_is_followed_by_all_who_want_to(kept: Kept) -> None:
    """From its beginning to its end, and each gets everything."""
    holder = await kept.create()
    run = await holder.start(behaviours.FLOOD)
    guests = [await kept.visit() for _ in range(2)]

    for container in guests:
        (found,) = container.found_runs
        result = await found.wait()
        assert (found.id, result.status, result.stdout_bytes) == (run.id, "ok", behaviours.FLOOD_BYTES)
        assert result.hint is None
        # Whose it is decides how long it is kept.
        found.close()
    assert (await run.wait()).stdout_bytes == behaviours.FLOOD_BYTES
    run.close()

    async def forgotten() -> bool:
        return await found_by(await kept.visit()) == {}

    await eventually(forgotten, kept.deadline(10))


async def test_who_does_not_read_holds_up_nobody(kept: Kept) -> None:
    """Neither the program nor the others who follow it."""
    holder = await kept.create()
    run = await holder.start(behaviours.FLOOD, keep_stdin=True)
    deaf = await join(kept)
    number = await number_of(deaf)
    await deaf.send(wire.encode({"op": "list_runs", "id": number, "after": 0}))
    (known,) = (await reply(deaf))["runs"]
    await deaf.send(wire.encode({"op": "replay", "id": known["id"]}))

    with anyio.fail_after(kept.deadline(30)):
        assert (await run.wait()).stdout_bytes == behaviours.FLOOD_BYTES
        assert (await holder.run(behaviours.FLOOD)).stdout_bytes == behaviours.FLOOD_BYTES
        guest = await kept.visit()
        assert (await guest.run(behaviours.FLOOD)).stdout_bytes == behaviours.FLOOD_BYTES
    await deaf.aclose()


async def test_input_comes_from_several(kept: Kept) -> None:
    """Each as much as there is room for, and nobody waits for the credit of another."""
    holder = await kept.create()
    run = await holder.start(behaviours.DRAIN_THEN_SPEAK, keep_stdin=True)
    guest = await kept.visit()
    (found,) = guest.found_runs

    with anyio.fail_after(kept.deadline(30)):
        for _ in range(2):
            await found.write_stdin(bytes(2 * wire.UPLOAD_WINDOW))
            await run.write_stdin(bytes(2 * wire.UPLOAD_WINDOW))
        await found.write_stdin("", end=True)
        assert [(await one.wait()).stdout for one in (run, found)] == ["done\n"] * 2


async def test_all_is_killed_for_all(kept: Kept) -> None:
    holder = await kept.create()
    guest = await kept.visit()
    runs = [await one.start(behaviours.EARLY_THEN_HANG) for one in (holder, guest)]
    # What comes over one connection may overtake what is under way on another.
    for run in runs:
        while not run.spool(STDOUT).total:
            await run.news()

    await guest.kill_all()

    assert [(await run.wait()).status for run in runs] == ["killed"] * 2
    assert (await holder.run(behaviours.STEP)).ok


# -- who holds it comes and goes ------------------------------------------------------------------


async def test_guests_stay_when_who_holds_it_goes(kept: Kept) -> None:
    """However he goes, and whoever comes."""
    holder = await kept.create()
    guest = await kept.visit()
    run = await guest.start(behaviours.EARLY_THEN_HANG)

    await holder.detach()
    assert (await guest.run(behaviours.STEP)).ok
    holder = await kept.reattach()
    assert [found.id for found in holder.found_runs] == [run.id]
    # As if it were killed.
    await holder._transport.aclose()
    assert (await guest.run(behaviours.STEP)).ok
    first, second = await kept.reattach(), await kept.reattach()
    with anyio.fail_after(kept.deadline(15)):
        await first.wait_lost()

    for container in (second, guest):
        assert (await container.run(behaviours.STEP)).ok
    assert run.is_running


async def test_one_that_nobody_uses_stops_and_not_before(kept: Kept, engine: Engine, image: str) -> None:
    async with keeping(engine, image, kept.deadline, detached_ttl_s=1.0) as brief:
        if engine.info.kind == "fake":
            pytest.skip("its agents do not look at the time")
        holder = await brief.create()
        guest = await brief.visit()
        await holder.detach()
        await anyio.sleep(3)
        assert (await guest.run(behaviours.STEP)).ok
        await guest.aclose()
        assert await brief.has_exited()


# -- what a guest does to it ----------------------------------------------------------------------


async def test_a_guest_stops_it_and_the_others_hear_why(kept: Kept) -> None:
    """What ran has not ended well, and the files are there."""
    holder = await kept.create()
    guest, bystander = await kept.visit(), await kept.visit()
    runs = [await one.start(behaviours.EARLY_THEN_HANG) for one in (holder, guest, bystander)]
    await holder.write_file("kept.txt", "kept")

    await guest.stop()

    results = [await run.wait() for run in runs]
    assert [result.status for result in results] == ["killed"] * 3
    assert results[1].hint == "The sandbox was stopped."
    for container, result in ((holder, results[0]), (bystander, results[2])):
        assert result.hint == "Another client has stopped the sandbox."
        with anyio.fail_after(kept.deadline(15)):
            await container.wait_lost()
        assert container.halted == "stopped"
        with pytest.raises(SandboxDetachedError, match=r"Another client has stopped.*resume it"):
            await container.run(behaviours.STEP)
        await container.leave()
    assert await kept.has_exited()
    with pytest.raises(SandboxStateError, match="Resume it"):
        await kept.visit()
    again = await kept.resume()
    assert (await again.read_file("kept.txt")).data == b"kept"


async def test_a_guest_destroys_it_and_the_others_hear_why(kept: Kept) -> None:
    holder = await kept.create()
    guest = await kept.visit()
    run = await holder.start(behaviours.EARLY_THEN_HANG)

    await guest.destroy()

    assert guest.removed
    assert (await run.wait()).status == "killed"
    with pytest.raises(SandboxLostError, match="Another client has destroyed"):
        await holder.run(behaviours.STEP)
    assert await holder.is_gone(kept.deadline(10))
    assert await is_gone(kept.engine, kept.wanted.name)


@pytest.mark.parametrize("fresh", [False, True])
async def test_a_guest_reboots_it_and_is_a_guest_as_before(kept: Kept, fresh: bool) -> None:
    holder = await kept.create()
    await holder.write_file("kept.txt", "kept")
    guest = await kept.visit()

    await guest.reboot(fresh=fresh)

    with pytest.raises(SandboxDetachedError, match="Another client has rebooted"):
        await holder.run(behaviours.STEP)
    again = await kept.reattach()
    for container in (guest, again):
        assert (await container.run(behaviours.STEP)).ok
        names = [entry.name for entry in (await container.list_files())[0]]
        assert ("kept.txt" in names) is not fresh
    await guest.aclose()
    assert (await again.run(behaviours.STEP)).ok


# -- what is in nobody's way ----------------------------------------------------------------------


async def join(kept: Kept) -> Stream:
    """Join as a program would that does as it likes."""
    state = await kept.engine.inspect(kept.wanted.name)
    return await bridge(kept.engine, state.id, visits=True)


async def reply(stream: Stream) -> wire.Header:
    """Return the header of the next frame."""
    decoder = wire.Decoder()
    while (received := await stream.receive()) is not None:
        if received[0] == STDOUT and (frames := decoder.feed(received[1])):
            return frames[0][0]
    pytest.fail("the stream has ended")


async def number_of(stream: Stream) -> int:
    """Return the first number that a request on this stream may have."""
    return int((await reply(stream))["next"])


@pytest.mark.parametrize(
    "nonsense",
    [
        b"\xff" * 64,
        wire.encode({"op": "ping"}),
        wire.encode({"op": "ping", "id": "1"}),
        wire.encode({"op": "ping", "id": 1}),
        wire.encode({"op": "kill_all", "id": 1 << 40}),
        wire.encode({"op": "credit", "id": 3, "n": "many"}),
    ],
)
async def test_who_breaks_the_protocol_loses_only_his_own_connection(kept: Kept, nonsense: bytes) -> None:
    holder = await kept.create()
    if holder.launched.image and kept.engine.info.kind == "fake":
        pytest.skip("its agents believe their clients")
    guest = await kept.visit()
    run = await holder.start(behaviours.EARLY_THEN_HANG)
    stream = await join(kept)
    await number_of(stream)

    if b"credit" in nonsense:
        (known,) = await guest._transport.others_runs()  # type: ignore[attr-defined]
        nonsense = wire.encode({"op": "replay", "id": known.id}) + wire.encode(
            {"op": "credit", "id": known.id, "n": "many"}
        )
    await stream.send(nonsense)

    with anyio.fail_after(kept.deadline(15)):
        while await stream.receive() is not None:
            pass
    for container in (holder, guest):
        assert (await container.run(behaviours.STEP)).ok
    assert run.is_running
    await stream.aclose()


async def test_half_a_frame_is_in_nobodys_way(kept: Kept) -> None:
    holder = await kept.create()
    guest = await kept.visit()
    for size in (3, 9, 40):
        stream = await join(kept)
        number = await number_of(stream)
        await stream.send(wire.encode({"op": "write", "id": number, "path": "half"}, b"x" * 100)[:size])
        await stream.aclose()
    for container in (holder, guest):
        assert (await container.run(behaviours.STEP)).ok
        assert (await container.list_files())[0] == []


async def test_there_are_so_many_guests_and_no_more(kept: Kept) -> None:
    """And a place is free again when one has left."""
    holder = await kept.create()
    guests: list[LiveContainer] = []

    async def come() -> None:
        guests.append(await kept.visit())

    async with anyio.create_task_group() as group:
        for _ in range(MOST):
            group.start_soon(come)
    with pytest.raises(SandboxBusyError, match="As many"):
        await kept.visit()
    await guests[0].aclose()

    async def comes() -> bool:
        try:
            await kept.visit()
        except SandboxBusyError:
            return False
        return True

    assert await eventually(comes, kept.deadline(10))
    assert (await holder.run(behaviours.STEP)).ok
    for guest in guests:
        await guest.aclose()
