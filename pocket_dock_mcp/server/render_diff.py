"""Pure: what has changed in a sandbox, as text for a model to read and as structured data.

Names and contents are data: they stand between marks that nobody in the sandbox can have known.
"""

from __future__ import annotations

import secrets

from mcp.types import CallToolResult
from pydantic import BaseModel, Field

from pocket_dock_mcp.container.diffing import FileChange, TreeDiff
from pocket_dock_mcp.models import FileType
from pocket_dock_mcp.output import escaped, neutralise
from pocket_dock_mcp.server.render import block, count, plain, reply
from pocket_dock_mcp.server.sizes import within

MAX_CHANGES = 60_000
"""Bytes of the paths of each kind on their way."""


class Changed(BaseModel):
    """A path that is not as it was."""

    path: str
    type: FileType
    size: int = Field(description="Now; of something deleted, as it was.")
    notes: list[str]
    escaped: bool = Field(description="Whether the path is not as here: \\xNN stands for a byte.")


class DiffReply(BaseModel):
    """What has changed. Directories are left out where something in them is told."""

    sandbox_id: str
    since: str
    modified: list[Changed]
    created: list[Changed]
    deleted: list[Changed]
    counts: list[int] = Field(description="Modified, created, deleted: true totals.")
    diff: str = Field(
        description="Unified, of text files. Characters that do not show are escaped: \\r, \\xNN."
    )
    diff_truncated: bool
    too_large: int = Field(description="Changed files that are too large for a text diff.")
    unreadable: int = Field(description="Files and directories that may have changed and cannot be read.")
    unreadable_paths: list[str] = Field(description="The first of these, escaped.")
    too_deep: int = Field(description="Directories so deep that what is in them was not compared.")
    unchecked: int = Field(description="Files told as modified whose contents there was no time to compare.")


def compared(sandbox_id: str, since: str, found: TreeDiff) -> CallToolResult:
    """Render a comparison."""
    by_kind = {
        kind: within((_changed(change) for change in found.changes if change.change == kind), MAX_CHANGES)
        for kind in ("modified", "created", "deleted")
    }
    left_out = sum(found.counts) - sum(map(len, by_kind.values()))
    structured = DiffReply(
        sandbox_id=sandbox_id,
        since=since,
        **by_kind,
        counts=list(found.counts),
        diff=neutralise(found.diff)[0].encode("utf-8", "backslashreplace").decode("utf-8"),
        diff_truncated=found.diff_truncated or found.too_large > 0,
        too_large=found.too_large,
        unreadable=found.unreadable,
        unreadable_paths=[escaped(path)[0] for path in found.unreadable_paths],
        too_deep=found.too_deep,
        unchecked=found.unchecked,
    )
    modified, created, deleted = found.counts
    parts = [f"Since {plain(since)}: {modified} modified, {created} created, {deleted} deleted."]
    mark = secrets.token_hex(3)
    lines = [f"{kind[0].upper()} {_line(one)}" for kind, changes in by_kind.items() for one in changes]
    lines += [f"? {path}" for path in structured.unreadable_paths]
    parts += block("changed", "\n".join(lines), mark=mark)
    parts += block("diff", structured.diff, mark=mark)
    parts += _remarks(found, left_out)
    return reply("\n".join(parts), structured)


def _changed(change: FileChange) -> Changed:
    path, is_escaped = escaped(change.path)
    notes = [escaped(note)[0] for note in change.notes]
    return Changed(path=path, type=change.type, size=change.size, notes=notes, escaped=is_escaped)


def _line(one: Changed) -> str:
    what = f"{one.size}" if one.type == "file" else one.type
    notes = "".join(f", {note}" for note in [*one.notes, *(["escaped"] if one.escaped else [])])
    return f"{one.path} ({what}{notes})"


def _remarks(found: TreeDiff, left_out: int) -> list[str]:
    remarks = []
    if left_out:
        remarks.append(f"{count(left_out, 'more path')}: give a path to see less at once.")
    if found.diff_truncated:
        remarks.append("Not all differences are shown: give a path, or read_file.")
    if found.too_large:
        remarks.append(f"{count(found.too_large, 'file')} too large for a text diff: read_file shows a part.")
    if found.unchecked:
        remarks.append(f"{count(found.unchecked, 'file')} told as modified could not be compared in time.")
    if found.unreadable:
        remarks.append(
            f"{count(found.unreadable, 'path')} may have changed and cannot be read by the user: see ?."
        )
    if found.too_deep:
        directories = count(found.too_deep, "directory", "directories")
        remarks.append(f"{directories} too deep to be compared: give a path in there.")
    return remarks
