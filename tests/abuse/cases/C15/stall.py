"""Stops reading, asks, and reads again."""

import anyio

from tests.abuse.runner import Attack
from tests.trials.host import slowness

CALLS = 40


async def drive(attack: Attack) -> None:
    await asking(attack, patience_s=60.0)


async def asking(attack: Attack, patience_s: float) -> None:
    server = attack.server
    server.stop_reading()
    arguments = {
        "sandbox_id": attack.sandbox,
        "code": "print('x' * 64_000)",
        "max_output": 65_536,
    }
    waiting = [
        server.send("tools/call", {"name": "run_code", "arguments": arguments})[1] for _ in range(CALLS)
    ]
    await anyio.sleep(2)
    if patience_s:
        server.go_on_reading()
    with anyio.move_on_after(patience_s * slowness()):
        for answer in waiting:
            await answer
    done = sum(answer.done() for answer in waiting)
    server.go_on_reading()
    if done != CALLS:
        attack.red(f"{CALLS - done} answers are missing")
    for answer in waiting:
        await answer
