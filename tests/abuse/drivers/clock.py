"""Sets the clock of a server by hours, in both directions."""

from __future__ import annotations

from pathlib import Path

import anyio

from tests.abuse.runner import Attack
from tests.abuse.server import Server
from tests.trials.host import slowness

HOURS = (2.0, -48.0, 0.0)
NOTICED_S = 5.0
CLOCK = """
import time

def shifted(real):
    def clock():
        with open({offset!r}) as file:
            return real() + float(file.read() or 0)
    return clock

for name in {clocks!r}:
    setattr(time, name, shifted(getattr(time, name)))
"""


async def drive(attack: Attack) -> None:
    """Set what people call the time."""
    await setting(attack, ["time"])


async def setting(attack: Attack, clocks: list[str]) -> None:
    """Set clocks forth and back; in the control also the one that only counts."""
    home = attack.ground.home / f"clock-{len(clocks)}"
    home.mkdir(exist_ok=True)
    offset = home / "offset"
    offset.write_text("0")
    (home / "sitecustomize.py").write_text(CLOCK.format(offset=str(offset), clocks=clocks))
    server = await Server.start({**attack.ground.environ({"idle_ttl_s": "600"}), "PYTHONPATH": str(home)})
    try:
        made = await server.call("create_sandbox")
        assert not made.is_error, made.text
        for hours in HOURS:
            _set(offset, hours)
            if await _is_gone(server):
                attack.red(f"a sandbox ends when the clock is set by {hours:g} hours")
                return
            ran = await server.call(
                "run_command", command="echo here", sandbox_id=made.structured["sandbox_id"]
            )
            wall = ran.structured.get("usage", {}).get("wall_s", -1.0)
            if ran.status != "ok" or not 0 <= wall < 60 * slowness():
                attack.red(f"a run after the clock was set by {hours:g} hours: {ran.text[:300]}")
    finally:
        await server.close()


def _set(offset: Path, hours: float) -> None:
    draft = offset.with_suffix(".draft")
    draft.write_text(str(hours * 3600))
    draft.rename(offset)


async def _is_gone(server: Server) -> bool:
    """Wait for as long as a sandbox that has expired may take to end."""
    with anyio.move_on_after(NOTICED_S):
        while True:
            listed = await server.call("list_sandboxes")
            if not listed.structured["sandboxes"]:
                return True
            await anyio.sleep(0.1)
    return False
