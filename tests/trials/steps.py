"""The engine goes at every step of every operation and comes back: the server goes on, nothing is left.

    python -m tests.trials.steps --engine unix:///var/run/docker.sock [--operation NAME] [--kill]

A step is one request to the engine, learned from a run in which nothing happens. The engine goes before it
has got the request, or when it has done what it was asked for and the answer is on its way. Without an
option the cable is cut and no connection can be made; with ``--kill`` an engine of the trial's own is killed
by SIGKILL and started again: a Podman service over the machine's storage, or a dockerd with its own.
"""

from __future__ import annotations

import argparse
import random
import re
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import anyio

from pocket_dock_mcp.engine.docker_api import DockerApiEngine
from pocket_dock_mcp.errors import PocketDockError
from pocket_dock_mcp.manager.core import Manager
from pocket_dock_mcp.manager.sandbox import Owner, SandboxRequest
from pocket_dock_mcp.manager.sweep import INSTANCE_LABEL, NONCE_LABEL
from pocket_dock_mcp.settings import Settings
from tests.faults import Fault, FaultyProxy, Way, faulty_proxy
from tests.trials.api import Api
from tests.trials.operations import OPERATIONS, Bench
from tests.trials.own import OwnEngine, own_engine
from tests.trials.sigkill import minimal_image

OWNER = Owner(session="steps", principal="steps")
USUAL = ("create", "run", "files", "snapshot", "kill")
DEADLINE = 20.0
"""Seconds in which an operation must have ended, though nobody answers: refusals come at once."""
BACK_DEADLINE = 30.0
"""Seconds in which all is well when the engine is back: a pause of the mender is at most this long."""

_IDS = re.compile(r"[0-9a-f]{32,}|pocket-dock-[0-9a-f]+|snap-[0-9a-f]+")


@dataclass
class Report:
    """What came of it."""

    steps: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    slowest_s: float = 0.0
    slowest_back_s: float = 0.0
    violations: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [
            f"the engine went {self.steps.total()} times, at {len(self.steps)} different steps",
            f"outcomes: {dict(self.outcomes.most_common())}",
            f"slowest end of an operation: {self.slowest_s:.1f} s",
            f"slowest return to a clean engine and a working server: {self.slowest_back_s:.1f} s",
            f"{len(self.violations)} violations",
        ]
        return "\n".join([*lines, *self.violations])

    def violation(self, text: str) -> None:
        """Take one down."""
        self.violations.append(text)
        print(f"VIOLATION {text}", flush=True)


class Walk:
    """One manager, before whose engine a cable is cut again and again."""

    def __init__(
        self, bench: Bench, cable: FaultyProxy, api: Api, report: Report, own: OwnEngine | None
    ) -> None:
        self._bench = bench
        self._cable = cable
        self._api = api
        self._report = report
        self._own = own

    async def over(self, name: str) -> None:
        """Let the engine go at each step of an operation."""
        steps = await self._steps(name)
        if OPERATIONS[name].on_stream:
            places = [
                Fault("cut", way, offset=offset, connection=None) for way in _WAYS for offset in (1, 200)
            ]
            for fault in places:
                await self._once(name, fault, f"{name} on its stream, {fault.way} after {fault.offset} bytes")
        for step in steps:
            for way, when in (("up", "before"), ("down", "after")):
                await self._once(name, Fault("cut", way, about=step), f"{name} {when} {step!r}")  # type: ignore[arg-type]

    async def _steps(self, name: str) -> list[str]:
        """Learn the requests of an operation, as far as they are the same each time."""
        await OPERATIONS[name].prepare(self._bench)
        self._cable.arm(None)
        await OPERATIONS[name].act(self._bench)
        steps: dict[str, None] = {}
        for head, _passed in self._cable.traffic:
            # From the last id on, or all of it: `POST /v1.40/containers/0123abc/start HTTP/1.1`.
            tail = _IDS.split(head)[-1].rpartition(" ")[0] or head.partition(" ")[0]
            if "/attach" not in head or not OPERATIONS[name].on_stream:
                steps[tail] = None
        return list(steps)

    async def _once(self, name: str, fault: Fault, what: str) -> None:
        try:
            with anyio.fail_after(90):
                await OPERATIONS[name].prepare(self._bench)
        except Exception:  # noqa: BLE001  # told below
            self._report.violation(f"{what}: could not begin: {traceback.format_exc()}")
            return
        self._cable.arm(fault)
        began = time.monotonic()
        try:
            with anyio.fail_after(DEADLINE):
                outcome = await OPERATIONS[name].act(self._bench)
        except PocketDockError as error:
            outcome = error.code
        except Exception:  # noqa: BLE001  # that is what is looked for
            outcome = "violation"
            self._report.violation(f"{what}: {traceback.format_exc()}")
        self._report.slowest_s = max(self._report.slowest_s, time.monotonic() - began)
        self._cable.lift()
        if self._cable.has_struck:
            self._report.steps[what] += 1
            self._report.outcomes[outcome] += 1
        if self._own is not None:
            await self._own.kill()
            await self._own.start()
        await self._cable.connect()
        await self._expect_recovery(what)

    async def _expect_recovery(self, what: str) -> None:
        began = time.monotonic()
        try:
            with anyio.fail_after(BACK_DEADLINE):
                sandbox = await self._bench.living()
                assert (await sandbox.container.run("echo back")).stdout == "back\n"
                while await self._left():
                    await anyio.sleep(0.1)
        except TimeoutError:
            self._report.violation(f"{what}: {BACK_DEADLINE:g} s after its return: {await self._left()}")
        except Exception:  # noqa: BLE001  # that is what is looked for
            self._report.violation(f"{what}: the server does not recover: {traceback.format_exc()}")
        self._report.slowest_back_s = max(self._report.slowest_back_s, time.monotonic() - began)

    async def _left(self) -> list[str]:
        """Return what is ours on the engine and belongs to no living sandbox and to nothing that is kept."""
        manager = self._bench.manager
        journal = manager._access.journal
        if journal is None:
            return []
        alive = {sandbox.container.name for sandbox in manager.list_sandboxes(OWNER)}
        found = await self._api.containers(f"{INSTANCE_LABEL}={journal.instance}")
        # Docker has taken the name from one that is being removed.
        left = [str(item) for item in found if not alive.intersection(n.lstrip("/") for n in item["Names"])]
        kept = {snapshot.tag for snapshot in await manager.list_snapshots(OWNER)}
        for intent in list(journal._live.values()):
            if intent.kind == "image" and intent.name not in kept:
                left += [
                    str(image["RepoTags"])
                    for image in await self._api.images(f"{NONCE_LABEL}={intent.nonce}")
                ]
        return left


_WAYS: tuple[Way, ...] = ("up", "down")


async def trial(
    url: str, *, operations: Sequence[str] = USUAL, image: str | None = None, own: bool = False
) -> Report:
    """Let the engine go at each step of these operations."""
    report = Report()
    image = image or await minimal_image(url)
    with tempfile.TemporaryDirectory(prefix="steps-") as scratch:
        async with own_engine(Path(scratch), url, image) if own else nullcontext() as engine:
            target = engine.url if engine is not None else url
            async with faulty_proxy(Path(scratch, "sock"), target, random.Random(1)) as cable:
                if engine is not None:
                    cable.on_cut = engine.kill
                # Without a pool, so that each create is one on the engine.
                settings = Settings(state_dir=Path(scratch, "state"), pool_mb=0, max_sandboxes=100)
                async with Manager(settings, lambda: DockerApiEngine.connect(cable.url)) as manager:
                    bench = Bench(
                        manager, cable, target, OWNER, SandboxRequest(image=image), random.Random(1)
                    )
                    walk = Walk(bench, cable, Api(target), report, engine)
                    for name in operations:
                        await walk.over(name)
                    for snapshot in await manager.list_snapshots(OWNER):
                        await manager.delete_snapshot(OWNER, snapshot.id)
                await _expect_nothing(Path(scratch, "state"), report)
    return report


async def _expect_nothing(state: Path, report: Report) -> None:
    """See that no record is left but of what may still come."""
    for path in (state / "instances").glob("*.jsonl"):
        if '"intend"' not in path.read_text(encoding="utf-8"):
            report.violation(f"an empty journal is left: {path}")
    if list((state / "snapshots").glob("*.json")):
        report.violation("a snapshot's record is left")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--engine", required=True, help="unix:///path/to.sock")
    parser.add_argument("--operation", action="append", choices=list(OPERATIONS))
    parser.add_argument("--kill", action="store_true", help="kill an engine of the trial's own")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    report = anyio.run(lambda: trial(given.engine, operations=given.operation or USUAL, own=given.kill))
    print(report)
    sys.exit(1 if report.violations else 0)


if __name__ == "__main__":
    main()
