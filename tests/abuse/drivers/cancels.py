"""Cancels calls of all kinds at random moments, and sees that nothing of them is left."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import anyio

from tests.abuse.runner import Attack
from tests.trials.host import slowness

FEW, MANY = 150, 1000
AT_ONCE = 5
SETTLED_S = 10.0
CALLS: list[tuple[str, dict[str, Any]]] = [
    ("run_command", {"command": "echo begun; sleep 6543"}),
    ("run_command", {"command": "(sleep 6543 &) ; cat", "stdin": "x" * 10_000}),
    ("run_command", {"command": "yes"}),
    ("run_code", {"code": "import time; time.sleep(6543)"}),
    ("run_code", {"code": "1 + 1"}),
    ("write_file", {"path": "f", "content": "x" * 300_000}),
    ("read_file", {"path": "/usr/bin/python3", "encoding": "base64"}),
    ("find_files", {"path": "/", "grep": "x"}),
]
COUNT = "ls /proc | grep -c '^[0-9]'"


async def drive(attack: Attack) -> None:
    """Cancel some, or many where the case is a heavy one."""
    await cancelling(attack, MANY if attack.written.case.heavy else FEW)


async def cancelling(attack: Attack, count: int, cancels: bool = True) -> None:
    """Begin calls and cancel them; in the control, leave them to themselves."""
    rng = random.Random(count)
    server = attack.server
    # The first of each kind loads and opens what stays.
    await attack.call("run_command", command="true")
    await attack.call("run_code", code="1")
    descriptors, processes = _descriptors(server.pid), await _processes(attack)
    waiting: list[int] = []
    for _ in range(count):
        tool, arguments = rng.choice(CALLS)
        arguments = {"sandbox_id": attack.sandbox, **arguments}
        waiting.append(server.send("tools/call", {"name": tool, "arguments": arguments})[0])
        await anyio.sleep(rng.random() * 0.04)
        if len(waiting) > AT_ONCE and cancels:
            server.cancel(waiting.pop(rng.randrange(len(waiting))))
    for number in waiting if cancels else ():
        server.cancel(number)
    more = left = 0
    with anyio.move_on_after(SETTLED_S * slowness()):
        while True:
            left = await _processes(attack) - processes
            more = _descriptors(server.pid) - descriptors
            if left <= 0 and more <= 0:
                break
            await anyio.sleep(0.1)
    if left > 0:
        attack.red(f"{left} processes are left in the sandbox")
    if more > 0:
        attack.red(f"{more} descriptors are left in the server")


def _descriptors(pid: int) -> int:
    """Count what a server has open, but for kept output: that is bounded, and meant to be there."""
    found = 0
    for link in Path("/proc", str(pid), "fd").iterdir():
        try:
            found += "/spool/" not in str(link.readlink())
        except FileNotFoundError:
            continue
    return found


async def _processes(attack: Attack) -> int:
    found = await attack.call("run_command", command=COUNT)
    return int(found.structured["stdout"])
