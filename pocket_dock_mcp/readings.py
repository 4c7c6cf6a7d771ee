"""What a sandbox uses now: the kernel's counters, as values."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Interface:
    """A network interface besides loopback."""

    name: str
    address: str | None
    """IPv4; None where it has none."""
    received_bytes: int
    sent_bytes: int


@dataclass(frozen=True, slots=True)
class Readings:
    """The live numbers of one sandbox. None is what this kernel, or this transport, does not tell."""

    cpu_share: float | None = None
    """Of one core, since the numbers were last read, or since the sandbox began."""
    cpu_s: float | None = None
    """CPU seconds of everything that ever ran in it."""
    memory_bytes: int | None = None
    """In use now."""
    memory_peak_bytes: int | None = None
    memory_limit_bytes: int | None = None
    processes: int | None = None
    """Of the user."""
    pids: int | None = None
    """Processes and threads that count against the limit, the agent's own among them."""
    pids_limit: int | None = None
    interfaces: tuple[Interface, ...] = ()
    disk_free_bytes: int | None = None
    """Where the home directory is; the engine's storage, so shared with others."""
    uptime_s: float | None = None
    runs: int | None = None
    """Programs that are running, those in sessions among them."""
    sessions: int | None = None
