"""Pure: what is known of a container that is held against rules, from inside and from its engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pocket_dock_mcp.diagnosis.findings import some
from pocket_dock_mcp.engine.base import ContainerSetup, EngineDetails, EngineInfo
from pocket_dock_mcp.models import Confinement, ContainerInfo

Status = Literal["pass", "fail", "accepted", "manual", "not_applicable"]
"""``accepted``: we do it otherwise, and say why. ``manual``: for a person to judge."""

Answer = tuple[Status, str]
"""And why."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of one container."""

    engine: EngineInfo
    details: EngineDetails
    setup: ContainerSetup
    """The engine's word."""
    inside: ContainerInfo
    """What it was asked to be, and what of that does not hold inside."""
    confinement: Confinement
    keep: bool
    """Whether it is to outlive who uses it."""

    def lacks(self, *names: str) -> list[str]:
        """Return what of this does not hold inside; a name stands for all that begins with it, too."""
        return [one for one in self.inside.unenforced if one.partition(":")[0] in names]


def held(wrong: list[str], fine: str) -> Answer:
    """Pass, unless something is wrong."""
    return ("fail", f"Wrong: {'; '.join(wrong)}.") if wrong else ("pass", fine)


def amiss(evidence: Evidence, *names: str, **said: bool) -> list[str]:
    """Say what does not hold inside, and what of the engine's word is wrong."""
    lacking = evidence.lacks(*names)
    inside = [f"inside, this does not hold: {some(lacking)}"] if lacking else []
    return [*inside, *(f"the engine says {name.replace('_', ' ')}" for name, is_so in said.items() if is_so)]


def filter_in_force(evidence: Evidence) -> str:
    """Return whose filter of system calls is in force, as it is found inside."""
    facts = evidence.inside.facts
    if facts is None or facts.seccomp is None:
        return "not known"
    if not facts.seccomp:
        return "none"
    is_ours = facts.let_through is not None and "mark" not in facts.let_through
    return "ours" if is_ours else "the engine's"
