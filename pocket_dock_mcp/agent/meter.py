"""Pure: from what a container says of its counters to `Readings`. It may say anything."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pocket_dock_mcp.readings import Interface, Readings

MAX_INTERFACES = 16
MAX_NAME = 15
"""Of a network interface: the kernel's own limit."""
SHORTEST_S = 0.2
"""Seconds between two readings below which the earlier share stands: quotas count by the tenth of one."""
_MOST = 1 << 62
_DIGITS = 20
"""Of a number that is larger than any that is believed."""

METER = r"""
cd /sys/fs/cgroup
first() { for f; do [ -r "$f" ] && read -r v < "$f" && echo "$k $v" && return; done; }
k=memory first memory.current memory/memory.usage_in_bytes
k=memory_peak first memory.peak memory/memory.max_usage_in_bytes
k=memory_limit first memory.max memory/memory.limit_in_bytes
k=pids first pids.current pids/pids.current
k=pids_limit first pids.max pids/pids.max
k=cpu_ns first cpuacct/cpuacct.usage cpu,cpuacct/cpuacct.usage
[ -r cpu.stat ] && while read -r n v; do [ "$n" = usage_usec ] && echo "cpu_us $v"; done < cpu.stat
read -r v _ < /proc/uptime && echo "now $v"
while IFS=: read -r n v; do
  case $n in *lo|*'|'*) ;; *) echo "net $n $v";; esac
done < /proc/net/dev
exit 0
"""
"""For a container without an agent: counters as lines of name and value."""


class Meter:
    """Reads one container's counters, and remembers the last ones: a share is of an interval."""

    def __init__(self) -> None:
        self._last: tuple[float, float] | None = None
        self._share: float | None = None

    def read(self, told: Mapping[str, Any]) -> Readings:
        """Return what the container says, as far as it can be."""
        cpu_s, uptime = _real(told, "cpu_s"), _real(told, "uptime")
        return Readings(
            cpu_share=self._share_of(_real(told, "now"), cpu_s, uptime, _real(told, "cpu_before")),
            cpu_s=cpu_s,
            memory_bytes=_count(told, "memory"),
            memory_peak_bytes=_count(told, "memory_peak"),
            memory_limit_bytes=_count(told, "memory_limit"),
            processes=_count(told, "processes"),
            pids=_count(told, "pids"),
            pids_limit=_count(told, "pids_limit"),
            interfaces=_interfaces(told.get("network")),
            disk_free_bytes=_count(told, "disk_free"),
            uptime_s=uptime,
            runs=_count(told, "runs"),
            sessions=_count(told, "sessions"),
        )

    def _share_of(
        self, now: float | None, cpu_s: float | None, uptime: float | None, before: float | None
    ) -> float | None:
        if now is None or cpu_s is None:
            return None
        if self._last is None:
            if uptime is None:
                self._last = (now, cpu_s)
                return None
            self._last = (now - uptime, before or 0.0)
        wall = now - self._last[0]
        if wall >= SHORTEST_S:
            self._share = max(0.0, cpu_s - self._last[1]) / wall
            self._last = (now, cpu_s)
        return self._share


def parse_meter(output: bytes) -> dict[str, Any]:
    """Return what the shell script `METER` has printed."""
    told: dict[str, Any] = {"network": []}
    for line in output.decode("utf-8", "replace").splitlines():
        name, _, value = line.partition(" ")
        if name == "net":
            fields = value.split()
            if len(fields) >= 10 and _is_count(fields[1]) and _is_count(fields[9]):
                told["network"].append(
                    {"name": fields[0], "received": int(fields[1]), "sent": int(fields[9])}
                )
        elif name == "now":
            told["now"] = _parsed(value)
        elif _is_count(value):
            told[name] = int(value)
    for name, factor in (("cpu_ns", 1e-9), ("cpu_us", 1e-6)):
        if name in told:
            told["cpu_s"] = told[name] * factor
    return told


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < _DIGITS


def _parsed(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _count(told: Mapping[str, Any], name: str) -> int | None:
    value = told.get(name)
    return value if type(value) is int and 0 <= value < _MOST else None


def _real(told: Mapping[str, Any], name: str) -> float | None:
    value = told.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    # False for "not a number" too.
    return float(value) if 0 <= value < _MOST else None


def _interfaces(told: object) -> tuple[Interface, ...]:
    if not isinstance(told, list):
        return ()
    found = []
    for one in told[:MAX_INTERFACES]:
        if not isinstance(one, Mapping) or not isinstance(one.get("name"), str):
            continue
        received, sent = _count(one, "received"), _count(one, "sent")
        if received is not None and sent is not None:
            found.append(Interface(_plain(one["name"]), _address(one.get("address")), received, sent))
    return tuple(found)


def _plain(name: str) -> str:
    return "".join(c for c in name[:MAX_NAME] if c.isalnum() or c in "-._@:")


def _address(told: object) -> str | None:
    parts = told.split(".") if isinstance(told, str) and len(told) <= MAX_NAME else []
    is_address = len(parts) == 4 and all(part.isdigit() and part.isascii() for part in parts)
    return ".".join(parts) if is_address else None
