"""``python -m tests.abuse``: runs cases, their controls and the mutations, and reports."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, TextIO

import anyio
import pytest

from pocket_dock_mcp.errors import PocketDockError
from tests.abuse import report
from tests.abuse.case import CASES, CaseError, Written, load_all
from tests.abuse.catalogue import missing
from tests.abuse.ground import Ground
from tests.abuse.mutations import run_mutation
from tests.abuse.runner import Kind, Outcome, reasons_of, run_case, run_control
from tests.abuse.weakening import WEAKENINGS
from tests.engines import NAMES, Target, chosen, connect


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the arguments say; 1 if anything was not contained or missed or an engine is not there."""
    given = _parser().parse_args(arguments)
    try:
        targets = _targets(given.engine)
        engines = {*NAMES, *(target.name for target in targets)}
        roots = [Path(root) for root in given.cases or [CASES]]
        cases = [case for root in roots for case in load_all(root, given.case, engines)]
        jobs = _jobs(cases, given)
    except (CaseError, pytest.UsageError) as error:
        print(error, file=sys.stderr)
        return 2
    with ExitStack() as exits:
        lines = exits.enter_context(Path(given.report).open("w", encoding="utf-8")) if given.report else None
        outcomes, all_serve = anyio.run(_run, targets, jobs, lines)
    text = report.table(outcomes, {case.id: case.case.title for case in cases})
    if not given.case and not given.cases and (unwritten := missing([case.id for case in cases])):
        text += f"\n\nOf the catalogue there is no case for: {', '.join(unwritten)}."
    print(f"\n{text}")
    if given.summary:
        Path(given.summary).write_text(text + "\n", encoding="utf-8")
    return 0 if all_serve and all(outcome.is_good for outcome in outcomes) else 1


def _targets(said: Sequence[str]) -> list[Target]:
    targets = [target for target in chosen(said, os.environ) if not target.is_fake]
    if not targets:
        raise pytest.UsageError("These cases need a real engine: --engine NAME=URL.")
    return targets


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


@dataclass(frozen=True)
class _Job:
    """Something to run on each engine."""

    id: str
    kind: Kind
    run: Callable[[Ground], Awaitable[Outcome]]

    async def outcome(self, ground: Ground) -> Outcome:
        """Run it. What goes wrong with it makes it red and nothing else: the others go on."""
        try:
            return await self.run(ground)
        except Exception as error:  # noqa: BLE001  # whatever it is, it is a reason
            result: Literal["escaped", "missed"] = "escaped" if self.kind == "case" else "missed"
            reasons = [f"it could not be run: {reason}" for reason in reasons_of(error)]
            return Outcome(self.id, self.kind, ground.target.name, ground.version, result, reasons)

    def not_run(self, target: Target, reason: str) -> Outcome:
        """Return what is said of it where it cannot be run."""
        return Outcome(self.id, self.kind, target.name, "not reached", "not run", [reason])


async def _run(
    targets: Sequence[Target], jobs: Sequence[_Job], lines: TextIO | None
) -> tuple[list[Outcome], bool]:
    """Run all on all engines; return what came of it, and whether each engine could be used."""
    outcomes: list[Outcome] = []
    all_serve = True

    def note(outcome: Outcome) -> None:
        outcomes.append(outcome)
        if lines is not None:
            report.write_line(lines, outcome)
        print(f"{outcome.engine}: {outcome.kind} {outcome.id}: {outcome.result}", flush=True)
        for reason in outcome.reasons if not outcome.is_good else []:
            print(f"    {reason}", flush=True)

    for target in targets:
        if silence := await _silence(target):
            all_serve = False
            reason = f"engine {target.name} does not answer: {silence}"
            print(f"{target.name}: {reason}", flush=True)
            for job in jobs:
                note(job.not_run(target, reason))
            continue
        left = list(jobs)
        try:
            with tempfile.TemporaryDirectory(prefix="pocket-dock-abuse-") as home:
                async with Ground.on(target, Path(home)) as ground:
                    while left:
                        note(await left.pop(0).outcome(ground))
        except Exception as error:  # noqa: BLE001  # it is of this engine, and there may be others
            all_serve = False
            reason = f"engine {target.name} cannot be used: {'; '.join(reasons_of(error))}"
            print(f"{target.name}: {reason}", flush=True)
            for job in left:
                note(job.not_run(target, reason))
    return outcomes, all_serve


async def _silence(target: Target) -> str:
    """Return why an engine cannot be reached; nothing if it can."""
    try:
        await (await connect(target)).aclose()
    except (PocketDockError, OSError, ValueError) as error:
        return "; ".join(reasons_of(error))
    return ""


def _jobs(cases: Sequence[Written], given: argparse.Namespace) -> list[_Job]:
    light = [case for case in cases if given.heavy or not case.case.heavy]
    heavy = [case for case in cases if case not in light]
    jobs: list[_Job] = []
    for case in light:
        if given.only in (None, "cases"):
            jobs.append(_Job(case.id, "case", partial(run_case, written=case)))
            if case.case.http:
                over_http = partial(run_case, written=case, transport="http")
                jobs.append(_Job(f"{case.id} over http", "case", over_http))
        if given.only == "controls" or (given.controls and given.only is None):
            jobs.append(_Job(case.id, "control", partial(run_control, written=case)))
    if given.only in (None, "cases"):
        jobs += [_Job(case.id, "case", partial(_put_off, case=case)) for case in heavy]
    if given.only == "mutations" or (given.mutations and given.only is None):
        by_id = {case.id: case for case in load_all()}
        names = given.mutation or WEAKENINGS
        jobs += [_Job(name, "mutation", partial(run_mutation, name=name, cases=by_id)) for name in names]
    return jobs


async def _put_off(ground: Ground, case: Written) -> Outcome:
    reason = "it is heavy: python -m tests.abuse --heavy runs it"
    return Outcome(case.id, "case", ground.target.name, ground.version, "not run", [reason])


if __name__ == "__main__":
    sys.exit(main())
