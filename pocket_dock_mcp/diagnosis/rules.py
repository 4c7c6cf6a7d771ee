"""Pure: the rules that a running container is held against.

Those that begin with 5 are section 5, "Container Runtime", of the CIS Docker Benchmark 1.6.0, all of them, in
our words. Those that begin with P are ours. The engine's word and what was read inside both have to be right.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pocket_dock_mcp.diagnosis import checks, promises
from pocket_dock_mcp.diagnosis.evidence import Answer, Evidence, Status


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of one rule."""

    id: str
    title: str
    status: Status
    detail: str


Rule = tuple[str, str, Callable[[Evidence], Answer]]


def judged(evidence: Evidence) -> tuple[Verdict, ...]:
    """Hold a container against all rules."""
    return tuple(Verdict(rule_id, title, *check(evidence)) for rule_id, title, check in RULES)


RULES: tuple[Rule, ...] = (
    ("5.1", "The engine is in no swarm that is not needed", checks.swarm),
    ("5.2", "AppArmor confines it, where there is AppArmor", checks.apparmor),
    ("5.3", "SELinux confines it, where there is SELinux", checks.selinux),
    ("5.4", "Capabilities are restricted", checks.capabilities),
    ("5.5", "It is not privileged", checks.privileged),
    ("5.6", "No sensitive directory of the host is mounted", checks.mounts),
    ("5.7", "No sshd runs in it", checks.first_program),
    ("5.8", "No privileged port leads into it", checks.privileged_ports),
    ("5.9", "Only needed ports are open", checks.published),
    ("5.10", "The host's network is not shared", checks.host_network),
    ("5.11", "Memory is limited", checks.memory),
    ("5.12", "CPU time is limited", checks.cpus),
    ("5.13", "The root file system is read-only", checks.read_only),
    ("5.14", "Incoming traffic is bound to one interface", checks.bound),
    ("5.15", "It is not restarted without end", checks.restart),
    ("5.16", "The host's processes are not shared", checks.namespace("pid", "pid_namespace")),
    ("5.17", "The host's IPC is not shared", checks.namespace("ipc", "ipc_namespace")),
    ("5.18", "No device of the host is exposed", checks.devices),
    ("5.19", "Ulimits are set", checks.ulimits),
    ("5.20", "No mount is shared", checks.propagation),
    ("5.21", "The host's UTS namespace is not shared", checks.namespace("uts", "uts_namespace")),
    ("5.22", "System calls are filtered", checks.seccomp),
    ("5.23", "Nothing is started in it with privileges", checks.privileged_execs),
    ("5.24", "Nothing is started in it as root", checks.root_of_execs),
    ("5.25", "Its cgroup is the usual one", checks.cgroup),
    ("5.26", "Nothing gains privileges", checks.no_new_privileges),
    ("5.27", "Its health is checked", checks.health),
    ("5.28", "Its image is up to date", checks.image),
    ("5.29", "Processes are limited", checks.pids),
    ("5.30", "The engine's default network is not used", checks.bridge),
    ("5.31", "The host's user namespace is not asked for", checks.namespace("user")),
    ("5.32", "No engine's socket is mounted", checks.sockets),
    ("P1", "The network is what was asked for", promises.network),
    ("P2", "The engine keeps no log of it", promises.log),
    ("P3", "It cannot outlive its lease", promises.lease),
    ("P4", "The first program is not a user's", promises.user),
    ("P5", "It goes first when memory is short", promises.score),
    ("P6", "Cgroups are its own", checks.namespace("cgroup", "cgroup_namespace")),
    ("P7", "No confinement is switched off", promises.options),
    ("P8", "The runtime is what was asked for", promises.runtime),
)
