"""Looks at who runs in such a container, and at what the engine has set up for it."""

from tests.abuse.runner import Attack


async def drive(attack: Attack) -> None:
    reply = await attack.call("run_code", code=attack.file("who.py"), wait_s=10)
    assert "CONTAINED" in reply.text, reply.text
    if "\nESCAPED" in reply.text:
        attack.red(reply.text)
    (container,) = attack.watch.containers
    known = await attack.ground.api.inspect("containers", container)
    assert known is not None
    check = (known["Config"].get("Healthcheck") or {}).get("Test") or ["NONE"]
    if check[0] not in ("NONE", ""):
        attack.red(f"the engine runs a command for it: {check}")
    if volumes := [mount for mount in known["Mounts"] if mount.get("Type") == "volume"]:
        attack.red(f"it has volumes: {volumes}")
    if known["State"]["Status"] != "running":
        attack.red(f"it is {known['State']['Status']}")
