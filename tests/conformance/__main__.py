"""The official conformance runner against our server, as a table: see scripts/conformance."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import anyio

from tests.conformance.broken import FAULTS
from tests.conformance.npm import installed
from tests.conformance.runner import Outcome, listed, scenario
from tests.conformance.scenarios import APPLY, DO_NOT_APPLY
from tests.engines import Target
from tests.servers import environment, http_server


async def main(target: Target, profile: str) -> int:
    """Run everything, print what came of it, and return the exit status."""
    programs = installed()
    unknown = set(listed(programs)) ^ (APPLY.keys() | DO_NOT_APPLY.keys())
    bad = [
        f"tests/conformance/scenarios.py and the runner do not agree on {name}" for name in sorted(unknown)
    ]
    with tempfile.TemporaryDirectory() as home:
        environ = environment(target, Path(home), profile)
        async with http_server(target, environ) as server:
            print(f"{'scenario':45}{'revision':14}{'passed':>7}{'failed':>7}", flush=True)
            for name, applies in APPLY.items():
                for version in applies.versions:
                    outcome = await scenario(programs, server.url, name, version, applies.left_out)
                    _show(name, version, outcome)
                    bad += [f"{name}, {version}: {what}" for what in outcome.failed]
                    bad += [] if outcome.passed else [f"{name}, {version}: nothing was checked"]
        async with http_server(target, environ, module="tests.conformance.broken") as server:
            print("\nnegative controls: each has to fail")
            for name, fault in FAULTS.items():
                url = server.at(f"/{name}/mcp")
                outcome = await scenario(programs, url, name, APPLY[name].versions[-1], APPLY[name].left_out)
                _show(name, fault.what, outcome)
                bad += [] if outcome.failed else [f"{name}: it passes although {fault.what}"]
    print("\nnot run, since they do not apply")
    for name, why in DO_NOT_APPLY.items():
        print(f"{name:48}{why}")
    for name, applies in APPLY.items():
        for check, why in applies.left_out.items():
            print(f"{name}: {check}: {why}")
    print("\n" + "\n".join(bad or ["all that applies has passed, and all negative controls have failed"]))
    return 1 if bad else 0


def _show(name: str, what: str, outcome: Outcome) -> None:
    print(f"{name:48}{what:14}{outcome.passed:7}{len(outcome.failed):7}", flush=True)
    for warning in outcome.warnings:
        print(f"    warning: {warning}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="scripts/conformance", description=__doc__)
    parser.add_argument(
        "--engine", default="fake", metavar="URL", help="the engine of the server (default: one in memory)"
    )
    parser.add_argument("--profile", default="minimal", help="the profile or image of its sandboxes")
    given = parser.parse_args()
    is_fake = given.engine == "fake"
    chosen = Target("fake" if is_fake else "real", "" if is_fake else given.engine)
    image = "localhost/pocket-dock-fake:latest" if is_fake else given.profile
    sys.exit(anyio.run(main, chosen, image))
