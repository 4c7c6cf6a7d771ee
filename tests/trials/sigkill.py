"""Kill the server at random moments: nothing of ours is left, and nothing of anybody else's is touched.

    python -m tests.trials.sigkill --engine unix:///var/run/docker.sock --count 300 [--seed N] [--parallel N]

One trial: a server is brought into a random phase and killed by SIGKILL at a random moment. Two seconds
later no container of ours runs that is not on record as kept. When the next server has started, nothing
else is left: no container in any state, no image that is not on record, no volume, no file, no process.
Foreign objects that look like ours, some with the labels of the very process that was killed, are as they
were.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio

from pocket_dock_mcp.engine.docker_api import DockerApiEngine
from pocket_dock_mcp.engine.seccomp import file_name
from pocket_dock_mcp.images import ImageStore
from pocket_dock_mcp.manager.journal import Record, _parse
from pocket_dock_mcp.manager.records import KeptStore
from pocket_dock_mcp.manager.snapshots import SnapshotStore
from pocket_dock_mcp.manager.sweep import INSTANCE_LABEL, NO_GRACE, NONCE_LABEL, sweep
from tests.trials.api import Api
from tests.trials.foreign import STATES, Foreigners
from tests.trials.host import files_under, processes_about, processes_with, slowness
from tests.trials.phases import PHASES
from tests.trials.server import Server

RUNNING_LIMIT_S = 2.0
SWEPT_LIMIT_S = 20.0
"""Seconds from the next start in which all must be gone. A server that nobody uses waits for 2 s first."""
FIRST_CALL = 0.7
"""How often the next server is used at once; else it is left to sweep by itself."""


@dataclass
class Report:
    """What came of the trials."""

    kills: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)
    seconds_to_stop: list[float] = field(default_factory=list)
    seconds_to_sweep: list[float] = field(default_factory=list)
    leftovers: Counter[str] = field(default_factory=Counter)
    """What there was for the next start to sweep: a trial that never leaves anything proves little."""

    def __str__(self) -> str:
        late = sum(seconds > RUNNING_LIMIT_S for seconds in self.seconds_to_stop)
        slowest = max(self.seconds_to_stop, default=0.0)
        lines = [
            f"{self.kills.total()} kills: " + ", ".join(f"{n} {phase}" for phase, n in self.kills.items()),
            f"the last container of ours stopped at most {slowest:.2f} s after the kill",
            f"after more than {RUNNING_LIMIT_S:g} s, which a busy machine excuses: {late} times",
            f"the next start took at most {max(self.seconds_to_sweep, default=0.0):.1f} s until all was gone",
            "swept at the next start: " + (", ".join(f"{n} {w}" for w, n in self.leftovers.items()) or "-"),
            f"{len(self.violations)} violations",
        ]
        return "\n".join([*lines, *self.violations])


class Chain:
    """One state directory and the servers that use it one after the other, each killed."""

    def __init__(self, url: str, home: Path, seed: int, report: Report) -> None:
        self._api = Api(url)
        self._home = home
        self._rng = random.Random(seed)
        self._report = report
        self._state = home / "state"
        self._snapshots = SnapshotStore(self._state / "snapshots")
        self._kept = KeptStore(self._state / "sandboxes")
        self._instances: set[str] = set()
        self._nonces: set[str] = set()
        """Of images."""
        self._container_ids: set[str] = set()
        self._residents = Foreigners(self._api, "", self._rng)
        self._dead: set[str] = set()
        self._what = ""
        for name in ("tmp", "run"):
            (home / name).mkdir()
        self._environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "TMPDIR": str(home / "tmp"),
            "XDG_RUNTIME_DIR": str(home / "run"),
            "POCKET_DOCK_ENGINE": url,
            "POCKET_DOCK_STATE_DIR": str(self._state),
            "POCKET_DOCK_MAX_SNAPSHOTS": "10000",
            "POCKET_DOCK_MAX_PERSISTENT": "10000",
        }

    async def run(self, phases: Sequence[str], image: str, is_over: Callable[[], bool]) -> None:
        """Kill one server in each of these phases, until it is over; end the last as a client does."""
        self._residents = Foreigners(self._api, image, self._rng)
        await self._residents.settle_in("0123456789abcdef")
        server = await Server.start(self._environ)
        try:
            for phase in phases:
                if is_over():
                    break
                self._what = phase
                server = await self._trial(server, phase, image)
            await self._end(server)
        finally:
            with anyio.CancelScope(shield=True):
                await server.kill()
            await self._residents.leave()

    async def _trial(self, server: Server, phase: str, image: str) -> Server:
        """Kill a server in a phase; see to what is left, and return its successor."""
        if server.is_used and phase == "starting":
            await server.close()
            server = await Server.start(self._environ)
        await PHASES[phase].begin(server, self._rng)
        await anyio.sleep(self._rng.uniform(0, PHASES[phase].span_s))
        self._learn()
        await self._see_containers()
        await server.kill()
        began = time.monotonic()
        self._report.kills[phase] += 1
        if (done := self._report.kills.total()) % 20 == 0:
            print(f"{done} kills, {len(self._report.violations)} violations", flush=True)
        dead = self.learn_dead()
        await self._expect_stopped(began)
        visitors = Foreigners(self._api, image, self._rng)
        for record in dead[:1]:
            await visitors.container(self._rng.choice(STATES), record.instance, self._some_nonce(record))
        self._count_leftovers(await self._see_containers(visitors), dead)
        successor = await Server.start(self._environ)
        try:
            await self._expect_nothing_left(successor, visitors)
            for wrong in [*await visitors.violations(), *await self._residents.violations()]:
                self._violation(wrong)
        except BaseException:
            await successor.kill()
            raise
        finally:
            await visitors.leave()
        return successor

    # -- what is there ----------------------------------------------------------------------------

    def _learn(self) -> list[Record]:
        """Remember what the journals say, and return it."""
        records = [_read(path) for path in (self._state / "instances").glob("*.jsonl")]
        for record in records:
            self._instances.add(record.instance)
            self._nonces |= {intent.nonce for intent in record.intents.values() if intent.kind == "image"}
        return records

    def learn_dead(self) -> list[Record]:
        """As `_learn`, when no server lives."""
        records = self._learn()
        self._dead = {record.instance for record in records}
        return records

    async def _see_containers(self, *foreign: Foreigners) -> list[dict[str, str]]:
        """Return our containers that are not kept on purpose, by id, name and state."""
        others = set().union(self._residents.container_ids, *(f.container_ids for f in foreign))
        # In one question: there may be hundreds of instances.
        found = [
            _told(item)
            for item in await self._api.containers(INSTANCE_LABEL)
            if item["Labels"][INSTANCE_LABEL] in self._instances and item["Id"] not in others
        ]
        kept = self._kept_names()
        found = [item for item in found if item["name"].lstrip("/") not in kept]
        self._container_ids |= {item["id"] for item in found}
        return found

    def _kept_names(self) -> set[str]:
        return {record.container for record in self._kept.records()}

    def _some_nonce(self, record: Record) -> str | None:
        """Return the nonce of one of ours: with another name it proves nothing."""
        nonces = [intent.nonce for intent in record.intents.values()]
        return self._rng.choice(nonces) if nonces and self._rng.random() < 0.5 else None

    def _count_leftovers(self, containers: list[dict[str, str]], dead: list[Record]) -> None:
        for item in containers:
            self._report.leftovers[f"containers ({item['state']})"] += 1
        for record in dead:
            if record.intents:
                self._report.leftovers["journals with something in them"] += 1

    # -- what must be -----------------------------------------------------------------------------

    def _violation(self, text: str) -> None:
        self._report.violations.append(f"[{self._what}] {text}")
        print(f"VIOLATION [{self._what}] {text}", flush=True)

    async def _expect_stopped(self, began: float) -> None:
        while True:
            asked = time.monotonic() - began
            if not any(item["state"] == "running" for item in await self._see_containers()):
                self._report.seconds_to_stop.append(asked)
                break
            if asked > 30:
                self._violation("a container runs 30 s after its server was killed")
                return
            await anyio.sleep(0.05)
        if asked > RUNNING_LIMIT_S * slowness():
            self._violation(
                f"the last container stopped only after {asked:.1f} s; load {os.getloadavg()[0]:.1f}"
            )

    async def _expect_nothing_left(self, successor: Server, visitors: Foreigners) -> None:
        began = time.monotonic()
        if self._rng.random() < FIRST_CALL:
            await successor.initialize()
            made = await successor.call("create_sandbox")
            await successor.call("kill", sandbox_id=made["sandbox_id"])
        while left := await self.left(visitors):
            if time.monotonic() - began > SWEPT_LIMIT_S * slowness():
                self._violation("left after the next start: " + "; ".join(left))
                return
            await anyio.sleep(0.1)
        self._report.seconds_to_sweep.append(time.monotonic() - began)

    async def left(self, *foreign: Foreigners) -> list[str]:
        """Say what is there that should not be, once a successor has swept."""
        left = [f"container {item}" for item in await self._see_containers(*foreign)]
        left += [
            f"image {image['RepoTags']}"
            for image in await self._api.images(NONCE_LABEL)
            if image["Labels"][NONCE_LABEL] in self._nonces
            and not any(self._snapshots.has_tag(tag) for tag in image["RepoTags"] or [""])
        ]
        for path in files_under(self._home):
            if path.parent.name == "instances" and path.suffix == ".jsonl":
                left += self._unexpected(path)
            elif path.name == file_name() and foreign:
                # The successor's, for its engine; at the end there is none.
                continue
            elif path.is_relative_to(self._state / "history") and path.parts[-3] in self._kept_names():
                # What has run in one that is kept.
                continue
            elif path.parent.name not in ("snapshots", "sandboxes") or path.suffix != ".json":
                left.append(f"file {path.relative_to(self._home)}")
        left += [f"process {line}" for line in processes_about(self._container_ids)]
        return left

    def _unexpected(self, journal: Path) -> list[str]:
        """Say what is wrong with there being this journal: it may only tell what may still come."""
        if journal.stem not in self._dead:
            return []
        intents = _read(journal).intents.values()
        if any(not intent.is_made for intent in intents):
            return []
        return [f"journal {journal.name} with {list(intents)}"]

    # -- the end ----------------------------------------------------------------------------------

    async def _end(self, server: Server) -> None:
        """Delete what is kept on purpose, end the last server, and see that nothing at all is there."""
        self._what = "the end"
        await server.initialize()
        for path in list((self._state / "snapshots").glob("*.json")):
            await server.call("kill", snapshot_id=path.stem)
        for path in list((self._state / "sandboxes").glob("*.json")):
            await server.call("kill", sandbox_id=path.stem)
        await server.call("create_sandbox")
        await server.close()
        self.learn_dead()
        engine = await DockerApiEngine.connect(self._api.url)
        try:
            # Whatever may still have come has come by now, or never will.
            await sweep(engine, self._state / "instances", grace_s=NO_GRACE)
        finally:
            await engine.aclose()
        if left := await self.left():
            self._violation("left at the end: " + "; ".join(left))
        if files := files_under(self._home):
            self._violation(f"files at the end: {files}")
        if pids := processes_with("POCKET_DOCK_STATE_DIR", str(self._state)):
            self._violation(f"processes at the end: {pids}")


def _told(item: Mapping[str, Any]) -> dict[str, str]:
    return {"id": item["Id"], "name": item["Names"][0], "state": item["State"]}


def _read(journal: Path) -> Record:
    # Not by locking it: that would be in the way of the server that sweeps.
    try:
        return _parse(journal.stem, journal.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Record(journal.stem, "")


async def minimal_image(url: str) -> str:
    """Return the image of our smallest profile, made if need be."""
    engine = await DockerApiEngine.connect(url)
    try:
        return (await ImageStore(engine).ensure("minimal", print)).id
    finally:
        await engine.aclose()


async def trial(
    url: str,
    count: int,
    *,
    seed: int,
    parallel: int = 1,
    phases: Sequence[str] = tuple(PHASES),
    image: str | None = None,
    minutes: float = 24 * 60,
    stop: threading.Event | None = None,
) -> Report:
    """Kill `count` servers, spread over the phases evenly and in random order; fewer after `stop`."""
    report = Report()
    ends = time.monotonic() + 60 * minutes

    def is_over() -> bool:
        return time.monotonic() > ends or (stop is not None and stop.is_set())

    rng = random.Random(seed)
    todo = [phases[number % len(phases)] for number in range(count)]
    rng.shuffle(todo)
    image = image or await minimal_image(url)
    with tempfile.TemporaryDirectory(prefix="sigkill-") as scratch:
        async with anyio.create_task_group() as group:
            for number in range(parallel):
                home = Path(scratch, str(number))
                home.mkdir()
                chain = Chain(url, home, rng.randrange(2**32), report)
                group.start_soon(chain.run, todo[number::parallel], image, is_over)
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--engine", required=True, help="unix:///path/to.sock")
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    parser.add_argument("--parallel", type=int, default=2)
    parser.add_argument("--phase", action="append", choices=list(PHASES), help="only this one (repeatable)")
    parser.add_argument("--minutes", type=float, default=24 * 60, help="end then, whatever was done")
    given = parser.parse_args()
    print(f"seed {given.seed}", flush=True)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        # Trials under way come to their end, and all that is kept and foreign is removed.
        signal.signal(number, lambda _number, _frame: stop.set())
    phases = given.phase or tuple(PHASES)
    report = anyio.run(
        lambda: trial(
            given.engine,
            given.count,
            seed=given.seed,
            parallel=given.parallel,
            phases=phases,
            minutes=given.minutes,
            stop=stop,
        )
    )
    print(report)
    sys.exit(1 if report.violations else 0)


if __name__ == "__main__":
    main()
