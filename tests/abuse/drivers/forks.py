"""Forks of one sandbox, one of which takes what the kernel counts by uid."""

from __future__ import annotations

from tests.abuse.runner import Attack


async def starved(attack: Attack) -> str:
    """Fork the sandbox, let it take all that it may have, and return the id of the fork."""
    forked = await attack.call("fork_sandbox", count=1, within_s=60)
    assert not forked.is_error, forked.text
    await attack.watch.see()
    (fork,) = forked.structured["forks"]
    await attack.call("write_file", path="starve.py", content=attack.file("starve.py"))
    greedy = await attack.call("run_command", command="python3 starve.py", background=True)
    run_id = greedy.structured["run_id"]
    waited = await attack.call("wait_run", run_id=run_id, until="output", pattern="starving", wait_s=25)
    assert "starving" in waited.everything, waited.text
    return str(fork)
