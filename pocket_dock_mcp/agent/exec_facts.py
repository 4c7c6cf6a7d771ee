"""What holds inside a container without an agent: the question, for a shell, and its answer."""

from __future__ import annotations

import struct
from collections.abc import Mapping

from pocket_dock_mcp.agent.exec_answers import understood
from pocket_dock_mcp.agent.inside.filtered import MARK
from pocket_dock_mcp.agent.inside.provisions import parse_mounts as options_of
from pocket_dock_mcp.agent.transport import Found, MountFound
from pocket_dock_mcp.models import Facts

_LOAD_AT = 0x400000
_X86_64 = 62, bytes.fromhex("b8b40000000f05f7d889c7b83c0000000f05")
"""The machine's number, and code: exit(-nfsservctl())."""
_AARCH64 = 183, bytes.fromhex("480580d2010000d4e003004ba80b80d2010000d4")


def _program(machine: int, code: bytes) -> str:
    """Return the smallest program that tells whether our filter is there, for a shell's printf to write.

    It exits with the error of a call that our filter gives an answer of its own to (see `inside/filtered`).
    """
    size = 64 + 56 + len(code)
    head = struct.pack(
        "<16sHHIQQQIHHHHHH", b"\x7fELF\2\1\1", 2, machine, 1, _LOAD_AT + 120, 64, 0, 0, 64, 56, 1, 0, 0, 0
    )
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, _LOAD_AT, _LOAD_AT, size, size, 0x1000)
    return "".join(f"\\{byte:03o}" for byte in head + segment + code)


FACTS = """
echo "uid $(id -u)"
[ -w "$1" ] && echo "home $1"
while read -r k v; do case $k in Cap*|NoNewPrivs:|Seccomp:) echo "$k $v";; esac; done < /proc/self/status
cd /sys/fs/cgroup && for f in memory.max memory/memory.limit_in_bytes pids.max pids/pids.max cpu.max \\
  cpu/cpu.cfs_quota_us cpu/cpu.cfs_period_us; do
  [ -r "$f" ] && read -r v < "$f" && echo "$f $v"
done
for i in /sys/class/net/*; do [ -r "$i/flags" ] && read -r v < "$i/flags" && echo "net ${i##*/} $v"; done
d=$1; [ -w "$d" ] || d=/tmp
p=$d/.pocket-dock-$$
case $(uname -m) in
  x86_64) printf '%s' > "$p";;
  aarch64) printf '%s' > "$p";;
esac
chmod 700 "$p" 2>/dev/null && { "$p"; echo "mark $?"; }
rm -f "$p"
exit 0
"""

FACTS = FACTS.replace("%s", _program(*_X86_64), 1).replace("%s", _program(*_AARCH64), 1)

MOUNTS = """
for p; do stat -c '%d %i' "$p" 2>/dev/null || echo; done
cat /proc/sys/kernel/random/boot_id 2>/dev/null || echo
cat /proc/self/mountinfo
"""


@understood()
def parse_mounts(text: str, paths: list[str]) -> Found:
    """Return what a shell has answered of what is mounted at these paths.

    Raises:
        AgentProtocolError: it makes no sense.
    """
    lines = text.split("\n") + [""] * (len(paths) + 1)
    identities, boot, options = lines[: len(paths)], lines[len(paths)], options_of(lines[len(paths) + 1 :])
    volumes: dict[str, MountFound | None] = {}
    for path, identity in zip(paths, identities, strict=True):
        device, _, inode = identity.partition(" ")
        is_mount = path in options and device.isdigit() and inode.isdigit()
        volumes[path] = MountFound(int(device), int(inode), "ro" in options[path]) if is_mount else None
    return Found(volumes, {}, boot or None)


@understood()
def parse_facts(text: str, uid: int) -> Facts:
    """Return what a shell has answered.

    Raises:
        AgentProtocolError: it makes no sense.
    """
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
        let_through=() if found.get("mark") == str(MARK) else ("mark",),
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
