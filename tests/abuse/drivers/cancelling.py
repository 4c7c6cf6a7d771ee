"""Cancels what runs, twice, and what does not."""

import anyio

from tests.abuse.runner import Attack
from tests.trials.host import slowness

LOOK = "cat /proc/[0-9]*/cmdline | tr '\\0' ' ' | grep -c 'sleep [7]654' || true"
DEAD_S = 5.0


async def drive(attack: Attack) -> None:
    await trying(attack, cancels=True)


async def trying(attack: Attack, cancels: bool) -> None:
    server = attack.server
    done, answer = server.send("tools/list", {})
    await answer
    arguments = {"sandbox_id": attack.sandbox, "command": "sleep 7654", "timeout_s": 60}
    running, _ = server.send("tools/call", {"name": "run_command", "arguments": arguments})
    with anyio.fail_after(30 * slowness()):
        while not await sleepers(attack):
            await anyio.sleep(0.05)
    if cancels:
        server.cancel(running)
    odd: tuple[object, ...] = (running, done, 999_999, -1, 0, "text", str(running), None, [], 1.5)
    for number in odd if cancels else ():
        server.notify("notifications/cancelled", requestId=number)
    with anyio.move_on_after(DEAD_S * slowness()):
        while await sleepers(attack):
            await anyio.sleep(0.05)
    if await sleepers(attack):
        attack.red("the program still runs")
    if server.late:
        attack.red(f"what was cancelled is answered: {server.late}")


async def sleepers(attack: Attack) -> int:
    found = await attack.call("run_command", command=LOOK)
    return int(found.structured["stdout"])
