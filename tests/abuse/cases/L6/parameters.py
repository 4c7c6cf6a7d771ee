"""Puts such text into all parameters that are strings, by the schemas that the server gives."""

from tests.abuse.runner import Attack

EVIL = "x$(touch /tmp/was-run)`touch /tmp/was-run`;touch /tmp/was-run\ntouch /tmp/was-run #'\"|touch /tmp/was-run"
SHELL = {("run_command", "command"), ("run_code", "code")}
"""What is for a shell by its meaning, and code."""
NEEDED = {
    "run_code": {"code": "pass", "wait_s": 5},
    "run_command": {"command": "true", "wait_s": 5},
    "write_file": {"path": "file", "content": "x"},
    "edit_file": {"path": "file", "edits": [{"old": "x", "new": "y"}]},
    "read_file": {"path": "file"},
    "wait_run": {"run_id": "x", "wait_s": 1},
    "read_output": {"run_id": "x", "stream": "stdout"},
}


async def drive(attack: Attack) -> None:
    listed, _ = await attack.server.request("tools/list", {})
    tried = 0
    for tool in listed["result"]["tools"]:
        name = tool["name"]
        for parameter, schema in tool["inputSchema"]["properties"].items():
            kinds = [schema.get("type"), *(choice.get("type") for choice in schema.get("anyOf", []))]
            if "string" not in kinds or (name, parameter) in SHELL:
                continue
            arguments = {**NEEDED.get(name, {}), parameter: EVIL}
            if name in ("snapshot", "fork_sandbox"):
                # They would make what has to be cleared away; their names are looked at in L13.
                continue
            reply = await attack.call(name, **arguments)
            tried += 1
            if name == "create_sandbox" and not reply.is_error:
                await attack.call("kill", sandbox_id=reply.structured["sandbox_id"])
    assert tried > 20, tried
    found = await attack.call("run_command", command="test -e /tmp/was-run && echo ESCAPED || echo CONTAINED")
    assert "CONTAINED" in found.text, found.text
