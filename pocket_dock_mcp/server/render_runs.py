"""Pure: runs as text for a model to read, as images, and as structured data.

What a program printed is data: it stands between marks that it cannot have known, and without characters
that could act on a terminal. A line is there only if it says something: most runs are a headline and output.
"""

from __future__ import annotations

import base64
import itertools
import secrets
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from mcp.types import CallToolResult, ImageContent, TextContent

from pocket_dock_mcp.gate.denials import excerpt
from pocket_dock_mcp.models import MIB, FilesChanged, RunImage, RunResult
from pocket_dock_mcp.output import escaped, neutralise
from pocket_dock_mcp.server.render import block
from pocket_dock_mcp.server.schemas import Change, Changes, RunReply, Session, Usage
from pocket_dock_mcp.server.sizes import MAX_REPLY, fitted, wire_size, within

if TYPE_CHECKING:
    from pocket_dock_mcp.server.following import Found

MAX_OUTPUT = 260_000
"""Bytes of value, stdout and stderr together on their way; what runs are shown by default is far less."""
MAX_CHANGES = 60_000
"""Bytes of changed files."""
_MAX_REST = 60_000
"""Bytes of everything else of a reply but its images: names of images, denials, notes, hints."""
MAX_VALUE = 8 * 1024
MAX_DENIALS = 20
MAX_PATHS = 20
"""Changed files that the text names; the structured result has more."""


def run(
    sandbox_id: str,
    run_id: str,
    result: RunResult,
    *,
    since: bool = False,
    background: bool = False,
    found: Found | None = None,
    checkpoint: str | None = None,
) -> CallToolResult:
    """Render a run.

    Args:
        sandbox_id: where it runs.
        run_id: which one it is.
        result: what is known of it.
        since: whether its output is only what is new since the last reply.
        background: whether it was begun to go on by itself.
        found: what had been waited for, if it has come.
        checkpoint: the copy of its session that was made, or gone back to, before it.
    """
    structured, cut = _structured(sandbox_id, run_id, result)
    images, left = _fitting(result.images, structured)
    structured.artifacts = [_name(image.name) for image in images]
    left += result.images_left
    structured.checkpoint_id = checkpoint
    mark = secrets.token_hex(3)
    parts = [_headline(result, run_id, since=since)]
    if found is not None:
        parts += [found.says] if found.says else []
        parts += block("matched line", neutralise(found.line)[0], "", mark)
    if checkpoint:
        parts.append(f"Before it: checkpoint {_name(checkpoint)}")
    parts += block("result", structured.result or "", "", mark)
    new = "new, of " if since else ""
    parts += block("stdout", structured.stdout, f" ({new}{result.stdout_bytes} bytes)", mark)
    parts += block("stderr", structured.stderr, f" ({new}{result.stderr_bytes} bytes)", mark)
    parts += _remarks(result, structured, left)
    structured.truncated = result.truncated or cut
    structured.hint = _hint(result, run_id, background=background, truncated=structured.truncated)
    if structured.hint:
        parts.append(f"Hint: {structured.hint}")
    content: list[TextContent | ImageContent] = [TextContent(type="text", text="\n".join(parts))]
    content += [
        ImageContent(
            type="image", data=base64.b64encode(image.data).decode("ascii"), mime_type=image.mime_type
        )
        for image in images
    ]
    return CallToolResult(content=[*content], structured_content=structured.model_dump(mode="json"))


def _structured(sandbox_id: str, run_id: str, result: RunResult) -> tuple[RunReply, bool]:
    """Return a run's structured form but for its images, and whether output had to be left out of it."""
    stdout, removed_out = neutralise(result.stdout)
    stderr, removed_err = neutralise(result.stderr)
    value, removed_value = (None, False) if result.value is None else neutralise(result.value[:MAX_VALUE])
    room = MAX_OUTPUT - wire_size(value or "")
    stdout, cut_out = fitted(stdout, max(room - wire_size(stderr), room // 2))
    stderr, cut_err = fitted(stderr, max(room - wire_size(stdout), room // 2))
    session = result.session
    reply = RunReply(
        sandbox_id=sandbox_id,
        run_id=run_id,
        status=result.status,
        exit_code=result.exit_code,
        signal=result.signal,
        result=value,
        stdout=stdout,
        stderr=stderr,
        stdout_bytes=result.stdout_bytes,
        stderr_bytes=result.stderr_bytes,
        truncated=result.truncated,
        control_chars_removed=removed_out or removed_err or removed_value,
        artifacts=[],
        files_changed=_changes(result.files_changed),
        session=None if session is None else Session(name=session.name, new=session.new, alive=session.alive),
        network_denied=[_name(denial) for denial in excerpt(result.network_denied, MAX_DENIALS)],
        checkpoint_id=None,
        usage=Usage(
            wall_s=round(result.usage.wall_s, 4),
            cpu_s=round(result.usage.cpu_s, 4),
            peak_memory_mb=round(result.usage.peak_memory_bytes / MIB, 1),
        ),
        hint=None,
    )
    return reply, cut_out or cut_err


def _headline(result: RunResult, run_id: str, *, since: bool) -> str:
    how: str = result.status
    if result.exit_code is not None:
        how += f", exit code {result.exit_code}"
    elif result.signal is not None and result.status == "signal":
        how += f" {result.signal}"
    how += f", {result.usage.wall_s:.2f} s"
    if not (result.stdout or result.stderr or result.value or result.images):
        how += ", no new output" if since else ", no output"
    session = result.session
    if session is not None and session.new and session.alive:
        how += f", new session {session.name!r}"
    return how if result.status != "running" else f"{how} (run_id: {run_id})"


def _hint(result: RunResult, run_id: str, *, background: bool, truncated: bool) -> str | None:
    if result.status == "running":
        if background:
            return "It goes on. wait_run waits for its end, for output or a port; kill(run_id=...) ends it."
        return "It goes on. Call wait_run with this run_id; kill(run_id=...) ends it."
    if truncated:
        more = (
            f"Head and tail are shown; read_output(run_id={run_id!r}) has the rest, by lines, tail or grep."
        )
        return f"{result.hint} {more}" if result.hint else more
    return result.hint


def _remarks(result: RunResult, structured: RunReply, images_left: int) -> list[str]:
    remarks = []
    if structured.control_chars_removed:
        remarks.append("Control characters were removed from the output.")
    if structured.artifacts:
        remarks.append(f"Images: {', '.join(structured.artifacts)}")
    if images_left:
        remarks.append(f"{images_left} more images are not shown; save them and use read_file.")
    remarks += [f"Note: {_name(note)}" for note in result.notes]
    if structured.network_denied:
        remarks.append(f"Network: {'; '.join(structured.network_denied)}")
    if result.files_changed:
        remarks.append(f"Files: {_listed(result.files_changed)}")
    return remarks


def _listed(changes: FilesChanged) -> str:
    """Name changed files in one line: + created, ~ modified, - deleted."""
    named = itertools.chain(
        (f"+{_name(path)} ({size})" for path, size in changes.created),
        (f"~{_name(path)} ({size})" for path, size in changes.modified),
        (f"-{_name(path)}" for path in changes.deleted),
    )
    shown = within(itertools.islice(named, MAX_PATHS), MAX_CHANGES // 3)
    total = sum(changes.counts)
    text = ", ".join(shown)
    if total > len(shown):
        created, modified, deleted = changes.counts
        text += f", ... in all {created} created, {modified} modified, {deleted} deleted"
    return text + (" (perhaps not all)" if changes.incomplete else "")


def _changes(changes: FilesChanged | None) -> Changes | None:
    if changes is None:
        return None
    told = Changes(
        created=within(_each(changes.created), MAX_CHANGES // 3),
        modified=within(_each(changes.modified), MAX_CHANGES // 3),
        deleted=within(map(_name, changes.deleted), MAX_CHANGES // 3),
        counts=list(changes.counts),
        incomplete=changes.incomplete,
    )
    shown = len(told.created) + len(told.modified) + len(told.deleted)
    if shown < len(changes.created) + len(changes.modified) + len(changes.deleted):
        told.incomplete = True
    return told


def _each(changed: Sequence[tuple[str, int]]) -> Iterator[Change]:
    return (Change(path=_name(path), size=size) for path, size in changed)


def _fitting(images: Sequence[RunImage], structured: RunReply) -> tuple[list[RunImage], int]:
    """Return the images that fit into a reply with what else there is, and how many do not."""
    output = sum(wire_size(text or "") for text in (structured.result, structured.stdout, structured.stderr))
    room, fitting = MAX_REPLY - 2 * output - MAX_CHANGES - _MAX_REST, []
    for image in images:
        size = len(image.data) * 4 // 3 + 100
        if size <= room:
            room -= size
            fitting.append(image)
    return fitting, len(images) - len(fitting)


def _name(text: str) -> str:
    """Return a name that cannot act on a terminal or break out of its line, and is still the same name."""
    return escaped(text)[0]
