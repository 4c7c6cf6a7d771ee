"""Pure: what a sandbox uses now, for a model: tersely as text, and as structured data."""

from __future__ import annotations

from pocket_dock_mcp.models import MIB
from pocket_dock_mcp.readings import Readings
from pocket_dock_mcp.server.schemas import Live


def live_reply(live: Readings) -> Live:
    """Return live numbers in their structured form."""
    return Live(
        cpu=_rounded(live.cpu_share, 2),
        cpu_s=_rounded(live.cpu_s, 2),
        memory_mb=_scaled(live.memory_bytes, MIB),
        peak_memory_mb=_scaled(live.memory_peak_bytes, MIB),
        processes=live.processes,
        pids=live.pids,
        runs=live.runs,
        sessions=live.sessions,
        uptime_s=_rounded(live.uptime_s, 1),
        received_kb=_scaled(sum(one.received_bytes for one in live.interfaces), 1024),
        sent_kb=_scaled(sum(one.sent_bytes for one in live.interfaces), 1024),
        addresses=[one.address for one in live.interfaces if one.address is not None],
    )


def summary(live: Live, memory_mb: int, pids: int) -> str:
    """Return the end of a line about a sandbox; nothing where nothing is known."""
    parts = []
    if live.cpu is not None:
        parts.append(f"{live.cpu:g} CPU")
    if live.memory_mb is not None:
        parts.append(f"{live.memory_mb:.0f} of {memory_mb} MiB")
    if live.pids is not None:
        parts.append(f"{live.pids} of {pids} processes")
    parts += [
        f"{count} {what}{'' if count == 1 else 's'}"
        for count, what in ((live.runs, "run"), (live.sessions, "session"))
        if count
    ]
    if live.addresses:
        parts.append(f"{live.received_kb:g} KiB in, {live.sent_kb:g} KiB out at {', '.join(live.addresses)}")
    if live.uptime_s is not None:
        parts.append(f"up {live.uptime_s:.0f} s")
    return f"; now {', '.join(parts)}" if parts else ""


def _scaled(count: int | None, unit: int) -> float | None:
    return None if count is None else round(count / unit, 1)


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)
