"""What holds inside a container without an agent: the question, for a shell, and its answer."""

from __future__ import annotations

from collections.abc import Mapping

from pocket_dock_mcp.agent.inside.provisions import parse_mounts as options_of
from pocket_dock_mcp.agent.transport import Found, MountFound
from pocket_dock_mcp.models import Facts

FACTS = """
echo "uid $(id -u)"
[ -w "$1" ] && echo "home $1"
while read -r k v; do case $k in Cap*|NoNewPrivs:|Seccomp:) echo "$k $v";; esac; done < /proc/self/status
cd /sys/fs/cgroup && for f in memory.max memory/memory.limit_in_bytes pids.max pids/pids.max cpu.max \\
  cpu/cpu.cfs_quota_us cpu/cpu.cfs_period_us; do
  [ -r "$f" ] && read -r v < "$f" && echo "$f $v"
done
for i in /sys/class/net/*; do [ -r "$i/flags" ] && read -r v < "$i/flags" && echo "net ${i##*/} $v"; done
exit 0
"""

MOUNTS = """
for p; do stat -c '%d %i' "$p" 2>/dev/null || echo; done
cat /proc/sys/kernel/random/boot_id 2>/dev/null || echo
cat /proc/self/mountinfo
"""


def parse_mounts(text: str, paths: list[str]) -> Found:
    """Return what a shell has answered of what is mounted at these paths."""
    lines = text.split("\n") + [""] * (len(paths) + 1)
    identities, boot, options = lines[: len(paths)], lines[len(paths)], options_of(lines[len(paths) + 1 :])
    volumes: dict[str, MountFound | None] = {}
    for path, identity in zip(paths, identities, strict=True):
        device, _, inode = identity.partition(" ")
        is_mount = path in options and device.isdigit() and inode.isdigit()
        volumes[path] = MountFound(int(device), int(inode), "ro" in options[path]) if is_mount else None
    return Found(volumes, {}, boot or None)


def parse_facts(text: str, uid: int) -> Facts:
    """Return what a shell has answered."""
    found: dict[str, str] = {}
    interfaces = []
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        if name == "net":
            interface, _, flags = value.partition(" ")
            if int(flags, 16) & 1:
                interfaces.append(interface)
        else:
            found[name.rstrip(":")] = value.strip()
    return Facts(
        uid=uid,
        home=found.get("home", "/tmp"),  # noqa: S108  # inside the container
        capabilities={name: found[name] for name in found if name.startswith("Cap")},
        no_new_privs=found.get("NoNewPrivs") == "1",
        seccomp=found.get("Seccomp") == "2",
        memory_limit=_number(found.get("memory.max") or found.get("memory/memory.limit_in_bytes")),
        pids_limit=_number(found.get("pids.max") or found.get("pids/pids.max")),
        cpus=_cpus(found),
        interfaces=tuple(sorted(interfaces)),
    )


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdigit() else None


def _cpus(found: Mapping[str, str]) -> float | None:
    quota, _, period = found.get("cpu.max", "").partition(" ")
    quota = quota or found.get("cpu/cpu.cfs_quota_us", "")
    period = period or found.get("cpu/cpu.cfs_period_us", "")
    if not quota.isdigit() or not period.isdigit() or not int(period):
        return None
    return int(quota) / int(period)
