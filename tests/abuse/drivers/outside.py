"""What somebody does to a container from outside, while a program runs in it and while none does."""

from __future__ import annotations

import anyio

from tests.abuse.runner import Attack
from tests.abuse.server import Reply
from tests.trials.api import Api, RefusedError
from tests.trials.host import slowness

KILL, REMOVE, PAUSE = "H1", "H2", "H3"
NOTICED_S = 2.0


async def drive(attack: Attack) -> None:
    """Do it; which one it is says the case."""
    (container,) = attack.watch.containers
    if attack.written.id == PAUSE:
        await _paused(attack, container)
        return
    await _ended(attack, container)
    # The same to one that is idle.
    made = await attack.call("create_sandbox")
    attack.sandbox = made.structured["sandbox_id"]
    before = set(attack.watch.containers)
    await attack.watch.see()
    (idle,) = set(attack.watch.containers) - before
    await _end(attack, idle)
    reply = await attack.call("run_command", command="echo alive")
    _expect_lost(attack, reply)


async def _ended(attack: Attack, container: str) -> None:
    replies: list[Reply] = []

    async def run() -> None:
        replies.append(await attack.call("run_command", command="echo here; sleep 600", timeout_s=300))

    async with anyio.create_task_group() as group:
        group.start_soon(run)
        await _wait_until_it_runs(attack)
        await _end(attack, container)
        began = anyio.current_time()
    if (seconds := anyio.current_time() - began) > NOTICED_S * slowness():
        attack.red(f"it was noticed only after {seconds:.1f} s")
    if replies[0].status != "lost":
        attack.red(f"a run whose container is gone is {replies[0].status!r}: {replies[0].text[:300]}")
    _expect_lost(attack, await attack.call("run_command", command="echo alive"))
    attack.sandbox = None


async def _paused(attack: Attack, container: str) -> None:
    api = attack.ground.api
    await api.call("POST", f"containers/{container}/pause")
    try:
        reply = await attack.call("run_command", command="echo alive", timeout_s=2, wait_s=10, within_s=60)
        if reply.status == "ok":
            attack.red("a paused sandbox has run a program")
        with anyio.fail_after(30 * slowness()):
            killed = await attack.server.call("kill", sandbox_id=attack.sandbox)
        if killed.is_error:
            attack.red(f"a paused sandbox cannot be ended: {killed.text[:300]}")
    finally:
        await _let_go_on(api, container)


async def _let_go_on(api: Api, container: str) -> None:
    """Leave nothing paused, whatever came before: it may be gone, on its way out, or going on already."""
    try:
        if await api.inspect("containers", container) is not None:
            await api.call("POST", f"containers/{container}/unpause")
    except RefusedError as refused:
        if refused.status not in (404, 409) and "not paused" not in str(refused):
            raise


async def _wait_until_it_runs(attack: Attack) -> None:
    with anyio.fail_after(30 * slowness()):
        while True:
            seen = await attack.server.call("run_command", command="pgrep -x sleep || cat /proc/*/comm")
            if "sleep" in seen.everything or seen.structured.get("stdout", "").strip().isdigit():
                return


async def _end(attack: Attack, container: str) -> None:
    if attack.written.id == KILL:
        await attack.ground.api.call("POST", f"containers/{container}/kill", signal="KILL")
    else:
        await attack.ground.api.call("DELETE", f"containers/{container}", force="1")


def _expect_lost(attack: Attack, reply: Reply) -> None:
    if not reply.is_error or "sandbox_lost" not in reply.text:
        attack.red(f"a sandbox that is gone is not said to be lost: {reply.text[:300]}")
