"""Pure: what a container shows of itself from inside, in the kernel's own texts, and what is wrong with it.

These are the parts of the profile that are no number in a cgroup: namespaces, mounts, devices, ulimits. An
engine, or what stands between it and us, may have left one of them out, or added something of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from pocket_dock_mcp.models import Limits, Mount, Surroundings
from pocket_dock_mcp.outside import OUTFIT

OOM_SCORE = 500
"""Of the first program: the host's services outlive sandboxes."""
HOSTNAME = "sandbox"

TITLES = {
    "Max open files": "nofile",
    "Max processes": "nproc",
    "Max core file size": "core",
    "Max file size": "fsize",
    "Max locked memory": "memlock",
    "Max msgqueue size": "msgqueue",
}
"""What the kernel calls the ulimits."""
_ESCAPED = re.compile(r"\\([0-7]{3})")
_SIZE = re.compile(r"[ ,]size=([0-9]+)k\b")
SHADOW_KIB = 16 * 1024
"""Size of the file system in memory that takes the place of a volume that an image declares."""
_PAGES = 64 * 1024
"""By which an engine may round a size up."""

_OWN_MOUNTS = frozenset(
    {
        "/",
        "/dev",
        "/etc/hosts",
        "/etc/hostname",
        "/etc/resolv.conf",
        "/proc",
        "/run/.containerenv",
        # Where Red Hat's engines put the subscription of the machine.
        "/run/secrets",
        "/sys",
        # The small init that an engine puts before the first program.
        "/dev/init",
        "/run/podman-init",
        "/sbin/docker-init",
    }
)
_OWN_PLACES = ("/proc/", "/sys/")
"""Below which engines hide and protect things by mounts. Nothing there is a file of the host's."""
_OWN_DEVICES = frozenset(
    {
        *("console", "core", "fd", "full", "init", "mqueue", "null", "ptmx", "pts", "random", "shm"),
        *("stderr", "stdin", "stdout", "tty", "urandom", "zero"),
    }
)


def ulimits(limits: Limits) -> dict[str, int]:
    """Return the ulimits of a container's first program, soft and hard alike."""
    return {
        "nofile": limits.open_files,
        # Of a uid on the whole host, so no limit on processes: that is `Limits.pids`.
        "nproc": 4096,
        "core": 0,
        "fsize": limits.file_bytes,
        "memlock": 65536,
        "msgqueue": 0,
    }


def parse_mounts(text: str) -> tuple[Mount, ...]:
    """Read ``/proc/self/mountinfo``; of several mounts at one path the last one counts."""
    found: dict[str, Mount] = {}
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        fields = before.split(" ")
        if len(fields) > 5:
            target = _ESCAPED.sub(lambda code: chr(int(code[1], 8)), fields[4])
            size = _SIZE.search(after)
            is_shadow = after.startswith("tmpfs ") and size is not None and int(size[1]) <= SHADOW_KIB
            found[target] = Mount(target, after.partition(" ")[0], "ro" in fields[5].split(","), is_shadow)
    return tuple(found.values())


def parse_ulimits(text: str) -> dict[str, int | None]:
    """Read the hard limits of ``/proc/self/limits``; None is no limit."""
    found: dict[str, int | None] = {}
    for line in text.splitlines():
        name, values = line[:26].strip(), line[26:].split()
        if name in TITLES and len(values) > 1:
            found[TITLES[name]] = int(values[1]) if values[1].isdigit() else None
    return found


def parse_cgroup(text: str) -> str | None:
    """Read ``/proc/self/cgroup``: where we are in it; None where it is of version 1.

    Podman gives none a namespace of that version, and then it has its name on the host.
    """
    lines = text.split()
    return lines[0].removeprefix("0::") if len(lines) == 1 and lines[0].startswith("0::") else None


def amiss(
    found: Surroundings, limits: Limits, *, given: Sequence[str] = (), memory: Mapping[str, int] | None = None
) -> tuple[str, ...]:
    """Name what is not as it was asked for.

    `given` has the places of volumes and devices that were asked for, `memory` those in memory.
    """
    held = {
        "pid_namespace": found.pid in (None, 1),
        "uts_namespace": found.hostname in (None, HOSTNAME),
        "cgroup_namespace": found.cgroup in (None, "/"),
        "ipc_namespace": found.shm_bytes is None or found.shm_bytes <= limits.shm_bytes + _PAGES,
        "swap": not found.swap_bytes,
        "oom_score": found.oom_score is None or found.oom_score >= OOM_SCORE,
        "masked_paths": _is_masked(found),
    }
    return (
        *(name for name, holds in held.items() if not holds),
        *(f"ulimits: {name}" for name in _too_high(found, limits)),
        *(f"mounts: {target}" for target in _foreign_mounts(found, {*given, *(memory or {})})),
        *(f"devices: {name}" for name in _foreign_devices(found, given)),
    )


def _too_high(found: Surroundings, limits: Limits) -> Iterator[str]:
    for name, most in ulimits(limits).items():
        value = found.ulimits.get(name, most)
        if value is None or value > most:
            yield name


def _foreign_mounts(found: Surroundings, wanted: set[str]) -> Iterator[str]:
    for mount in found.mounts:
        target = mount.target
        is_own = target in _OWN_MOUNTS or target.startswith(_OWN_PLACES) or _is_own_device(target)
        if not (is_own or mount.is_shadow or target in wanted):
            yield target


def _foreign_devices(found: Surroundings, given: Sequence[str]) -> Iterator[str]:
    own = {*_OWN_DEVICES, OUTFIT.removeprefix("/dev/")}
    for name in found.devices:
        if name not in own and not any(place.startswith(f"/dev/{name}") for place in given):
            yield name


def _is_masked(found: Surroundings) -> bool:
    """Whether the kernel's switches are read-only, and what is told of it is hidden."""
    mounts = {mount.target: mount for mount in found.mounts}
    if not mounts:
        return True
    switches = "/proc/sys" in mounts and mounts["/proc/sys"].read_only
    devices = "/sys" not in mounts or mounts["/sys"].read_only
    return switches and devices and set(found.to_mask) <= set(mounts)


def _is_own_device(target: str) -> bool:
    return target.startswith("/dev/") and target.removeprefix("/dev/").split("/")[0] in _OWN_DEVICES
