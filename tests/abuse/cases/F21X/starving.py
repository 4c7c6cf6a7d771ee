"""Lets one fork starve, and the other do what users do."""

from tests.abuse.drivers.forks import starved
from tests.abuse.runner import Attack

STEPS = [
    (
        "run_command",
        {"command": "echo text > new; cat new | tr t T; seq 1000 | sort | tail -1"},
        "TexT\n999\n",
    ),
    ("run_code", {"code": "import subprocess; print(subprocess.run(['echo', 'hi']).returncode)"}, "0"),
    ("run_command", {"command": "for i in $(seq 20); do sleep 0.1 & done; wait; echo waited"}, "waited"),
    ("run_code", {"code": "x = 41", "session": "s"}, ""),
    ("run_code", {"code": "print(x + 1)", "session": "s"}, "42"),
]


async def drive(attack: Attack) -> None:
    fork = await starved(attack)
    for tool, arguments, wanted in STEPS:
        reply = await attack.call(tool, sandbox_id=fork, **arguments)
        if reply.status != "ok" or wanted not in reply.structured["stdout"]:
            attack.red(f"{tool} {arguments} in a fork beside a greedy one: {reply.text[:300]}")
