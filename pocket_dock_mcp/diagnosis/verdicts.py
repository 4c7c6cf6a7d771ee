"""Pure: what the results of the trial mean. Only what was tried counts as holding."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pocket_dock_mcp.diagnosis.evidence import Evidence, filter_in_force
from pocket_dock_mcp.diagnosis.findings import Finding, Severity, size
from pocket_dock_mcp.diagnosis.remedies import Machine, program_of
from pocket_dock_mcp.engine.base import EngineInfo
from pocket_dock_mcp.models import GIB, MIB, Limits, RunResult, SystemCalls

REFUSALS = frozenset({"EPERM", "ENOSYS", "EACCES", "killed"})
"""What a filter answers to a system call that it does not let through."""
CPU_SLACK = 0.15
"""Cores above the quota that the first and the last period of a short measurement can add to it."""

_OPTIONAL_CALLS = {
    "user_namespace": "user namespaces of its own",
    "keyring": "the kernel's key rings",
    "io_uring": "io_uring",
    "vsock": "AF_VSOCK sockets",
}
_LITTLE_DISK, _NO_DISK = 2 * GIB, 256 * MIB
_FEW_INODES = 0.03

Reply = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Judge:
    """Turns results into findings for one engine."""

    info: EngineInfo
    machine: Machine
    is_strict: bool
    """Whether a sandbox whose limits do not hold is refused: then nothing works at all."""

    def _limit(self, name: str, holds: bool | None, title: str, detail: str) -> Finding:
        """Return the finding of one limit; `holds` is None where it could not be tried."""
        finding_id = f"limits.{name}"
        if holds:
            return Finding(finding_id, "ok", f"{title} holds", detail)
        if holds is None:
            remedy = "pocket-dock doctor   # again, when the machine is idle"
            return Finding(finding_id, "warning", f"{title} could not be tried", detail, remedy)
        severity: Severity = "problem" if self.is_strict else "warning"
        return Finding(finding_id, severity, f"{title} does not hold", detail, self._delegation())

    def _delegation(self) -> str:
        if self.info.rootless and self.info.cgroup_version == 2:
            return self.machine.delegate()
        if self.info.rootless:
            return "Boot with systemd.unified_cgroup_hierarchy=1 on the kernel's command line."
        return (
            "cat /proc/cgroups   # memory, cpu and pids must be enabled and mounted; then restart the engine"
        )

    def read_back(self, unenforced: tuple[str, ...]) -> Finding:
        """Judge what the agent reads from the kernel."""
        if not unenforced:
            return Finding(
                "limits.read_back", "ok", "All limits are read back from inside as they were asked for"
            )
        return self._limit(
            "read_back", False, f"What was asked for ({', '.join(unenforced)})", "Read from inside."
        )

    def confinement(self, evidence: Evidence) -> Iterator[Finding]:
        """Judge whose filter of system calls there is, and what has started the sandbox."""
        yield _filter(filter_in_force(evidence), evidence.confinement.seccomp)
        asked, told = evidence.confinement.runtime, evidence.setup.runtime
        if asked is None:
            return
        if told == asked:
            yield Finding("isolation.runtime", "ok", f"Sandboxes are started by {told}")
        else:
            title = f"Sandboxes are started by {told}, not by {asked}"
            remedy = "Have the engine know it by this name, or correct POCKET_DOCK_RUNTIME."
            yield Finding("isolation.runtime", "problem", title, "", remedy)

    def memory(self, result: RunResult, limit: int, tried: int) -> Finding:
        """Judge a program that takes more memory than there may be."""
        title = f"The memory limit ({size(limit)})"
        peak = f"A program that takes {size(tried)} ended with status {result.status}"
        if result.status == "oom":
            return self._limit("memory", True, title, f"{peak}: the kernel killed it.")
        if result.ok:
            return self._limit("memory", False, title, f"{peak}.")
        return self._limit("memory", None, title, f"{peak}. {result.hint or result.stderr[-200:]}".strip())

    def pids(self, reply: Reply | None, limits: Limits) -> Finding:
        """Judge a program that starts more processes than there may be."""
        title = f"The limit on processes ({limits.pids})"
        started, reason = number(reply, "started"), str((reply or {}).get("reason"))
        if started is None:
            return self._limit("pids", None, title, "The program that tries it did not answer.")
        detail = f"{started} could be started beside those of the sandbox"
        if reason and started < limits.pids:
            return self._limit("pids", True, title, f"{detail}, then the kernel refused ({reason}).")
        return self._limit("pids", False, title, f"{detail}.")

    def cpus(self, reply: Reply | None, limits: Limits) -> Finding:
        """Judge how much of the processors a program gets that wants them all."""
        title = f"The CPU limit ({limits.cpus:g})"
        cpu_s, wall_s = number(reply, "cpu_s"), number(reply, "wall_s")
        if reply is None or cpu_s is None or not wall_s:
            return self._limit("cpus", None, title, "The program that tries it did not answer.")
        throttled = number(reply, "throttled")
        share = cpu_s / wall_s
        detail = f"Two processes that compute got {share:.2f} of a CPU"
        if share > limits.cpus + CPU_SLACK:
            return self._limit("cpus", False, title, f"{detail}.")
        if throttled:
            return self._limit("cpus", True, title, f"{detail}, and were made to wait {throttled:g} times.")
        if throttled is None and share > limits.cpus / 2:
            return self._limit("cpus", True, title, f"{detail}.")
        return self._limit("cpus", None, title, f"{detail}, less than they may have: the machine is busy.")

    def isolation(self, reply: Reply) -> Iterator[Finding]:
        """Judge who a program is and what it may do."""
        yield _isolated(
            "user",
            number(reply, "uid") not in (None, 0),
            "Programs are not root",
            f"uid {reply.get('uid')}, gid {reply.get('gid')}",
        )
        caps = reply.get("caps")
        masks = {str(k): str(v) for k, v in caps.items()} if isinstance(caps, Mapping) else {}
        is_bare = bool(masks) and all(mask.strip("0") == "" for mask in masks.values())
        shown = ", ".join(f"{name}={mask.lstrip('0') or '0'}" for name, mask in masks.items())
        yield _isolated("capabilities", is_bare, "Programs have no capabilities", shown or "not told")
        no_new = reply.get("no_new_privs") == "1"
        yield _isolated(
            "no_new_privs", no_new, "Programs cannot gain privileges", "NoNewPrivs in /proc/self/status"
        )
        names = reply.get("interfaces")
        interfaces = [str(name) for name in names] if isinstance(names, list) else ["?"]
        alone = set(interfaces) <= {"lo"} and reply.get("has_route") is False
        detail = f"Interfaces: {', '.join(interfaces)}; a route outward: {reply.get('has_route')}"
        yield _isolated("network", alone, "There is no network", detail)

    def seccomp(self, reply: Reply) -> Iterator[Finding]:
        """Judge whether system calls are filtered: the kernel's word, and one that must be refused."""
        calls = reply.get("calls")
        results = {str(k): str(v) for k, v in calls.items()} if isinstance(calls, Mapping) else {}
        answer = results.get("personality", "not tried")
        filtered = reply.get("seccomp") == "2" and answer in REFUSALS
        detail = f"Seccomp mode {reply.get('seccomp')}; personality(ADDR_NO_RANDOMIZE): {answer}"
        yield _isolated("seccomp", filtered, "System calls are filtered", detail)
        opened = [
            words for name, words in _OPTIONAL_CALLS.items() if results.get(name) not in (*REFUSALS, None)
        ]
        # ENODEV and the like: it got past the filter.
        if opened:
            detail = f"The filter in force lets programs use {', '.join(opened)}."
            remedy = "Unset POCKET_DOCK_SECCOMP: our filter refuses them. A newer engine filters more, too."
            yield Finding("isolation.calls", "info", "Rarely needed system calls are open", detail, remedy)


def _filter(found: str, asked: SystemCalls) -> Finding:
    if found == "ours":
        return Finding("isolation.filter", "ok", "The filter of system calls is ours")
    if asked == "engine" and found != "none":
        detail = "It refuses less than ours: POCKET_DOCK_SECCOMP is engine."
        remedy = "Unset POCKET_DOCK_SECCOMP."
        return Finding(
            "isolation.filter", "info", "The filter of system calls is the engine's", detail, remedy
        )
    title = (
        "There is no filter of system calls" if found == "none" else "Our filter of system calls is missing"
    )
    detail = "The engine was asked for it, and what is found inside is something else."
    remedy = "Use an engine that applies it; POCKET_DOCK_SECCOMP=engine accepts the engine's own."
    return Finding("isolation.filter", "problem", title, detail, remedy)


def _isolated(name: str, holds: bool, title: str, detail: str) -> Finding:
    if holds:
        return Finding(f"isolation.{name}", "ok", title, detail)
    remedy = "Do not run code that you do not trust on this engine; update it, or use another."
    return Finding(
        f"isolation.{name}", "problem", f"Does not hold: {title[0].lower()}{title[1:]}", detail, remedy
    )


def disk(reply: Reply, info: EngineInfo) -> Finding:
    """Judge the room of the engine's storage, as it is seen from inside."""
    free, total = number(reply, "disk_free"), number(reply, "disk_total")
    if free is None or not total:
        return Finding("disk.engine", "info", "The engine's disk space is not known")
    inodes, all_inodes = number(reply, "inodes_free"), number(reply, "inodes_total")
    title = f"{size(free)} of {size(total)} are free in the engine's storage"
    remedy = f"{program_of(info)} system df   # shows what fills it"
    if inodes is not None and all_inodes and inodes < all_inodes * _FEW_INODES:
        detail = f"Only {inodes:g} of {all_inodes:g} files more can be made."
        return Finding("disk.engine", "warning", title, detail, remedy)
    if free < _NO_DISK:
        return Finding("disk.engine", "problem", title, "Programs and builds will fail.", remedy)
    if free < _LITTLE_DISK:
        return Finding("disk.engine", "warning", title, "", remedy)
    return Finding("disk.engine", "ok", title)


def number(reply: Reply | None, name: str) -> float | None:
    """Return a number of a reply; None if it is none. The program that wrote it may be anything."""
    value = None if reply is None else reply.get(name)
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None
