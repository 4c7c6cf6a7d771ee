"""Daemons that outlive the script, and the record by which a later run finds them again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from subprocess import Popen
from typing import IO

from .state import EngineFailedError, tail

POLL_S = 0.1
CLIENT_VARIABLES = ("CONTAINER_HOST", "DOCKER_HOST", "DOCKER_CONTEXT")


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    return True


def run_logged(command: Sequence[str], log: Path, what: str) -> None:
    with log.open("w") as out:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    if done.returncode != 0:
        msg = f"{what} failed with status {done.returncode}; the end of {log}:\n{tail(log)}"
        raise EngineFailedError(msg)


class Daemon:
    """One detached process: its log and its record lie in `folder` under `name`."""

    def __init__(self, folder: Path, name: str) -> None:
        self.log = folder / f"{name}.log"
        self._record = folder / f"{name}.pid.json"
        self._name = name

    def start(self, command: Sequence[str]) -> None:
        # A client's variables would turn the service itself into a client.
        env = {k: v for k, v in os.environ.items() if k not in CLIENT_VARIABLES}
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("w") as out:
            pid = _detached(command, env, out).pid
        self._record.write_text(json.dumps({"pid": pid, "start_time": _start_time(pid)}))

    def pid(self) -> int | None:
        """The recorded process's id, if it is still that process."""
        try:
            record = json.loads(self._record.read_text())
        except (OSError, ValueError):
            return None
        pid = int(record["pid"])
        return pid if _start_time(pid) == record["start_time"] is not None else None

    def wait_ready(self, ready: Callable[[], bool], seconds: float) -> None:
        in_time = wait_until(lambda: self.pid() is None or ready(), seconds)
        if self.pid() is None or not in_time:
            why = "ended" if self.pid() is None else f"does not answer after {seconds:.0f} s"
            msg = f"{self._name} {why}; the end of {self.log}:\n{tail(self.log)}"
            raise EngineFailedError(msg)

    def stop(self, seconds: float) -> bool:
        """True where there was something to stop."""
        pid = self.pid()
        if pid is not None:
            _signal(pid, signal.SIGTERM)
            if not wait_until(lambda: self.pid() is None, seconds):
                _signal(pid, signal.SIGKILL)
                wait_until(lambda: self.pid() is None, seconds)
        self._record.unlink(missing_ok=True)
        return pid is not None


def _detached(command: Sequence[str], env: Mapping[str, str], out: IO[str]) -> Popen[bytes]:
    try:
        return Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            cwd="/",
            env=env,
            start_new_session=True,
        )
    except FileNotFoundError as error:
        msg = f"{command[0]} is not installed"
        raise EngineFailedError(msg) from error


def kill_namespace(marker: Path) -> None:
    """Kill what is left in the mount namespaces where `marker` is a mount point.

    A container's processes have a mount namespace of their own, and are found as the
    children of the monitors that are in ours.
    """

    def gone() -> bool:
        members = _with_descendants(_in_namespace(marker))
        for pid in members:
            _signal(pid, signal.SIGKILL)
        return not members

    if not wait_until(gone, 20):
        msg = f"processes of {marker.name} could not be killed"
        raise EngineFailedError(msg)


def namespace_empty(marker: Path, besides: Iterable[int]) -> bool:
    return not _in_namespace(marker) - set(besides)


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def _stat_fields(pid: int) -> list[str]:
    """The fields of /proc/PID/stat after the command's name, which may hold anything."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _start_time(pid: int) -> int | None:
    fields = _stat_fields(pid)
    return int(fields[19]) if fields and fields[0] not in "ZX" else None


def _pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _in_namespace(marker: Path) -> set[int]:
    return {pid for pid in _pids() if _mounted_in(pid, marker)}


def _mounted_in(pid: int, marker: Path) -> bool:
    try:
        lines = Path(f"/proc/{pid}/mountinfo").read_text().splitlines()
        points = {line.split()[4] for line in lines}
        # In another root, the same path is another folder, and its processes are not ours.
        return str(marker) in points and Path(f"/proc/{pid}/root{marker}").samefile(marker)
    except OSError:
        return False


def _with_descendants(roots: set[int]) -> set[int]:
    parents = {pid: int(fields[1]) for pid in _pids() if (fields := _stat_fields(pid))}
    found = set(roots)
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found
