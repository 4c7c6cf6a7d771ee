"""What is run in a sandbox, told to its history: in its project, else below our state directory.

`pocket_dock_mcp.projects.runlog` writes; here is decided what, where, and when it goes. No call fails for it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, cast

from pocket_dock_mcp.container.run import STREAMS, AsyncRun
from pocket_dock_mcp.errors import PocketDockError
from pocket_dock_mcp.images import PROFILES
from pocket_dock_mcp.manager.audit import redacted
from pocket_dock_mcp.manager.sandbox import Sandbox, SandboxRequest
from pocket_dock_mcp.models import RunResult
from pocket_dock_mcp.projects.config import load_config
from pocket_dock_mcp.projects.instances import (
    InstanceMetadata,
    ensure_instance_dir,
    read_instance_metadata,
    remove_instance_dir,
    write_instance_metadata,
)
from pocket_dock_mcp.projects.outputs import KINDS, Kind
from pocket_dock_mcp.projects.roots import NAME, get_project_name
from pocket_dock_mcp.projects.runlog import LogPolicy, RunLog, RunRecord, policy_of
from pocket_dock_mcp.spool.storage import OutputGoneError

MAX_DIRECTORIES = 200
"""Histories of containers that are of no project; those that were used last stay."""
MAX_AGE_S = 400 * 86_400.0
"""Then nobody has used that container for longer than anything lives. Its lines have gone long before."""
_PIECE = 64 * 1024
_PROFILES = frozenset(profile.name for profile in PROFILES)

logger = logging.getLogger(__name__)


class Recorder:
    """Where all sandboxes of this process have their histories."""

    def __init__(self, state_dir: Path) -> None:
        """Touch nothing yet."""
        self._histories = histories_path(state_dir)
        self._has_tidied = False

    def open(self, sandbox: Sandbox) -> Recording | None:
        """Return the recording of a sandbox; None if it has none, or none can be made."""
        if not _is_recorded(sandbox.request) or not NAME.fullmatch(sandbox.container.name):
            return None
        try:
            return Recording(RunLog(self._directory(sandbox), _policy(sandbox.request.project_root)))
        except (PocketDockError, OSError) as error:
            logger.warning("nothing is recorded of %s: %s", sandbox.container.name, error)
            return None

    def remove(self, request: SandboxRequest, container: str) -> None:
        """Remove what is on disk of a container that is no more."""
        if not _is_recorded(request) or not NAME.fullmatch(container):
            return
        if request.project_root:
            is_gone = remove_instance_dir(Path(request.project_root), container)
            if not is_gone:
                logger.warning("the directory of %s in its project cannot be removed wholly", container)
        else:
            shutil.rmtree(self._histories / container, ignore_errors=True)

    def _directory(self, sandbox: Sandbox) -> Path:
        """Return the directory of a sandbox, which is there from now on."""
        name, root = sandbox.container.name, sandbox.request.project_root
        if not root:
            directory = self._histories / name
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not self._has_tidied:
                self._has_tidied = True
                for path in _forgotten(self._histories, spared=name):
                    shutil.rmtree(path, ignore_errors=True)
            return directory
        directory = ensure_instance_dir(Path(root), name)
        if read_instance_metadata(directory) is None:
            write_instance_metadata(directory, _metadata(sandbox))
        return directory


def histories_path(state_dir: Path) -> Path:
    """Return where the histories of containers are that are of no project."""
    return state_dir / "history"


class Recording:
    """The recording of one sandbox."""

    def __init__(self, log: RunLog) -> None:
        self._log = log
        self._known: Mapping[str, Mapping[str, Any]] | None = None

    def started(self, run: AsyncRun) -> RunRecord:
        """Record a run that has just been started."""
        program = run.program
        record = self._log.begin(
            kind_of(run), redacted(program.code[:10_000]), run_id=run.id, language=program.language
        )
        self._follow(run, record)
        return record

    def found(self, run: AsyncRun) -> RunRecord | None:
        """Record what becomes of a run that an earlier process has begun; None if nothing is known of it."""
        if self._known is None:
            self._known = {entry["id"]: entry for entry in self._log.entries()}
        entry = self._known.get(run.id)
        if entry is None:
            return None
        record = self._log.rejoin(entry)
        self._follow(run, record)
        return record

    def _follow(self, run: AsyncRun, record: RunRecord) -> None:
        for stream in STREAMS:
            for piece in so_far(run, stream, self._log.policy.max_log_size):
                record.write(stream, piece)
        run.on_output(lambda _run, stream, data: record.write(stream, data))


def kind_of(run: AsyncRun) -> Kind:
    """Return how a run was started. A kept container may have invented what it says of one."""
    said = run.meta.get("kind")
    if said in KINDS:
        return cast("Kind", said)
    if run.program.session is not None:
        return "session"
    return "detach" if run.meta.get("background") is True else "run"


def concluded(record: RunRecord, outcome: RunResult | PocketDockError) -> None:
    """Record how a run has ended."""
    record.end(outcome if isinstance(outcome, RunResult) else "not_started")


def so_far(run: AsyncRun, stream: int, most: int) -> Iterator[bytes]:
    """Yield what a run has printed already, as far as it is kept: of more than `most` bytes, the last."""
    spool = run.spool(stream)
    start = max(0, spool.total - most)
    with contextlib.suppress(OutputGoneError):
        while start < spool.total:
            if spool.gap is not None and spool.gap[0] <= start < spool.gap[1]:
                start = spool.gap[1]
            piece = spool.read(start, start + _PIECE)
            if not piece:
                return
            start += len(piece)
            yield piece


def _is_recorded(request: SandboxRequest) -> bool:
    """Whether it is a user's, and has a name; what a model makes for a moment is on the audit log only."""
    return bool(request.project_root or request.container_name) or request.persist


def _policy(root: str) -> LogPolicy:
    try:
        loaded = load_config(Path(root) if root else None)
    except PocketDockError as error:
        # Whoever makes containers here has been told; this one may be older than the mistake.
        logger.warning("logs are kept as by default: %s", error)
        return LogPolicy(auto_log=bool(root), keeps_detached=True)
    # Outside of projects output goes to disk only for those who want it there, or can see it nowhere else.
    is_off = not root and loaded.origin("auto_log").layer == "default"
    return replace(policy_of(loaded.config, auto_log=False if is_off else None), keeps_detached=is_off)


def _metadata(sandbox: Sandbox) -> InstanceMetadata:
    request = sandbox.request
    created = datetime.fromtimestamp(sandbox.created, timezone.utc)
    return InstanceMetadata(
        name=sandbox.container.name,
        project=get_project_name(Path(request.project_root)),
        image=request.snapshot or request.image,
        container_id=sandbox.container.container_id,
        sandbox_id=sandbox.id,
        profile=request.image if request.image in _PROFILES and not request.snapshot else "",
        created_at=created.isoformat(timespec="seconds"),
        persist=request.persist,
        pid=os.getpid(),
        mem_limit=request.limits.memory_bytes,
        cpu_percent=request.limits.cpus * 100,
        ports={str(port.host_port): port.port for port in request.ports},
    )


def _forgotten(histories: Path, *, spared: str) -> list[Path]:
    """Return the histories beyond a number and an age: of containers that died with their process, mostly."""
    found = []
    with contextlib.suppress(OSError), os.scandir(histories) as entries:
        found = [(_used(Path(entry.path)), entry.path) for entry in entries if entry.name != spared]
    newest, oldest = sorted(found, reverse=True), time.time() - MAX_AGE_S
    # One less: there is one more.
    gone = (pair for index, pair in enumerate(newest) if index >= MAX_DIRECTORIES - 1 or pair[0] < oldest)
    return [Path(path) for _, path in gone]


def _used(directory: Path) -> float:
    for path in (directory / "logs" / "history.jsonl", directory):
        with contextlib.suppress(OSError):
            return path.stat().st_mtime
    return 0.0


__all__ = ["Recorder", "Recording", "concluded", "histories_path", "kind_of", "so_far"]
