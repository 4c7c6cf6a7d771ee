"""Pure: the checks of section 5 of the CIS Docker Benchmark; `rules` has which is which."""

from __future__ import annotations

from collections.abc import Callable

from pocket_dock_mcp.diagnosis.evidence import Answer, Evidence, amiss, filter_in_force, held
from pocket_dock_mcp.policy import AGENT_CAPABILITIES

SENSITIVE = ("/boot", "/dev", "/etc", "/lib", "/proc", "/run", "/sys", "/usr", "/var")
"""Directories of a machine that no container has any business with, and what is below them."""
SOCKETS = ("docker.sock", "podman.sock", "containerd.sock", "crio.sock")
PRIVILEGED_PORTS = 1024


# -- who may keep it apart --------------------------------------------------------------------------


def swarm(evidence: Evidence) -> Answer:
    """Judge 5.1."""
    if evidence.engine.kind == "podman":
        return "not_applicable", "Podman has none."
    if evidence.details.swarm:
        return "manual", "The engine is part of a swarm. If that is not needed: docker swarm leave"
    return "pass", "The engine is in none."


def apparmor(evidence: Evidence) -> Answer:
    """Judge 5.2."""
    if not _engine_has(evidence, "apparmor"):
        return "not_applicable", "The engine says that it has no AppArmor."
    profile = evidence.setup.apparmor
    return held([] if profile not in ("", "unconfined") else ["it has no profile"], f"Profile {profile}.")


def selinux(evidence: Evidence) -> Answer:
    """Judge 5.3."""
    if not _engine_has(evidence, "selinux"):
        return "not_applicable", "The engine says that it has no SELinux."
    label = evidence.setup.selinux
    is_off = not label or "spc_t" in label or "unconfined_t" in label
    return held([f"its processes have the label {label!r}"] if is_off else [], f"Label {label}.")


def _engine_has(evidence: Evidence, what: str) -> bool:
    return any(what in option for option in evidence.details.security_options)


def capabilities(evidence: Evidence) -> Answer:
    """Judge 5.4."""
    wrong = amiss(evidence, "capabilities")
    if more := sorted(set(evidence.setup.added_capabilities) - set(AGENT_CAPABILITIES)):
        wrong.append(f"the engine says that it was given {', '.join(more)}")
    fine = "The first program keeps SETUID and SETGID to become others, programs of users have none."
    return held(wrong, "It has none." if evidence.inside.transport == "exec" else fine)


def privileged(evidence: Evidence) -> Answer:
    """Judge 5.5."""
    wrong = amiss(evidence, "masked_paths", privileged=evidence.setup.privileged)
    return held(wrong, "It is not.")


def seccomp(evidence: Evidence) -> Answer:
    """Judge 5.22."""
    told = evidence.setup.seccomp
    is_other = told == "other" and evidence.confinement.seccomp == "ours"
    wrong = amiss(evidence, "seccomp", there_is_none=told == "none", it_is_another_one=is_other)
    return held(wrong, f"By the filter that is {filter_in_force(evidence)}.")


def no_new_privileges(evidence: Evidence) -> Answer:
    """Judge 5.26."""
    wrong = amiss(evidence, "no_new_privs", it_is_not=not evidence.setup.no_new_privileges)
    return held(wrong, "Nothing in it can.")


def root_of_execs(evidence: Evidence) -> Answer:
    """Judge 5.24."""
    who = f"programs, which have uid {evidence.inside.uid}"
    return "accepted", f"What joins a sandbox is uid 0 with at most two capabilities, out of reach for {who}."


def privileged_execs(_evidence: Evidence) -> Answer:
    """Judge 5.23."""
    return "pass", "What we start in a running container never asks for it."


# -- namespaces -------------------------------------------------------------------------------------


def namespace(which: str, *names: str) -> Callable[[Evidence], Answer]:
    """Return the check of a namespace: of its name in the engine's word and of those read inside."""

    def check(evidence: Evidence) -> Answer:
        told = evidence.setup.namespaces.get(which, "")
        wrong = amiss(evidence, *names)
        if told == "host" or told.startswith("container:"):
            wrong.append(f"the engine says {told}")
        if which == "cgroup" and not told and not wrong:
            # Podman's word; with cgroup v1 it gives none.
            return "accepted", "The engine does not say so. Without, it sees the path of its own cgroup."
        return held(wrong, f"It has {'the mapping of the engine' if which == 'user' else 'its own'}.")

    return check


def host_network(evidence: Evidence) -> Answer:
    """Judge 5.10."""
    told = evidence.setup.network
    is_shared = told == "host" or told.startswith("container:")
    return held([f"the engine says {told}"] if is_shared else [], f"Network: {told or 'its own'}.")


def bridge(evidence: Evidence) -> Answer:
    """Judge 5.30."""
    told = evidence.setup.network
    if told in ("none", "host"):
        return "pass", f"Network: {told}."
    if evidence.inside.network == "open":
        return "accepted", f"Network: {told}, as it was asked for (network: open)."
    return "fail", f"Network: {told or 'not told'}, and none of the engine's was asked for."


# -- the host's files, devices and ports ------------------------------------------------------------


def mounts(evidence: Evidence) -> Answer:
    """Judge 5.6."""
    wrong = amiss(evidence, "mounts")
    for mount in evidence.setup.mounts:
        is_sensitive = mount.source == "/" or any(
            mount.source == one or mount.source.startswith(f"{one}/") for one in SENSITIVE
        )
        if mount.type == "bind" and is_sensitive:
            wrong.append(f"{mount.source} of the engine's machine is at {mount.target}")
    given = ", ".join(one.source for one in evidence.inside.volumes)
    return held(wrong, f"It sees what was given to it: {given}." if given else "It sees nothing of the host.")


def sockets(evidence: Evidence) -> Answer:
    """Judge 5.32."""
    wrong = [
        f"{mount.source} is at {mount.target}"
        for mount in evidence.setup.mounts
        if mount.source.endswith(SOCKETS) or mount.target.endswith(SOCKETS)
    ]
    return held(wrong, "No engine can be reached from it.")


def propagation(evidence: Evidence) -> Answer:
    """Judge 5.20."""
    wrong = [
        f"{mount.target} is {mount.propagation}"
        for mount in evidence.setup.mounts
        if "shared" in mount.propagation
    ]
    return held(wrong, "No mount is shared.")


def devices(evidence: Evidence) -> Answer:
    """Judge 5.18."""
    given = {one.source for one in evidence.inside.devices}
    wrong = amiss(evidence, "devices")
    wrong += [f"it has {path}" for path in evidence.setup.devices if path not in given]
    if given and not wrong:
        return "accepted", f"It was given {', '.join(sorted(given))}."
    return held(wrong, "It has none.")


def read_only(evidence: Evidence) -> Answer:
    """Judge 5.13."""
    if evidence.setup.read_only_root:
        return "pass", "It is."
    return (
        "accepted",
        "Programs may install things, and snapshots keep them. What they write is bounded by the disk guard.",
    )


def first_program(evidence: Evidence) -> Answer:
    """Judge 5.7."""
    argv = evidence.setup.argv
    if not argv or argv[0] not in ("python3", "/bin/sh"):
        return "fail", f"The first program is {argv[0] if argv else 'not told'}, which is not ours."
    if evidence.inside.network == "open":
        return (
            "manual",
            "The first program is ours; what others run, and who on its network reaches that, ask ps.",
        )
    return "pass", "The first program is ours, and nobody outside can connect to what others run."


def published(evidence: Evidence) -> Answer:
    """Judge 5.9."""
    wrong = [f"{one.host_port} leads to {one.port}" for one in evidence.setup.published]
    return held(wrong, "The engine publishes none; forwarded ports are the user's, see info.")


def privileged_ports(evidence: Evidence) -> Answer:
    """Judge 5.8."""
    low = [one for one in evidence.setup.published if 0 < one.host_port < PRIVILEGED_PORTS]
    return held([f"{one.host_port} leads to {one.port}" for one in low], "The engine publishes none.")


def bound(evidence: Evidence) -> Answer:
    """Judge 5.14."""
    everywhere = [one for one in evidence.setup.published if one.address in ("", "0.0.0.0", "::")]  # noqa: S104
    return held([f"{one.host_port} on every address" for one in everywhere], "The engine publishes none.")


# -- what it may use --------------------------------------------------------------------------------


def memory(evidence: Evidence) -> Answer:
    """Judge 5.11."""
    setup, most = evidence.setup, evidence.inside.limits.memory_bytes
    told = not 0 < setup.memory_bytes <= most
    swap = setup.swap_bytes is not None and not 0 < setup.swap_bytes <= setup.memory_bytes
    wrong = amiss(evidence, "memory", "swap", no_such_limit=told, swap_on_top=swap)
    return held(wrong, f"{most >> 20} MiB, no swap.")


def cpus(evidence: Evidence) -> Answer:
    """Judge 5.12."""
    most = evidence.inside.limits.cpus
    told = not 0 < evidence.setup.cpus <= most * 1.01
    return held(amiss(evidence, "cpus", no_such_limit=told), f"A quota of {most:g} CPUs.")


def pids(evidence: Evidence) -> Answer:
    """Judge 5.29."""
    most = evidence.inside.limits.pids
    told = not 0 < evidence.setup.pids <= most
    return held(amiss(evidence, "pids", no_such_limit=told), f"{most}.")


def ulimits(evidence: Evidence) -> Answer:
    """Judge 5.19."""
    return held(amiss(evidence, "ulimits"), "nofile, nproc, core, fsize, memlock and msgqueue are set.")


def cgroup(evidence: Evidence) -> Answer:
    """Judge 5.25."""
    parent = evidence.setup.cgroup_parent
    return held([f"it was put below {parent}"] if parent else [], "The engine's usual one.")


def restart(evidence: Evidence) -> Answer:
    """Judge 5.15."""
    told = evidence.setup.restart_policy
    return held(
        [] if told in ("", "no") else [f"the engine says {told}"], "It is never restarted by the engine."
    )


def health(evidence: Evidence) -> Answer:
    """Judge 5.27."""
    if evidence.setup.health_check and evidence.setup.health_check[0] != "NONE":
        return "fail", "The engine runs a command of the image in it."
    return (
        "accepted",
        "It would be a command of the image that the engine runs. A dead sandbox is noticed by its stream.",
    )


def image(evidence: Evidence) -> Answer:
    """Judge 5.28."""
    return "manual", f"Made of {evidence.inside.image}. pocket-dock doctor says which images are outdated."
