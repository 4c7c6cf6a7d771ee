"""`pocket-dock audit`: what keeps a sandbox apart, held against the rules for containers at run time."""

from __future__ import annotations

import argparse
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from pocket_dock_mcp.cli import exits
from pocket_dock_mcp.cli.console import Colour, Console, plain
from pocket_dock_mcp.cli.images import engine
from pocket_dock_mcp.cli.reaching import reaching

if TYPE_CHECKING:
    from pocket_dock_mcp.container.core import LiveContainer
    from pocket_dock_mcp.diagnosis.auditing import Audit
    from pocket_dock_mcp.diagnosis.evidence import Status
    from pocket_dock_mcp.settings import Settings

_MARKS: dict[Status, tuple[str, Colour]] = {
    "pass": ("pass    ", "green"),
    "fail": ("FAIL    ", "red"),
    "accepted": ("accepted", "dim"),
    "manual": ("look    ", "yellow"),
    "not_applicable": ("none    ", "dim"),
}
_WORDS: tuple[tuple[Status, str], ...] = (
    ("pass", "passed"),
    ("fail", "failed"),
    ("accepted", "done otherwise on purpose"),
    ("manual", "to be judged by a person"),
    ("not_applicable", "not applicable"),
)


def register(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "audit",
        help="show what keeps a sandbox apart, and check it against the CIS rules",
        description="Shows the profile that is in force in a running sandbox, as it is read inside and told "
        "by the engine, and holds it against section 5 of the CIS Docker Benchmark 1.6.0 and promises of our "
        "own. Exits with 1 if a rule is broken. Without a name: a new sandbox with the settings of the "
        "environment, which is removed again.",
    )
    parser.add_argument("sandbox", metavar="SANDBOX", nargs="?", help="its name or id; it must be running")
    parser.set_defaults(run=run)


async def run(arguments: argparse.Namespace, console: Console) -> int:
    """Look at it and say what was found."""
    from pocket_dock_mcp.async_.host import settings_for
    from pocket_dock_mcp.diagnosis.auditing import audit

    # What does not hold is what is asked for here, so it must not be in the way.
    settings = settings_for().model_copy(update={"limits": "best-effort"})
    reached = _new(settings, console) if arguments.sandbox is None else _kept(arguments.sandbox, settings)
    async with reached as (name, container):
        found = await audit(container, settings.confinement)
    if console.as_json:
        console.give(
            {
                "sandbox": name,
                "passed": found.has_passed,
                "profile": found.profile,
                "rules": [asdict(verdict) for verdict in found.verdicts],
            }
        )
    else:
        _show(found, name, console)
    return exits.OK if found.has_passed else exits.FAILED


@asynccontextmanager
async def _kept(wanted: str, settings: Settings) -> AsyncIterator[tuple[str | None, LiveContainer]]:
    async with reaching(wanted, settings) as reached:
        yield reached.name, reached.live


@asynccontextmanager
async def _new(settings: Settings, console: Console) -> AsyncIterator[tuple[str | None, LiveContainer]]:
    from pocket_dock_mcp.async_.create import limits_of
    from pocket_dock_mcp.diagnosis.trial import sandbox
    from pocket_dock_mcp.images import ImageStore

    async with engine() as connected:
        image = await ImageStore(connected).ensure(settings.profile, console.progress)
        limits = limits_of(settings, None, None, None, None, None)
        console.progress("making a sandbox")
        async with sandbox(connected, image.id, settings, limits) as container:
            yield None, container


def _show(found: Audit, name: str | None, console: Console) -> None:
    console.say(console.paint(plain(name) if name else "A new sandbox", "bold"))
    for label, value in found.profile.items():
        if value not in (None, "", {}, []):
            console.say(f"  {label.replace('_', ' '):<34} {_text(value)}")
    console.say()
    for verdict in found.verdicts:
        mark, colour = _MARKS[verdict.status]
        console.say(f"{console.paint(mark, colour)} {verdict.id:<5} {verdict.title}")
        console.say(f"               {plain(verdict.detail)}")
    counts = {status: sum(one.status == status for one in found.verdicts) for status, _ in _WORDS}
    console.say()
    said = ", ".join(f"{counts[status]} {words}" for status, words in _WORDS if counts[status])
    console.say(console.paint(said, "bold"))


def _text(value: object) -> str:
    if isinstance(value, dict):
        return plain(", ".join(f"{name} {one}" for name, one in value.items()))
    if isinstance(value, (list, tuple)):
        return plain(", ".join(map(str, value)))
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else plain(str(value))
