"""The doctor on real engines and on fakes that lie: what it finds, mends, and leaves alone."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pocket_dock_mcp import policy
from pocket_dock_mcp.container.launch import KEPT_LABEL
from pocket_dock_mcp.diagnosis import leftovers
from pocket_dock_mcp.diagnosis.examine import Orders, examine
from pocket_dock_mcp.diagnosis.findings import Finding, Report
from pocket_dock_mcp.diagnosis.remedies import program_of
from pocket_dock_mcp.diagnosis.trial import program
from pocket_dock_mcp.engine.base import Engine
from pocket_dock_mcp.errors import EngineResponseError, EngineUnavailableError
from pocket_dock_mcp.manager.audit import AuditLog
from pocket_dock_mcp.manager.journal import Journal
from pocket_dock_mcp.manager.records import Kept, KeptStore
from pocket_dock_mcp.manager.sandbox import SandboxRequest
from pocket_dock_mcp.manager.sandbox import new_id as new_sandbox_id
from pocket_dock_mcp.manager.snapshots import Snapshot, SnapshotStore, new_id
from pocket_dock_mcp.manager.sweep import INSTANCE_LABEL, NONCE_LABEL
from pocket_dock_mcp.models import ContainerSpec, Limits
from pocket_dock_mcp.testing import FakeEngine
from tests.doctors import Truth, teach_probes
from tests.engines import LABELS, Target, eventually, is_gone, unique

pytestmark = [pytest.mark.anyio]

HOLDING = {
    "limits.read_back",
    "limits.memory",
    "limits.pids",
    "isolation.user",
    "isolation.capabilities",
    "isolation.no_new_privs",
    "isolation.network",
    "isolation.seccomp",
}

Examine = Callable[..., Any]


def spec(name: str, image: str, labels: dict[str, str]) -> ContainerSpec:
    return policy.exec_spec(name, image, {**LABELS, **labels}, Limits(), "none")


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def examined(engine: Engine, target: Target, state: Path, image: str) -> Examine:
    """Return a function that examines the engine under test with a state directory of its own."""

    if isinstance(engine, FakeEngine):
        teach_probes(engine)

    async def run(*, fix: bool = False, quick: bool = True) -> Report:
        given = {
            "PATH": os.environ["PATH"],
            "HOME": str(state.parent),
            "POCKET_DOCK_ENGINE": target.url or "unix:///nobody.sock",
            "POCKET_DOCK_STATE_DIR": str(state),
            "POCKET_DOCK_PROFILE": image,
        }

        async def reach() -> Any:
            return _Shared(engine)

        return await examine(given, _silent, Orders(fix=fix, quick=quick), reach)

    return run


def _silent(_line: str) -> None:
    pass


class _Shared:
    """Somebody else's engine: closing it is theirs."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    async def aclose(self) -> None:
        pass


def by_id(report: Report) -> dict[str, Finding]:
    return {finding.id: finding for finding in report.findings}


def problems(report: Report) -> list[Finding]:
    return [finding for finding in report.findings if finding.severity == "problem"]


@pytest.mark.fake_too
async def test_a_healthy_engine_has_no_problem_and_all_was_tried(examined: Examine, state: Path) -> None:
    report = await examined(quick=False)

    found = by_id(report)
    assert problems(report) == []
    assert report.is_healthy
    assert {name for name in HOLDING if found[name].severity != "ok"} == set()
    # On a busy machine there may be too little to share to see the limit at work.
    assert found["limits.cpus"].severity in ("ok", "warning")
    assert {"engine", "engine.api", "engine.runtime", "engine.storage", "disk.engine"} <= found.keys()
    assert all(f.remedy for f in report.findings if f.severity in ("warning", "problem"))
    assert list((state / "instances").iterdir()) == [], "the trial's own record is gone with it"


DRIVER = """
import asyncio, json, signal, sys
from pathlib import Path
from pocket_dock_mcp import policy
from pocket_dock_mcp.container.launch import KEPT_LABEL
from pocket_dock_mcp.engine.docker_api import DockerApiEngine
from pocket_dock_mcp.manager.audit import AuditLog
from pocket_dock_mcp.manager.journal import Journal
from pocket_dock_mcp.manager.sweep import INSTANCE_LABEL, NONCE_LABEL
from pocket_dock_mcp.models import Limits

async def main():
    url, directory, name, image, labels = json.loads(sys.argv[1])
    engine = await DockerApiEngine.connect(url)
    journal = Journal(Path(directory))
    journal.use_engine(engine.info.identity)
    intent = journal.intend("container", name)
    ours = {INSTANCE_LABEL: journal.instance, NONCE_LABEL: intent.nonce}
    spec = policy.exec_spec(name, image, {**labels, **ours}, Limits(), "none")
    print(await engine.create(spec), journal.instance, flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


async def test_what_a_killed_process_left_is_found_and_removed_and_nothing_foreign(
    engine: Engine, target: Target, examined: Examine, image: str, state: Path
) -> None:
    arguments = json.dumps([target.url, str(state / "instances"), unique("left"), image, LABELS])
    with subprocess.Popen([sys.executable, "-c", DRIVER, arguments], stdout=subprocess.PIPE) as driver:
        assert driver.stdout is not None
        left, instance = driver.stdout.readline().decode().split()
        driver.send_signal(signal.SIGKILL)
    foreign = [
        await engine.create(spec(unique("foreign"), image, {INSTANCE_LABEL: instance})),
        await engine.create(
            spec(unique("foreign"), image, {INSTANCE_LABEL: instance, NONCE_LABEL: "0" * 16})
        ),
    ]

    looked = await examined()
    assert by_id(looked)["leftovers.objects"].severity == "problem"
    assert "--fix" in by_id(looked)["leftovers.objects"].remedy
    assert not looked.is_healthy
    assert not await is_gone(engine, left), "looking changes nothing"

    fixed = await examined(fix=True)
    assert len(fixed.done) == 1
    assert by_id(fixed)["leftovers.objects"].severity == "ok"
    assert await eventually(lambda: is_gone(engine, left), within=10)

    again = await examined(fix=True)
    assert again.done == ()
    assert again.is_healthy
    for container_id in foreign:
        assert (await engine.inspect(container_id)).status == "created"
        await engine.remove(container_id)


@pytest.mark.fake_too
async def test_stale_records_are_found_and_removed(engine: Engine, examined: Examine, state: Path) -> None:
    (state / "instances").mkdir(parents=True)
    empty = Journal(state / "instances")
    empty.use_engine(engine.info.identity)
    empty.intend("container", "was never made")
    empty.close()
    elsewhere = Journal(state / "instances")
    elsewhere.use_engine("another engine")
    elsewhere.intend("container", "is there")
    elsewhere.close()
    for journal in (empty, elsewhere):
        os.utime(state / "instances" / f"{journal.instance}.jsonl", (0, 0))
    recent = Journal(state / "instances")
    recent.use_engine(engine.info.identity)
    recent.intend("container", "may still be made")
    recent.close()
    alive = Journal(state / "instances")
    broken = state / "instances" / f"{'0' * 16}.jsonl"
    broken.write_bytes(b"\0")
    half = state / "instances" / ".0123.new"
    half.write_text("")
    os.utime(half, (0, 0))
    store = SnapshotStore(state / "snapshots")
    gone, other = snapshot(engine.info.identity), snapshot("another engine")
    store.add(gone)
    store.add(other)

    gone_box = kept(engine.info.identity)
    boxes = KeptStore(state / "sandboxes")
    boxes.add(gone_box).release()
    busy_box = boxes.add(kept(engine.info.identity))

    found = by_id(await examined())
    names = {
        "leftovers.sandboxes",
        "leftovers.journals",
        "leftovers.snapshots",
        "leftovers.files",
        "leftovers.elsewhere",
        "leftovers.pending",
    }
    assert {name: found[name].severity for name in names} == {
        **dict.fromkeys(names, "warning"),
        "leftovers.elsewhere": "info",
        "leftovers.pending": "info",
    }

    assert len((await examined(fix=True)).done) == 4
    assert [one.id for one in boxes.of(None, engine.info.identity)] == [busy_box.kept.id]
    busy_box.remove()

    again = by_id(await examined())
    assert (names & again.keys()) == {"leftovers.elsewhere", "leftovers.files", "leftovers.pending"}
    assert again["leftovers.files"].severity == "ok"
    assert str(broken) in again["records.journals"].title, "what it knew is not known, so it stays"
    assert [kept.id for kept in store.everybodys("another engine")] == [other.id]
    assert {path.stem for path in (state / "instances").glob("*.jsonl")} == {
        elsewhere.instance,
        recent.instance,
        alive.instance,
        broken.stem,
    }
    alive.close()


def kept(engine: str) -> Kept:
    return Kept(
        id=new_sandbox_id(),
        principal="alice",
        engine=engine,
        container=unique("gone"),
        nonce=secrets.token_hex(8),
        image_id="sha256:0",
        uid=1000,
        request=SandboxRequest(image="minimal", persist=True),
        created=0.0,
    )


def snapshot(engine: str) -> Snapshot:
    snapshot_id = new_id()
    return Snapshot(
        id=snapshot_id,
        name="mine",
        principal="alice",
        engine=engine,
        tag=f"localhost/pocket-dock/snapshot:{snapshot_id}",
        image_id="sha256:0",
        uid=1000,
        created=0.0,
        size_bytes=1,
    )


@pytest.mark.fake_too
async def test_a_record_that_cannot_be_read_is_told_with_its_container(
    engine: Engine, examined: Examine, image: str, state: Path
) -> None:
    lost, stopped, whole = (replace(kept(engine.info.identity), container=unique("lost")) for _ in range(3))
    boxes = KeptStore(state / "sandboxes")
    for one in (lost, stopped, whole):
        boxes.add(one).release()
        ours = {NONCE_LABEL: one.nonce, KEPT_LABEL: "exec"}
        await engine.create(spec(one.container, image, ours))
        AuditLog(state / "audit").open(one.id, "alice", "s").write("create", container=one.container)
    path, other = (state / "sandboxes" / f"{one.id}.json" for one in (lost, stopped))
    path.write_text("[]")

    finding = by_id(await examined())["records.sandboxes"]
    program = program_of(engine.info)
    assert finding.severity == "problem"
    assert str(path) in finding.title
    command = finding.remedy.partition("#")[0].strip()
    assert command == f"{program} rm --force {lost.container} && rm {path}"

    for log in (state / "audit").iterdir():
        log.unlink()
    other.write_bytes(b"")
    finding = by_id(await examined(fix=True))["records.sandboxes"]
    assert finding.title.startswith("2 records")
    assert lost.container in finding.detail
    assert whole.container not in finding.detail
    assert path.exists(), "what it was cannot be proved, so it stays"

    for one in (lost, stopped, whole):
        await engine.remove(one.container)
    path.unlink()
    other.unlink()
    assert by_id(await examined())["records"].severity == "ok"


@pytest.mark.fake_too
async def test_a_snapshot_is_told_once_whatever_is_wrong_with_it(
    engine: Engine, examined: Examine, image: str, state: Path
) -> None:
    bad = replace(snapshot(engine.info.identity), size_bytes="large")  # type: ignore[arg-type]
    SnapshotStore(state / "snapshots").add(bad)
    container = await engine.create(spec(unique("source"), image, {}))
    dead = Journal(state / "instances")
    dead.use_engine(engine.info.identity)
    left = snapshot(engine.info.identity)
    intent = dead.intend("image", left.tag)
    dead.close()
    labels = {**LABELS, "pocket-dock.snapshot": bad.id}
    await engine.commit(container, bad.tag, labels=labels)
    labels = {**LABELS, "pocket-dock.snapshot": left.id, NONCE_LABEL: intent.nonce}
    await engine.commit(container, left.tag, labels=labels)
    await engine.remove(container)
    try:
        report = await examined()
        told = [f for f in report.findings if bad.id in f"{f.title} {f.detail}"]
        assert [finding.id for finding in told] == ["records.snapshots"]
        assert f"rmi {bad.tag} && rm" in told[0].remedy
        told = [f for f in report.findings if left.id in f"{f.title} {f.detail}"]
        assert [finding.id for finding in told] == ["leftovers.objects"]
    finally:
        await engine.remove_image(bad.tag)
        await engine.remove_image(left.tag)


@pytest.mark.fake_too
async def test_an_image_that_no_record_names_is_shown_and_never_removed(
    engine: Engine, examined: Examine, image: str, state: Path
) -> None:
    name = f"snap-{secrets.token_hex(16)}"
    tag = f"localhost/pocket-dock/snapshot:{name}"
    container = await engine.create(spec(unique("source"), image, {}))
    await engine.commit(container, tag, labels={**LABELS, "pocket-dock.snapshot": name})
    await engine.remove(container)
    try:
        finding = by_id(await examined(fix=True))["leftovers.unrecorded"]
        assert finding.severity == "info"
        assert "rmi localhost/pocket-dock/snapshot:" in finding.remedy
        assert tag in (await leftovers.look(engine, state)).unrecorded
        assert (await engine.image(tag)).tags
    finally:
        await engine.remove_image(tag)


# -- engines that do not keep their word -------------------------------------------------------------


@pytest.fixture
async def liar() -> Any:
    fake = FakeEngine()
    yield fake
    await fake.aclose()


LIES: dict[str, tuple[Truth, str]] = {
    "memory": (Truth(memory_holds=False), "limits.memory"),
    "pids": (Truth({"fork": {"started": 48, "reason": ""}}), "limits.pids"),
    "cpus": (Truth({"burn": {"cpu_s": 1.9, "throttled": 0}}), "limits.cpus"),
    "network": (Truth({"look": {"interfaces": ["eth0", "lo"], "has_route": True}}), "isolation.network"),
    "root": (Truth({"look": {"uid": 0}}), "isolation.user"),
    "privileges": (Truth({"look": {"no_new_privs": "0"}}), "isolation.no_new_privs"),
    "capabilities": (Truth({"look": {"caps": {"CapEff": "00000000a80425fb"}}}), "isolation.capabilities"),
    "no filter": (Truth({"look": {"seccomp": "0", "calls": {"personality": "ok"}}}), "isolation.seccomp"),
    "a filter in name only": (Truth({"look": {"calls": {"personality": "ok"}}}), "isolation.seccomp"),
    "full disk": (Truth({"look": {"disk_free": 1 << 20}}), "disk.engine"),
}


@pytest.mark.parametrize("lie", list(LIES))
async def test_what_does_not_hold_is_found_by_trying(
    lie: str, liar: FakeEngine, examine_fake: Examine
) -> None:
    truth, expected = LIES[lie]
    teach_probes(liar, truth)

    report = await examine_fake(liar)

    assert [finding.id for finding in problems(report)] == [expected]
    assert problems(report)[0].remedy


@pytest.fixture
def examine_fake(tmp_path: Path) -> Examine:
    async def run(fake: FakeEngine, orders: Orders | None = None, **environ: str) -> Report:
        given = {
            "HOME": str(tmp_path),
            "POCKET_DOCK_STATE_DIR": str(tmp_path / "state"),
            "POCKET_DOCK_ENGINE": "unix:///nobody.sock",
            "POCKET_DOCK_PROFILE": FakeEngine.IMAGE,
            **environ,
        }

        async def reach() -> Any:
            return _Shared(fake)

        return await examine(given, _silent, orders, reach)

    return run


async def test_a_limit_that_is_not_read_back_is_a_problem_unless_best_effort_is_set(
    liar: FakeEngine, examine_fake: Examine
) -> None:
    teach_probes(liar)
    liar.agent.facts["memory_limit"] = None

    strict = by_id(await examine_fake(liar))["limits.read_back"]
    relaxed = by_id(await examine_fake(liar, POCKET_DOCK_LIMITS="best-effort"))["limits.read_back"]

    assert strict.severity == "problem"
    assert "memory" in strict.title
    assert relaxed.severity == "warning"


async def test_probes_that_answer_nonsense_are_no_proof(liar: FakeEngine, examine_fake: Examine) -> None:
    for text in (
        "nonsense",
        "[1]",
        '{"uid": "x", "caps": 3, "calls": [], "interfaces": {}}',
        '{"a":' * 50_000,
    ):
        liar.script(program(), stdout=text)
        report = await examine_fake(liar)
        holding = {f.id for f in report.findings if f.severity == "ok"} & (HOLDING - {"limits.read_back"})
        assert holding == set(), text


async def test_an_engine_that_fails_in_the_middle_hides_nothing_else(
    liar: FakeEngine, examine_fake: Examine
) -> None:
    teach_probes(liar)
    liar.fail("details", EngineResponseError("It fails."))
    liar.fail("create", EngineResponseError("It fails again."))

    found = by_id(await examine_fake(liar))

    assert {name for name, f in found.items() if f.severity == "problem"} == {"engine.setup", "limits"}
    assert found["leftovers.objects"].severity == "ok"
    assert await liar.containers("pocket-dock.instance") == []


async def test_what_an_engine_says_of_itself_is_judged(liar: FakeEngine, examine_fake: Examine) -> None:
    teach_probes(liar)
    liar.details_told = replace(
        liar.details_told, storage_driver="vfs", runtime_version="1.1.4", security_options=()
    )

    found = by_id(await examine_fake(liar))

    assert found["engine.storage"].severity == "warning"
    assert found["engine.runtime"].severity == "warning"
    assert "CVE-2024-21626" in found["engine.runtime"].detail
    assert found["engine.seccomp"].severity == "problem"


async def test_without_an_engine_it_says_how_to_get_one(tmp_path: Path) -> None:
    environ = {
        "HOME": str(tmp_path),
        "POCKET_DOCK_STATE_DIR": str(tmp_path / "state"),
        "POCKET_DOCK_ENGINE": f"unix://{tmp_path}/nobody.sock",
    }

    report = await examine(environ, _silent)

    finding = by_id(report)["engine"]
    assert finding.severity == "problem"
    assert "nobody.sock" in finding.detail
    assert "POCKET_DOCK_ENGINE" in finding.remedy
    assert "configuration.settings" in by_id(report)


async def test_an_engine_that_goes_down_meanwhile_is_no_crash(
    liar: FakeEngine, examine_fake: Examine
) -> None:
    teach_probes(liar)
    liar.fail("details", EngineUnavailableError("gone"))
    liar.go_down()

    report = await examine_fake(liar)

    assert {"engine.setup", "images", "leftovers.objects"} <= {finding.id for finding in problems(report)}


async def test_bad_settings_are_told_and_the_rest_is_looked_at(
    liar: FakeEngine, examine_fake: Examine
) -> None:
    teach_probes(liar)

    found = by_id(await examine_fake(liar, POCKET_DOCK_MAX_SANDBOXEN="3", POCKET_DOCK_PIDS="many"))

    assert found["configuration.settings"].severity == "problem"
    assert "POCKET_DOCK_MAX_SANDBOXES" in found["configuration.settings"].detail
    assert "POCKET_DOCK_PIDS" in found["configuration.settings"].detail
    assert found["engine"].severity == "ok"


async def test_nothing_is_mended_with_bad_settings(
    liar: FakeEngine, examine_fake: Examine, tmp_path: Path
) -> None:
    teach_probes(liar)
    torn = tmp_path / "state" / "instances" / ".0123.new"
    torn.parent.mkdir(parents=True)
    torn.write_text("")
    os.utime(torn, (0, 0))
    fix = Orders(fix=True, quick=True)

    report = await examine_fake(liar, fix, POCKET_DOCK_PIDS="many")
    assert report.done == ()
    assert by_id(report)["configuration.fix"].severity == "problem"
    assert str(tmp_path / "state") in by_id(report)["state.directory"].title, "what is valid is heeded"
    assert torn.exists()

    assert len((await examine_fake(liar, fix)).done) == 1
