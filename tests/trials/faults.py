"""Put a faulty cable before an engine, thousands of times: outcomes are right or honest.

    python -m tests.trials.faults --engine unix:///var/run/docker.sock --count 5000 [--seed N] [--parallel N]

One run: an operation with a known right outcome is done while one fault happens at a random byte of one of
its connections. It must end in time, with the right outcome or with an error of ours that says what is not
known; never `ok` with anything else, never an exception of somebody else's. Every so often the fault is
lifted, the same manager must work again, and after its end no task, file descriptor or container is left.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import random
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import anyio

from pocket_dock_mcp.agent import agent_process, agent_transport, exec_transport, link
from pocket_dock_mcp.container import launch, life
from pocket_dock_mcp.engine import docker_api, docker_connection, docker_filter, docker_images
from pocket_dock_mcp.engine.docker_api import DockerApiEngine
from pocket_dock_mcp.errors import EngineError, PocketDockError
from pocket_dock_mcp.manager.core import Manager
from pocket_dock_mcp.manager.sandbox import Owner, SandboxRequest
from pocket_dock_mcp.manager.snapshots import SnapshotStore
from pocket_dock_mcp.manager.sweep import INSTANCE_LABEL, NO_GRACE, NONCE_LABEL, Swept, sweep
from pocket_dock_mcp.settings import Settings
from tests.engines import eventually
from tests.faults import KINDS, Fault, FaultyProxy, Kind
from tests.trials.api import Api
from tests.trials.host import descriptors, slowness
from tests.trials.operations import OPERATIONS, Bench
from tests.trials.sigkill import minimal_image

OWNER = Owner(session="trial", principal="trial")
DEADLINE = 20.0
"""Seconds for one run: the longest chain of the deadlines below, and room for a busy machine."""
RUNS_PER_MANAGER = 25
ATTEMPTS = 4
"""Of what is to go well: the shortened deadlines are too short for a busy machine now and then."""

_SHORTENED = {
    (docker_api, "CALL_DEADLINE"): 4.0,
    (docker_connection, "CALL_DEADLINE"): 4.0,
    (docker_filter, "CALL_DEADLINE"): 4.0,
    (docker_images, "CALL_DEADLINE"): 4.0,
    (docker_api, "IMAGE_DEADLINE"): 3.0,
    (docker_api, "PING_DEADLINE"): 1.0,
    (agent_transport, "CALL_DEADLINE"): 1.5,
    (agent_transport, "DATA_DEADLINE"): 2.0,
    (agent_process, "CALL_DEADLINE"): 1.5,
    (agent_process, "KILL_GRACE"): 1.0,
    (exec_transport, "CALL_DEADLINE"): 2.0,
    (exec_transport, "DATA_DEADLINE"): 2.0,
    (link, "STALL_DEADLINE"): 1.5,
    (launch, "READY_DEADLINE"): 6.0,
    (launch, "REMOVE_DEADLINE"): 2.0,
    (life, "GONE_DEADLINE"): 1.0,
}
"""With deadlines of minutes the trial would last for days, and prove nothing more."""


@dataclass
class Report:
    """What came of the runs."""

    runs: Counter[str] = field(default_factory=Counter)
    struck: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)
    managers: int = 0
    swept: int = 0
    slowest: dict[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        def counts(counter: Counter[str]) -> str:
            return ", ".join(f"{n} {what}" for what, n in counter.most_common())

        slowest = ", ".join(f"{what} {seconds:.1f} s" for what, seconds in self.slowest.items())
        lines = [
            f"{self.runs.total()} runs: {counts(self.runs)}",
            f"{self.struck.total()} faults happened: {counts(self.struck)}",
            f"outcomes: {counts(self.outcomes)}",
            f"slowest: {slowest}",
            f"{self.managers} managers; {self.swept} leftovers for the next start to sweep",
            f"{len(self.violations)} violations",
        ]
        return "\n".join([*lines, *self.violations])

    def violation(self, text: str) -> None:
        """Take one down."""
        self.violations.append(text)
        print(f"VIOLATION {text}", flush=True)


class Worker:
    """Runs one after the other, with a proxy of its own."""

    def __init__(
        self, url: str, scratch: Path, rng: random.Random, report: Report, image: str, kinds: Sequence[Kind]
    ) -> None:
        self._url = url
        self._scratch = scratch
        self._rng = rng
        self._report = report
        self._image = image
        self._kinds = kinds
        self._api = Api(url)

    async def run(self, operations: Sequence[str], ends: float) -> None:
        """Do these, with a fault in each, while there is time."""
        for at in range(0, len(operations), RUNS_PER_MANAGER):
            if time.monotonic() > ends:
                break
            await self._batch(operations[at : at + RUNS_PER_MANAGER], self._scratch / str(at))

    async def _batch(self, operations: Sequence[str], home: Path) -> None:
        """Do some with one manager, end it, and see that nothing is left."""
        home.mkdir()
        proxy = FaultyProxy(home / "sock", self._url, self._rng)
        await proxy.connect()
        try:
            settings = Settings(
                state_dir=home / "state",
                max_sandboxes=100,
                max_snapshots=100,
                pool_mb=self._rng.choice([0, 0, 256]),
            )
            async with Manager(settings, lambda: DockerApiEngine.connect(proxy.url)) as manager:
                bench = Bench(manager, proxy, self._url, OWNER, SandboxRequest(image=self._image), self._rng)
                for operation in operations:
                    await self._one(bench, proxy, operation)
                await self._expect_well(bench, proxy)
                instance = manager._access.journal.instance if manager._access.journal else ""
            self._report.managers += 1
        finally:
            await proxy.aclose()
        await self._expect_nothing_left(home, instance)

    async def _one(self, bench: Bench, proxy: FaultyProxy, name: str) -> None:
        operation = OPERATIONS[name]
        proxy.arm(None)
        if not await self._prepare(bench, name):
            return
        fault = self._fault(name)
        proxy.arm(fault)
        began = time.monotonic()
        what = f"{name} with {fault}"
        try:
            with anyio.fail_after(DEADLINE * slowness()):
                outcome = await operation.act(bench)
        except PocketDockError as error:
            outcome = error.code
        except TimeoutError:
            outcome = "hang"
            self._report.violation(f"{what}: has not ended after {DEADLINE:g} s")
        except AssertionError as error:
            outcome = "wrong"
            self._report.violation(f"{what}: {error}")
        except Exception:  # noqa: BLE001  # that is what is looked for
            outcome = "untyped"
            self._report.violation(f"{what}: {traceback.format_exc()}")
        took = time.monotonic() - began
        self._report.slowest[name] = max(took, self._report.slowest.get(name, 0.0))
        self._report.runs[name] += 1
        if (done := self._report.runs.total()) % 100 == 0:
            print(f"{done} runs, {len(self._report.violations)} violations", flush=True)
        if proxy.has_struck:
            self._report.struck[fault.kind] += 1
        if outcome == "ok":
            operation.learn(proxy)
        proxy.lift()
        self._report.outcomes[outcome] += 1

    async def _prepare(self, bench: Bench, name: str) -> bool:
        """Do what belongs to an operation and is to go well; again if need be, on a busy machine."""
        for attempt in range(ATTEMPTS):
            try:
                with anyio.fail_after(60):
                    await OPERATIONS[name].prepare(bench)
                    return True
            except (PocketDockError, TimeoutError) as error:
                if attempt == ATTEMPTS - 1:
                    self._report.violation(f"{name}: not even without a fault: {error!r}")
        return False

    def _fault(self, name: str) -> Fault:
        rng = self._rng
        connection, way, most = OPERATIONS[name].place(rng)
        kind: Kind = rng.choice(self._kinds)
        if kind.startswith("answer"):
            # There is nothing to be answered on a stream.
            way, most = "up", 0
            connection = connection or 0
        return Fault(
            kind,
            way,
            offset=rng.randint(0, most),
            connection=connection,
            status=rng.choice([404, 409, 500, 503]),
            seconds=rng.choice([0.02, 0.1, 0.3]),
        )

    async def _expect_well(self, bench: Bench, proxy: FaultyProxy) -> None:
        """Without a fault the same manager does what it should."""
        proxy.arm(None)
        for attempt in range(ATTEMPTS):
            try:
                with anyio.fail_after(60):
                    for name in ("create", "run"):
                        await OPERATIONS[name].prepare(bench)
                        outcome = await OPERATIONS[name].act(bench)
                        assert outcome == "ok", outcome
                    return
            except Exception:  # noqa: BLE001  # that is what is looked for
                if attempt == ATTEMPTS - 1:
                    self._report.violation(f"the manager does not work any more: {traceback.format_exc()}")

    async def _expect_nothing_left(self, home: Path, instance: str) -> None:
        journals = list((home / "state" / "instances").glob("*.jsonl"))
        nonces = {
            line.split('"nonce": "')[1].split('"')[0]
            for path in journals
            for line in path.read_text().splitlines()
            if '"nonce"' in line
        }

        async def none_runs() -> bool:
            found = await self._api.containers(f"{INSTANCE_LABEL}={instance}")
            return all(item["State"] != "running" for item in found)

        try:
            await eventually(none_runs, within=10 * slowness())
        except TimeoutError:
            self._report.violation(f"a container of {instance} still runs after the manager's end")
        swept = await self._sweep(home / "state")
        self._report.swept += len(swept.removed)

        async def nothing_is_left() -> list[str]:
            left = [str(item["Names"]) for item in await self._api.containers(f"{INSTANCE_LABEL}={instance}")]
            for nonce in nonces:
                left += [str(item["RepoTags"]) for item in await self._api.images(f"{NONCE_LABEL}={nonce}")]
            return left

        async def is_empty() -> bool:
            if await nothing_is_left():
                await self._sweep(home / "state")
            return not await nothing_is_left()

        try:
            await eventually(is_empty, within=10 * slowness())
        except TimeoutError:
            self._report.violation(f"left after the manager's end and a sweep: {await nothing_is_left()}")

    async def _sweep(self, state: Path) -> Swept:
        """Sweep as the next start would, when nothing can come; remove what is kept on purpose, too."""
        engine = await self._direct()
        kept = SnapshotStore(state / "snapshots")
        try:
            swept = await sweep(
                engine, state / "instances", lambda intent: kept.has_tag(intent.name), grace_s=NO_GRACE
            )
            for path in (state / "snapshots").glob("*.json"):
                # One whose deletion has failed is still on record, so it was kept; as it should be.
                await engine.remove_image(json.loads(path.read_text())["tag"])
        except EngineError:
            # The engine is busy: so the next sweep has to do it.
            return Swept()
        finally:
            await engine.aclose()
        return swept

    async def _direct(self) -> DockerApiEngine:
        with anyio.fail_after(300):
            while True:
                with suppress(PocketDockError):
                    return await DockerApiEngine.connect(self._url)


@contextmanager
def shortened() -> Iterator[None]:
    """Make deadlines short enough for a trial of many runs."""
    usual = {(module, name): getattr(module, name) for module, name in _SHORTENED}
    for (module, name), seconds in _SHORTENED.items():
        setattr(module, name, seconds)
    try:
        yield
    finally:
        for (module, name), seconds in usual.items():
            setattr(module, name, seconds)


async def trial(
    url: str,
    count: int,
    *,
    seed: int,
    parallel: int = 4,
    operations: Sequence[str] = tuple(OPERATIONS),
    kinds: Sequence[Kind] = KINDS,
    image: str | None = None,
    minutes: float = 24 * 60,
) -> Report:
    """Do `count` runs, spread over the operations evenly and in random order."""
    report = Report()
    rng = random.Random(seed)
    todo = [operations[number % len(operations)] for number in range(count)]
    rng.shuffle(todo)
    image = image or await minimal_image(url)
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(
        lambda _loop, context: report.violation(f"nobody handled: {context['message']} {context}")
    )
    before = (len(asyncio.all_tasks()), descriptors())
    with shortened(), warnings.catch_warnings(), tempfile.TemporaryDirectory(prefix="faults-") as scratch:
        warnings.simplefilter("always", ResourceWarning)
        warnings.showwarning = lambda message, *_args: report.violation(f"warning: {message}")
        async with anyio.create_task_group() as group:
            for number in range(parallel):
                home = Path(scratch, str(number))
                home.mkdir()
                worker = Worker(url, home, random.Random(rng.randrange(2**32)), report, image, kinds)
                group.start_soon(worker.run, todo[number::parallel], time.monotonic() + 60 * minutes)
        gc.collect()
        await _expect_as_before(report, before)
    loop.set_exception_handler(None)
    return report


async def _expect_as_before(report: Report, before: tuple[int, int]) -> None:
    async def is_as_before() -> bool:
        gc.collect()
        return len(asyncio.all_tasks()) <= before[0] and descriptors() <= before[1]

    try:
        await eventually(is_as_before, within=5)
    except TimeoutError:
        tasks = [task.get_name() + repr(task.get_coro()) for task in asyncio.all_tasks()]
        report.violation(f"tasks and descriptors were {before}, are {len(tasks)}, {descriptors()}: {tasks}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--engine", required=True, help="unix:///path/to.sock")
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    parser.add_argument("--parallel", type=int, default=4)
    parser.add_argument("--operation", action="append", choices=list(OPERATIONS))
    parser.add_argument("--kind", action="append", choices=list(KINDS))
    parser.add_argument("--minutes", type=float, default=24 * 60, help="end then, whatever was done")
    given = parser.parse_args()
    print(f"seed {given.seed}", flush=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    report = anyio.run(
        lambda: trial(
            given.engine,
            given.count,
            seed=given.seed,
            parallel=given.parallel,
            operations=given.operation or tuple(OPERATIONS),
            kinds=given.kind or KINDS,
            minutes=given.minutes,
        )
    )
    print(report)
    sys.exit(1 if report.violations else 0)


if __name__ == "__main__":
    main()
