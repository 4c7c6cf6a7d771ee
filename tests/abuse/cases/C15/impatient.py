"""As `stall.py`, and never reads within the time."""

import anyio

from tests.abuse.runner import Attack


async def drive(attack: Attack) -> None:
    server = attack.server
    server.stop_reading()
    arguments = {"sandbox_id": attack.sandbox, "code": "print('x' * 64_000)", "max_output": 65_536}
    waiting = [server.send("tools/call", {"name": "run_code", "arguments": arguments})[1] for _ in range(40)]
    await anyio.sleep(1)
    if not all(answer.done() for answer in waiting):
        attack.red("answers are missing")
    server.go_on_reading()
    for answer in waiting:
        await answer
