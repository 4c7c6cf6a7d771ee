"""Pure: what was done with files as text for a model to read, as images, and as structured data.

What is in a file is data: it stands between marks that it cannot have known, and without characters that
could act on a terminal or hide something. So it is in the structured result, which says whether it had any.
"""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Sequence

from mcp.types import CallToolResult, ImageContent

from pocket_dock_mcp.models import FileEdited, FileLines, FilesFound, FileWritten, FoundFile, FoundLine
from pocket_dock_mcp.output import escaped, neutralise
from pocket_dock_mcp.server.file_schemas import EditReply, FindReply, Found, Match, ReadReply, WriteReply
from pocket_dock_mcp.server.image_files import MAX_BYTES, MAX_SIDE
from pocket_dock_mcp.server.pictures import Picture
from pocket_dock_mcp.server.reading import Asked, Image, Part
from pocket_dock_mcp.server.render import block, count, plain, reply
from pocket_dock_mcp.server.sizes import within
from pocket_dock_mcp.spool.text import without_cut_end

MAX_FOUND = 300_000
"""Bytes of files or lines on their way, of which there are some hundred as a rule."""


def written(sandbox_id: str, result: FileWritten, appended: int | None) -> CallToolResult:
    """Render a write; `appended` is how many bytes were added, None if the file was replaced."""
    path, size = plain(result.path), count(result.size, "byte")
    structured = WriteReply(sandbox_id=sandbox_id, path=path, size=result.size, overwrote=result.overwrote)
    if not result.overwrote:
        return reply(f"Created {path} ({size}).", structured)
    if appended is not None:
        return reply(f"Appended {count(appended, 'byte')} to {path}; it has {size} now.", structured)
    return reply(f"Replaced {path} ({size}).", structured)


def edited(sandbox_id: str, result: FileEdited) -> CallToolResult:
    """Render edits."""
    path, counts = plain(result.path), result.replacements
    diff, is_changed = _harmless(result.diff)
    structured = EditReply(
        sandbox_id=sandbox_id,
        path=path,
        size=result.size,
        replacements=list(counts),
        diff=diff,
        diff_truncated=result.diff_truncated,
        control_chars_removed=is_changed,
    )
    by_edit = f" (by edit: {', '.join(map(str, counts))})" if len(counts) > 1 else ""
    parts = [f"Edited {path}: {count(sum(counts), 'replacement')}{by_edit}."]
    parts += block("diff", neutralise(result.diff)[0])
    if result.diff_truncated:
        parts.append("The diff is longer; this is its beginning.")
    return reply("\n".join(parts), structured)


# -- reading --------------------------------------------------------------------------------------


def read(sandbox_id: str, asked: Asked, found: FileLines | Part | Image) -> CallToolResult:
    """Render a file or a part of it."""
    if isinstance(found, Image):
        return _image(sandbox_id, asked, found)
    if isinstance(found, Part):
        return _part(sandbox_id, asked, found)
    return _lines(sandbox_id, asked, found)


def _lines(sandbox_id: str, asked: Asked, found: FileLines) -> CallToolResult:
    data = without_cut_end(found.data) if found.partial else found.data
    end = found.start_byte + len(data)
    shown = found.end_line - found.start_line + 1
    cut = found.more and (found.partial or asked.lines is None or shown < asked.lines)
    content, is_changed = _harmless(data.decode("utf-8", "replace"))
    structured = ReadReply(
        sandbox_id=sandbox_id,
        path=asked.path,
        content=content,
        encoding="utf-8",
        control_chars_removed=is_changed,
        size=found.size,
        total_lines=found.total_lines,
        start_line=found.start_line,
        end_line=found.end_line,
        start_byte=found.start_byte,
        next_byte=end if end < found.size else None,
        truncated=cut,
    )
    parts = [_headline(plain(asked.path), found), *_text(structured, data)]
    if cut and found.partial:
        parts.append(f"The line is longer: go on in it with start_byte={structured.next_byte}.")
    elif cut:
        parts.append(f"There is more: go on with start_line={found.end_line + 1}.")
    return reply("\n".join(parts), structured)


def _headline(path: str, found: FileLines) -> str:
    size = count(found.size, "byte")
    if not found.size:
        return f"{path} is empty."
    total = found.total_lines
    if not found.data and total is not None:
        return f"{path} has {count(total, 'line')}: there is no line {found.start_line}."
    if found.partial:
        end = found.start_byte + len(without_cut_end(found.data)) - 1
        return f"{path}: line {found.start_line}, bytes {found.start_byte}-{end} of {found.size}"
    if found.start_line == 1 and found.end_line == total:
        return f"{path}: {count(total, 'line')}, {size}"
    lines = f"lines {found.start_line}-{found.end_line}"
    if found.start_line == found.end_line:
        lines = f"line {found.start_line}"
    return f"{path}: {lines}{f' of {total}' if total else ''}, {size} in all"


def _part(sandbox_id: str, asked: Asked, found: Part) -> CallToolResult:
    end = found.start_byte + len(found.data)
    if found.is_text:
        content, is_changed = _harmless(found.data.decode("utf-8", "replace"))
    else:
        content, is_changed = base64.b64encode(found.data).decode("ascii"), False
    structured = ReadReply(
        sandbox_id=sandbox_id,
        path=asked.path,
        content=content,
        encoding="utf-8" if found.is_text else "base64",
        control_chars_removed=is_changed,
        size=found.size,
        total_lines=None,
        start_line=None,
        end_line=None,
        start_byte=found.start_byte,
        next_byte=end if end < found.size else None,
        truncated=end < found.size,
    )
    path, size = plain(asked.path), count(found.size, "byte")
    if not found.data:
        what = (
            f"{path} has {size}: there is no byte {found.start_byte}." if found.size else f"{path} is empty."
        )
        return reply(what, structured)
    what = f"{path}: {size}"
    if len(found.data) < found.size:
        what = f"{path}: bytes {found.start_byte}-{end - 1} of {found.size}"
    if not found.is_text:
        what += ", base64"
    parts = [what, *_text(structured, found.data)]
    if structured.next_byte is not None:
        parts.append(f"There is more: go on with start_byte={structured.next_byte}.")
    return reply("\n".join(parts), structured)


def _harmless(text: str) -> tuple[str, bool]:
    """Return a text, as it is unless it has control characters, which are removed; and whether it has any."""
    clean, is_changed = neutralise(text)
    return (clean if is_changed else text), is_changed


def _text(structured: ReadReply, data: bytes) -> list[str]:
    """Return a file's content between marks, and what is to be known of it. `data` is the same, unchanged."""
    # Of a file of empty lines there is something to show, too.
    parts = block("file", structured.content.replace("\r\n", "\n") or "\n") if data else []
    is_text = structured.encoding == "utf-8"
    if is_text and b"\r\n" in data:
        parts.append("Lines end with CRLF.")
    if structured.control_chars_removed:
        parts.append("Control characters are not shown here; encoding='base64' has them.")
    if is_text and not _is_utf8(data):
        parts.append("Bytes that are not UTF-8 are shown as \ufffd; encoding='base64' has them.")
    return parts


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _image(sandbox_id: str, asked: Asked, found: Image) -> CallToolResult:
    path, form = plain(asked.path), found.format
    what = f"{path}: {form.name} image"
    if form.width and form.height:
        what += f", {form.width}x{form.height}"
    what += f", {count(found.size, 'byte')}"
    structured = ReadReply(
        sandbox_id=sandbox_id,
        path=asked.path,
        content="",
        encoding="image",
        control_chars_removed=False,
        size=found.size,
        total_lines=None,
        start_line=None,
        end_line=None,
        start_byte=None,
        next_byte=None,
        truncated=not isinstance(found.shown, Picture),
    )
    if not isinstance(found.shown, Picture):
        fits = form.fits(found.size)
        why = f"It is too large to be shown (over {MAX_SIDE} px or {MAX_BYTES // 1000} KB), and {found.shown}"
        advice = "Convert it in the sandbox, or read its bytes with encoding='base64'."
        return reply(f"{what}. {'It seems to be damaged' if fits else why}. {advice}", structured)
    shown = found.shown.format
    if (shown.width, shown.height) != (form.width, form.height):
        what += f"; shown at {shown.width}x{shown.height}"
    done = reply(what, structured)
    data = base64.b64encode(found.shown.data).decode("ascii")
    image = ImageContent(type="image", data=data, mime_type=shown.mime_type)
    return done.model_copy(update={"content": [*done.content, image]})


# -- finding --------------------------------------------------------------------------------------


def found(sandbox_id: str, result: FilesFound, *, grep: bool) -> CallToolResult:
    """Render a search."""
    files = within(map(_found, result.files), MAX_FOUND)
    matches = within(map(_match, result.lines), MAX_FOUND)
    if len(files) < len(result.files) or len(matches) < len(result.lines):
        result = dataclasses.replace(result, more=True)
    structured = FindReply(
        sandbox_id=sandbox_id,
        files=files,
        matches=matches,
        more=result.more,
        timed_out=result.timed_out,
        skipped=result.skipped,
    )
    parts = [_summary(structured, grep=grep)]
    parts += block("found", "\n".join(_by_file(matches) if grep else map(_name, files)))
    if any(file.escaped for file in files) or any(match.escaped for match in matches):
        parts.append("Of names that are marked (escaped), \\xNN is a byte and \\uNNNN a character.")
    parts += _remarks(result, is_empty=not files and not matches)
    return reply("\n".join(parts), structured)


def _match(line: FoundLine) -> Match:
    path, is_escaped = escaped(line.path)
    text = neutralise(line.text)[0].encode("utf-8", "backslashreplace").decode("utf-8")
    return Match(path=path, line=line.line, text=text, escaped=is_escaped)


def _found(file: FoundFile) -> Found:
    path, is_escaped = escaped(file.path)
    return Found(path=path, type=file.type, size=file.size, escaped=is_escaped)


def _summary(structured: FindReply, *, grep: bool) -> str:
    least = "The first " if structured.more else ""
    if not structured.files and not structured.matches:
        return "Nothing was found."
    if not grep:
        return f"{least}{count(len(structured.files), 'entry', 'entries')}; sizes in bytes:"
    files = len({match.path for match in structured.matches})
    return f"{least}{count(len(structured.matches), 'matching line')}, in {count(files, 'file')}:"


def _name(file: Found) -> str:
    path = file.path + (" (escaped)" if file.escaped else "")
    if file.type == "directory":
        return f"{path}/"
    return f"{path} {file.size if file.type == 'file' else f'({file.type})'}"


def _by_file(matches: Sequence[Match]) -> list[str]:
    lines = []
    for at, match in enumerate(matches):
        if at == 0 or matches[at - 1].path != match.path:
            lines.append(match.path + (" (escaped)" if match.escaped else ""))
        lines.append(f"  {match.line}: {match.text}")
    return lines


def _remarks(result: FilesFound, *, is_empty: bool) -> list[str]:
    remarks = []
    if result.timed_out:
        remarks.append("The time was up before all was searched: narrow path or glob.")
    if result.more:
        remarks.append("There are more: narrow path, glob or grep, or raise max_results.")
    if is_empty and result.skipped:
        entries = count(result.skipped, "hidden or vendored entry was", "hidden or vendored entries were")
        remarks.append(
            f"{entries} not searched: hidden=true includes {'it' if result.skipped == 1 else 'them'}."
        )
    if is_empty and result.binary:
        remarks.append(f"{count(result.binary, 'binary file')} could not be searched.")
    if result.unreadable:
        remarks.append(f"{count(result.unreadable, 'entry', 'entries')} could not be read.")
    return remarks
