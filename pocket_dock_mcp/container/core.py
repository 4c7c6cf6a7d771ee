"""`LiveContainer`: everything that can be done with one running container."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import anyio
from typing_extensions import Unpack

from pocket_dock_mcp.container.arguments import check_output_bytes, check_port
from pocket_dock_mcp.container.checkpoints import Checkpointing
from pocket_dock_mcp.container.disk import Disk
from pocket_dock_mcp.container.files import MAX_FILE_BYTES, MAX_LISTED, Files
from pocket_dock_mcp.container.finding import FindOptions, find
from pocket_dock_mcp.container.memory import remembered, stays
from pocket_dock_mcp.container.options import RunOptions, checked_program
from pocket_dock_mcp.container.outfit import denials_from_now
from pocket_dock_mcp.container.run import AsyncRun
from pocket_dock_mcp.container.transfer import OnProgress, checked_limits, pull, push
from pocket_dock_mcp.container.whiteouts import require_none
from pocket_dock_mcp.container.workspace import parked
from pocket_dock_mcp.errors import ContainerGoneError, PocketDockError
from pocket_dock_mcp.models import (
    ContainerInfo,
    Edit,
    FileContent,
    FileEdited,
    FileEntry,
    FilesFound,
    FileWritten,
    RunResult,
    SessionInfo,
    Transferred,
)
from pocket_dock_mcp.outside import LOOPBACK, PortMapping

DEFAULT_TIMEOUT_S = 60.0
DEFAULT_OUTPUT_BYTES = 1024 * 1024
CANCEL_DEADLINE = 10.0
"""Seconds for killing a run whose caller is gone, before it is left to its own time limit."""


class LiveContainer(Checkpointing):
    """One running container, held by its lease: it dies when this object is closed, or this process ends.

    Unless it was created to be kept (`Launch.keep`): then it outlives both, and is taken up by `reattach`, or
    `resume` when it has stopped. Made by `create`. All methods may be called concurrently.
    """

    on_start: Callable[[AsyncRun], None] | None = None
    """Hears of each run that is somebody's: one that is started with `meta`. For its one observer."""

    @property
    def is_short_of_room(self) -> bool:
        """Whether handles to old runs should be closed, so that all output of the next can be kept."""
        return self._store.is_short_of_room

    @property
    def _files(self) -> Files:
        return Files(self._transport)

    @property
    def disk(self) -> Disk:
        """What it writes, and what is left for all; another one after a reboot."""
        return Disk(self._engine, self._running, self._wanted)

    # -- programs ---------------------------------------------------------------------------------

    async def run(
        self,
        code: str,
        *,
        output_bytes: int = DEFAULT_OUTPUT_BYTES,
        meta: Mapping[str, Any] | None = None,
        **options: Unpack[RunOptions],
    ) -> RunResult:
        """Run a shell command or source to its end and return what came of it.

        A program that fails is a result. Processes that it left behind are killed. When the caller is
        cancelled, the run is killed.

        Args:
            code: the command, or the source.
            output_bytes: how much of each of stdout and stderr to return: head and tail.
            meta: as of `start`.
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
        run = await self.start(code, meta=meta, **options)
        try:
            return await run.wait(output_bytes)
        except anyio.get_cancelled_exc_class():
            with anyio.CancelScope(shield=True), anyio.move_on_after(CANCEL_DEADLINE):
                await self._abandon(run)
            raise
        finally:
            run.close()

    async def start(
        self, code: str, *, meta: Mapping[str, Any] | None = None, **options: Unpack[RunOptions]
    ) -> AsyncRun:
        """Start a shell command or source and return a handle to it.

        It has no time limit unless one is given, and ends with the container at the latest. `close` the
        handle when its output is not needed any more. A kept container remembers `meta`, which is a little
        JSON, for `reattach`, until the handle is closed. In one that is only visited it ends with the visit,
        unless its `meta` says that it is in the ``background``.

        Raises: what `run` raises; what is found out later, `AsyncRun.wait` raises.
        """
        program = checked_program(code, **options)
        running = self._running
        run = AsyncRun(program, self._store.open(), self._wanted.limits, self._fate(running, meta))
        run.meta = meta or {}
        run.denials = denials_from_now(running.gate)
        try:
            if self._wanted.keep:
                memory = remembered(run.id, program, run.meta)
                run.program = program = replace(program, stays=stays(meta) or not self.visits, meta=memory)
            async with self._reaching():
                run.started(await running.transport.start(program, run.take))
        except BaseException:
            run.close()
            raise
        if meta is not None and self.on_start is not None:
            self.on_start(run)
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
        check_port(port)
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
        async with self._reaching():
            await self._transport.kill_all()

    # -- ports ------------------------------------------------------------------------------------

    async def open_port(self, port: int, *, host_port: int = 0, address: str = LOOPBACK) -> PortMapping:
        """Have a TCP port of the host lead to one inside, also where there is no network.

        It is served by this process, until `close_port`, or until the container is closed, stopped, detached
        from or lost; over a reboot it stays. Nobody needs to listen inside yet: as long as nobody does,
        connections are reset at once.

        Args:
            port: inside, on the loopback interface or all interfaces.
            host_port: on the host; 0 for a free one.
            address: of the host, to listen on; the default can be reached from this machine only.

        Raises:
            PortInUseError: somebody else listens there.
            PortError: the host does not allow it, or there are too many, or the image has no python3.
            InvalidArgumentError: no such port or address can be.
            SandboxLostError, SandboxClosedError: the container is not there any more.
        """
        return await self._forwarder.open(PortMapping(port, host_port, address))

    async def close_port(self, port: int) -> bool:
        """Close what leads to a port inside, with its connections; False if nothing does."""
        return await self._forwarder.close(port)

    def ports(self) -> list[PortMapping]:
        """Return the ports that are open, with those of the host; the oldest first."""
        return self._forwarder.ports

    @property
    def is_connected(self) -> bool:
        """Whether somebody is connected to one of its ports."""
        return self._forwarder.connections > 0

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

    async def push(
        self, source: str | os.PathLike[str], destination: str, *, on_progress: OnProgress | None = None
    ) -> Transferred:
        """Copy a file or a directory with all that is in it from this machine into the container.

        A directory at `destination` takes a file, or a directory, under its name; it takes the content of a
        directory whose path ends in ``/`` (or ``/.``). Where nothing is, it becomes what is copied.
        Missing parents are made. Files and links that are there are replaced, each at once, and directories
        merged with; until all has come nothing is. Modes and times are kept. Links are kept that cannot lead
        out of the tree; other ones, devices, sockets and FIFOs are left out, and said.

        Args:
            source: on this machine; a link is followed here, and nowhere below.
            destination: inside; relative to the home directory.
            on_progress: called at most ten times a second, and at the end.

        Raises:
            HostFileNotFoundError, HostFileDeniedError, HostFileError: about `source`.
            FileError: about `destination`; `DiskFullError` if it does not fit.
            TransferError: it was broken off inside.
            InvalidArgumentError, SandboxLostError, SandboxClosedError: as for `run`.
        """
        where = self._files.absolute(destination)
        async with self._reaching():
            return await push(self._transport, source, where, given=destination, on_progress=on_progress)

    async def pull(
        self,
        source: str,
        destination: str | os.PathLike[str],
        *,
        max_bytes: int | None = None,
        max_files: int | None = None,
        on_progress: OnProgress | None = None,
    ) -> Transferred:
        """Copy a file or a directory with all that is in it from the container to this machine; see `push`.

        Nothing is written outside of `destination`, whatever the container sends.

        Args:
            source: inside; relative to the home directory. A link is followed here, and nowhere below.
            destination: on this machine.
            max_bytes: of all files together, with their holes; 16 GiB unless given.
            max_files: entries of all kinds; a million unless given.
            on_progress: as for `push`.

        Raises:
            TransferLimitError: there is more than is allowed; nothing was written.
            TransferError: it was broken off, or something in the sandbox tampered with it.
            SandboxFileNotFoundError, FileError: about `source`.
            HostFileError: about `destination`.
            InvalidArgumentError, SandboxLostError, SandboxClosedError: as for `run`.
        """
        limits, where = checked_limits(max_bytes, max_files), self._files.absolute(source)
        async with self._reaching():
            return await pull(
                self._transport, where, destination, given=source, limits=limits, on_progress=on_progress
            )

    # -- the container ----------------------------------------------------------------------------

    async def info(self) -> ContainerInfo:
        """Return what it is and what it uses now.

        Raises:
            SandboxLostError, SandboxClosedError: it is not there any more.
        """
        async with self._reaching():
            live = await self._transport.stats()
        facts = self._transport.facts
        return ContainerInfo(
            name=self.name,
            image=self._wanted.image,
            transport=self._transport.kind,
            uid=facts.uid,
            home=facts.home,
            limits=self._wanted.limits,
            unenforced=self._running.unenforced,
            memory_bytes=live.memory_bytes,
            processes=live.processes,
            network=self._wanted.network,
            workspace=self._wanted.workspace,
            python=facts.python,
            kept=self.outlasts,
            live=live,
            ports=tuple(self.ports()),
            volumes=self._wanted.volumes,
            devices=self._wanted.devices,
            facts=facts,
        )

    async def commit(self, tag: str, *, labels: Mapping[str, str]) -> str:
        """Make an image of its files and return the image's id. Processes and its labels are not part of it.

        Raises:
            SandboxLostError, SandboxClosedError: it is not there any more.
            UnkeepableNamesError, DiskFullError, WorkspaceError: some files could not be made part of it.
            EngineError: the engine failed.
        """
        try:
            async with self._reaching():
                await require_none(self._transport)
                async with parked(self._transport, self._wanted):
                    # An image inherits its container's labels, and what is empty is as good as none.
                    blank = dict.fromkeys(self._wanted.labels, "")
                    return await self._engine.commit(self._running.id, tag, labels={**blank, **labels})
        except ContainerGoneError as error:
            raise self._life.mark_lost(str(error)) from error
