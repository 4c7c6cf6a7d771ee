"""What the kernel really enforces and counts, read from inside: cgroup v1 and v2."""

from __future__ import annotations

import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    # Not otherwise: see `early`.
    from typing import Dict, Optional

_FILES = {
    "memory_limit": ("memory.max", "memory/memory.limit_in_bytes"),
    "memory_now": ("memory.current", "memory/memory.usage_in_bytes"),
    "memory_peak": ("memory.peak", "memory/memory.max_usage_in_bytes"),
    "swap": ("memory.swap.max", "memory/memory.memsw.limit_in_bytes"),
    "pids_limit": ("pids.max", "pids/pids.max"),
    "pids_now": ("pids.current", "pids/pids.current"),
    "oom": ("memory.events", "memory/memory.oom_control"),
    "cpu_stat": ("cpu.stat",),
    "cpu_nanoseconds": ("cpuacct/cpuacct.usage", "cpu,cpuacct/cpuacct.usage"),
    "cpu_max": ("cpu.max",),
    "cpu_quota": ("cpu/cpu.cfs_quota_us",),
    "cpu_period": ("cpu/cpu.cfs_period_us",),
}
NO_LIMIT = 1 << 62
_ROOT = "/sys/fs/cgroup/"


class Cgroup:
    """The container's own cgroup. Files stay open: one `pread` per question."""

    def __init__(self) -> None:
        self._fds: Dict[str, int] = {}
        self._names: Dict[str, str] = {}
        for what, names in _FILES.items():
            for name in names:
                try:
                    self._fds[what] = os.open(_ROOT + name, os.O_RDONLY | os.O_CLOEXEC)
                    self._names[what] = name
                    break
                except OSError:
                    pass
        self.began = time.monotonic()
        """When this container began, as far as we can tell."""
        self.cpu_before = self.cpu_seconds()
        """What had been used by then: the engine's own work in it."""

    def read(self, what: str) -> Optional[str]:
        """Return the file's text, or None where there is none."""
        fd = self._fds.get(what)
        if fd is None:
            return None
        try:
            return os.pread(fd, 4096, 0).decode("ascii", "replace").strip()
        except OSError:
            return None

    def number(self, what: str) -> Optional[int]:
        """Return the file's number; None for "max" and for a file that is not there."""
        text = self.read(what)
        return int(text) if text is not None and text.lstrip("-").isdigit() else None

    def swap(self) -> Optional[int]:
        """Bytes of swap that may be used on top of memory; None where there is none to count."""
        text = self.read("swap")
        if text is None:
            return None
        if not text.isdigit():
            return NO_LIMIT
        # Version 1 counts both together.
        both, memory = "memsw" in self._names["swap"], self.number("memory_limit")
        return max(0, int(text) - (memory or 0)) if both else int(text)

    def oom_kills(self) -> int:
        """How many processes of this container the kernel has killed for its memory limit."""
        for line in (self.read("oom") or "").splitlines():
            name, _, value = line.partition(" ")
            if name == "oom_kill" and value.isdigit():
                return int(value)
        return 0

    def cpu_seconds(self) -> Optional[float]:
        """CPU time of everything that ever ran in this container."""
        nanoseconds = self.number("cpu_nanoseconds")
        if nanoseconds is not None:
            return nanoseconds / 1e9
        for line in (self.read("cpu_stat") or "").splitlines():
            name, _, value = line.partition(" ")
            if name == "usage_usec" and value.isdigit():
                return int(value) / 1e6
        return None

    def cpus(self) -> Optional[float]:
        """CPU seconds per second, or None when unlimited."""
        quota = self.number("cpu_quota")
        period = self.number("cpu_period")
        both = (self.read("cpu_max") or "").split()
        if len(both) == 2 and both[0].isdigit():
            quota, period = int(both[0]), int(both[1])
        if quota is None or quota <= 0 or not period:
            return None
        return quota / period
