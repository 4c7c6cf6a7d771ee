"""Tools for the files of a sandbox."""

from __future__ import annotations

from typing import Annotated, Literal

from mcp.types import CallToolResult
from pydantic import Field

from pocket_dock_mcp.models import Edit
from pocket_dock_mcp.server import reading, render_files
from pocket_dock_mcp.server.call import Ctx, Tools, told
from pocket_dock_mcp.server.file_schemas import EditIn, EditReply, FindReply, Path, ReadReply, WriteReply
from pocket_dock_mcp.server.owners import owner_of
from pocket_dock_mcp.server.schemas import SandboxId

MAX_RESULTS = 1000
MAX_FOUND_BYTES = 40 * 1024
"""Of search results in one reply, which carries them twice: about 8,000 tokens of text."""


class FileTools(Tools):
    """The tool functions, over one manager."""

    @told
    async def write_file(
        self,
        ctx: Ctx,
        path: Path,
        content: Annotated[str, Field(description="The whole new content, or what to append.")],
        sandbox_id: SandboxId = None,
        append: Annotated[bool, Field(description="Add to the end instead of replacing.")] = False,
        encoding: Annotated[
            Literal["utf-8", "base64"], Field(description="How content is given; base64 for binary.")
        ] = "utf-8",
        mode: Annotated[
            str | None,
            Field(
                description="Octal permission bits such as '755'. Default: as before, or 644.",
                pattern="^[0-7]{3,4}$",
            ),
        ] = None,
    ) -> Annotated[CallToolResult, WriteReply]:
        """Create a file in a sandbox, overwrite it atomically, or append to it; says which it was. Missing
        directories are made. To change parts of a text file use edit_file."""
        data = reading.decode_content(content, encoding)
        sandbox = await self._manager.open(owner_of(ctx), sandbox_id)
        with sandbox.use() as container:
            bits = None if mode is None else int(mode, 8)
            done = await container.write_file(path, data, mode=bits, append=append)
            what = "append" if append else "write"
            sandbox.log.write("file", what=what, path=done.path, size_bytes=done.size)
        return render_files.written(sandbox.id, done, len(data) if append else None)

    @told
    async def edit_file(
        self,
        ctx: Ctx,
        path: Path,
        edits: Annotated[list[EditIn], Field(description="Applied in this order, all of them or none.")],
        sandbox_id: SandboxId = None,
    ) -> Annotated[CallToolResult, EditReply]:
        """Change a text file in a sandbox by exact replacement, atomically, and return a diff. Nothing is changed
        if an old text is missing or not unique: the error shows the nearest lines or the places."""
        wanted = [Edit(edit.old, edit.new, edit.all) for edit in edits]
        sandbox = await self._manager.open(owner_of(ctx), sandbox_id)
        with sandbox.use() as container:
            done = await container.edit_file(path, wanted)
            sandbox.log.write("file", what="edit", path=done.path, size_bytes=done.size)
        return render_files.edited(sandbox.id, done)

    @told
    async def read_file(
        self,
        ctx: Ctx,
        path: Path,
        sandbox_id: SandboxId = None,
        start_line: Annotated[
            int, Field(description="First line to return, from 1; -20 begins 20 lines before the end.")
        ] = 1,
        lines: Annotated[int | None, Field(description="How many lines. Default: as many as fit.")] = None,
        start_byte: Annotated[
            int | None, Field(description="Begin at this byte instead, for binary files and very long lines.")
        ] = None,
        encoding: Annotated[
            Literal["auto", "utf-8", "base64"],
            Field(description="'auto': text as it is, images to look at, anything else as base64."),
        ] = "auto",
    ) -> Annotated[CallToolResult, ReadReply]:
        """Read a file from a sandbox: text by lines, images (PNG, JPEG, GIF, WebP) as images, binary as base64.
        Long files come in parts of about 32 KB; the reply says how to go on."""
        asked = reading.Asked(path, start_line, lines, start_byte, encoding)
        sandbox = await self._manager.open(owner_of(ctx), sandbox_id)
        with sandbox.use() as container:
            found = await reading.read(container, asked)
        return render_files.read(sandbox.id, asked, found)

    @told
    async def find_files(
        self,
        ctx: Ctx,
        path: Annotated[str, Field(description="Directory (or one file) to search. Default: home.")] = ".",
        sandbox_id: SandboxId = None,
        glob: Annotated[
            str | None,
            Field(
                description="Such as '*.py' (at any depth), 'src/**/*.{ts,tsx}', or './*' for path's own entries."
            ),
        ] = None,
        grep: Annotated[
            str | None,
            Field(description="Python regular expression to find in lines of text files; (?i) ignores case."),
        ] = None,
        max_results: Annotated[int, Field(description="Files or lines to return, up to 1000.")] = 100,
        hidden: Annotated[
            bool, Field(description="Also search dot files, node_modules and __pycache__.")
        ] = False,
    ) -> Annotated[CallToolResult, FindReply]:
        """List a directory tree in a sandbox, find files by name, or search their lines, nearest first. Links
        are not followed."""
        sandbox = await self._manager.open(owner_of(ctx), sandbox_id)
        with sandbox.use() as container:
            done = await container.find_files(
                path,
                glob=glob,
                grep=grep,
                max_results=min(max_results, MAX_RESULTS),
                max_bytes=MAX_FOUND_BYTES,
                hidden=hidden,
            )
        return render_files.found(sandbox.id, done, grep=grep is not None)
