"""Pure: exact replacements in a text, all of them or none, and what they changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pocket_dock_mcp.container.nearest import nearest_lines
from pocket_dock_mcp.container.patches import Patches
from pocket_dock_mcp.errors import (
    EditAmbiguousError,
    EditNotFoundError,
    FileNotTextError,
    FileTooLargeError,
    InvalidArgumentError,
)
from pocket_dock_mcp.models import MIB, Edit

MAX_EDITED_BYTES = 16 * MIB
"""Of a file, before and after: it is held in memory several times."""
MAX_EDITS = 1000
_MAX_PLACES_TOLD = 10
_MAX_PLACES = 100_000


@dataclass(frozen=True, slots=True)
class Edited:
    """What came of some edits."""

    data: bytes
    replacements: tuple[int, ...]
    diff: str
    diff_truncated: bool


def check_edits(edits: Sequence[Edit]) -> None:
    """Refuse edits that can never work. Raises `InvalidArgumentError`."""
    if not 0 < len(edits) <= MAX_EDITS:
        message = f"There are {len(edits)} edits; there must be from 1 to {MAX_EDITS}."
        raise InvalidArgumentError(message)
    for number, edit in enumerate(edits, 1):
        if not edit.old:
            message = f"The old text of edit {number} is empty."
            raise InvalidArgumentError(
                message, hint="Name the text to replace; to add text, replace its neighbour by both."
            )
        if edit.old == edit.new:
            message = f"Edit {number} changes nothing: its old and new text are the same."
            raise InvalidArgumentError(message)
        try:
            (edit.old + edit.new).encode("utf-8")
        except UnicodeEncodeError:
            message = f"Edit {number} has a character that UTF-8 cannot hold."
            raise InvalidArgumentError(message) from None


def apply_edits(path: str, data: bytes, edits: Sequence[Edit]) -> Edited:
    """Return what the edits make of a file, one after the other. Line ends stay what they are in it.

    Raises:
        FileNotTextError: it is not UTF-8.
        EditNotFoundError, EditAmbiguousError: an edit does not fit; it says which, and where.
        FileTooLargeError: too much would come of it.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        message = f"{path!r} is not UTF-8 text (byte {error.start})."
        raise FileNotTextError(message, hint="Change it with a program, by run_command.") from None
    has_crlf = text.count("\r\n") * 2 > text.count("\n")
    patches = Patches(text)
    counts = []
    for number, edit in enumerate(edits, 1):
        old, new = _as_in_file(patches.text, edit, has_crlf=has_crlf)
        which = f" of edit {number} (of {len(edits)})" if len(edits) > 1 else ""
        places = _places(path, patches.text, old, edit, which)
        if len(patches.text) + len(places) * (len(new) - len(old)) > MAX_EDITED_BYTES:
            raise _too_large(path)
        patches.replace(places, len(old), new)
        counts.append(len(places))
    changed = patches.text.encode("utf-8")
    if len(changed) > MAX_EDITED_BYTES:
        raise _too_large(path)
    diff, truncated = patches.diff()
    return Edited(changed, tuple(counts), diff, truncated)


def _as_in_file(text: str, edit: Edit, *, has_crlf: bool) -> tuple[str, str]:
    """Return what to replace by what, with the line ends of the file. Whoever writes a ``\\r`` means it."""
    if not has_crlf or "\r" in edit.old:
        return edit.old, edit.new
    old = edit.old if edit.old in text else _with_crlf(edit.old)
    return old, _with_crlf(edit.new)


def _with_crlf(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\n", "\r\n")


def _places(path: str, text: str, old: str, edit: Edit, which: str) -> list[int]:
    """Return where the old text is: one place, or all without overlap."""
    first = text.find(old)
    if first < 0:
        raise _not_found(path, text, edit, which)
    if not edit.all:
        if text.find(old, first + 1) >= 0:
            raise _ambiguous(path, text, old, which)
        return [first]
    places = []
    while first >= 0:
        places.append(first)
        first = text.find(old, first + len(old))
        if len(places) > _MAX_PLACES:
            message = f"The old text{which} is in {path!r} more than {_MAX_PLACES} times."
            raise FileTooLargeError(message, hint="Replace it with a program such as sed, by run_command.")
    return places


def _too_large(path: str) -> FileTooLargeError:
    message = f"With the edits {path!r} would have more than {MAX_EDITED_BYTES} bytes."
    return FileTooLargeError(message, hint="Nothing was changed.")


def _not_found(path: str, text: str, edit: Edit, which: str) -> EditNotFoundError:
    near = nearest_lines(text, edit.old)
    hint = "Nothing was changed. Read the file and copy the old text exactly."
    if near is None:
        message = f"The old text{which} is not in {path!r}, nor anything like it."
        return EditNotFoundError(message, hint=hint)
    how = "Only white space differs here" if near.white_space else "This is most like it"
    message = f"The old text{which} is not in {path!r}."
    return EditNotFoundError(message, hint=f"{hint} {how}:", excerpt=near.shown)


def _ambiguous(path: str, text: str, old: str, which: str) -> EditAmbiguousError:
    lines: dict[str, None] = {}
    found, line, last, place = 0, 1, 0, text.find(old)
    while place >= 0 and found < _MAX_PLACES_TOLD:
        found += 1
        line += text.count("\n", last, place)
        lines[str(line)] = None
        # Those that overlap count too: it is not clear which is meant.
        last, place = place, text.find(old, place + 1)
    where = f"line{'s' if len(lines) > 1 else ''} {', '.join(lines)}{', ...' if place >= 0 else ''}"
    message = f"The old text{which} is in {path!r} {max(text.count(old), found)} times ({where})."
    return EditAmbiguousError(
        message, hint="Nothing was changed. Add lines around it to make it the only one, or set all to true."
    )
