"""`AsyncContainer`: everything that can be done with one running container."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from types import TracebackType
from typing import NoReturn

import anyio

from pocket_dock_mcp.agent.transport import Program, RunEnd
from pocket_dock_mcp.container.arguments import (
    check_output_bytes,
    checked_code,
    checked_environment,
    checked_path,
    checked_timeout,
    input_bytes,
    language_of,
)
from pocket_dock_mcp.container.launch import Launch, Running, launch
from pocket_dock_mcp.engine.base import Engine
from pocket_dock_mcp.errors import (
    AgentError,
    ContainerGoneError,
    EngineError,
    FileTooLargeError,
    InvalidArgumentError,
    SandboxClosedError,
    SandboxLostError,
)
from pocket_dock_mcp.models import (
    MIB,
    ContainerInfo,
    FileContent,
    FileEntry,
    FileWritten,
    RunResult,
    RunStatus,
    RunUsage,
)
from pocket_dock_mcp.output import Capture

logger = logging.getLogger(__name__)

DEFAULT_TIMEOUT_S = 60.0
DEFAULT_OUTPUT_BYTES = 1024 * 1024
MAX_FILE_BYTES = 1024 * MIB
MAX_LISTED = 10_000
GONE_DEADLINE = 2.0
"""Seconds to find out whether a container whose stream broke is really gone."""


class AsyncContainer:
    """One running container, held by its lease: it dies when this object is closed, or this process ends.

    Made by `create`. All methods may be called concurrently.
    """

    def __init__(self, engine: Engine, wanted: Launch, running: Running) -> None:
        self._engine = engine
        self._wanted = wanted
        self._running = running
        self._transport = running.transport
        self._closed = False
        self._removed = False
        self._lost: SandboxLostError | None = None

    @classmethod
    async def create(cls, engine: Engine, wanted: Launch) -> AsyncContainer:
        """Launch a container; see `launch` for what it raises."""
        return cls(engine, wanted, await launch(engine, wanted))

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

    # -- programs ---------------------------------------------------------------------------------

    async def run(
        self,
        code: str,
        *,
        language: str = "shell",
        timeout_s: float | None = DEFAULT_TIMEOUT_S,
        output_bytes: int = DEFAULT_OUTPUT_BYTES,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        stdin: str | bytes | None = None,
    ) -> RunResult:
        """Run a shell command or Python source to its end and return what came of it.

        A program that fails is a result. Processes that it left behind are killed. When the caller is
        cancelled, the run is killed.

        Args:
            code: the command, or the source.
            language: ``shell`` or ``python``.
            timeout_s: wall seconds after which all its processes are killed; None for no limit.
            output_bytes: how much of each of stdout and stderr to keep: head and tail.
            cwd: absolute, or relative to the home directory; None is the home directory.
            env: on top of the sandbox's environment.
            stdin: what the program reads; None is nothing.

        Raises:
            InvalidArgumentError: an argument that can never work.
            FileError: `cwd` cannot be entered.
            ProcessLimitError: no process can be started.
            SandboxClosedError: the container was closed before.
        """
        program = Program(
            language=language_of(language),
            code=checked_code(code, language_of(language)),
            env=checked_environment(env or {}),
            cwd=None if cwd is None else checked_path(cwd),
            stdin=input_bytes(stdin),
            timeout_s=checked_timeout(timeout_s),
        )
        check_output_bytes(output_bytes)
        self._require_open()
        captures = {1: Capture(output_bytes), 2: Capture(output_bytes)}
        try:
            end = await self._transport.run(program, lambda stream, data: captures[stream].feed(data))
        except AgentError as error:
            return _result(await self._fate(error), None, None, RunUsage(), captures, str(self._lost))
        status = _status(end)
        exit_code = end.exit_code if status in ("ok", "nonzero", "oom") else None
        return _result(status, exit_code, end.signal, end.usage, captures, self._hint(status, end, program))

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

    def _hint(self, status: RunStatus, end: RunEnd, program: Program) -> str | None:
        if status == "timeout":
            return (
                f"The time limit of {program.timeout_s:g} s was reached and all its processes were killed. "
                "Raise timeout_s or do less at once."
            )
        if status == "oom":
            limit = self._wanted.limits.memory_bytes // MIB
            return (
                f"The memory limit of {limit} MiB was hit (peak of one process: "
                f"{end.usage.peak_memory_bytes // MIB} MiB). Use less memory, or a sandbox with more."
            )
        return None

    # -- files ------------------------------------------------------------------------------------

    async def write_file(self, path: str, content: str | bytes, *, mode: int | None = None) -> FileWritten:
        """Create or replace a file at once: readers see the old content or the new, never a half.

        Missing parent directories are made. A symbolic link is followed. `mode` are permission bits; None
        keeps those of the old file, or is 0o644.

        Raises:
            FileError: by what is in the way; the old content is intact.
            InvalidArgumentError, SandboxLostError, SandboxClosedError: as for `run`.
        """
        data = content.encode("utf-8", "surrogateescape") if isinstance(content, str) else content
        if len(data) > MAX_FILE_BYTES:
            message = f"The content has {len(data)} bytes; one call takes at most {MAX_FILE_BYTES}."
            raise FileTooLargeError(message)
        if mode is not None and not 0 <= mode <= 0o777:
            message = f"mode is {mode:o}; it must be permission bits from 0 to 777 (octal)."
            raise InvalidArgumentError(message)
        self._require_open()
        try:
            return await self._transport.write(self._absolute(path), data, mode=mode)
        except AgentError as error:
            await self._raise_lost(error)

    async def read_file(self, path: str, *, offset: int = 0, max_bytes: int = MAX_FILE_BYTES) -> FileContent:
        """Read a regular file, from `offset` and at most `max_bytes` of it. Symbolic links are followed.

        Raises:
            FileError: by what is wrong; a FIFO or device is refused, not waited for.
            InvalidArgumentError, SandboxLostError, SandboxClosedError: as for `run`.
        """
        if offset < 0 or not 0 < max_bytes <= MAX_FILE_BYTES:
            message = f"offset must not be negative, and max_bytes must be from 1 to {MAX_FILE_BYTES}."
            raise InvalidArgumentError(message)
        self._require_open()
        try:
            return await self._transport.read(self._absolute(path), offset=offset, length=max_bytes)
        except AgentError as error:
            await self._raise_lost(error)

    async def list_files(self, path: str = ".", *, limit: int = MAX_LISTED) -> tuple[list[FileEntry], bool]:
        """Return a directory's entries by name, and whether there are more than `limit` (or than fit).

        Raises:
            FileError: it is no directory, or not there.
            InvalidArgumentError, SandboxLostError, SandboxClosedError: as for `run`.
        """
        if not 0 < limit <= MAX_LISTED:
            message = f"limit is {limit}; it must be from 1 to {MAX_LISTED}."
            raise InvalidArgumentError(message)
        self._require_open()
        try:
            entries, more = await self._transport.list_directory(self._absolute(path), limit=limit)
        except AgentError as error:
            await self._raise_lost(error)
        return sorted(entries, key=lambda entry: entry.name), more

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

    async def _raise_lost(self, error: AgentError) -> NoReturn:
        await self._fate(error)
        raise self._mark_lost(error.message) from error

    def _mark_lost(self, why: str) -> SandboxLostError:
        if self._lost is None:
            self._lost = SandboxLostError(f"The sandbox died: {why}")
        return SandboxLostError(self._lost.message)

    def _absolute(self, path: str) -> str:
        path = checked_path(path)
        return path if path.startswith("/") else f"{self.home}/{path}"


def _status(end: RunEnd) -> RunStatus:
    """Classify an ending from what the kernel said. What the program printed plays no part."""
    if end.timed_out:
        return "timeout"
    if end.killed:
        return "killed"
    # A shell turns its child's fatal signal into 128 + n; only the cgroup's count tells a kill for memory
    # from a program that likes the number 137.
    if end.oom and (end.signal == 9 or end.exit_code == 137):
        return "oom"
    if end.signal is not None:
        return "signal"
    return "ok" if end.exit_code == 0 else "nonzero"


def _result(
    status: RunStatus,
    exit_code: int | None,
    signal: int | None,
    usage: RunUsage,
    captures: Mapping[int, Capture],
    hint: str | None,
) -> RunResult:
    return RunResult(
        status=status,
        exit_code=exit_code,
        signal=signal,
        stdout=captures[1].text(),
        stderr=captures[2].text(),
        stdout_bytes=captures[1].total,
        stderr_bytes=captures[2].total,
        truncated=captures[1].truncated or captures[2].truncated,
        usage=usage,
        hint=hint,
    )
