"""What can be asked of one running container, whichever way it is reached.

Two ways: the agent (`agent_transport`), and for images without python3 plain engine execs
(`exec_transport`), which are slower and give fewer guarantees.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from pocket_dock_mcp.errors import AgentError
from pocket_dock_mcp.models import (
    Facts,
    FileContent,
    FileEntry,
    FilesChanged,
    FileWritten,
    Language,
    RunImage,
    RunLimits,
    RunUsage,
    SessionInfo,
    SessionState,
)
from pocket_dock_mcp.readings import Readings

OnOutput = Callable[[int, bytes], None]
"""Called with (1 for stdout or 2 for stderr, data) as output arrives. Must not block."""


@dataclass(frozen=True, slots=True)
class Program:
    """What to run."""

    language: Language
    code: str
    """A shell command, or source."""
    env: Mapping[str, str] = field(default_factory=dict)
    """On top of the sandbox's environment, or of the session's."""
    cwd: str | None = None
    """Absolute, or relative to the home directory; None is the home directory, or the session's."""
    stdin: bytes | None = None
    """Written to standard input, which is then closed; None is /dev/null."""
    keep_stdin: bool = False
    """Whether standard input stays open after `stdin`, for `Process.feed`."""
    timeout_s: float | None = None
    """Wall time after which every process of the run is killed."""
    limits: RunLimits = field(default_factory=RunLimits)
    session: str | None = None
    """The name of the persistent interpreter or shell that is to run it."""
    tty: tuple[int, int] | None = None
    """Rows and columns of a terminal, which then is all three of its streams."""
    stays: bool = False
    """Whether it goes on when whoever has begun it only visits the sandbox, and leaves."""
    meta: Mapping[str, Any] | None = None
    """JSON that whoever takes up a kept container later is told of it."""

    @property
    def has_stdin(self) -> bool:
        """Whether it has a standard input that can be written to."""
        return self.stdin is not None or self.keep_stdin


@dataclass(frozen=True, slots=True)
class Report:
    """What the interpreter says of Python code, besides its output. The code could forge all of it."""

    value: str | None = None
    images: tuple[RunImage, ...] = ()
    images_left: int = 0
    notes: tuple[str, ...] = ()


EndedBy = Literal["timeout", "cpu", "memory", "output", "disk", "killed"]


@dataclass(frozen=True, slots=True)
class RunEnd:
    """How a program ended, as observed. Exactly one of `exit_code` and `signal` is set."""

    exit_code: int | None
    signal: int | None
    usage: RunUsage
    ended_by: EndedBy | None = None
    """Why we ended it, if we did."""
    oom: bool = False
    """Whether the kernel killed a process of the sandbox for its memory limit meanwhile."""
    full_disk: str | None = None
    """A path on a file system that had room when it began and has none now."""
    disk_used: int | None = None
    """Bytes that the sandbox had written, if that is why we ended it."""
    left_behind: int = 0
    """Processes that it had left running, and that were killed."""
    files_changed: FilesChanged | None = None
    session: SessionState | None = None
    missed: tuple[int, int] = (0, 0)
    """Bytes of stdout and stderr that were let go of before we had read them."""
    report: Report = field(default_factory=Report)


class Process(Protocol):
    """A program that was started. Methods raise `AgentError`s when the container cannot be reached."""

    async def wait(self) -> RunEnd:
        """Wait for its end; any number may wait.

        Raises:
            FileError: its `cwd` cannot be entered.
            ProcessLimitError, RunNotStartedError, SessionError: it has not been started.
        """

    is_followed: bool
    """Whether its output and its end are told us; not before `follow` if another client has begun it."""

    def follow(self) -> None:
        """Have it told from its beginning on. Idempotent, and quiet."""

    @property
    def is_over(self) -> bool:
        """Whether it has ended, or will never be heard of again."""

    @property
    def is_cut_off(self) -> bool:
        """Whether it is over because nothing will ever be heard of it again."""

    def when_over(self, callback: Callable[[], None]) -> None:
        """Have `callback` called on the event loop when it is over; soon, if it is."""

    async def feed(self, data: bytes, *, end: bool = False) -> None:
        """Write to its standard input, as fast as it reads; `end` closes it."""

    async def signal(self, number: int) -> None:
        """Send a signal to its process group."""

    async def resize(self, rows: int, columns: int) -> None:
        """Give its terminal another size."""

    def hold(self, is_held: bool) -> None:
        """Have it wait with its output until this is called again: whoever takes it is slow. Quiet."""

    async def kill(self) -> None:
        """Kill all its processes. `wait` tells when that is done."""

    def heard(self) -> None:
        """How it ended has arrived where it matters: it is not news for who comes later. Quiet."""

    def forget(self) -> None:
        """Its output is of no use any more, to nobody who comes later either. Idempotent, and quiet."""


@dataclass(frozen=True, slots=True)
class CheckpointInfo:
    """A copy of a session's interpreter that can be gone back to."""

    id: str
    session: str
    """The name of the session that it is of, which need not be alive any more."""


class Checkpoints(Protocol):
    """Copies of interpreters. Methods raise `AgentError`s when the container cannot be reached."""

    async def make(self, session: str) -> str:
        """Copy a session and return the copy's id.

        Raises:
            CheckpointThreadsError, SessionBusyError, ProcessLimitError, CheckpointError: why it cannot be.
        """

    async def restore(self, session: str, checkpoint_id: str) -> None:
        """Have a session go on from a copy. Until that is sure to succeed, the session is as it was.

        Raises:
            CheckpointNotFoundError, SessionBusyError, ProcessLimitError, CheckpointError: why it cannot be.
        """

    async def drop(self, checkpoint_id: str) -> bool:
        """End a copy; False if there is none of this id."""

    async def list(self) -> list[CheckpointInfo]:
        """Return all that are alive."""


class Relayed(Protocol):
    """A connection to a port inside. Methods raise `AgentError`s when the container cannot be reached."""

    async def send(self, data: bytes) -> None:
        """Send data, no faster than the program inside takes it."""

    async def send_end(self) -> None:
        """Say that there is no more to come."""

    def taken(self, amount: int) -> None:
        """So many bytes of what came need no memory any more: as many may come instead. Quiet."""

    def when_over(self, callback: Callable[[], None]) -> None:
        """Have `callback` called on the event loop when it is over, or broken off."""

    async def wait(self) -> bool:
        """Wait for its end. Whether both sides have ended what they had to say; else it was broken off."""

    async def abort(self) -> None:
        """Break it off, if it is not over, and wait until it is. Quiet."""


@dataclass(frozen=True, slots=True)
class MountFound:
    """What is mounted at a path inside."""

    device: int
    inode: int
    read_only: bool


@dataclass(frozen=True, slots=True)
class DeviceFound:
    """A device inside."""

    block: bool
    number: tuple[int, int]
    readable: bool
    """By the user, as far as permissions go."""
    writable: bool


@dataclass(frozen=True, slots=True)
class Found:
    """What is really there of what was asked for, by path; None where there is nothing."""

    volumes: Mapping[str, MountFound | None]
    devices: Mapping[str, DeviceFound | None]
    boot: str | None = None
    """Which start of which kernel this is."""


class Transport(Protocol):
    """A running container. Every method raises `AgentError`s when the container cannot be reached."""

    @property
    def kind(self) -> Literal["agent", "exec"]:
        """Which way."""

    @property
    def facts(self) -> Facts:
        """What was found inside when it was opened."""

    @property
    def checkpoints(self) -> Checkpoints | None:
        """Where copies of its interpreters are; None where there can be none."""

    def wake(self) -> None:
        """Let it get ready for its first call, which is slower otherwise."""

    async def adopt(self, env: Mapping[str, str], deadline: float) -> None:
        """Add to the environment of programs, in a container that has run none: who it is for is known now.

        It is alive when this returns.
        """

    async def start(self, program: Program, on_output: OnOutput) -> Process:
        """Start a program. It runs until it ends or is killed, whatever becomes of the caller."""

    async def wait_port(
        self, port: int | None, known: frozenset[int], process: Process | None = None
    ) -> frozenset[int]:
        """Wait until a TCP port is listened on: this one, or if it is None any that is not `known`.

        Only by this process's program and what it has started, if one is given. Returns what was found;
        `InvalidArgumentError` where it cannot be known.
        """

    async def connect(self, port: int, on_bytes: Callable[[bytes, bool], None]) -> Relayed:
        """Connect to a TCP port of the loopback interface. Whether somebody listens, `Relayed.wait` tells.

        `on_bytes` is called with what comes, and with whether that is the last; it must not block.
        `InvalidArgumentError` where there is no agent.
        """

    async def outfit(self, env: Mapping[str, str], files: Mapping[str, bytes]) -> None:
        """Let programs connect to the way out: whoever calls this answers them, see `accept`.

        Args:
            env: what programs have in their environment from now on, unless their user says otherwise.
            files: what they can read and not change, by path, in a directory of uid 0's.

        `InvalidArgumentError` where there is no agent.
        """

    async def accept(self, on_bytes: Callable[[bytes, bool], None]) -> Relayed:
        """Wait for the next program that connects to the way out; `on_bytes` is as for `connect`."""

    async def provide(self, volumes: Collection[str], devices: Collection[str]) -> Found:
        """Say what is mounted at these paths, and have these devices be ones that the user may open."""

    async def sessions(self) -> list[SessionInfo]:
        """Return the sessions that are alive."""

    async def end_session(self, name: str) -> bool:
        """Kill a session; False if there was none."""

    async def kill_all(self) -> None:
        """Kill every process of the user. Runs under way end as killed."""

    async def read(self, path: str, *, offset: int, length: int) -> FileContent:
        """Read up to `length` bytes of a regular file.

        Raises:
            FileError: by what is wrong.
        """

    async def write(
        self, path: str, data: bytes, *, mode: int | None, append: bool = False, expect: str | None = None
    ) -> FileWritten:
        """Create or replace a file at once (never half), or add to its end; missing parents are made.

        `expect` is the version that is to be replaced: `FileContent.version` of what was read.

        Raises:
            FileChangedError: another version is there; it stays.
            FileError: by what is wrong.
        """

    async def list_directory(self, path: str, *, limit: int) -> tuple[list[FileEntry], bool]:
        """Return up to `limit` entries in no order, and whether there are more. Raises `FileError`."""

    async def stats(self) -> Readings:
        """Return what is used now, as far as it is known."""

    async def halt(self, why: str = "stopped") -> None:
        """Have everything in the container end, as far as this is possible from inside.

        `why` is for its other clients; see `SandboxHaltedError.WORDS`.
        """

    async def is_shared(self) -> bool:
        """Whether another client is there, or anything runs."""

    async def farewell(self, why: str) -> None:
        """Tell its other clients why it is about to end. Quiet, and over in a moment."""

    async def wait_broken(self) -> AgentError:
        """Wait until the container cannot be reached any more and return why."""

    async def aclose(self) -> None:
        """Give up the container: its lease ends, and so does it. Idempotent."""
