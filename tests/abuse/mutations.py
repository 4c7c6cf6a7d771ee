"""The proof that the suite can fail: each field of the create request made worse has to be noticed.

It is noticed if the server, which verifies from inside, refuses the sandbox, or if the case that is named
for it is red. That case must be contained as long as nothing is weakened.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Literal

from tests.abuse.case import Written
from tests.abuse.ground import Ground
from tests.abuse.runner import Outcome, attack

CATCHERS: Mapping[str, str] = {
    "log": "B9",
    "volumes": "B7",
    "healthcheck": "L15",
    "user": "L15",
    "auto-remove": "I1",
    "stdin-once": "I1",
}
"""Cases that see a weakening (a key of `WEAKENINGS`) which no program inside can see."""

NO_DIFFERENCE: Mapping[tuple[str, str], str] = {
    ("podman", "cgroup-host"): "Podman gives no cgroup namespace on cgroup v1",
    (
        "docker",
        "cgroup-host",
    ): "the cgroup file systems of v1 are bound to the container's own groups either way",
    ("podman", "unmasked"): "Podman 4.3 ignores the field",
    ("podman", "stdin-once"): "Podman ends the container's input with the one attachment in any case",
}
"""By kind of engine: weakenings that it does not make."""

_Result = Literal["refused", "detected", "missed", "not run"]


async def run_mutation(ground: Ground, name: str, cases: Mapping[str, Written]) -> Outcome:
    """Weaken every new container in one way, and see who notices."""
    began = time.monotonic()
    result, reason = await _result(ground, name, cases)
    seconds = round(time.monotonic() - began, 2)
    return Outcome(name, "mutation", ground.target.name, ground.version, result, [reason], {}, seconds)


async def _result(ground: Ground, name: str, cases: Mapping[str, Written]) -> tuple[_Result, str]:
    if name in CATCHERS:
        case = cases[CATCHERS[name]]
        if reasons := await _attacked(ground, [], case):
            return "missed", f"{case.id} is red without it: {reasons[0]}"
        if reasons := await _attacked(ground, [name], case):
            return "detected", f"{case.id}: {reasons[0]}"
        return _unnoticed(ground, name, f"{case.id} does not notice")
    if ground.unweakened is None:
        ground.unweakened = await _refusal(ground, [])
    if ground.unweakened:
        return "missed", f"there is no sandbox without it either: {ground.unweakened}"
    if refusal := await _refusal(ground, [name]):
        return "refused", refusal
    return _unnoticed(ground, name, "the server hands the sandbox out")


def _unnoticed(ground: Ground, name: str, otherwise: str) -> tuple[_Result, str]:
    if reason := NO_DIFFERENCE.get((ground.kind, name)):
        return "not run", f"it makes no difference: {reason}"
    return "missed", otherwise


async def _refusal(ground: Ground, names: list[str]) -> str:
    """Return what the server says when it refuses a sandbox; nothing if it does not."""
    server = await ground.weak_server(names, limits="strict")
    made = await server.call("create_sandbox")
    if made.is_error:
        return made.text
    await server.call("kill", sandbox_id=made.structured["sandbox_id"])
    return ""


async def _attacked(ground: Ground, names: list[str], case: Written) -> list[str]:
    """Return why a case is red on weakened containers."""
    settings = case.case.server
    server = await ground.weak_server(names, limits="strict", settings=settings)
    try:
        verdict, _ = await attack(ground, case, server)
    finally:
        if settings is not None:
            await server.close()
    return verdict.violations
