"""An audit: what keeps a running sandbox apart, looked at from inside and told by its engine."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from pocket_dock_mcp.container.core import LiveContainer
from pocket_dock_mcp.diagnosis.evidence import Evidence, filter_in_force
from pocket_dock_mcp.diagnosis.rules import Verdict, judged
from pocket_dock_mcp.models import Confinement

CAPABILITIES = (
    *("CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP"),
    *(
        "LINUX_IMMUTABLE",
        "NET_BIND_SERVICE",
        "NET_BROADCAST",
        "NET_ADMIN",
        "NET_RAW",
        "IPC_LOCK",
        "IPC_OWNER",
    ),
    *(
        "SYS_MODULE",
        "SYS_RAWIO",
        "SYS_CHROOT",
        "SYS_PTRACE",
        "SYS_PACCT",
        "SYS_ADMIN",
        "SYS_BOOT",
        "SYS_NICE",
    ),
    *("SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL"),
    *("SETFCAP", "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ"),
    *("PERFMON", "BPF", "CHECKPOINT_RESTORE"),
)
"""By their numbers."""

_UNSAID = {"user": "the engine's mapping", "cgroup": "not said"}
"""What is said of a namespace of which the engine says nothing."""


@dataclass(frozen=True, slots=True)
class Audit:
    """What was found."""

    profile: dict[str, Any]
    """What keeps it apart, as it is in force; plain values."""
    verdicts: tuple[Verdict, ...]

    @property
    def has_passed(self) -> bool:
        """Whether no rule is broken."""
        return not any(verdict.status == "fail" for verdict in self.verdicts)


async def audit(container: LiveContainer, confinement: Confinement) -> Audit:
    """Hold a running sandbox against all rules. Nothing is changed, and nothing is started in it.

    Args:
        container: it.
        confinement: what was asked for when it was made.

    Raises:
        SandboxLostError, SandboxClosedError, EngineError: it, or the engine, does not answer.
    """
    evidence = await gathered(container, confinement)
    return Audit(profile(evidence), judged(evidence))


async def gathered(container: LiveContainer, confinement: Confinement) -> Evidence:
    """Return what is known of a running sandbox. Raises as `audit` does."""
    inside = await container.info()
    setup, details = await container.setup()
    keep = inside.kept != "nothing"
    return Evidence(container.engine_info, details, setup, inside, confinement, keep)


def profile(evidence: Evidence) -> dict[str, Any]:
    """Return what keeps a sandbox apart."""
    engine, setup, inside = evidence.engine, evidence.setup, evidence.inside
    facts = inside.facts
    around = None if facts is None else facts.surroundings
    return {
        "engine": f"{engine.kind} {engine.version}",
        "rootless": engine.rootless,
        "cgroup_version": engine.cgroup_version,
        "kernel": evidence.details.kernel,
        "runtime": setup.runtime,
        "image": inside.image,
        "system_calls": filter_in_force(evidence),
        "no_new_privileges": bool(facts and facts.no_new_privs),
        "capabilities_of_the_first_program": _capabilities(evidence),
        "capabilities_of_programs": [],
        "uid": inside.uid,
        "apparmor": setup.apparmor or None,
        "selinux": setup.selinux or None,
        "network": inside.network,
        "interfaces": None if facts is None or facts.interfaces is None else list(facts.interfaces),
        "namespaces": {
            name: whose or _UNSAID.get(name, "its own") for name, whose in setup.namespaces.items()
        },
        "limits": asdict(inside.limits),
        "ulimits": {} if around is None else dict(around.ulimits),
        "swap_bytes": None if around is None else around.swap_bytes,
        "oom_score": None if around is None else around.oom_score,
        "volumes": [f"{one.source}:{one.target}" for one in inside.volumes],
        "devices": [one.source for one in inside.devices],
        "read_only_root": setup.read_only_root,
        "log_driver": setup.log_driver,
        "lifetime": "kept" if evidence.keep else "ends with who holds it",
        "unenforced": list(inside.unenforced),
    }


def _capabilities(evidence: Evidence) -> list[str]:
    """Return what the first program was started with; programs of users have none, whatever that is."""
    facts = evidence.inside.facts
    around = None if facts is None else facts.surroundings
    if around is None or around.bounding is None:
        return list(evidence.setup.added_capabilities)
    return [name for number, name in enumerate(CAPABILITIES) if around.bounding >> number & 1]
