"""Pure: runs as text for a model to read, as images, and as structured data.

What a program printed is data: it stands between marks that it cannot have known, and without characters
that could act on a terminal. A line is there only if it says something: most runs are a headline and output.
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Sequence

from mcp.types import CallToolResult, ImageContent, TextContent

from pocket_dock_mcp.models import MIB, FilesChanged, RunImage, RunResult
from pocket_dock_mcp.output import escaped, neutralise
from pocket_dock_mcp.server.render import block
from pocket_dock_mcp.server.schemas import Change, Changes, RunReply, Session, Usage

MAX_IMAGE_BYTES = 640 * 1024
"""Of all images of one reply: as base64 they are a third more, and clients drop a message over 1 MiB."""
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
    found: str | None = None,
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
    images, left = _fitting(result.images)
    left += result.images_left
    structured = _structured(sandbox_id, run_id, result, images)
    structured.checkpoint_id = checkpoint
    mark = secrets.token_hex(3)
    parts = [_headline(result, run_id, since=since)]
    if found:
        parts.append(_name(found))
    if checkpoint:
        parts.append(f"Before it: checkpoint {_name(checkpoint)}")
    parts += block("result", structured.result or "", "", mark)
    new = "new, of " if since else ""
    parts += block("stdout", structured.stdout, f" ({new}{result.stdout_bytes} bytes)", mark)
    parts += block("stderr", structured.stderr, f" ({new}{result.stderr_bytes} bytes)", mark)
    parts += _remarks(result, structured, left)
    structured.hint = _hint(result, run_id, background=background)
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


def _structured(sandbox_id: str, run_id: str, result: RunResult, images: Sequence[RunImage]) -> RunReply:
    stdout, removed_out = neutralise(result.stdout)
    stderr, removed_err = neutralise(result.stderr)
    value, removed_value = (None, False) if result.value is None else neutralise(result.value[:MAX_VALUE])
    session = result.session
    return RunReply(
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
        artifacts=[_name(image.name) for image in images],
        files_changed=_changes(result.files_changed),
        session=None if session is None else Session(name=session.name, new=session.new, alive=session.alive),
        network_denied=[_name(denial) for denial in result.network_denied[:MAX_DENIALS]],
        checkpoint_id=None,
        usage=Usage(
            wall_s=round(result.usage.wall_s, 4),
            cpu_s=round(result.usage.cpu_s, 4),
            peak_memory_mb=round(result.usage.peak_memory_bytes / MIB, 1),
        ),
        hint=None,
    )


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


def _hint(result: RunResult, run_id: str, *, background: bool) -> str | None:
    if result.status == "running":
        if background:
            return "It goes on. wait_run waits for its end, for output or a port; kill(run_id=...) ends it."
        return "It goes on. Call wait_run with this run_id; kill(run_id=...) ends it."
    if result.truncated:
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
    named = [f"+{_name(path)} ({size})" for path, size in changes.created]
    named += [f"~{_name(path)} ({size})" for path, size in changes.modified]
    named += [f"-{_name(path)}" for path in changes.deleted]
    shown, total = named[:MAX_PATHS], sum(changes.counts)
    text = ", ".join(shown)
    if total > len(shown):
        created, modified, deleted = changes.counts
        text += f", ... in all {created} created, {modified} modified, {deleted} deleted"
    return text + (" (perhaps not all)" if changes.incomplete else "")


def _changes(changes: FilesChanged | None) -> Changes | None:
    if changes is None:
        return None
    return Changes(
        created=[Change(path=_name(path), size=size) for path, size in changes.created],
        modified=[Change(path=_name(path), size=size) for path, size in changes.modified],
        deleted=[_name(path) for path in changes.deleted],
        counts=list(changes.counts),
        incomplete=changes.incomplete,
    )


def _fitting(images: Sequence[RunImage]) -> tuple[list[RunImage], int]:
    """Return the images that fit into a reply, and how many do not."""
    room, fitting = MAX_IMAGE_BYTES, []
    for image in images:
        if len(image.data) <= room:
            room -= len(image.data)
            fitting.append(image)
    return fitting, len(images) - len(fitting)


def _name(text: str) -> str:
    """Return a name that cannot act on a terminal or break out of its line, and is still the same name."""
    return escaped(text)[0]
