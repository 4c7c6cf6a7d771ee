"""Images that a run has saved to files: they come back with its reply, as its figures do."""

from __future__ import annotations

import posixpath
from dataclasses import replace

from pocket_dock_mcp.container.core import LiveContainer
from pocket_dock_mcp.errors import FileError, SandboxError
from pocket_dock_mcp.models import FilesChanged, RunImage, RunResult
from pocket_dock_mcp.server.image_files import MAX_BYTES, can_be_shown, format_of
from pocket_dock_mcp.server.pictures import scaled

SUFFIXES = (".png", ".jpg", ".jpeg", ".gif", ".webp")
MAX_FILES = 8
"""Image files of one run that are looked at; the others are named among the changed files."""


async def with_saved_images(container: LiveContainer, result: RunResult) -> RunResult:
    """Return the result with the images that the run has saved, and without what only looks like one.

    A figure that the program rendered itself was most likely what it saved, and is not shown twice.
    """
    paths = _image_paths(result.files_changed)
    if not paths and not result.images:
        return result
    saved = [image for path in paths[:MAX_FILES] if (image := await _image(container, path)) is not None]
    figures = [image for image in result.images if can_be_shown(image.data)]
    shown = [image for image in figures if not (image.drawn and saved)]
    left = result.images_left + max(0, len(paths) - MAX_FILES)
    return replace(result, images=(*shown, *saved), images_left=left)


def _image_paths(changes: FilesChanged | None) -> list[str]:
    if changes is None:
        return []
    changed = (*changes.created, *changes.modified)
    return [path for path, size in changed if size and path.lower().endswith(SUFFIXES)]


async def _image(container: LiveContainer, path: str) -> RunImage | None:
    """Return an image file as it is, or a smaller copy of it; None if it cannot be shown."""
    name = posixpath.basename(path)
    try:
        found = await container.read_file(path, max_bytes=MAX_BYTES + 1)
        form = format_of(found.data)
        if form is not None and can_be_shown(found.data):
            return RunImage(name, form.mime_type, found.data)
        picture = await scaled(container, path)
    except (FileError, SandboxError):
        # It has gone meanwhile, or the sandbox has; the run itself is not concerned.
        return None
    if isinstance(picture, str):
        return None
    return RunImage(name, picture.format.mime_type, picture.data)
