"""Changes ids so that they look the same, or nearly so."""

from tests.abuse.runner import Attack


def lookalikes(name: str) -> list[str]:
    """Return ids that are not this one."""
    wide = name.translate({ord(c): ord(c) + 0xFEE0 for c in "0123456789abcdef"})
    cyrillic = name.translate(str.maketrans("aceo", "асео"))
    candidates = [
        wide, cyrillic, name.upper(), f"{name}\u200b", f"\u202e{name[::-1]}", f" {name}", f"{name}\n", f"{name}\0",
        name[:-1], f"{name}0", f"{name}/..", f"{name}?x=1", name.replace("_", "-") + "_", f"./{name}",
    ]  # fmt: skip
    return [candidate for candidate in candidates if candidate != name]


async def drive(attack: Attack) -> None:
    await try_all(attack, lookalikes(str(attack.sandbox)))
    begun = await attack.call("run_command", command="sleep 30", background=True)
    for candidate in lookalikes(begun.structured["run_id"]):
        reply = await attack.call("read_output", run_id=candidate)
        if not reply.is_error:
            attack.red(f"{candidate!r} is taken for a run's id")


async def try_all(attack: Attack, candidates: list[str]) -> None:
    for candidate in candidates:
        reply = await attack.call("run_command", command="true", sandbox_id=candidate)
        if not reply.is_error:
            attack.red(f"{candidate!r} is taken for the sandbox's id")
