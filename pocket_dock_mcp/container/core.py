"""`AsyncContainer`: everything that can be done with one running container."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from types import TracebackType
from typing import NoReturn

import anyio
from typing_extensions import Unpack

from pocket_dock_mcp.container.arguments import check_output_bytes
from pocket_dock_mcp.container.files import MAX_FILE_BYTES, MAX_LISTED, Files
from pocket_dock_mcp.container.finding import FindOptions, find
from pocket_dock_mcp.container.launch import Launch, Running, launch
from pocket_dock_mcp.container.options import RunOptions, checked_program
from pocket_dock_mcp.container.run import AsyncRun
from pocket_dock_mcp.container.store import OutputStore
from pocket_dock_mcp.engine.base import Engine
from pocket_dock_mcp.errors import (
    AgentError,
    ContainerGoneError,
    EngineError,
    InvalidArgumentError,
    PocketDockError,
    SandboxClosedError,
    SandboxLostError,
)
from pocket_dock_mcp.models import (
    ContainerInfo,
    Edit,
    FileContent,
    FileEdited,
    FileEntry,
    FilesFound,
    FileWritten,
    RunResult,
    RunStatus,
    SessionInfo,
)

logger = logging.getLogger(__name__)

DEFAULT_TIMEOUT_S = 60.0
DEFAULT_OUTPUT_BYTES = 1024 * 1024
MAX_PORT = 65_535
CANCEL_DEADLINE = 10.0
"""Seconds for killing a run whose caller is gone, before it is left to its own time limit."""
GONE_DEADLINE = 2.0
"""Seconds to find out whether a container whose stream broke is really gone."""


class AsyncContainer:
    """One running container, held by its lease: it dies when this object is closed, or this process ends.

    Made by `create`. All methods may be called concurrently.
    """

    def __init__(
        self, engine: Engine, wanted: Launch, running: Running, store: OutputStore | None = None
    ) -> None:
        self._engine = engine
        self._wanted = wanted
        self._running = running
        self._transport = running.transport
        self._files = Files(running.transport)
        self._store = store or OutputStore()
        self._closed = False
        self._removed = False
        self._lost: SandboxLostError | None = None

    @classmethod
    async def create(cls, engine: Engine, wanted: Launch, store: OutputStore | None = None) -> AsyncContainer:
        """Launch a container, whose output goes to `store`; see `launch` for what it raises."""
        return cls(engine, wanted, await launch(engine, wanted), store)

    async def __aenter__(self) -> AsyncContainer:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        state = "closed" if self._closed else "lost" if self._lost else "running"
        return f"<AsyncContainer {self._wanted.name} {self._wanted.image} {state}>"

    @property
    def name(self) -> str:
        """The container's name on the engine."""
        return self._wanted.name

    @property
    def home(self) -> str:
        """The user's home directory: where relative paths start, and programs."""
        return self._transport.facts.home

    @property
    def uid(self) -> int:
        """The user id of everything that runs inside."""
        return self._transport.facts.uid

    @property
    def is_short_of_room(self) -> bool:
        """Whether handles to old runs should be closed, so that all output of the next can be kept."""
        return self._store.is_short_of_room

    # -- programs ---------------------------------------------------------------------------------

    async def run(
        self, code: str, *, output_bytes: int = DEFAULT_OUTPUT_BYTES, **options: Unpack[RunOptions]
    ) -> RunResult:
        """Run a shell command or source to its end and return what came of it.

        A program that fails is a result. Processes that it left behind are killed. When the caller is
        cancelled, the run is killed.

        Args:
            code: the command, or the source.
            output_bytes: how much of each of stdout and stderr to return: head and tail.
            options: see `RunOptions`; `timeout_s` is 60 unless given.

        Raises:
            InvalidArgumentError: an argument that can never work.
            FileError: `cwd` cannot be entered.
            ProcessLimitError: no process can be started.
            SessionError: its session is not there any more, or was never free.
            SandboxClosedError: the container was closed before.
        """
        check_output_bytes(output_bytes)
        options.setdefault("timeout_s", DEFAULT_TIMEOUT_S)
        run = await self.start(code, **options)
        try:
            return await run.wait(output_bytes)
        except anyio.get_cancelled_exc_class():
            with anyio.CancelScope(shield=True), anyio.move_on_after(CANCEL_DEADLINE):
                await self._abandon(run)
            raise
        finally:
            run.close()

    async def start(self, code: str, **options: Unpack[RunOptions]) -> AsyncRun:
        """Start a shell command or source and return a handle to it.

        It has no time limit unless one is given, and ends with the container at the latest. `close` the
        handle when its output is not needed any more.

        Raises: what `run` raises; what is found out later, `AsyncRun.wait` raises.
        """
        program = checked_program(code, **options)
        self._require_open()
        run = AsyncRun(program, self._store.open(), self._wanted.limits, self._fate_of_run)
        try:
            run.started(await self._transport.start(program, run.take))
        except AgentError as error:
            run.close()
            await self._raise_lost(error)
        except BaseException:
            run.close()
            raise
        return run

    async def _abandon(self, run: AsyncRun) -> None:
        """Kill a run that nobody waits for any more, and see it end."""
        try:
            await run.kill()
            await run.wait()
        except PocketDockError:
            # Then it never ran, or the container is gone.
            pass

    async def wait_port(
        self, port: int | None = None, *, known: frozenset[int] = frozenset(), run: AsyncRun | None = None
    ) -> list[int]:
        """Wait until something inside listens on a TCP port, and return which.

        Args:
            port: None for any that is not `known`.
            known: ports that do not count.
            run: the run that is to listen; None for anybody.

        Raises:
            InvalidArgumentError: no such port can be, or the image has no python3.
            SandboxLostError, SandboxClosedError: it is not there any more.
        """
        if port is not None and not 1 <= port <= MAX_PORT:
            message = f"port is {port}; it must be from 1 to {MAX_PORT}."
            raise InvalidArgumentError(message)
        async with self._reaching():
            process = None if run is None else run.process
            return sorted(await self._transport.wait_port(port, known, process))

    async def list_sessions(self) -> list[SessionInfo]:
        """Return the sessions that are alive.

        Raises:
            SandboxLostError, SandboxClosedError: the container is not there any more.
        """
        async with self._reaching():
            return await self._transport.sessions()

    async def end_session(self, name: str) -> bool:
        """Kill a session with everything in it; False if there is none of that name.

        Raises:
            SandboxLostError, SandboxClosedError: the container is not there any more.
        """
        async with self._reaching():
            return await self._transport.end_session(name)

    async def kill_all(self) -> None:
        """Kill every process of the user; files stay.

        Raises:
            SandboxLostError: the container died.
        """
        self._require_open()
        try:
            await self._transport.kill_all()
        except AgentError as error:
            await self._raise_lost(error)

    # -- files ------------------------------------------------------------------------------------

    async def write_file(
        self, path: str, content: str | bytes, *, mode: int | None = None, append: bool = False
    ) -> FileWritten:
        """Create or replace a file at once: readers see the old content or the new, never a half.

        Missing parent directories are made. A symbolic link is followed. `mode` are permission bits; None
        keeps those of the old file, or is 0o644. With `append` the content is added to the file's end
        instead, in one write: a reader may see a part of it, and after an error nothing of it is there.

        Raises:
            FileError: by what is in the way; the old content is intact.
            InvalidArgumentError, SandboxLostError, SandboxClosedError: as for `run`.
        """
        async with self._reaching():
            return await self._files.write(path, content, mode=mode, append=append)

    async def edit_file(self, path: str, edits: Sequence[Edit]) -> FileEdited:
        """Replace exact pieces of a UTF-8 file: the edits apply one after the other, all of them or none.

        Line ends and permission bits stay as they are, and readers never see a half.

        Raises:
            EditNotFoundError, EditAmbiguousError: what an edit replaces is not there, or not only once.
            FileChangedError: somebody else changed the file meanwhile; theirs stands.
            FileNotTextError, FileTooLargeError, FileError: the file cannot be edited.
            InvalidArgumentError, SandboxLostError, SandboxClosedError: as for `run`.
        """
        async with self._reaching():
            return await self._files.edit(path, edits)

    async def read_file(self, path: str, *, offset: int = 0, max_bytes: int = MAX_FILE_BYTES) -> FileContent:
        """Read a regular file, from `offset` and at most `max_bytes` of it. Symbolic links are followed.

        Raises:
            FileError: by what is wrong; a FIFO or device is refused, not waited for.
            InvalidArgumentError, SandboxLostError, SandboxClosedError: as for `run`.
        """
        async with self._reaching():
            return await self._files.read(path, offset=offset, max_bytes=max_bytes)

    async def list_files(self, path: str = ".", *, limit: int = MAX_LISTED) -> tuple[list[FileEntry], bool]:
        """Return a directory's entries by name, and whether there are more than `limit` (or than fit).

        Raises:
            FileError: it is no directory, or not there.
            InvalidArgumentError, SandboxLostError, SandboxClosedError: as for `run`.
        """
        async with self._reaching():
            return await self._files.list(path, limit=limit)

    async def find_files(self, path: str = ".", **options: Unpack[FindOptions]) -> FilesFound:
        """List a tree, find files by name, or find lines in them: see `FindOptions`. Links are not followed.

        Raises:
            SearchTimeoutError: the regular expression does not come to an end.
            SearchError: the search failed, or something in the sandbox tampered with it.
            InvalidArgumentError: a pattern is not valid, or the image has no python3.
            FileError, SandboxLostError, SandboxClosedError: as for `read_file`.
        """
        return await find(self.run, self._files.searched(path), **options)

    # -- the container ----------------------------------------------------------------------------

    async def info(self) -> ContainerInfo:
        """Return what it is and what it uses now.

        Raises:
            SandboxLostError, SandboxClosedError: it is not there any more.
        """
        self._require_open()
        try:
            memory, processes = await self._transport.stats()
        except AgentError as error:
            await self._raise_lost(error)
        facts = self._transport.facts
        return ContainerInfo(
            name=self.name,
            image=self._wanted.image,
            transport=self._transport.kind,
            uid=facts.uid,
            home=facts.home,
            limits=self._wanted.limits,
            unenforced=self._running.unenforced,
            memory_bytes=memory,
            processes=processes,
            network=self._wanted.network,
            python=facts.python,
        )

    async def commit(self, tag: str, *, labels: Mapping[str, str]) -> str:
        """Make an image of its files and return the image's id. Processes are not part of it.

        Raises:
            SandboxLostError, SandboxClosedError: it is not there any more.
            EngineError: the engine failed.
        """
        self._require_open()
        try:
            return await self._engine.commit(self._running.id, tag, labels=labels)
        except ContainerGoneError as error:
            raise self._mark_lost(str(error)) from error

    async def wait_lost(self) -> None:
        """Return when the container cannot be reached any more, for whatever reason."""
        reason = await self._transport.wait_broken()
        if not self._closed:
            self._mark_lost(reason.message)

    @property
    def removed(self) -> bool:
        """Whether it was closed and the engine has confirmed that it is gone."""
        return self._removed

    async def aclose(self) -> None:
        """End it and everything in it. Idempotent; quiet when it is gone already."""
        if self._closed:
            return
        self._closed = True
        with anyio.CancelScope(shield=True):
            await self._transport.aclose()
            try:
                await self._engine.remove(self._running.id)
                self._removed = True
            except EngineError as error:
                # The lease is closed, so it ends by itself when the engine is able to.
                logger.warning("could not remove container %s: %s", self.name, error)

    # -- endings ----------------------------------------------------------------------------------

    def _require_open(self) -> None:
        # Lost first: whoever owns it closes it then, and that is not why it cannot be used.
        if self._lost is not None:
            raise SandboxLostError(self._lost.message, hint=self._lost.hint)
        if self._closed:
            message = "The sandbox was closed."
            raise SandboxClosedError(message, hint="Create a new one.")

    @asynccontextmanager
    async def _reaching(self) -> AsyncIterator[None]:
        """Ask the transport something; when it is found dead, the sandbox is lost."""
        self._require_open()
        try:
            yield
        except AgentError as error:
            await self._raise_lost(error)

    async def _fate(self, error: AgentError) -> RunStatus:
        """Say what became of a run whose stream broke: lost if its container is gone, else nobody knows."""
        self._mark_lost(error.message)
        with anyio.move_on_after(GONE_DEADLINE):
            try:
                # Nothing will ever be heard of it again, so it must not go on either.
                await self._engine.remove(self._running.id)
            except EngineError:
                return "indeterminate"
            else:
                return "lost"
        return "indeterminate"

    async def _fate_of_run(self, error: AgentError) -> tuple[RunStatus, str]:
        return await self._fate(error), str(self._lost)

    async def _raise_lost(self, error: AgentError) -> NoReturn:
        await self._fate(error)
        raise self._mark_lost(error.message) from error

    def _mark_lost(self, why: str) -> SandboxLostError:
        if self._lost is None:
            self._lost = SandboxLostError(f"The sandbox died: {why}")
        return SandboxLostError(self._lost.message)
