"""The values that travel between the layers and to the user: frozen, typed, without behaviour."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from pocket_dock_mcp.errors import RunFailedError
from pocket_dock_mcp.outside import Device, PortMapping, Volume
from pocket_dock_mcp.readings import Readings

MIB = 1024 * 1024
GIB = 1024 * MIB

Language = Literal["python", "shell", "javascript"]
EngineNetwork = Literal["none", "open"]
"""What an engine is asked for: only loopback, or its own network."""
Network = Literal["none", "packages", "open"] | tuple[str, ...]
"""What a sandbox may reach: nothing, the package registries that the host uses, anything by the engine's own
network, or the domains of a list, as `pocket_dock_mcp.gate.rules.parse_network` writes them."""
Workspace = Literal["disk", "memory"]

RunStatus = Literal[
    "running",
    "ok",
    "nonzero",
    "signal",
    "timeout",
    "oom",
    "output_limit",
    "disk_full",
    "killed",
    "lost",
    "indeterminate",
]
"""How a run ended.

``ok`` and ``nonzero`` have an exit code that was observed. ``signal``: the program died of a signal
that we did not send. ``timeout``, ``output_limit``, ``killed``: we ended it, for its limit on time (wall or
CPU) or on output, or on request. ``oom``: it was killed for the sandbox's memory limit or its own.
``disk_full``: it failed, and it filled up a file system. ``lost``: the sandbox died under it.
``indeterminate``: the connection to the engine broke and nobody knows; the run may have had effects.
``running``: it has not ended.
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
    disk_bytes: int = 4096 * MIB
    """Of files on the disk that its image has not. Looked at while programs run; over it they are killed."""
    file_bytes: int = 4096 * MIB
    """Size of one file."""


SystemCalls = Literal["ours", "engine"]
"""Whose filter of system calls is in force."""


@dataclass(frozen=True, slots=True)
class Confinement:
    """What keeps a container apart, as far as it can be chosen: by who configures the server, by no call."""

    seccomp: SystemCalls = "ours"
    runtime: str | None = None
    """What the engine starts it with, by the engine's name for it; None for the engine's usual one."""


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """One container as we want it, in no engine's vocabulary. The hardening is not optional."""

    name: str
    image: str
    argv: tuple[str, ...]
    """The first program and its arguments; replaces the image's entrypoint and command."""
    labels: Mapping[str, str]
    limits: Limits
    network: EngineNetwork = "none"
    capabilities: tuple[str, ...] = ()
    """All others are dropped."""
    names_itself: bool = False
    """Whether its first program sees to ``/etc/hosts``, where an engine leaves it empty."""
    memory: Mapping[str, int] = field(default_factory=dict)
    """Directories that are file systems in memory, and their sizes in bytes."""
    init: bool = False
    """Put a small init before the first program, which then need not reap orphans."""
    volumes: tuple[Volume, ...] = ()
    """What it sees of the host's files. Nothing is made where nothing is."""
    devices: tuple[Device, ...] = ()
    confinement: Confinement = field(default_factory=Confinement)
    keep: bool = False
    """Whether its files stay when its first program has ended, so that it can be started again."""


@dataclass(frozen=True, slots=True)
class Mount:
    """Something that is mounted in a container."""

    target: str
    type: str
    read_only: bool
    is_shadow: bool = False
    """Whether it is a file system in memory, small enough to be one that hides a volume of the image."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a container shows of itself; None where nobody could look."""

    pid: int | None = None
    """Of the first program, as it sees itself."""
    hostname: str | None = None
    cgroup: str | None = None
    """Its own, as it sees it; None where cgroups are of version 1."""
    bounding: int | None = None
    """The capabilities that it was started with, as a mask."""
    swap_bytes: int | None = None
    """Of swap, on top of memory."""
    shm_bytes: int | None = None
    """Size of ``/dev/shm``."""
    oom_score: int | None = None
    ulimits: Mapping[str, int | None] = field(default_factory=dict)
    """Hard ones; None is no limit."""
    mounts: tuple[Mount, ...] = ()
    devices: tuple[str, ...] = ()
    """Names in ``/dev``."""
    to_mask: tuple[str, ...] = ()
    """Files about the kernel that are there and have to be hidden."""


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
    let_through: tuple[str, ...] | None = None
    """System calls that our filter refuses and that were let through; None where it is not known."""
    surroundings: Surroundings | None = None
    memory_limit: int | None = None
    pids_limit: int | None = None
    cpus: float | None = None
    interfaces: tuple[str, ...] | None = None
    """Network interfaces that are up."""
    home_bytes: int | None = None
    """Size of the home directory's file system, where it is another than the root's."""
    disk_free: int | None = None
    """Bytes that the engine's disk has free, or has files left for, at 16 KiB each."""
    parked: bool = False
    """Whether the files of a home directory lie beside it, to be put back."""


@dataclass(frozen=True, slots=True)
class RunUsage:
    """What a run cost, from the kernel's accounting of its processes."""

    wall_s: float = 0.0
    cpu_s: float = 0.0
    """User and system time of the program and the children that it waited for."""
    peak_memory_bytes: int = 0
    """The largest resident set of any one of them."""


@dataclass(frozen=True, slots=True)
class RunLimits:
    """What one run may use. None is no limit but the sandbox's own."""

    cpu_s: float | None = None
    """CPU seconds of all its processes together; over it they are killed (status ``timeout``)."""
    memory_bytes: int | None = None
    """Resident memory of all its processes together; over it they are killed (status ``oom``)."""
    processes: int | None = None
    """Processes and threads at once; over it none can be started."""
    output_bytes: int | None = None
    """Output on both streams together; over it they are killed (status ``output_limit``)."""


@dataclass(frozen=True, slots=True)
class FilesChanged:
    """Which files changed while a run ran: in the home directory, /tmp and /var/tmp."""

    created: tuple[tuple[str, int], ...] = ()
    """Paths and sizes in bytes."""
    modified: tuple[tuple[str, int], ...] = ()
    deleted: tuple[str, ...] = ()
    counts: tuple[int, int, int] = (0, 0, 0)
    """How many were created, modified and deleted; the paths may be fewer."""
    incomplete: bool = False
    """Whether there may be changes that nobody has seen: too many files or directories."""

    def __bool__(self) -> bool:
        return any(self.counts) or self.incomplete


@dataclass(frozen=True, slots=True)
class RunImage:
    """An image that a run has produced, encoded."""

    name: str
    mime_type: str
    data: bytes
    drawn: bool = False
    """Whether the program has rendered it itself: then it may have saved it to a file, too."""


@dataclass(frozen=True, slots=True)
class SessionState:
    """The session that a run was part of."""

    name: str
    new: bool
    """Whether the run was its first."""
    alive: bool
    """Whether it goes on: an ``exit``, a crash or a kill ends it."""


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """A session that is alive."""

    name: str
    language: str
    busy: bool


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
    value: str | None = None
    """The last expression's value as text, or a preview of it; None when there was none."""
    images: tuple[RunImage, ...] = ()
    """Figures and images that Python code has left open or returned."""
    images_left: int = 0
    """How many more there were than could be carried."""
    notes: tuple[str, ...] = ()
    """What could not be shown, and why."""
    files_changed: FilesChanged | None = None
    """None where it is not known."""
    session: SessionState | None = None
    network_denied: tuple[str, ...] = ()
    """What its sandbox was denied by its network while it ran, each as host, port and reason. Of runs at the
    same time it is not known whose doing it was. The names are a program's: data."""

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
    version: str = ""
    """Opaque: another one means that the file was changed or replaced since."""

    @property
    def complete(self) -> bool:
        """Whether ``data`` is the whole file."""
        return len(self.data) == self.size


@dataclass(frozen=True, slots=True)
class FileLines:
    """Some lines of a file."""

    data: bytes
    size: int
    """Of the whole file."""
    start_line: int
    end_line: int
    """One less than `start_line` when there are no lines."""
    total_lines: int | None
    """None where the end of the file was too far to look."""
    start_byte: int
    """Where the data begins in the file."""
    partial: bool
    """Whether the data is only the beginning of one line that is too long."""

    @property
    def end_byte(self) -> int:
        """Where the data ends in the file."""
        return self.start_byte + len(self.data)

    @property
    def more(self) -> bool:
        """Whether the file goes on after them."""
        return self.end_byte < self.size


@dataclass(frozen=True, slots=True)
class FileWritten:
    """What a write did."""

    path: str
    """Where it landed: absolute, symbolic links resolved."""
    size: int
    """Of the whole file afterwards."""
    overwrote: bool
    """Whether there was a file before."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """Something of a transfer that is not at its destination, or not exactly as it was."""

    path: str
    """Below what was transferred. Undecodable bytes are kept as surrogate escapes."""
    reason: str


@dataclass(frozen=True, slots=True)
class Transferred:
    """What a push or pull has moved."""

    path: str
    """Where it landed: absolute, symbolic links resolved."""
    files: int
    directories: int
    symlinks: int
    bytes: int
    """Of contents; holes in sparse files are not moved."""
    skipped: tuple[Skipped, ...] = ()
    """What was left out or altered, the first hundred of it."""
    skipped_count: int = 0
    """How many there were."""


@dataclass(frozen=True, slots=True)
class TransferProgress:
    """How far a push or pull has come."""

    files: int
    bytes: int
    total_bytes: int | None
    """As counted beforehand; None while nobody knows. The other side may have told any number."""


@dataclass(frozen=True, slots=True)
class Edit:
    """One exact replacement in a text file."""

    old: str
    """What is there now, character by character."""
    new: str
    all: bool = False
    """Replace it everywhere; otherwise it must be there once."""


@dataclass(frozen=True, slots=True)
class FileEdited:
    """What some edits did to a file."""

    path: str
    """Where it is: absolute, symbolic links resolved."""
    size: int
    replacements: tuple[int, ...]
    """How many, by edit."""
    diff: str
    """What changed, as a unified diff; as many whole hunks as fit a few thousand characters."""
    diff_truncated: bool


@dataclass(frozen=True, slots=True)
class FoundFile:
    """One file that a search has found."""

    path: str
    """Below the path that was searched. Undecodable bytes are kept as surrogate escapes."""
    type: Literal["file", "directory", "symlink", "other"]
    size: int


@dataclass(frozen=True, slots=True)
class FoundLine:
    """One line that a search has found."""

    path: str
    """As in `FoundFile`."""
    line: int
    """Counted from 1."""
    text: str
    """Of a long line what is around the match, with an ellipsis for what is not."""


@dataclass(frozen=True, slots=True)
class FilesFound:
    """What a search has found: files, or lines if it was for a pattern in them; what is near comes first."""

    files: tuple[FoundFile, ...]
    lines: tuple[FoundLine, ...]
    more: bool
    """Whether there is more than was wanted."""
    timed_out: bool
    """Whether the time was up before all was searched."""
    skipped: int
    """Hidden and vendored files and directories that were not looked at."""
    binary: int
    """Files that were not searched for a pattern because they are no text."""
    unreadable: int
    """Files and directories that the sandbox user may not read."""


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
    workspace: Workspace
    python: str | None
    """Version of the image's python3."""
    kept: Literal["nothing", "files", "processes"] = "nothing"
    """What outlives who uses it: ``files`` when it can only be resumed, ``processes`` when it runs on."""
    live: Readings = field(default_factory=Readings)
    """All that is known of what it uses now."""
    ports: tuple[PortMapping, ...] = ()
    """Of the host that lead into it now."""
    volumes: tuple[Volume, ...] = ()
    devices: tuple[Device, ...] = ()
    facts: Facts | None = None
    """What it has told of itself when it was started or taken up; None where nobody has asked."""
