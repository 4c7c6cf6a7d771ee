"""Writes where it would be logged, and asks the engine for its log."""

from tests.abuse.runner import Attack
from tests.trials.api import RefusedError


async def drive(attack: Attack) -> None:
    reply = await attack.call("run_code", code=attack.file("flood.py"))
    assert "CONTAINED" in reply.text, reply.text
    if "\nESCAPED" in reply.text:
        attack.red(reply.text)
    (container,) = attack.watch.containers
    path = f"containers/{container}/logs"
    try:
        logged = await attack.ground.api.call("GET", path, stdout="1", stderr="1")
    except RefusedError:
        # There is none to be read.
        return
    if logged:
        attack.red(f"the engine has logged {len(logged)} bytes")
