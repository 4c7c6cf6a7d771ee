"""Looks for such parameters, and gives them."""

import re

from tests.abuse.runner import Attack

OPENING = re.compile(
    r"privileg|bind|mount|volume|device|^cap|^pid_?mode|ipc|sysctl|runtime|security|seccomp|apparmor|cgroup|"
    r"extra_?hosts|user_?ns|^user$|^uid$|host|entrypoint|labels"
)
GIVEN = (
    "privileged", "binds", "volumes", "mounts", "devices", "cap_add", "pid_mode", "network_mode", "ipc", "sysctls",
    "runtime", "security_opt", "cgroup_parent", "extra_hosts", "userns", "user", "HostConfig", "__class__",
)  # fmt: skip


async def drive(attack: Attack) -> None:
    listed, _ = await attack.server.request("tools/list", {})
    tools = {tool["name"]: tool["inputSchema"] for tool in listed["result"]["tools"]}
    for name, schema in tools.items():
        for parameter in schema["properties"]:
            if OPENING.search(parameter):
                attack.red(f"{name} has a parameter {parameter}")
    for given in GIVEN:
        reply = await attack.call("create_sandbox", **{given: True})
        if not reply.is_error or given not in reply.text:
            attack.red(f"create_sandbox takes {given}: {reply.text[:200]}")
    for name in tools:
        reply = await attack.server.call(name, privileged=True)
        if not reply.is_error:
            attack.red(f"{name} takes privileged: {reply.text[:200]}")
