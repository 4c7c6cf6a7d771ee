"""Pure: how a run ended, in one word and with one next step, from what the kernel said.

What the program printed plays no part.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Protocol

from pocket_dock_mcp.agent.transport import Program, RunEnd
from pocket_dock_mcp.errors import AgentError
from pocket_dock_mcp.gate.denials import Denial
from pocket_dock_mcp.gate.domains import DEFAULT_PORTS
from pocket_dock_mcp.models import MIB, Limits, RunResult, RunStatus, RunUsage

_SIGKILL = 9
_SIGXFSZ = 25
_SHELL_SIGKILL = 128 + _SIGKILL
_BY_US: dict[str, RunStatus] = {
    "timeout": "timeout",
    "cpu": "timeout",
    "memory": "oom",
    "output": "output_limit",
    "disk": "disk_full",
    "killed": "killed",
}


class Fate(Protocol):
    """Finds out what became of a run whose container cannot be reached any more."""

    def __call__(self, error: AgentError) -> Awaitable[tuple[RunStatus, str]]:
        """Return the status, and why."""


def status_of(end: RunEnd) -> RunStatus:
    """Classify an ending."""
    if end.ended_by is not None:
        return _BY_US[end.ended_by]
    # A shell turns its child's fatal signal into 128 + n; only the cgroup's count tells a kill for memory
    # from a program that likes the number 137.
    if end.oom and (end.signal == _SIGKILL or end.exit_code == _SHELL_SIGKILL):
        return "oom"
    if end.exit_code == 0:
        return "ok"
    if end.full_disk is not None or end.signal == _SIGXFSZ:
        return "disk_full"
    return "signal" if end.signal is not None else "nonzero"


def observed_exit(status: RunStatus, end: RunEnd) -> int | None:
    """Return the exit code, where it is the program's own."""
    return end.exit_code if end.ended_by is None and status != "signal" else None


def hint_for(status: RunStatus, end: RunEnd, program: Program, limits: Limits) -> str | None:
    """Say what to do next, with the numbers in it."""
    parts = [_about_status(status, end, program, limits), _about_session(end), _about_left_behind(end)]
    return " ".join(part for part in parts if part) or None


def _about_status(status: RunStatus, end: RunEnd, program: Program, limits: Limits) -> str | None:
    if status == "timeout" and end.ended_by == "cpu":
        return (
            f"The limit of {program.limits.cpu_s:g} s of CPU time was reached{_stopped(end)}. "
            "Raise cpu_s or do less at once."
        )
    if status == "timeout":
        return (
            f"The time limit of {program.timeout_s:g} s was reached{_stopped(end)}. "
            "Raise timeout_s or do less at once."
        )
    if status == "oom":
        return _about_memory(end, program, limits)
    if status == "output_limit":
        most = program.limits.output_bytes
        return f"It wrote more than the limit of {most} bytes{_stopped(end)}. Print less, or to a file."
    if status == "disk_full":
        return _about_disk(end, limits)
    if status == "nonzero" and program.limits.processes is not None:
        return (
            f"It may have {program.limits.processes} processes and threads at once; over that none can start."
        )
    if status in ("ok", "nonzero") and end.oom:
        most_mb = limits.memory_bytes // MIB
        return f"Meanwhile a process was killed because the sandbox's {most_mb} MiB of memory were used up."
    return None


def _stopped(end: RunEnd) -> str:
    if end.session is not None and end.session.alive:
        return ", so the run was interrupted; the session goes on with what it holds"
    return " and all its processes were killed"


def _about_memory(end: RunEnd, program: Program, limits: Limits) -> str:
    peak = end.usage.peak_memory_bytes // MIB
    if end.ended_by == "memory":
        most = (program.limits.memory_bytes or 0) // MIB
        return f"This run's limit of {most} MiB of memory was passed (peak {peak} MiB). Raise it or use less."
    return (
        f"The sandbox's memory limit of {limits.memory_bytes // MIB} MiB was hit (peak of one process: "
        f"{peak} MiB). Use less memory, or create a sandbox with a larger memory_mb."
    )


def _about_disk(end: RunEnd, limits: Limits) -> str:
    if end.disk_used is not None and end.disk_used <= limits.disk_bytes:
        return (
            f"The engine's disk is nearly full{_stopped(end)}. The sandbox has {end.disk_used // MIB} MiB of "
            "files on it, which are there. Delete what is not needed, here and on the machine."
        )
    if end.disk_used is not None:
        return (
            f"The sandbox has {end.disk_used // MIB} MiB of files, over its limit of "
            f"{limits.disk_bytes // MIB} MiB{_stopped(end)}. Its files are there: delete some, or create a "
            "sandbox with a larger disk_mb."
        )
    if end.full_disk is None:
        return f"A file passed the limit of {limits.file_bytes // MIB} MiB for one file. Split it."
    more = ""
    if end.full_disk == "/dev/shm":  # noqa: S108  # inside the container
        more = f" (it has {limits.shm_bytes // MIB} MiB)"
    return f"The file system of {end.full_disk} is full{more}. Delete files there, or write elsewhere."


def _about_session(end: RunEnd) -> str | None:
    state = end.session
    if state is None or state.alive:
        return None
    return f"The session {state.name!r} ended with this run; the next run in it begins a new one."


def _about_left_behind(end: RunEnd) -> str | None:
    if not end.left_behind:
        return None
    what = "1 process" if end.left_behind == 1 else f"{end.left_behind} processes"
    return f"{what} that it had left running ended with it; use background=true for what is to go on."


def hint_of_denials(status: RunStatus, denied: Sequence[Denial]) -> str | None:
    """Say how what a program was denied can be allowed, if that may be why it failed."""
    hosts = [denial for denial in denied if denial.host]
    if status == "ok" or not hosts:
        return None
    first = hosts[0]
    entry = first.host if first.port in DEFAULT_PORTS else f"{first.host}:{first.port}"
    return (
        f"The sandbox's network did not let it reach {first.host}. If it is to be reached, create a sandbox "
        f"that has {entry!r} in its network, a list of domains."
    )


def so_far(wall_s: float, denied: Sequence[Denial]) -> RunResult:
    """Return what is known of a program that has not ended."""
    return RunResult("running", usage=RunUsage(wall_s), network_denied=tuple(map(str, denied)))


def result_of(status: RunStatus, end: RunEnd, hint: str | None, denied: Sequence[Denial]) -> RunResult:
    """Return what came of a program, but for its output."""
    report = end.report
    return RunResult(
        status,
        exit_code=observed_exit(status, end),
        signal=end.signal,
        usage=end.usage,
        hint=hint,
        value=report.value,
        images=report.images,
        images_left=report.images_left,
        notes=report.notes,
        files_changed=end.files_changed,
        session=end.session,
        network_denied=tuple(map(str, denied)),
    )


def with_losses(hint: str | None, missing: tuple[int, int], missed: tuple[int, int]) -> str | None:
    """Add to a hint what of stdout and stderr was not kept, and what was not read before it had to go."""
    hints = [hint]
    if any(missing):
        hints.append(f"The first {missing[0]} bytes of stdout and {missing[1]} of stderr were not kept.")
    if any(missed):
        hints.append(
            f"{missed[0]} bytes of stdout and {missed[1]} of stderr were passed over, not read in time."
        )
    return " ".join(filter(None, hints)) or None
