"""As `names.py`, by a shell that is told the names."""

from tests.abuse.runner import Attack

NAMES = ["$(touch was-run)", "a b"]


async def drive(attack: Attack) -> None:
    await attack.call("run_command", command="mkdir names")
    for name in NAMES:
        await attack.call("run_command", command=f"echo x > names/{name}")
    listed = await attack.call("run_code", code="import os\nsorted(os.listdir('names'))")
    if listed.structured["result"] != repr(sorted(NAMES)):
        attack.red("the directory is not what was written")
