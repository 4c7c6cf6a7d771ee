"""What the kernel of a faithful engine shows inside of a container."""

from __future__ import annotations

from typing import Any

from pocket_dock_mcp import surroundings
from pocket_dock_mcp.agent.inside.wire import PROTOCOL
from pocket_dock_mcp.models import ContainerSpec

PYTHON = "3.11.2"


def facts(spec: ContainerSpec) -> dict[str, Any]:
    """What a faithful engine's kernel shows inside."""
    none, two = "0" * 16, f"{1 << 6 | 1 << 7:016x}"
    return {
        "protocol": PROTOCOL,
        "python": PYTHON,
        "caps": {"CapInh": none, "CapPrm": two, "CapEff": two, "CapBnd": none, "CapAmb": none},
        "no_new_privs": "1",
        "seccomp": "2",
        "let_through": [] if spec.confinement.seccomp == "ours" else ["mark"],
        "bounding": 1 << 6 | 1 << 7 | 1 << 8,
        "pid": 1,
        "hostname": surroundings.HOSTNAME,
        "oom_score": f"{surroundings.OOM_SCORE}\n",
        "ulimits": _ulimits(spec),
        "mounts": _MOUNTS,
        "cgroup": "0::/\n",
        "devices": ["null", "pts", "shm", "zero"],
        "to_mask": ["/proc/keys"],
        "shm_bytes": spec.limits.shm_bytes,
        "swap": 0,
        "memory_limit": spec.limits.memory_bytes,
        "pids_limit": spec.limits.pids,
        "cpus": spec.limits.cpus,
        "interfaces": ["lo"] if spec.network == "none" else ["eth0", "lo"],
    }


def _ulimits(spec: ContainerSpec) -> str:
    """As ``/proc/self/limits`` has them."""
    names = {name: title for title, name in surroundings.TITLES.items()}
    values = surroundings.ulimits(spec.limits).items()
    return "".join(f"{names[name]:26}{value:<21}{value:<21}\n" for name, value in values)


_MOUNTS = """\
1 0 0:1 / / rw,relatime - overlay overlay rw
2 1 0:2 / /proc rw,nosuid - proc proc rw
3 2 0:2 /sys /proc/sys ro,nosuid - proc proc rw
4 2 0:3 /null /proc/keys rw - tmpfs tmpfs rw,size=65536k
5 1 0:4 / /sys ro,nosuid - sysfs sysfs ro
6 1 0:5 / /dev/shm rw,nosuid - tmpfs shm rw,size=16384k
"""
