"""Pure: a listing of the way without python3, parsed."""

from __future__ import annotations

from pocket_dock_mcp.models import FileEntry, FileType

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
