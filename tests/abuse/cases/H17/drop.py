"""Has the engine drop what was asked for, one thing at a time; the server must not hand such a sandbox out."""

from tests.abuse.runner import Attack

DROPPED = {
    "memory": "memory",
    "pids": "pids",
    "cpus": "cpus",
    "network-bridge": "network",
    "new-privileges": "no_new_privs",
    "unconfined": "seccomp",
}


async def drive(attack: Attack) -> None:
    for weakening, name in DROPPED.items():
        server = await attack.ground.weak_server([weakening], limits="strict")
        made = await server.call("create_sandbox")
        if not made.is_error:
            attack.red(f"with {weakening} dropped there is a sandbox")
            await server.call("kill", sandbox_id=made.structured["sandbox_id"])
        elif name not in made.text:
            attack.red(f"with {weakening} dropped the error does not name {name!r}: {made.text}")
        listed = await server.call("list_sandboxes")
        if listed.structured["sandboxes"]:
            attack.red("what was refused is listed")
