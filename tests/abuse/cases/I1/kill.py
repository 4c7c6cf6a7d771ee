"""Kills the server and looks at what the engine does."""

import anyio

from tests.abuse.runner import Attack
from tests.trials.host import slowness

WITHIN_S = 5.0


async def drive(attack: Attack) -> None:
    (container,) = attack.watch.containers
    begun = await attack.call(
        "run_command", command="trap '' HUP INT TERM; while :; do sleep 1; done", background=True
    )
    assert begun.status == "running", begun.text
    await attack.server.kill()
    with anyio.move_on_after(WITHIN_S * slowness()):
        while await attack.ground.api.inspect("containers", container) is not None:
            await anyio.sleep(0.05)
        return
    found = await attack.ground.api.inspect("containers", container)
    if found is not None:
        attack.red(f"the container is still there: {found['State']['Status']}")
