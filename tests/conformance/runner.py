"""Runs scenarios of the official runner and tells what came of them."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread

from tests.conformance.npm import Programs, run

SCENARIO_S = 180.0
_LISTED = re.compile(r"^\s*- (\S+) \[", re.MULTILINE)


@dataclass
class Outcome:
    """What came of one scenario."""

    passed: int = 0
    warnings: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    """What is wrong, a line for each check."""

    @property
    def is_good(self) -> bool:
        """Whether something was checked, and nothing of it was wrong."""
        return self.passed > 0 and not self.failed


def listed(programs: Programs) -> list[str]:
    """Return the names of all server scenarios that the runner has."""
    done = run(programs.command("conformance", "list", "--server"), 60, programs.environ, programs.folder)
    return _LISTED.findall(done.stdout)


async def scenario(
    programs: Programs, url: str, name: str, version: str, left_out: Mapping[str, str]
) -> Outcome:
    """Run one scenario under one revision of the protocol against the server at `url`."""
    with tempfile.TemporaryDirectory(prefix="conformance-") as folder:
        where = ["--url", url, "--scenario", name, "--spec-version", version, "--output-dir", folder]
        command = programs.command("conformance", "server", *where, "--timeout", "120000")
        done = await anyio.to_thread.run_sync(run, command, SCENARIO_S, programs.environ, programs.folder)
        found = list(Path(folder).glob("*/checks.json"))
        if len(found) != 1:
            return Outcome(failed=[f"the runner has no result: {done.stdout[-2000:]}"])
        outcome = _judged(json.loads(found[0].read_text()), left_out)
    # Its own judgement counts, too, unless a check is left out.
    if done.returncode and not outcome.failed and not outcome.left_out:
        outcome.failed.append(f"the runner ended with {done.returncode}: {done.stdout[-2000:]}")
    return outcome


def _judged(checks: list[dict[str, Any]], left_out: Mapping[str, str]) -> Outcome:
    outcome = Outcome()
    for check in checks:
        status, what = check["status"], f"{check['id']}: {check.get('errorMessage') or check.get('name')}"
        if status == "SUCCESS":
            outcome.passed += 1
        elif status == "WARNING":
            outcome.warnings.append(what)
        elif status == "FAILURE" and check["id"] in left_out:
            outcome.left_out.append(check["id"])
        elif status == "FAILURE":
            outcome.failed.append(what)
    return outcome
