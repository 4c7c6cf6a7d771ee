"""The values that travel between the layers and to the user: frozen, typed, without behaviour."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from pocket_dock_mcp.errors import RunFailedError

MIB = 1024 * 1024

Language = Literal["python", "shell"]
Network = Literal["none", "open"]

RunStatus = Literal["ok", "nonzero", "signal", "timeout", "oom", "killed", "lost", "indeterminate"]
"""How a run ended.

``ok`` and ``nonzero`` have an exit code that was observed. ``signal``: the program died of a signal
that we did not send. ``timeout``, ``killed``: we ended it, for its time limit or on request. ``oom``:
the kernel killed it for the sandbox's memory limit. ``lost``: the sandbox died under it.
``indeterminate``: the connection to the engine broke and nobody knows; the run may have had effects.
"""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one sandbox may use. Verified from inside before the sandbox is handed out."""

    memory_bytes: int = 512 * MIB
    """Memory of all its processes and tmpfs files; swap is not available on top."""
    cpus: float = 1.0
    """CPU time per second of wall time."""
    pids: int = 128
    """Processes and threads at once."""
    shm_bytes: int = 16 * MIB
    """Size of ``/dev/shm``."""
    open_files: int = 1024
    """Open file descriptors of one process."""
    file_bytes: int = 4096 * MIB
    """Size of one file."""


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """One container as we want it, in no engine's vocabulary. The hardening is not optional."""

    name: str
    image: str
    argv: tuple[str, ...]
    """The first program and its arguments; replaces the image's entrypoint and command."""
    labels: Mapping[str, str]
    limits: Limits
    network: Network = "none"
    capabilities: tuple[str, ...] = ()
    """All others are dropped."""
    init: bool = False
    """Put a small init before the first program, which then need not reap orphans."""
    hostname: str = "sandbox"


@dataclass(frozen=True, slots=True)
class Facts:
    """What is true inside the container, told by the program there."""

    uid: int
    home: str
    python: str | None = None
    capabilities: Mapping[str, str] | None = None
    """Of PID 1: ``CapEff`` and its like, as the hexadecimal masks of ``/proc/self/status``."""
    no_new_privs: bool | None = None
    seccomp: bool | None = None
    memory_limit: int | None = None
    pids_limit: int | None = None
    cpus: float | None = None
    interfaces: tuple[str, ...] | None = None
    """Network interfaces that are up."""


@dataclass(frozen=True, slots=True)
class RunUsage:
    """What a run cost, from the kernel's accounting of its processes."""

    wall_s: float = 0.0
    cpu_s: float = 0.0
    """User and system time of the program and the children that it waited for."""
    peak_memory_bytes: int = 0
    """The largest resident set of any one of them."""


@dataclass(frozen=True, slots=True)
class RunResult:
    """How one run ended and what it printed."""

    status: RunStatus
    exit_code: int | None = None
    """As observed; None when the program did not exit by itself."""
    signal: int | None = None
    """The signal that ended it, if one did."""
    stdout: str = ""
    """Decoded as UTF-8, undecodable bytes replaced; head and tail when over the cap."""
    stderr: str = ""
    stdout_bytes: int = 0
    """True total, whatever was kept."""
    stderr_bytes: int = 0
    truncated: bool = False
    usage: RunUsage = field(default_factory=RunUsage)
    hint: str | None = None
    """One next step, when the ending suggests one."""

    @property
    def ok(self) -> bool:
        """Whether the program was seen to exit with 0."""
        return self.status == "ok"

    @property
    def timed_out(self) -> bool:
        """Whether the time limit ended it."""
        return self.status == "timeout"

    @property
    def duration_ms(self) -> float:
        """Wall time in milliseconds."""
        return self.usage.wall_s * 1000

    def check(self) -> RunResult:
        """Return the result itself if it is ok.

        Raises:
            RunFailedError: it is not; the message has the status and the end of stderr.
        """
        if self.ok:
            return self
        detail = self.stderr.strip()[-500:]
        message = f"The run ended with status {self.status} (exit code {self.exit_code}). {detail}".strip()
        raise RunFailedError(message, hint=self.hint)


FileType = Literal["file", "directory", "symlink", "fifo", "socket", "device"]


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One directory entry, not followed if it is a link."""

    name: str
    """Undecodable bytes are kept as surrogate escapes (see :func:`os.fsdecode`)."""
    type: FileType
    size: int
    """In bytes, as ``lstat`` says."""
    mode: int
    """Permission bits, without the file type."""
    mtime: float
    """Seconds since the epoch."""


@dataclass(frozen=True, slots=True)
class FileContent:
    """A regular file's content, or a piece of it."""

    data: bytes
    size: int
    """Of the whole file when it was opened."""
    mode: int
    mtime: float

    @property
    def complete(self) -> bool:
        """Whether ``data`` is the whole file."""
        return len(self.data) == self.size


@dataclass(frozen=True, slots=True)
class FileWritten:
    """What a write did."""

    path: str
    """Where it landed: absolute, symbolic links resolved."""
    size: int
    overwrote: bool


@dataclass(frozen=True, slots=True)
class ContainerInfo:
    """A container and its live use of resources."""

    name: str
    image: str
    transport: Literal["agent", "exec"]
    """``exec`` is the slower way for images without python3, with fewer guarantees."""
    uid: int
    """The user id of everything that runs inside."""
    home: str
    limits: Limits
    unenforced: tuple[str, ...]
    """Limits that this engine does not apply; empty unless limits are set to best-effort."""
    memory_bytes: int | None
    """In use now; None where it cannot be read."""
    processes: int | None
    """User processes alive now."""
    network: Network
    python: str | None
    """Version of the image's python3."""
