"""`pocket-dock doctor`: what is wrong, and the command that mends it."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from pocket_dock_mcp.cli import exits
from pocket_dock_mcp.cli.console import Colour, Console, plain
from pocket_dock_mcp.cli.surroundings import valid_environ

if TYPE_CHECKING:
    from pocket_dock_mcp.diagnosis.findings import Finding, Report, Severity

_MARKS: dict[Severity, tuple[str, Colour]] = {
    "ok": ("ok     ", "green"),
    "info": ("info   ", "dim"),
    "warning": ("warning", "yellow"),
    "problem": ("PROBLEM", "red"),
}


def register(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "doctor",
        help="look for what is wrong with this machine, its engine or our state",
        description="Looks at settings, engine, images and what dead processes have left, and tries in a "
        "real sandbox which limits hold. Each finding has the command that mends it.",
    )
    parser.add_argument(
        "--fix", action="store_true", help="remove what dead processes have left; nothing that is not ours"
    )
    parser.add_argument(
        "--build", action="store_true", help="build the image of the default profile if it is missing"
    )
    parser.add_argument(
        "--quick", action="store_true", help="make no sandbox, so try no limits; takes a moment"
    )
    parser.set_defaults(run=run)


async def run(arguments: argparse.Namespace, console: Console) -> int:
    """Examine the machine and show what was found."""
    from pocket_dock_mcp.diagnosis.examine import Orders, examine
    from pocket_dock_mcp.projects import find_project_root

    root = find_project_root()
    orders = Orders(fix=arguments.fix, build=arguments.build, quick=arguments.quick, project=root)
    report = await examine(valid_environ(), console.progress, orders)
    if console.as_json:
        findings = [asdict(finding) for finding in report.findings]
        console.give({"healthy": report.is_healthy, "done": list(report.done), "findings": findings})
    else:
        _show(report, console)
    return exits.OK if report.is_healthy else exits.FAILED


def _show(report: Report, console: Console) -> None:
    for line in report.done:
        console.say(f"{console.paint('done   ', 'green')} {plain(line)}")
    for finding in report.findings:
        for line in _lines(finding, console):
            console.say(line)
    problems, warnings = report.count("problem"), report.count("warning")
    console.say()
    console.say(console.paint(f"{_count(problems, 'problem')}, {_count(warnings, 'warning')}", "bold"))


def _lines(finding: Finding, console: Console) -> list[str]:
    mark, colour = _MARKS[finding.severity]
    lines = [f"{console.paint(mark, colour)} {plain(finding.title)}"]
    if finding.detail:
        lines.append(f"        {plain(finding.detail)}")
    if finding.remedy and finding.severity != "ok":
        lines.append(f"        {console.paint('->', colour)} {plain(finding.remedy)}")
    return lines


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
