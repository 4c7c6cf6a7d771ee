"""The proof that the suite can fail: each field of the create request made worse has to be noticed.

It is noticed if the server refuses the sandbox, or if one of the named cases is red.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from tests.abuse.case import Written
from tests.abuse.ground import Ground
from tests.abuse.runner import Outcome, attack

CATCHERS: Mapping[str, Sequence[str]] = {}
"""Cases that see a weakening (a key of `WEAKENINGS`), where the server itself does not."""


async def run_mutation(ground: Ground, name: str, cases: Mapping[str, Written]) -> Outcome:
    """Weaken every new container in one way, and see who notices."""
    began = time.monotonic()

    def outcome(result: str, reasons: list[str]) -> Outcome:
        seconds = round(time.monotonic() - began, 2)
        known = {"refused": "refused", "detected": "detected"}.get(result, "missed")
        return Outcome(name, "mutation", ground.target.name, ground.version, known, reasons, {}, seconds)  # type: ignore[arg-type]

    strict = await ground.weak_server([name], limits="strict")
    made = await strict.call("create_sandbox")
    if made.is_error:
        return outcome("refused", [f"the server refuses it: {made.text}"])
    await strict.call("kill", sandbox_id=made.structured["sandbox_id"])
    missed = []
    for case in CATCHERS.get(name, sorted(cases)):
        verdict, _ = await attack(ground, cases[case], strict)
        if verdict.violations:
            return outcome("detected", [f"{case}: {verdict.violations[0]}"])
        missed.append(case)
    return outcome("missed", [f"nobody notices; tried {', '.join(missed)}"])
