"""`Container`: one running container, for programs without an event loop."""

from __future__ import annotations

from types import TracebackType

from anyio.from_thread import BlockingPortal
from typing_extensions import Unpack

from pocket_dock_mcp.container.core import DEFAULT_OUTPUT_BYTES, LiveContainer
from pocket_dock_mcp.container.files import MAX_FILE_BYTES, MAX_LISTED
from pocket_dock_mcp.container.options import RunOptions
from pocket_dock_mcp.errors import SandboxClosedError
from pocket_dock_mcp.models import ContainerInfo, FileContent, FileEntry, FileWritten, RunResult
from pocket_dock_mcp.sync.portal import call


class Container:
    """One running container, as `LiveContainer`, with methods that block. Any thread may call them.

    Made by `ContainerPool.claim`. Use it as a context manager: leaving it ends the container.
    """

    def __init__(self, portal: BlockingPortal, container: LiveContainer) -> None:
        self._portal = portal
        self._container = container

    def __enter__(self) -> Container:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return repr(self._container).replace("LiveContainer", "Container", 1)

    @property
    def name(self) -> str:
        """The container's name on the engine."""
        return self._container.name

    @property
    def home(self) -> str:
        """The user's home directory: where relative paths start, and programs."""
        return self._container.home

    def run(
        self, code: str, *, output_bytes: int = DEFAULT_OUTPUT_BYTES, **options: Unpack[RunOptions]
    ) -> RunResult:
        """Run a shell command or source to its end and return what came of it; see `LiveContainer.run`.

        Ctrl-C kills the run, and the container goes on.
        """
        return call(self._portal, self._container.run, code, output_bytes=output_bytes, **options)

    def write_file(
        self, path: str, content: str | bytes, *, mode: int | None = None, append: bool = False
    ) -> FileWritten:
        """Create or replace a file at once, or add to its end; see `LiveContainer.write_file`."""
        return call(self._portal, self._container.write_file, path, content, mode=mode, append=append)

    def read_file(self, path: str, *, offset: int = 0, max_bytes: int = MAX_FILE_BYTES) -> FileContent:
        """Read a regular file or a piece of it; see `LiveContainer.read_file`."""
        return call(self._portal, self._container.read_file, path, offset=offset, max_bytes=max_bytes)

    def list_files(self, path: str = ".", *, limit: int = MAX_LISTED) -> tuple[list[FileEntry], bool]:
        """Return a directory's entries, and whether there are more; see `LiveContainer.list_files`."""
        return call(self._portal, self._container.list_files, path, limit=limit)

    def info(self) -> ContainerInfo:
        """Return what it is and what it uses now; see `LiveContainer.info`."""
        return call(self._portal, self._container.info)

    def close(self) -> None:
        """End it and everything in it. Idempotent; quiet when it is gone already."""
        try:
            call(self._portal, self._container.aclose)
        except SandboxClosedError:
            # It went with its pool.
            pass
