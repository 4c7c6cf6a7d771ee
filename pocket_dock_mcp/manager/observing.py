"""What happens to sandboxes, told to those who watch: audit log, spans, counters. It never fails a call."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from anyio.abc import TaskGroup
from opentelemetry.trace import Span, StatusCode

from pocket_dock_mcp import telemetry
from pocket_dock_mcp.container.run import STREAMS, AsyncRun
from pocket_dock_mcp.errors import PocketDockError
from pocket_dock_mcp.gate.denials import excerpt
from pocket_dock_mcp.manager.audit import AuditLog, code_facts
from pocket_dock_mcp.manager.denials import Denials
from pocket_dock_mcp.manager.recording import Recorder, Recording, concluded, kind_of
from pocket_dock_mcp.manager.records import Kept
from pocket_dock_mcp.manager.sandbox import Owner, Sandbox
from pocket_dock_mcp.manager.snapshots import Snapshot
from pocket_dock_mcp.models import RunResult, RunStatus
from pocket_dock_mcp.projects.runlog import RunRecord
from pocket_dock_mcp.settings import Settings

Beginning = Literal["create", "fork", "open"]
"""How this process has come to a sandbox; ``open``: it was kept."""
Ending = Literal["remove", "stop", "leave"]
"""What becomes of a kept sandbox. All others are removed with their end, however it comes."""


PATIENCE = 0.5
"""Seconds for whoever waits for a run to find out how it has ended."""


@dataclass
class _Watched:
    """A run whose end is to be told, once."""

    sandbox: Sandbox
    run: AsyncRun
    span: Span
    record: RunRecord | None = None
    is_told: bool = False


@dataclass(frozen=True, slots=True)
class _Doom:
    """What runs end with that are under way when their sandbox is ended."""

    status: RunStatus
    why: str


class Observer:
    """Hears what the manager does."""

    tasks: TaskGroup | None = None
    """Where what takes a moment is found out, such as how a run has ended that nobody waits for."""

    def __init__(self, settings: Settings) -> None:
        self._audit = AuditLog(settings.state_dir / "audit" if settings.audit == "on" else None)
        self._denials = Denials(self._audit)
        self._recorder = Recorder(settings.state_dir)
        self._held: set[str] = set()
        self._ending: dict[str, _Doom | None] = {}
        """Sandboxes that are just being ended, and what their runs end with; None: they go on."""

    # -- sandboxes --------------------------------------------------------------------------------

    def begun(self, sandbox: Sandbox, event: Beginning) -> None:
        """This process holds a sandbox from now on."""
        request, limits = sandbox.request, sandbox.request.limits
        sandbox.log = self._audit.open(sandbox.id, sandbox.owner.principal, sandbox.owner.session)
        sandbox.log.write(
            event,
            image=request.image,
            snapshot=request.snapshot,
            memory_bytes=limits.memory_bytes,
            cpus=limits.cpus,
            pids=limits.pids,
            network=request.network,
            env_names=sorted(request.env)[:50],
            name=request.name,
            persist=request.persist,
            volumes=list(map(str, request.volumes)),
            devices=list(map(str, request.devices)),
            ports=list(map(str, request.ports)),
            container=sandbox.container.name,
        )
        recording = self._recorder.open(sandbox)
        for run in sandbox.runs:
            # Begun, and put on the log, by another process; and its end perhaps, too.
            if run.run.is_ours_to_tell and not run.run.was_heard_of:
                self._follow(sandbox, run.run, None if recording is None else recording.found(run.run))
        sandbox.container.on_start = functools.partial(self._run_started, sandbox, recording)
        self._held.add(sandbox.id)
        telemetry.instruments().live.add(1)

    def forked(self, source: Sandbox, forks: Sequence[Sandbox]) -> None:
        """Sandboxes were made from one."""
        source.log.write("forked", into=[fork.id for fork in forks])

    def ending(self, sandbox: Sandbox, why: str, how: Ending) -> None:
        """A sandbox is about to be ended or let go of: what still runs in it will not be heard of again."""
        if how == "leave" and sandbox.container.runs_on:
            self._ending[sandbox.id] = None
            return
        has_died = "died" in why
        is_kept = how != "remove" and not has_died
        doom = _Doom("lost" if has_died else "killed", _sentence(why, is_kept=is_kept))
        self._ending[sandbox.id] = doom
        for run in sandbox.runs:
            if not run.run.is_running and not run.run.is_settled:
                # Perhaps just now, and nobody has found out yet how.
                self._conclude(run.run, doom)

    def ended(self, sandbox: Sandbox, why: str, how: Ending) -> None:
        """A sandbox was ended or let go of."""
        self._ending.pop(sandbox.id, None)
        self._held.discard(sandbox.id)
        sandbox.log.write("end" if how == "remove" else how, why=why, removed=sandbox.container.removed)
        sandbox.log.close()
        telemetry.instruments().live.add(-1)
        if how == "remove" and sandbox.container.removed:
            self._recorder.remove(sandbox.request, sandbox.container.name)

    def destroyed(self, owner: Owner, kept: Kept) -> None:
        """A kept sandbox was ended that no process held."""
        self._recorder.remove(kept.request, kept.container)
        log = self._audit.open(kept.id, owner.principal, owner.session)
        log.write("end", why="it was killed", removed=True)
        log.close()

    def denied(
        self, owner: Owner, tool: str, error: PocketDockError, arguments: Mapping[str, object]
    ) -> None:
        """A call has failed; if it was refused for whose it is or how much it asks, it is on the log."""
        self._denials.note(owner, tool, error, arguments)

    # -- snapshots --------------------------------------------------------------------------------

    def snapshot_made(self, sandbox: Sandbox, snapshot: Snapshot) -> None:
        """A snapshot was made."""
        facts = {"snapshot_id": snapshot.id, "name": snapshot.name, "size_bytes": snapshot.size_bytes}
        sandbox.log.write("snapshot", **facts)

    def snapshot_deleted(self, owner: Owner, snapshot: Snapshot) -> None:
        """A snapshot was deleted. That is no sandbox's matter, so it has a log of its own."""
        log = self._audit.open("snapshots", owner.principal, owner.session)
        log.write("snapshot_deleted", snapshot_id=snapshot.id)
        log.close()

    # -- runs -------------------------------------------------------------------------------------

    def _run_started(self, sandbox: Sandbox, recording: Recording | None, run: AsyncRun) -> None:
        program = run.program
        if sandbox.log.is_on:
            sandbox.log.write(
                "run",
                run_id=run.id,
                language=program.language,
                run_session=program.session,
                background=kind_of(run) == "detach",
                timeout_s=program.timeout_s,
                **code_facts(program.code),
            )
        self._follow(sandbox, run, None if recording is None else recording.started(run))

    def _follow(self, sandbox: Sandbox, run: AsyncRun, record: RunRecord | None) -> None:
        """Hear how a run ends, whoever else waits for it."""
        attributes: telemetry.Attributes = {
            "pocket_dock.sandbox": telemetry.short(sandbox.id),
            "pocket_dock.run_id": run.id,
            "pocket_dock.language": run.program.language,
        }
        watched = _Watched(sandbox, run, telemetry.begin("sandbox.run", attributes), record)
        run.when_decided(functools.partial(self._run_ended, watched))
        if run.is_running:
            run.on_exit(lambda _run: self._run_over(watched))
        else:
            self._run_over(watched)

    def _run_over(self, watched: _Watched) -> None:
        sandbox_id = watched.sandbox.id
        if sandbox_id not in self._ending:
            # Mostly somebody waits for it, and a task of our own would cost more than all else here.
            asyncio.get_running_loop().call_later(PATIENCE, self._find_out, watched)
        else:
            self._conclude(watched.run, self._ending[sandbox_id])
            if watched.run.is_cut_off and self._ending[sandbox_id] is None:
                self._goes_on(watched)

    def _conclude(self, run: AsyncRun, doom: _Doom | None) -> None:
        """Find out at once how a run has ended whose sandbox is being ended."""
        if not run.is_cut_off:
            self._start(run)
        elif doom is not None and not (doom.status == "lost" and run.is_waited_for):
            # Asking what became of it would mean asking the engine, once for each run.
            run.cut_off(doom.status, doom.why)

    def _find_out(self, watched: _Watched) -> None:
        if watched.is_told:
            return
        if watched.sandbox.id in self._held:
            self._start(watched.run)
        else:
            # It was let go of meanwhile.
            self._goes_on(watched)

    def _start(self, run: AsyncRun) -> None:
        if self.tasks is not None:
            self.tasks.start_soon(run.outcome)

    def _goes_on(self, watched: _Watched) -> None:
        """It will be heard of again, by whoever opens its sandbox next."""
        watched.is_told = True
        watched.span.end()
        if watched.record is not None:
            watched.record.leave()

    def _run_ended(self, watched: _Watched, outcome: RunResult | PocketDockError) -> None:
        if watched.is_told:
            return
        sandbox, run, span = watched.sandbox, watched.run, watched.span
        is_unknown = isinstance(outcome, RunResult) and outcome.status == "indeterminate"
        if is_unknown and sandbox.is_kept and self._ending.get(sandbox.id) is None:
            self._goes_on(watched)
            return
        watched.is_told = True
        if watched.record is not None:
            concluded(watched.record, outcome)
        output = sum(run.spool(stream).total for stream in STREAMS)
        language = run.program.language
        if isinstance(outcome, PocketDockError):
            status, wall_s = "not_started", 0.0
            sandbox.log.write("run_end", run_id=run.id, status=status, error=outcome.code)
        else:
            status, wall_s = outcome.status, outcome.usage.wall_s
            sandbox.log.write(
                "run_end",
                run_id=run.id,
                status=status,
                exit_code=outcome.exit_code,
                signal=outcome.signal,
                wall_s=None if is_unknown else round(wall_s, 3),
                cpu_s=round(outcome.usage.cpu_s, 3),
                peak_memory_bytes=outcome.usage.peak_memory_bytes,
                output_bytes=output,
                network_denied=excerpt(outcome.network_denied, 20),
                files_changed=None if outcome.files_changed is None else outcome.files_changed.counts,
            )
        if span.is_recording():
            span.set_attribute("pocket_dock.status", status)
            if status != "ok":
                span.set_status(StatusCode.ERROR, status)
        span.end()
        counted = telemetry.instruments()
        counted.runs.add(1, {"status": status, "language": language})
        counted.run_duration.record(wall_s, {"language": language})
        counted.output.add(output)


def _sentence(why: str, *, is_kept: bool) -> str:
    """Say why a sandbox was ended, for those who wait for a run in it. Reasons begin with "it" or "its"."""
    what = f"'s {why[4:]}" if why.startswith("its ") else f" {why.removeprefix('it ')}"
    return f"The sandbox{what}.{' Its files are kept.' if is_kept else ''}"
