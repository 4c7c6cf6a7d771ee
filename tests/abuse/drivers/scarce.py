"""Takes descriptors, or the room for files, from a server, and gives them back."""

from __future__ import annotations

import resource
from pathlib import Path

import anyio

from tests.abuse.runner import Attack
from tests.abuse.server import Reply
from tests.trials.host import slowness

MUCH = "head -c 3000000 /dev/zero | tr '\\0' x"
RECOVERS_S = 10.0


async def drive(attack: Attack) -> None:
    """Take both, one after the other."""
    await taking(attack, gives_back=True)


async def taking(attack: Attack, gives_back: bool, patience_s: float = RECOVERS_S) -> None:
    """Take; in the control, for ever."""
    pid = attack.server.pid
    for kind in (resource.RLIMIT_NOFILE, resource.RLIMIT_FSIZE):
        soft, hard = resource.prlimit(pid, kind)
        opened = max(int(path.name) for path in Path("/proc", str(pid), "fd").iterdir())
        resource.prlimit(pid, kind, (opened + 1 if kind == resource.RLIMIT_NOFILE else 0, hard))
        what = "descriptors" if kind == resource.RLIMIT_NOFILE else "room for files"
        for tool, arguments in (
            ("list_sandboxes", {}),
            ("create_sandbox", {}),
            ("run_command", {"command": MUCH}),
            ("snapshot", {"name": "x"}),
            ("fork_sandbox", {"count": 1}),
        ):
            _see_word(attack, tool, what, await attack.call(tool, within_s=60, **arguments))
        if gives_back:
            resource.prlimit(pid, kind, (soft, hard))
        ends = anyio.current_time() + patience_s * slowness()
        while not (works := await _works(attack)) and anyio.current_time() < ends:
            await anyio.sleep(0.1)
        if not works:
            attack.red(f"it does not recover from a want of {what}")
        resource.prlimit(pid, kind, (soft, hard))
        listed = await attack.call("list_sandboxes")
        for one in listed.structured["snapshots"]:
            await attack.call("kill", snapshot_id=one["snapshot_id"])
        for one in listed.structured["sandboxes"]:
            if one["sandbox_id"] != attack.sandbox:
                await attack.server.call("kill", sandbox_id=one["sandbox_id"])


def _see_word(attack: Attack, tool: str, what: str, reply: Reply) -> None:
    if reply.is_error and (not reply.text.strip() or reply.text.startswith("Error executing tool")):
        attack.red(f"without {what} {tool} fails without a word of ours: {reply.text[:300]!r}")


async def _works(attack: Attack) -> bool:
    made = await attack.call("create_sandbox")
    if made.is_error:
        return False
    await attack.server.call("kill", sandbox_id=made.structured["sandbox_id"])
    ran = await attack.call("run_command", command=MUCH)
    if ran.status != "ok":
        return False
    read = await attack.call("read_output", run_id=ran.structured["run_id"], tail=1)
    return not read.is_error
