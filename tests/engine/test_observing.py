"""What is told of sandboxes to those who watch: on the audit log, as spans, and as counters."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp.client import Client
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from pocket_dock_mcp.errors import ContainerGoneError, EngineUnavailableError, ImageNotFoundError, QuotaError
from pocket_dock_mcp.manager.audit import read_log
from pocket_dock_mcp.manager.core import Manager
from pocket_dock_mcp.manager.runs import SandboxRun
from pocket_dock_mcp.manager.sandbox import Owner, Sandbox, SandboxRequest
from pocket_dock_mcp.models import RunResult
from pocket_dock_mcp.server.app import create_server
from pocket_dock_mcp.settings import Settings
from tests import behaviours
from tests.engines import Target, connect, eventually, unique

pytestmark = pytest.mark.anyio

ALICE = Owner(session="alice's session", principal="alice")
SECRET = "hunter2hunter2"


def silent(_line: str) -> None:
    """Hear progress and say nothing."""


@pytest.fixture
def settings(tmp_path: Path, image: str) -> Settings:
    return Settings(state_dir=tmp_path, max_sandboxes=2, profile=image, pool_mb=0)


@pytest.fixture
async def manager(target: Target, settings: Settings) -> AsyncIterator[Manager]:
    async with Manager(settings, lambda: connect(target)) as manager:
        yield manager


@pytest.fixture
def request_(image: str) -> SandboxRequest:
    return SandboxRequest(image=image, env={"PASSWORD": SECRET})


def logged(settings: Settings, name: str) -> list[dict[str, Any]]:
    path = settings.state_dir / "audit" / f"{name}.jsonl"
    return list(read_log(path)) if path.exists() else []


async def log_of(settings: Settings, sandbox: Sandbox, *events: str) -> list[dict[str, Any]]:
    """Return a sandbox's log when these events are on it."""

    async def there() -> list[dict[str, Any]] | None:
        lines = logged(settings, sandbox.id)
        return lines if [line["event"] for line in lines] == list(events) else None

    return await eventually(there, within=20) or []


@pytest.mark.fake_too
async def test_what_is_done_with_a_sandbox_is_on_its_log(
    manager: Manager, settings: Settings, request_: SandboxRequest
) -> None:
    sandbox = await manager.create(ALICE, request_, silent)
    with sandbox.use():
        run = await sandbox.runs.start(
            f"exit 3 # PASSWORD={SECRET}",
            key=None,
            background=False,
            language="shell",
            env={"A": SECRET},
            stdin=SECRET,
        )
        await run.run.wait()
    await log_of(settings, sandbox, "create", "run", "run_end")
    _, snapshot = await manager.snapshot(ALICE, sandbox.id, "kept")
    await manager.kill(ALICE, sandbox.id)
    await manager.delete_snapshot(ALICE, snapshot.id)

    created, started, over, kept, ended = await log_of(
        settings, sandbox, "create", "run", "run_end", "snapshot", "end"
    )
    assert created["principal"] == "alice"
    assert created["env_names"] == ["PASSWORD"]
    assert created["memory_bytes"] == request_.limits.memory_bytes
    assert started["run_id"] == over["run_id"] == run.id
    assert started["first_line"] == "exit 3 # PASSWORD=***"
    assert (over["status"], over["exit_code"]) in {("nonzero", 3), ("nonzero", 127)}
    assert over["wall_s"] >= 0
    assert kept["snapshot_id"] == snapshot.id
    assert ended["why"] == "it was killed"
    assert [line["event"] for line in logged(settings, "snapshots")] == ["snapshot_deleted"]
    assert SECRET not in (settings.state_dir / "audit" / f"{sandbox.id}.jsonl").read_text()
    assert ALICE.session not in (settings.state_dir / "audit" / f"{sandbox.id}.jsonl").read_text()


@pytest.mark.fake_too
async def test_runs_that_go_on_when_a_sandbox_ends_have_an_end_on_the_log(
    manager: Manager, settings: Settings, request_: SandboxRequest
) -> None:
    sandbox = await manager.create(ALICE, request_, silent)
    run = await sandbox.runs.start("sleep 600", key=None, background=True, language="shell")
    await manager.kill(ALICE, sandbox.id)

    *_, over, _ended = await log_of(settings, sandbox, "create", "run", "run_end", "end")
    assert (over["run_id"], over["status"]) == (run.id, "killed")


@pytest.mark.fake_too
@pytest.mark.parametrize(
    ("meta", "is_background"),
    [({"background": True}, True), ({"kind": "detach"}, True), ({"kind": "stream"}, False), ({}, False)],
)
async def test_the_log_says_of_a_run_whether_it_is_in_the_background_whoever_has_begun_it(
    manager: Manager,
    settings: Settings,
    request_: SandboxRequest,
    meta: dict[str, object],
    is_background: bool,
) -> None:
    sandbox = await manager.create(ALICE, request_, silent)
    run = await sandbox.container.start("exit 0", meta=meta, language="shell")
    await run.wait()
    run.close()

    _, started, _ = await log_of(settings, sandbox, "create", "run", "run_end")
    assert started["background"] is is_background


@pytest.mark.fake_too
async def test_whoever_waits_for_a_run_when_its_sandbox_is_ended_is_told_what_is_on_the_log(
    manager: Manager, settings: Settings, request_: SandboxRequest
) -> None:
    results: list[RunResult] = []
    for lifetime, why in ((600.0, "The sandbox was killed."), (1.0, "The sandbox reached its maximum")):
        sandbox = await manager.create(ALICE, replace(request_, max_lifetime_s=lifetime), silent)
        run = await sandbox.runs.start(behaviours.EARLY_THEN_HANG, key=None, background=False)

        async def wait(sandbox: Sandbox = sandbox, run: SandboxRun = run) -> None:
            with sandbox.use():
                results.append(await run.run.wait())

        async with anyio.create_task_group() as group:
            group.start_soon(wait)
            await anyio.sleep(0.3)
            if lifetime > 1:
                await manager.kill(ALICE, sandbox.id)

        *_, over, _ended = await log_of(settings, sandbox, "create", "run", "run_end", "end")
        assert (results[-1].status, over["status"]) == ("killed", "killed")
        assert (results[-1].hint or "").startswith(why)
        assert over["wall_s"] == round(results[-1].usage.wall_s, 3) >= 0.3


@pytest.mark.fake_too
async def test_a_run_that_has_ended_by_itself_just_before_its_sandbox_is_not_said_to_be_killed(
    manager: Manager, settings: Settings, request_: SandboxRequest
) -> None:
    sandbox = await manager.create(ALICE, request_, silent)
    run = await sandbox.runs.start(behaviours.FAILING_STEP, key=None, background=True)
    while run.run.is_running:
        await run.run.news()
    await manager.kill(ALICE, sandbox.id)

    *_, over, _ended = await log_of(settings, sandbox, "create", "run", "run_end", "end")
    assert (over["status"], over["exit_code"]) == ("nonzero", 3)


@pytest.mark.fake_too
async def test_a_log_that_cannot_be_written_or_is_switched_off_fails_nothing(
    target: Target, settings: Settings, request_: SandboxRequest, tmp_path: Path
) -> None:
    (tmp_path / "audit").write_text("in the way")
    for one in (settings, settings.model_copy(update={"audit": "off"})):
        async with Manager(one, lambda: connect(target)) as manager:
            sandbox = await manager.create(ALICE, request_, silent)
            run = await sandbox.runs.start("exit 0", key=None, background=False, language="shell")
            assert (await run.run.wait()).status == "ok"
    assert (tmp_path / "audit").read_text() == "in the way"


# -- OpenTelemetry ----------------------------------------------------------------------------------


class Kept(InMemorySpanExporter):
    """What spans go to; they are kept while somebody looks."""

    is_looked_at = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return super().export(spans) if self.is_looked_at else SpanExportResult.SUCCESS


class Recorded:
    """What an SDK gets."""

    def __init__(self) -> None:
        self.spans_to = Kept()
        self.reader = InMemoryMetricReader()
        self.traces = TracerProvider()
        self.traces.add_span_processor(SimpleSpanProcessor(self.spans_to))
        self.meters = MeterProvider([self.reader])
        trace.set_tracer_provider(self.traces)
        metrics.set_meter_provider(self.meters)

    def spans(self) -> list[ReadableSpan]:
        return list(self.spans_to.get_finished_spans())

    def count(self, name: str, **attributes: str) -> float:
        data = self.reader.get_metrics_data()
        points = [
            point
            for resource in (data.resource_metrics if data is not None else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
            for point in metric.data.data_points
        ]
        return sum(
            getattr(point, "value", getattr(point, "count", 0))
            for point in points
            if attributes.items() <= dict(point.attributes or {}).items()
        )


@functools.cache
def _recorded() -> Recorded:
    """Return what there is once in a process, which may come to these tests several times."""
    return Recorded()


@pytest.fixture
def recorded() -> Iterator[Recorded]:
    recorded = _recorded()
    recorded.spans_to.is_looked_at = True
    yield recorded
    recorded.spans_to.is_looked_at = False
    recorded.spans_to.clear()


@pytest.mark.fake_too
async def test_spans_of_a_call_are_below_the_sdks_span_of_its_message(
    recorded: Recorded, manager: Manager, settings: Settings, target: Target
) -> None:
    async with Client(create_server(manager, settings)) as client:
        made = await client.call_tool("create_sandbox", {"env": {"PASSWORD": SECRET}})
        assert not made.is_error
        ran = await client.call_tool("run_command", {"command": f"exit 4 # {SECRET}"})
        assert ran.structured_content is not None
        run_id = ran.structured_content["run_id"]

    async def run_is_over() -> bool:
        return any(span.name == "sandbox.run" for span in recorded.spans())

    await eventually(run_is_over, within=20)
    spans = {span.name: span for span in recorded.spans()}
    create_call, run_call = spans["tools/call create_sandbox"], spans["tools/call run_command"]
    create, run = spans["sandbox.create"], spans["sandbox.run"]
    assert create.parent is not None
    assert create.parent.span_id == create_call.context.span_id
    assert run.parent is not None
    assert run.parent.span_id == run_call.context.span_id
    assert (run.attributes or {})["pocket_dock.run_id"] == run_id
    assert (run.attributes or {})["pocket_dock.status"] == "nonzero"
    if not target.name.startswith("fake"):
        engine = spans["engine.create"]
        assert engine.parent is not None
        assert engine.parent.span_id == create.context.span_id
    sandbox_id = ran.structured_content["sandbox_id"]
    everything = "".join(span.to_json() for span in recorded.spans() if not span.name.startswith("tools/"))
    assert SECRET not in everything
    assert sandbox_id not in everything


@pytest.mark.fake_too
async def test_what_happens_is_counted(
    recorded: Recorded, manager: Manager, request_: SandboxRequest
) -> None:
    def counts() -> dict[str, float]:
        return {
            "cold": recorded.count("pocket_dock.sandboxes.created", source="cold"),
            "forks": recorded.count("pocket_dock.sandboxes.created", source="fork"),
            "live": recorded.count("pocket_dock.sandboxes.live"),
            "quota": recorded.count("pocket_dock.refused", reason="quota"),
            "nonzero": recorded.count("pocket_dock.runs", status="nonzero", language="shell"),
            "durations": recorded.count("pocket_dock.run.duration"),
        }

    before = counts()
    first = await manager.create(ALICE, request_, silent)
    second = await manager.create(ALICE, replace(request_), silent)
    with pytest.raises(QuotaError):
        await manager.create(ALICE, request_, silent)
    run = await first.runs.start("exit 5", key=None, background=False, language="shell")
    await run.run.wait()

    def changes() -> dict[str, float]:
        return {name: value - before[name] for name, value in counts().items()}

    async def run_is_counted() -> bool:
        return changes()["nonzero"] == 1

    await eventually(run_is_counted, within=20)
    assert changes() == {"cold": 2, "forks": 0, "live": 2, "quota": 1, "nonzero": 1, "durations": 1}
    await manager.kill(ALICE, second.id)
    await manager.fork(ALICE, first.id, 1)
    assert changes()["forks"] == 1
    assert changes()["cold"] == 2
    await manager.end_session(ALICE)
    assert changes()["live"] == 0


async def test_that_something_is_not_there_is_no_error_of_the_engine(
    recorded: Recorded, target: Target
) -> None:
    def errors() -> float:
        return recorded.count("pocket_dock.engine.errors")

    before, engine = errors(), await connect(target)
    with pytest.raises(ContainerGoneError):
        await engine.setup(unique("nobody"))
    with pytest.raises(ImageNotFoundError):
        await engine.image(f"localhost/{unique('none')}:latest")
    assert errors() == before

    await engine.aclose()
    with pytest.raises(EngineUnavailableError):
        await engine.setup(unique("nobody"))
    assert errors() == before + 1
