"""Pure: what a sandbox is allowed, what is asked of the engine for it, and whether it really holds.

Limits are verified and not requested: engines drop them silently (rootless Podman on cgroup v1 answers 201
and applies none), so what the program inside reads from its kernel is compared with what was asked for.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence

from pocket_dock_mcp import surroundings
from pocket_dock_mcp.errors import InvalidArgumentError
from pocket_dock_mcp.models import (
    MIB,
    Confinement,
    ContainerSpec,
    EngineNetwork,
    Facts,
    Limits,
    Network,
    Surroundings,
)

HOME = "/home/sandbox"

AGENT_CAPABILITIES = ("SETUID", "SETGID", "SETPCAP")
"""The agent gives SETPCAP up at once: it empties the bounding set with it and keeps two."""

_UID_FIRST = 1_000_000
_UID_COUNT = 1_000_000
"""Above the ids that distributions give to people and to user namespaces, below what old tar formats hold."""

_AGENT_RESERVE = range(8, 17)
"""Processes below the pids limit that user code may not use: a quarter of them, within this range.

The agent has to be able to fork, and a new stream to a kept one is an engine's exec, whose program has some
six threads (it is written in Go) before it becomes ours.
"""

_SHARERS = 16
"""Sandboxes that may have the same uid at once, each with all processes that it may have."""

MAX_PROCESSES = 4096
"""Of a uid: what every container is created with; see `pocket_dock_mcp.engine.hardening`."""

MIN_MEMORY_BYTES = 32 * MIB
MIN_PIDS = 16
MIN_DISK_BYTES = 16 * MIB
MIN_MEMORY_HOME_BYTES = 8 * MIB

MARK = "mark"
"""A call to which our filter has an answer of its own; see `pocket_dock_mcp.agent.inside.filtered`."""
_STARTED_WITH = 1 << 6 | 1 << 7 | 1 << 8
"""`AGENT_CAPABILITIES` as a mask."""
_USUAL = Confinement()

EXEC_ARGV = ("/bin/sh", "-c", "exec cat >/dev/null")
"""PID 1 where there is no python3: it ends when its input does, and so keeps the lease."""


def random_uid() -> int:
    """Return a uid for one sandbox. A random one each: the kernel's per-uid limits are host-wide."""
    return _UID_FIRST + secrets.randbelow(_UID_COUNT)


def is_sandbox_uid(uid: int) -> bool:
    """Whether a uid is of the range that `random_uid` draws from or a user namespace maps."""
    return 1000 <= uid < _UID_FIRST + _UID_COUNT


def user_processes(limits: Limits, *, shares_uid: bool = False) -> int:
    """Return how many processes the user may have at once.

    The kernel counts a uid's processes on the whole host. Where other sandboxes have the same uid, the
    limit is one for all of them, so that none can use up another's; each has its own limit on pids as well.
    """
    reserve = min(max(limits.pids // 4, _AGENT_RESERVE[0]), _AGENT_RESERVE[-1])
    most = limits.pids - reserve
    return min(most * _SHARERS, MAX_PROCESSES) if shares_uid else most


def check_limits(
    limits: Limits, *, max_memory_bytes: int, max_cpus: float, max_pids: int, max_disk_bytes: int
) -> None:
    """Refuse limits that make no sense or exceed the configured ceilings.

    Raises:
        InvalidArgumentError: names the limit, the value and the range.
    """
    _require_range("memory_mb", limits.memory_bytes / MIB, MIN_MEMORY_BYTES / MIB, max_memory_bytes / MIB)
    _require_range("cpus", limits.cpus, 0.05, max_cpus)
    _require_range("pids", limits.pids, MIN_PIDS, max_pids)
    _require_range("disk_mb", limits.disk_bytes / MIB, MIN_DISK_BYTES / MIB, max_disk_bytes / MIB)


def _require_range(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise InvalidArgumentError(
            f"{name} is {value:.15g}; it must be from {low:.15g} to {high:.15g}.",
            hint="The upper end is set where the server is configured.",
        )


def agent_spec(
    name: str,
    image: str,
    argv: tuple[str, ...],
    labels: Mapping[str, str],
    limits: Limits,
    network: Network,
    *,
    memory: Mapping[str, int] | None = None,
    keep: bool = False,
    confinement: Confinement = _USUAL,
) -> ContainerSpec:
    """Return the container of an image with python3; `memory` has directories in memory with their sizes."""
    return ContainerSpec(
        name=name,
        image=image,
        argv=argv,
        labels=labels,
        limits=limits,
        network=engine_network(network),
        capabilities=AGENT_CAPABILITIES,
        names_itself=True,
        memory=memory or {},
        keep=keep,
        confinement=confinement,
    )


def exec_spec(
    name: str,
    image: str,
    labels: Mapping[str, str],
    limits: Limits,
    network: Network,
    *,
    keep: bool = False,
    confinement: Confinement = _USUAL,
) -> ContainerSpec:
    """Return the container of an image without python3: no capability at all."""
    return ContainerSpec(
        name=name,
        image=image,
        argv=EXEC_ARGV,
        labels=labels,
        limits=limits,
        network=engine_network(network),
        init=True,
        keep=keep,
        confinement=confinement,
    )


def engine_network(network: Network) -> EngineNetwork:
    """Return what the engine is asked for. All but "open" goes through the agent's stream, and needs none."""
    return "open" if network == "open" else "none"


def unenforced(
    limits: Limits,
    network: Network,
    facts: Facts,
    confinement: Confinement = _USUAL,
    *,
    given: Sequence[str] = (),
    memory: Mapping[str, int] | None = None,
) -> tuple[str, ...]:
    """Compare what was asked for with what is read inside; name what does not hold.

    `given` has the places of volumes and devices that were asked for, `memory` of directories in memory.
    """
    held = {
        "memory": facts.memory_limit is not None and facts.memory_limit <= limits.memory_bytes,
        "pids": facts.pids_limit is not None and facts.pids_limit <= limits.pids,
        "cpus": facts.cpus is not None and facts.cpus <= limits.cpus * 1.01,
        "network": engine_network(network) != "none"
        or facts.interfaces is None
        or set(facts.interfaces) <= {"lo"},
        "no_new_privs": bool(facts.no_new_privs),
        "seccomp": bool(facts.seccomp) and (confinement.seccomp == "engine" or _is_ours(facts)),
        "capabilities": _only_set_ids(facts.capabilities) and _was_bare(facts.surroundings),
    }
    missing = [name for name, holds in held.items() if not holds]
    if "seccomp" not in missing and confinement.seccomp == "ours":
        missing += [f"seccomp: {call}" for call in facts.let_through or ()]
    if facts.surroundings is not None:
        missing += surroundings.amiss(facts.surroundings, limits, given=given, memory=memory)
    return tuple(missing)


def _is_ours(facts: Facts) -> bool:
    """Whether the filter is ours, and not another one: it has a mark."""
    return facts.let_through is not None and MARK not in facts.let_through


def _was_bare(found: Surroundings | None) -> bool:
    """Whether the container was started with what was asked for: the agent gives up whatever it has."""
    return found is None or found.bounding is None or not found.bounding & ~_STARTED_WITH


def _only_set_ids(capabilities: Mapping[str, str] | None) -> bool:
    allowed = 1 << 6 | 1 << 7
    if capabilities is None:
        return False
    try:
        masks = {name: int(mask, 16) for name, mask in capabilities.items()}
    except ValueError:
        return False
    empty = all(masks.get(name) == 0 for name in ("CapInh", "CapBnd", "CapAmb"))
    return empty and not (masks.get("CapEff", -1) | masks.get("CapPrm", -1)) & ~allowed
