"""Tries the id itself."""

from tests.abuse.runner import Attack


async def drive(attack: Attack) -> None:
    reply = await attack.call("run_command", command="true", sandbox_id=attack.sandbox)
    if not reply.is_error:
        attack.red(f"{attack.sandbox!r} is taken for the sandbox's id")
