"""`AsyncContainer`: a container, and what its user can do with it."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from types import TracebackType

from pocket_dock_mcp.async_ import commands
from pocket_dock_mcp.async_.holds import Hold
from pocket_dock_mcp.async_.info import ContainerInfo, described
from pocket_dock_mcp.async_.names import checked_image_name
from pocket_dock_mcp.async_.processes import ProcessInfo, list_processes
from pocket_dock_mcp.async_.programs import Programs
from pocket_dock_mcp.async_.terminal import SHELL, shell
from pocket_dock_mcp.container.core import LiveContainer
from pocket_dock_mcp.container.transfer import OnProgress
from pocket_dock_mcp.errors import FileError, FileTooLargeError, SandboxError
from pocket_dock_mcp.models import FileEntry, FileWritten, Transferred
from pocket_dock_mcp.outside import LOOPBACK, PortMapping

DEFAULT_TIMEOUT_S = 30.0


class AsyncContainer(Programs):
    """One container: a place where programs run with a home directory, limits and nothing of the host.

    Made by `create_new_container`, `resume_container` and `AsyncContainerPool.claim`. Use it as an async
    context manager: leaving it is `shutdown`. All methods may be called concurrently.

        async with await create_new_container() as c:
            print((await c.run("echo hello")).stdout)
    """

    def __init__(self, hold: Hold, *, timeout: float = DEFAULT_TIMEOUT_S) -> None:
        """Wrap what is held.

        Args:
            hold: the container, and how it is ended.
            timeout: seconds that a `run` may take unless it says otherwise.
        """
        super().__init__(hold, timeout)

    async def __aenter__(self) -> AsyncContainer:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.shutdown()

    def __repr__(self) -> str:
        return repr(self._hold.live).replace("LiveContainer", "AsyncContainer", 1)

    @property
    def _live(self) -> LiveContainer:
        return self._hold.live

    # -- what it is -------------------------------------------------------------------------------

    @property
    def container_id(self) -> str:
        """The engine's id of it; another one after a fresh reboot."""
        return self._live.container_id

    @property
    def sandbox_id(self) -> str:
        """Our id of it, the same for its whole life; empty for a pool's."""
        return self._hold.id

    @property
    def name(self) -> str:
        """Its name on the engine, which no other container has."""
        return self._live.name

    @property
    def persist(self) -> bool:
        """Whether it outlives this process, and ends only when it is destroyed."""
        return self._hold.persists

    @property
    def project(self) -> str:
        """The project that it belongs to; empty if it belongs to none."""
        return self._hold.project

    @property
    def data_path(self) -> Path | None:
        """The directory of the host that its project has for its data; None for one that is of no project."""
        return self._hold.data_path

    @property
    def home(self) -> str:
        """The home directory in it: where relative paths begin."""
        return self._live.home

    @property
    def socket_path(self) -> str:
        """Where its engine listens: the path of a socket, or the address of one that is elsewhere."""
        return self._live.engine_info.url.removeprefix("unix://")

    # -- files ------------------------------------------------------------------------------------

    async def write_file(
        self, path: str, content: str | bytes, *, mode: int | None = None, append: bool = False
    ) -> FileWritten:
        """Create or replace a file at once: who reads it sees the old content or the new, never a half.

        Missing parent directories are made. A symbolic link is followed.

        Args:
            path: absolute, or relative to the home directory.
            content: text is written as UTF-8.
            mode: permission bits; None keeps those of the old file, or is 0o644.
            append: add to the file's end instead.

        Raises:
            FileError: by what is in the way; the old content is intact.
            InvalidArgumentError, ContainerGone: as for `run`.
        """
        with self._hold.use() as live:
            return await live.write_file(path, content, mode=mode, append=append)

    async def read_file(self, path: str) -> bytes:
        """Return the content of a regular file of at most 1 GiB. Symbolic links are followed.

        Raises:
            FileError: by what is wrong; ``FileNotFoundError`` is one of them.
            InvalidArgumentError, ContainerGone: as for `run`.
        """
        with self._hold.use() as live:
            content = await live.read_file(path)
        if not content.complete:
            message = f"{path!r} has {content.size} bytes; at most {len(content.data)} can be read at once."
            raise FileTooLargeError(message, hint="Pull it to a file.")
        return content.data

    async def list_files(self, path: str = ".") -> list[str]:
        """Return the names in a directory, in order; `scan_files` says more of each.

        Raises: what `scan_files` raises.
        """
        return [entry.name for entry in await self.scan_files(path)]

    async def scan_files(self, path: str = ".") -> list[FileEntry]:
        """Return the entries of a directory by name, with type, size, mode and time. Links are not followed.

        Raises:
            FileError: it is no directory, is not there, or has more than 10,000 entries.
            InvalidArgumentError, ContainerGone: as for `run`.
        """
        with self._hold.use() as live:
            entries, more = await live.list_files(path)
        if more:
            message = f"{path!r} has more than the {len(entries)} entries that can be listed at once."
            raise FileTooLargeError(message, hint="List its parts, or run find in the container.")
        return entries

    # -- ports ------------------------------------------------------------------------------------

    async def push(
        self, src: str | PathLike[str], dest: str, *, on_progress: OnProgress | None = None
    ) -> Transferred:
        """Copy a file or a directory with all that is in it from this machine into the container.

        A directory at `dest` takes a file, or a directory, under its name; it takes the content of one whose
        path ends in ``/``. Where nothing is, it becomes what is copied. Missing parents are made. Until all
        has come nothing is replaced, and then each file at once. Modes and times are kept, and links that
        cannot lead out of the tree; what else there is is left out, and said in the result.

        Args:
            src: on this machine; a link is followed here, and nowhere below.
            dest: in the container; relative to the home directory.
            on_progress: called at most ten times a second, and at the end.

        Raises:
            HostFileError: about `src`; ``FileNotFoundError`` is one of them.
            FileError: about `dest`.
            TransferError: it was broken off inside.
            InvalidArgumentError, ContainerGone: as for `run`.
        """
        with self._hold.use() as live:
            return await live.push(src, dest, on_progress=on_progress)

    async def pull(
        self,
        src: str,
        dest: str | PathLike[str],
        *,
        on_progress: OnProgress | None = None,
        max_bytes: int | None = None,
        max_files: int | None = None,
    ) -> Transferred:
        """Copy a file or a directory with all that is in it from the container to this machine; see `push`.

        Nothing is written outside of `dest`, whatever the container sends.

        Args:
            src: in the container; relative to the home directory. A link is followed here, and nowhere below.
            dest: on this machine.
            on_progress: as for `push`.
            max_bytes: of all files together; 16 GiB unless given.
            max_files: entries of all kinds; a million unless given.

        Raises:
            TransferLimitError: there is more than is allowed; nothing was written.
            TransferError: it was broken off, or something in the container tampered with it.
            FileError: about `src`; ``FileNotFoundError`` is one of them.
            HostFileError: about `dest`.
            InvalidArgumentError, ContainerGone: as for `run`.
        """
        with self._hold.use() as live:
            return await live.pull(
                src, dest, on_progress=on_progress, max_bytes=max_bytes, max_files=max_files
            )

    async def shell(self, command: str | Sequence[str] | None = None) -> int:
        """Use a shell in it on our terminal until it ends, and return its exit status as a shell counts it.

        Args:
            command: what to run there instead of a shell.

        Raises:
            InvalidArgumentError: our standard input and output are no terminal, or the image has no python3.
            ContainerGone: the container died.
        """
        code = SHELL if command is None else commands.code_of(command, None)[0]
        with self._hold.use() as live:
            return await shell(live, code, cwd=self._hold.workdir or None)

    async def open_port(self, port: int, *, host_port: int = 0, address: str = LOOPBACK) -> PortMapping:
        """Have a TCP port of the host lead to one in it, also where it has no network.

        This process serves it until `close_port`, or until the container is ended or let go of; a reboot does
        not close it. Connections are reset as long as nobody listens in the container.

        Args:
            port: in the container, where a program listens on ``127.0.0.1``, ``::1`` or all addresses.
            host_port: on the host; 0 for a free one.
            address: of the host; the default can be reached from this machine only, ``0.0.0.0`` from others.

        Raises:
            PortInUseError: somebody else listens there.
            PortError: the host does not allow it, or there are too many, or the image has no python3.
            InvalidArgumentError, ContainerGone: as for `run`.
        """
        with self._hold.use() as live:
            return await live.open_port(port, host_port=host_port, address=address)

    async def close_port(self, port: int) -> bool:
        """Close what leads to a port in it, with its connections; False if nothing does."""
        with self._hold.use() as live:
            return await live.close_port(port)

    def ports(self) -> list[PortMapping]:
        """Return the ports of the host that lead into it, the oldest first."""
        return self._live.ports()

    # -- the container ----------------------------------------------------------------------------

    async def info(self) -> ContainerInfo:
        """Return what it is and what it uses now.

        Raises:
            ContainerGone: it is not there any more.
        """
        with self._hold.use() as live:
            found = await live.info()
            engine = live.engine_info
            try:
                processes = await list_processes(live, found.python)
            except (SandboxError, FileError):
                # At the limit on processes, say: the rest is worth telling.
                live.require_open()
                processes = []
        return described(
            found,
            image=self._hold.image,
            container_id=live.container_id,
            created=self._hold.created,
            sandbox_id=self._hold.id,
            persist=self._hold.persists,
            project=self._hold.project,
            engine=f"{engine.kind} {engine.version}".strip(),
            processes=tuple(process.as_text() for process in processes),
        )

    async def processes(self) -> list[ProcessInfo]:
        """Return the processes of its user, in the order of their ids, as a program in it sees them.

        Raises:
            ContainerError: no program can be run that would look.
            ContainerGone: it is not there any more.
        """
        with self._hold.use() as live:
            return await list_processes(live, live.python)

    async def reboot(self, *, fresh: bool = False) -> None:
        """End all processes and sessions and begin again with the files that are there, at once.

        Args:
            fresh: begin with the files of the image instead. Name, limits and all options stay.

        Raises:
            ContainerGone: it could not be begun again.
            EngineError: the engine failed.
        """
        with self._hold.use() as live:
            self._end_sessions("The container was rebooted.")
            await live.reboot(fresh=fresh)

    async def snapshot(self, image_name: str) -> str:
        """Make an image of its files and return the image's id. Processes are not part of it.

        `create_new_container(image=...)` with that name begins with these files.

        Args:
            image_name: such as ``my-tools`` or ``my-tools:v2``; ``latest`` unless it has a tag.

        Raises:
            InvalidArgumentError: it is no name for an image.
            ContainerGone: the container is not there any more.
            EngineError: the engine failed; or its disk has too little room.
        """
        tag = checked_image_name(image_name)
        return await self._hold.save_as(tag)

    async def shutdown(self, *, force: bool = False) -> None:  # noqa: ARG002  # part of the seed's vocabulary
        """End it and everything in it, at once; one that persists is stopped, and its files stay.

        Idempotent, and quiet when it is gone already.

        Args:
            force: makes no difference: no end waits for what runs in the container.
        """
        await self._hold.end()
