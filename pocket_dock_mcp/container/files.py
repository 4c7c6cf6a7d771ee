"""The files of one container: arguments are checked, paths made absolute, and the transport asked."""

from __future__ import annotations

from collections.abc import Sequence

import anyio.to_thread

from pocket_dock_mcp.agent.inside import wire
from pocket_dock_mcp.agent.transport import Transport
from pocket_dock_mcp.container.arguments import checked_path, encoded, is_of
from pocket_dock_mcp.container.edits import MAX_EDITED_BYTES, apply_edits, check_edits
from pocket_dock_mcp.container.finding import Root
from pocket_dock_mcp.errors import (
    FileChangedError,
    FileIsDirectoryError,
    FileTooLargeError,
    InvalidArgumentError,
)
from pocket_dock_mcp.models import MIB, Edit, FileContent, FileEdited, FileEntry, FileWritten

MAX_FILE_BYTES = 1024 * MIB
MAX_LISTED = 10_000


class Files:
    """What `LiveContainer` does with files; its methods say what these do."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def write(self, path: str, content: str | bytes, *, mode: int | None, append: bool) -> FileWritten:
        """Create or replace a file, or add to its end."""
        data = encoded("the content", content)
        limit = wire.MAX_APPEND if append else MAX_FILE_BYTES
        if len(data) > limit:
            what = "append" if append else "call"
            message = f"The content has {len(data)} bytes; one {what} takes at most {limit}."
            raise FileTooLargeError(message, hint="Write it in parts.")
        if mode is not None and not (is_of(mode, int) and 0 <= mode <= 0o777):
            said = f"{mode:o}" if is_of(mode, int) else repr(mode)
            message = f"mode is {said}; it must be permission bits from 0 to 777 (octal)."
            raise InvalidArgumentError(message)
        return await self._transport.write(self._file(path), data, mode=mode, append=append)

    async def edit(self, path: str, edits: Sequence[Edit]) -> FileEdited:
        """Replace exact pieces of a text file."""
        check_edits(edits)
        where = self._file(path)
        found = await self._transport.read(where, offset=0, length=MAX_EDITED_BYTES + 1)
        if found.size > MAX_EDITED_BYTES:
            message = f"{path!r} has {found.size} bytes; edits take files of at most {MAX_EDITED_BYTES}."
            raise FileTooLargeError(message, hint="Change it with a program, by run_command.")
        if not found.complete:
            message = f"{path!r} was changed while it was read."
            raise FileChangedError(message)
        # In a thread: to look through some megabytes takes a moment, in which others are served.
        edited = await anyio.to_thread.run_sync(apply_edits, path, found.data, edits)
        written = await self._transport.write(where, edited.data, mode=None, expect=found.version)
        return FileEdited(
            path=written.path,
            size=written.size,
            replacements=edited.replacements,
            diff=edited.diff,
            diff_truncated=edited.diff_truncated,
        )

    async def read(self, path: str, *, offset: int, max_bytes: int) -> FileContent:
        """Read a file or a piece of it."""
        if offset < 0 or not 0 < max_bytes <= MAX_FILE_BYTES:
            message = f"offset must not be negative, and max_bytes must be from 1 to {MAX_FILE_BYTES}."
            raise InvalidArgumentError(message)
        return await self._transport.read(self.absolute(path), offset=offset, length=max_bytes)

    async def list(self, path: str, *, limit: int) -> tuple[list[FileEntry], bool]:
        """List a directory."""
        if not 0 < limit <= MAX_LISTED:
            message = f"limit is {limit}; it must be from 1 to {MAX_LISTED}."
            raise InvalidArgumentError(message)
        entries, more = await self._transport.list_directory(self.absolute(path), limit=limit)
        return sorted(entries, key=lambda entry: entry.name), more

    def searched(self, path: str) -> Root:
        """Return where a search begins."""
        if self._transport.facts.python is None:
            message = "A search needs python3, which this sandbox's image has not."
            raise InvalidArgumentError(message, hint="Use run_command with find or grep.")
        return Root(path, self.absolute(path), self._transport.facts.home)

    def absolute(self, path: str) -> str:
        """Return the path as the transport wants it: relative ones start in the home directory."""
        path = checked_path(path)
        return path if path.startswith("/") else f"{self._transport.facts.home}/{path}"

    def _file(self, path: str) -> str:
        """Return the absolute path of a file that is to be written. Its name must not be a directory's."""
        where = self.absolute(path)
        if where.endswith(("/", "/.", "/..")):
            message = f"{path!r} names a directory."
            raise FileIsDirectoryError(
                message, hint="Give the path of the file; directories are made for it."
            )
        return where
