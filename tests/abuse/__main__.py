"""``python -m tests.abuse``: runs cases, their controls and the mutations, and reports."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TextIO

import anyio

from tests.abuse import report
from tests.abuse.case import CASES, CaseError, Written, load_all
from tests.abuse.catalogue import missing
from tests.abuse.ground import Ground
from tests.abuse.mutations import run_mutation
from tests.abuse.runner import Outcome, run_case, run_control
from tests.abuse.weakening import WEAKENINGS
from tests.engines import Target, chosen


def main() -> int:
    """Run what the arguments say; 1 if anything was not contained, missed, or cannot be run."""
    given = _parser().parse_args()
    try:
        cases = [case for root in given.cases or [CASES] for case in load_all(Path(root), given.case)]
    except CaseError as error:
        print(error, file=sys.stderr)
        return 2
    targets = [target for target in chosen(given.engine, os.environ) if not target.is_fake]
    with ExitStack() as exits:
        lines = exits.enter_context(Path(given.report).open("w", encoding="utf-8")) if given.report else None
        outcomes = anyio.run(_run, targets, cases, given, lines)
    text = report.table(outcomes, {case.id: case.case.title for case in cases})
    if not given.case and not given.cases and (unwritten := missing([case.id for case in cases])):
        text += f"\n\nOf the catalogue there is no case for: {', '.join(unwritten)}."
    print(f"\n{text}")
    if given.summary:
        Path(given.summary).write_text(text + "\n", encoding="utf-8")
    return 0 if all(outcome.is_good for outcome in outcomes) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.abuse", description=__doc__)
    parser.add_argument("--engine", action="append", default=[], metavar="NAME=URL", help="repeatable")
    parser.add_argument("--cases", action="append", metavar="DIRECTORY", help=f"repeatable; default: {CASES}")
    parser.add_argument("--case", action="append", default=[], metavar="ID", help="only these (repeatable)")
    parser.add_argument("--controls", action="store_true", help="also show that each case can be red")
    parser.add_argument("--mutations", action="store_true", help="also weaken each field of the profile")
    parser.add_argument(
        "--mutation", action="append", default=[], choices=list(WEAKENINGS), metavar="NAME", help="only these"
    )
    parser.add_argument("--only", choices=("cases", "controls", "mutations"), help="nothing else")
    parser.add_argument("--heavy", action="store_true", help="also what takes minutes or much of the machine")
    parser.add_argument("--report", metavar="FILE", help="JSON lines")
    parser.add_argument("--summary", metavar="FILE", help="the table, which is printed anyway")
    return parser


async def _run(
    targets: Sequence[Target], cases: Sequence[Written], given: argparse.Namespace, lines: TextIO | None
) -> list[Outcome]:
    outcomes: list[Outcome] = []

    async def note(running: Awaitable[Outcome]) -> None:
        outcome = await running
        outcomes.append(outcome)
        if lines is not None:
            report.write_line(lines, outcome)
        print(f"{outcome.engine}: {outcome.kind} {outcome.id}: {outcome.result}", flush=True)
        for reason in outcome.reasons if not outcome.is_good else []:
            print(f"    {reason}", flush=True)

    for target in targets:
        with tempfile.TemporaryDirectory(prefix="pocket-dock-abuse-") as home:
            async with Ground.on(target, Path(home)) as ground:
                for job in _jobs(ground, cases, given):
                    await note(job())
    return outcomes


def _jobs(
    ground: Ground, cases: Sequence[Written], given: argparse.Namespace
) -> list[Callable[[], Awaitable[Outcome]]]:
    light = [case for case in cases if given.heavy or not case.case.heavy]
    heavy = [case for case in cases if case not in light]
    jobs: list[Callable[[], Awaitable[Outcome]]] = []
    for case in light:
        if given.only in (None, "cases"):
            jobs.append(partial(run_case, ground, case))
            if case.case.http:
                jobs.append(partial(run_case, ground, case, "http"))
        if given.only == "controls" or (given.controls and given.only is None):
            jobs.append(partial(run_control, ground, case))
    if given.only in (None, "cases"):
        jobs += [partial(_put_off, ground, case) for case in heavy]
    if given.only == "mutations" or (given.mutations and given.only is None):
        by_id = {case.id: case for case in load_all()}
        jobs += [partial(run_mutation, ground, name, by_id) for name in given.mutation or WEAKENINGS]
    return jobs


async def _put_off(ground: Ground, case: Written) -> Outcome:
    reason = "it is heavy: python -m tests.abuse --heavy runs it"
    return Outcome(case.id, "case", ground.target.name, ground.version, "not run", [reason])


if __name__ == "__main__":
    sys.exit(main())
