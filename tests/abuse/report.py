"""Outcomes as JSON lines and as a table for people, which names what was not run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TextIO

from tests.abuse.runner import Outcome

_GOOD = {"case": "cases contained", "control": "controls detected", "mutation": "mutations caught"}


def write_line(file: TextIO, outcome: Outcome) -> None:
    """Append one outcome as a line of JSON."""
    file.write(json.dumps(asdict(outcome), ensure_ascii=False) + "\n")
    file.flush()


def table(outcomes: Sequence[Outcome], titles: dict[str, str]) -> str:
    """Return a Markdown table, a line for each case, and below it what went wrong and what was not run."""
    engines = list(dict.fromkeys(outcome.engine for outcome in outcomes))
    parts = [_cases(outcomes, titles, engines), _totals(outcomes)]
    if bad := [outcome for outcome in outcomes if not outcome.is_good]:
        parts.append("Not as it should be:\n\n" + "\n".join(_bullet(outcome) for outcome in bad))
    if left := [outcome for outcome in outcomes if outcome.result == "not run"]:
        parts.append("Not run:\n\n" + "\n".join(_bullet(outcome) for outcome in left))
    return "\n\n".join(part for part in parts if part)


def _cases(outcomes: Sequence[Outcome], titles: dict[str, str], engines: Sequence[str]) -> str:
    found = {(outcome.kind, outcome.id, outcome.engine): outcome for outcome in outcomes}
    ids = list(dict.fromkeys((outcome.kind, outcome.id) for outcome in outcomes))
    lines = ["| | | " + " | ".join(engines) + " |", "|---|---|" + "---|" * len(engines)]
    for kind, name in ids:
        cells = [_cell(found.get((kind, name, engine))) for engine in engines]
        what = titles.get(name, "") if kind != "mutation" else "mutation"
        lines.append(f"| {name}{' control' if kind == 'control' else ''} | {what} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(outcome: Outcome | None) -> str:
    if outcome is None:
        return ""
    return f"{outcome.result} ({outcome.seconds:.1f} s)" if outcome.seconds else outcome.result


def _totals(outcomes: Sequence[Outcome]) -> str:
    lines = []
    for engine in dict.fromkeys(outcome.engine for outcome in outcomes):
        of_engine = [outcome for outcome in outcomes if outcome.engine == engine]
        for kind in dict.fromkeys(outcome.kind for outcome in of_engine):
            there = [outcome for outcome in of_engine if outcome.kind == kind]
            run = [outcome for outcome in there if outcome.result != "not run"]
            good = sum(outcome.is_good for outcome in run)
            count = f"{good}/{len(run)} {_GOOD[kind]}, {len(there) - len(run)} not run"
            lines.append(f"- {engine} ({there[0].version}): {count}")
    return "\n".join(lines)


def _bullet(outcome: Outcome) -> str:
    reasons = "; ".join(" ".join(reason.split())[:400] for reason in outcome.reasons) or outcome.result
    return f"- {outcome.id} {outcome.kind} on {outcome.engine}: {reasons}"
