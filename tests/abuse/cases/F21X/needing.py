"""Looks in the other fork for what is counted: one that takes all does take it from the others."""

from tests.abuse.drivers.forks import starved
from tests.abuse.runner import Attack


async def drive(attack: Attack) -> None:
    fork = await starved(attack)
    reply = await attack.call("run_code", sandbox_id=fork, code=attack.file("need.py"))
    attack.red(reply.text)
