"""Pure: what the scripts of the way without python3 print, parsed."""

from __future__ import annotations

from collections.abc import Mapping

from pocket_dock_mcp.models import Facts, FileEntry, FileType

_TYPES: dict[int, FileType] = {
    0x8000: "file", 0x4000: "directory", 0xA000: "symlink", 0x1000: "fifo", 0xC000: "socket",
}  # fmt: skip


def parse_entry(record: bytes) -> FileEntry:
    """Return one entry of a listing."""
    head, _, name = record.partition(b"\n")
    raw, size, mtime = head.split()
    mode = int(raw, 16)
    return FileEntry(
        name=name.decode("utf-8", "surrogateescape"),
        type=_TYPES.get(mode & 0xF000, "device"),
        size=int(size),
        mode=mode & 0o7777,
        mtime=float(mtime),
    )


def parse_facts(text: str, uid: int) -> Facts:
    """Return what holds inside."""
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
