"""Reads and writes while a program swaps directories."""

import os

from tests.abuse.runner import Attack

TRIES = int(os.environ.get("POCKET_DOCK_TEST_RACES", "60"))


async def drive(attack: Attack) -> None:
    begun = await attack.call("run_code", code=attack.file("swap.py"), wait_s=0.5, timeout_s=600)
    assert begun.status == "running", begun.text
    outcomes = {"ok": 0, "refused": 0}
    for number in range(TRIES):
        for tool, arguments in (
            ("write_file", {"path": "here/raced", "content": f"race {number}"}),
            ("read_file", {"path": "here/shadow"}),
            ("find_files", {"path": "here", "grep": "root"}),
        ):
            reply = await attack.call(tool, **arguments)
            outcomes["refused" if reply.is_error else "ok"] += 1
            if "root:" in reply.everything and tool == "read_file":
                attack.red(f"read_file has read what the user may not: {reply.text[:200]}")
    await attack.call("kill", run_id=begun.structured["run_id"])
    found = await attack.call("run_code", code=attack.file("look.py"))
    assert "CONTAINED" in found.text, found.text
    assert "\nESCAPED" not in found.text, found.text
    # Both have happened, so there was a race.
    assert all(outcomes.values()), outcomes
