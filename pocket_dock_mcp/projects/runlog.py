"""`RunLog`: what is run in one container, in its history, and its output in files.

    log = RunLog(directory, LogPolicy())
    record = log.begin("run", "make test")
    record.write(1, b"...")
    record.end(result)

Nothing here ever fails a run: what cannot be written is warned of once. Commands are kept as they were given,
without environment and input; what a program prints is in its log, secrets included.
"""

from __future__ import annotations

import functools
import logging
import os
import pwd
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from pocket_dock_mcp.models import MIB, RunResult
from pocket_dock_mcp.projects import history
from pocket_dock_mcp.projects.config import ProjectConfig
from pocket_dock_mcp.projects.history import DAY_S, Clock, History
from pocket_dock_mcp.projects.outputs import Kind, OutputFile, log_name, older_half
from pocket_dock_mcp.projects.shelf import Shelf

LOGS = "logs"
MAX_COMMAND = 2000
"""Characters of a command that are kept."""
MAX_HISTORY = 2 * MIB
"""Bytes of one of the two files of a history: it is read as a whole."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LogPolicy:
    """What is kept, and how much of it."""

    auto_log: bool = True
    """Whether output is; the history always is."""
    log_stdout: bool = True
    log_stderr: bool = True
    max_log_size: int = 10 * MIB
    """Bytes of one file; a run has two at most."""
    max_logs: int = 100
    """Runs whose output is kept."""
    retention_days: float = 30.0
    keeps_detached: bool = False
    """Whether the output of detached runs is in any case: their log is what people look for it in."""

    def keeps(self, stream: int, kind: Kind = "run") -> bool:
        """Whether a stream (1 or 2) of a run that was started so is kept."""
        is_kept = self.auto_log or (self.keeps_detached and kind == "detach")
        return is_kept and (self.log_stdout if stream == 1 else self.log_stderr)


def policy_of(config: ProjectConfig, *, auto_log: bool | None = None) -> LogPolicy:
    """Return what a configuration wants; `auto_log` is instead of what it says of that."""
    return LogPolicy(
        auto_log=config.auto_log if auto_log is None else auto_log,
        log_stdout=config.log_stdout,
        log_stderr=config.log_stderr,
        max_log_size=config.max_log_size,
        max_logs=config.max_logs_per_instance,
        retention_days=config.retention_days,
    )


class RunLog:
    """The log of one container, below its directory. Several processes may write to it at once."""

    def __init__(self, directory: Path, policy: LogPolicy, *, clock: Clock = time.time) -> None:
        """Remove what is too old, and make nothing yet.

        Args:
            directory: of the container; if it goes, nothing is logged any more.
            policy: what is kept.
            clock: returns seconds since the epoch.
        """
        self.directory = directory
        self.policy = policy
        self._clock = clock
        self._has_failed = False
        self._shelf = Shelf(
            directory / LOGS,
            most=policy.max_logs,
            max_age_s=policy.retention_days * DAY_S,
            clock=clock,
        )
        self._history = History(
            directory / LOGS / history.FILE,
            max_bytes=min(policy.max_log_size, MAX_HISTORY),
            max_age_s=policy.retention_days * DAY_S,
            clock=clock,
        )
        self.attempt(self._history.expire)
        self._remove(self._shelf.tidy())

    def begin(self, kind: Kind, command: str, *, run_id: str | None = None, language: str = "") -> RunRecord:
        """Note that a run begins, and return what takes its output and its end.

        Args:
            kind: how it was started.
            command: the command or the source, or for a session what it was told.
            run_id: None for a new one.
            language: of the command.
        """
        began = self._clock()
        record = RunRecord(self, kind, began, run_id or f"run-{secrets.token_hex(16)}")
        shown = command if len(command) <= MAX_COMMAND else f"{command[:MAX_COMMAND]}..."
        self.note(
            {
                "time": began,
                "timestamp": _stamp(began),
                "id": record.id,
                "type": kind,
                "command": shown,
                "language": language,
                "status": "running",
                "user": _user(),
                "pid": os.getpid(),
            }
        )
        return record

    def rejoin(self, entry: Mapping[str, Any]) -> RunRecord:
        """Return the record of a run of `entries` whose output is told from its beginning once more.

        What is written of it takes the place of what is there with its end, and not before.
        """
        return RunRecord(self, entry["type"], float(entry["time"]), entry["id"], is_rejoined=True)

    def entries(self) -> list[dict[str, Any]]:
        """Return the history, oldest first; a run is one entry, from its beginning and its end.

        Besides what is said at its beginning an entry has its ``status``, and after the end ``exit_code``,
        ``signal``, ``duration_ms``, ``timed_out``, and ``log_cut`` if there is only a part of its output.
        """
        found: dict[str, dict[str, Any]] = {}
        for entry in self._history.read():
            found[entry["id"]] = {**found.get(entry["id"], {}), **entry}
        return list(found.values())

    def output_path(self, entry: Mapping[str, Any]) -> Path | None:
        """Return the file with the output of a run of `entries`; None if there is none."""
        path = self.expected_path(entry)
        return path if path.is_file() or older_half(path).is_file() else None

    def expected_path(self, entry: Mapping[str, Any]) -> Path:
        """Return where the file with the output of a run of `entries` is, or would be."""
        return self.directory / LOGS / log_name(entry["type"], float(entry["time"]), entry["id"])

    def note(self, entry: dict[str, Any]) -> None:
        """Add to the history."""
        self.attempt(lambda: self._append(entry))

    def _append(self, entry: dict[str, Any]) -> None:
        # Somebody may have tidied up. If all of the container's directory is gone, then so is the container.
        (self.directory / LOGS).mkdir(mode=0o700, exist_ok=True)
        self._history.append(entry)

    def attempt(self, action: Callable[[], object]) -> bool:
        """Do something with the disk; whether it could be. It is warned of once, unless all was removed."""
        try:
            action()
        except OSError as error:
            # Where all of it is gone, so is the container, and nobody misses the end of its runs.
            if not self._has_failed and self.directory.exists():
                self._has_failed = True
                logger.warning("%s cannot be written: %s; this is said once", self.directory / LOGS, error)
            return False
        return True

    def opening(self, name: str) -> None:
        """Make room for one more file, which is being written from now on."""
        self._remove(self._shelf.add(name))

    def closed(self, name: str) -> None:
        """Hear that a file is written no more."""
        self._shelf.close(name)

    def _remove(self, paths: Iterable[Path]) -> None:
        for path in paths:
            self.attempt(functools.partial(path.unlink, missing_ok=True))

    def now(self) -> float:
        """Return the time, in seconds since the epoch."""
        return self._clock()


class RunRecord:
    """The record of one run. Its methods are quick, and quiet whatever happens to the disk."""

    def __init__(
        self, log: RunLog, kind: Kind, began: float, run_id: str, *, is_rejoined: bool = False
    ) -> None:
        self.id = run_id
        self.kind = kind
        self._log = log
        self._began = began
        self._name = log_name(kind, began, run_id)
        self._part = f"{self._name}.{os.getpid()}.part" if is_rejoined else self._name
        self._file: OutputFile | None = None
        self._is_broken = False
        self._has_ended = False

    def write(self, stream: int, data: bytes) -> None:
        """Take a piece of output of a stream (1 or 2), as it arrives."""
        if self._is_broken or self._has_ended or not data or not self._log.policy.keeps(stream, self.kind):
            return
        if self._file is None:
            self._log.opening(self._name)
            path = self._log.directory / LOGS / self._part
            self._file = OutputFile(path, self._log.policy.max_log_size)
        file = self._file
        # After an error there would be a hole in it.
        self._is_broken = not self._log.attempt(lambda: file.write(stream, data, self._log.now()))

    def end(self, outcome: RunResult | str) -> None:
        """Take its end: how it went, or a word for why it has not. What comes second counts for nothing."""
        if self._has_ended:
            return
        self._has_ended = True
        now = self._log.now()
        # All that the run's file is called by is there even if its beginning is not any more.
        entry: dict[str, Any] = {"time": self._began, "id": self.id, "type": self.kind, "ended": _stamp(now)}
        if isinstance(outcome, RunResult):
            entry |= {
                "status": outcome.status,
                "exit_code": outcome.exit_code,
                "signal": outcome.signal,
                "duration_ms": round(outcome.duration_ms, 1),
                "timed_out": outcome.timed_out,
            }
        else:
            entry |= {"status": outcome, "exit_code": None, "timed_out": False}
        if self._file is not None:
            is_there = self._put_in_place(self._file)
            entry["log_cut"] = self._file.has_lost or self._is_broken or not is_there
        self._log.note(entry)

    def leave(self) -> None:
        """Let go of it while it goes on: another process may take it up."""
        self._has_ended = True
        if self._file is not None:
            self._file.close()
            self._log.closed(self._name)
            if self._part != self._name:
                self._log.attempt(self._drop)

    def _put_in_place(self, file: OutputFile) -> bool:
        file.close()
        self._log.closed(self._name)
        return self._part == self._name or self._log.attempt(self._move)

    def _move(self) -> None:
        for part, name in self._parts():
            if part.exists():
                part.replace(name)

    def _drop(self) -> None:
        for part, _name in self._parts():
            part.unlink(missing_ok=True)

    def _parts(self) -> Iterator[tuple[Path, Path]]:
        logs = self._log.directory / LOGS
        for half in ("", ".1"):
            yield logs / f"{self._part}{half}", logs / f"{self._name}{half}"


def is_alive(pid: object) -> bool:
    """Whether there is a process of this number, which a history says that it was written by."""
    if not isinstance(pid, int) or not 0 < pid < 1 << 31:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _stamp(seconds: float) -> str:
    moment = datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="milliseconds")
    return moment.replace("+00:00", "Z")


@functools.cache
def _user() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())
