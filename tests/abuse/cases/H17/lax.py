"""The same where the server is told to take what it gets."""

from tests.abuse.runner import Attack


async def drive(attack: Attack) -> None:
    server = await attack.ground.weak_server(["memory"])
    made = await server.call("create_sandbox")
    if not made.is_error:
        attack.red("with memory dropped there is a sandbox")
        await server.call("kill", sandbox_id=made.structured["sandbox_id"])
