"""What goes over the wire: parameters with their descriptions, and structured results.

The descriptions are part of the product: a model reads them and nothing else.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from pocket_dock_mcp.models import RunStatus

SandboxId = Annotated[
    str | None,
    Field(description="From create_sandbox. May be left out while you have exactly one sandbox."),
]
Cwd = Annotated[
    str | None,
    Field(description="Working directory: absolute, or relative to the home directory (the default)."),
]
Env = Annotated[dict[str, str] | None, Field(description="Environment variables to add.")]
Checkpoint = Annotated[
    str | None,
    Field(
        description="Experimental, for Python sessions: 'save' keeps a copy of the session's variables before this run; a checkpoint_id goes back to that copy before it. Files, threads and connections are no part of it."
    ),
]
Stdin = Annotated[str | None, Field(description="Text for standard input. Without it there is no input.")]
TimeoutS = Annotated[
    float | None,
    Field(
        description="Seconds of wall time, up to 86400, after which all its processes are killed. Default 60; none in the background."
    ),
]
WaitS = Annotated[
    float,
    Field(
        description="Seconds to wait for the end, up to 300. Then the reply has status 'running' and a run_id for wait_run; the run goes on."
    ),
]
RunId = Annotated[str, Field(description="From run_code or run_command.")]
MemoryMb = Annotated[float | None, Field(description="MiB of memory for this run alone.")]
CpuS = Annotated[float | None, Field(description="Seconds of CPU time for this run.")]
OutputLimitMb = Annotated[float | None, Field(description="MiB of output after which the run is killed.")]
Processes = Annotated[int | None, Field(description="Processes and threads at once for this run.")]
Background = Annotated[
    bool, Field(description="Return at once with a run_id and let it run on, for servers and long jobs.")
]
IdempotencyKey = Annotated[
    str | None,
    Field(description="Calling again with the same key never runs again; it returns that run."),
]
MaxOutput = Annotated[
    int | None,
    Field(
        description="Bytes of each of stdout and stderr to return: head and tail. Default {output_bytes}, up to 65536."
    ),
]


class Usage(BaseModel):
    """What a run cost."""

    wall_s: float
    cpu_s: float
    peak_memory_mb: float


class Change(BaseModel):
    """A file that was created or modified."""

    path: str
    size: int


class Changes(BaseModel):
    """Files that changed meanwhile in the home directory, /tmp and /var/tmp."""

    created: list[Change]
    modified: list[Change]
    deleted: list[str]
    counts: list[int] = Field(description="Created, modified, deleted: true totals.")
    incomplete: bool


class Session(BaseModel):
    """The session that it ran in."""

    name: str
    new: bool = Field(description="Whether this was its first run.")
    alive: bool


class RunReply(BaseModel):
    """How a run ended and what it printed."""

    sandbox_id: str
    run_id: str
    status: RunStatus
    exit_code: int | None = Field(description="As observed; null if it did not exit by itself.")
    signal: int | None
    result: str | None = Field(description="The last expression's value.")
    stdout: str
    stderr: str
    stdout_bytes: int = Field(description="True total, whatever is shown.")
    stderr_bytes: int
    truncated: bool
    control_chars_removed: bool
    artifacts: list[str] = Field(description="Names of the images that come with this reply.")
    files_changed: Changes | None
    session: Session | None
    network_denied: list[str] = Field(description="Hosts that the network kept from it, and why.")
    checkpoint_id: str | None = Field(description="The copy made, or gone back to, before this run.")
    usage: Usage
    hint: str | None


class OutputReply(BaseModel):
    """A part of a run's output."""

    run_id: str
    stream: Literal["stdout", "stderr"]
    content: str
    encoding: Literal["utf-8", "base64"]
    start_byte: int | None = Field(description="Where the content begins; null for a search.")
    next_byte: int | None = Field(description="Where to go on; null at the end.")
    first_line: int | None
    last_line: int | None
    total_bytes: int
    total_lines: int
    matches: int | None = Field(description="Lines that match, of a search.")
    control_chars_removed: bool


class Live(BaseModel):
    """What a sandbox uses now; null where it is not known."""

    cpu: float | None = Field(description="Cores, since the last look.")
    cpu_s: float | None
    memory_mb: float | None
    peak_memory_mb: float | None
    processes: int | None
    pids: int | None = Field(description="Processes and threads that count against the limit.")
    runs: int | None
    sessions: int | None
    uptime_s: float | None
    received_kb: float | None
    sent_kb: float | None
    addresses: list[str]


class Port(BaseModel):
    """A port of a server in a sandbox."""

    port: int
    address: str = Field(description="Of the user's machine, where it is reached.")


class SandboxReply(BaseModel):
    """A sandbox and what it may use."""

    sandbox_id: str
    name: str
    status: Literal["running", "stopped", "paused", "gone", "busy"] = Field(
        description="stopped: the next call starts it. busy: another process is using it."
    )
    persist: bool
    image: str
    home: str | None
    python: str | None
    memory_mb: int
    cpus: float
    pids: int
    disk_mb: int
    network: str | list[str]
    workspace: str = Field(description="Where the home directory is.")
    expires_in_s: int | None = Field(description="Unless it is used; each call starts the time anew.")
    unenforced: list[str] = Field(description="Limits that this engine does not apply.")
    ports: list[Port]
    live: Live


class SnapshotReply(BaseModel):
    """A snapshot: the files of a sandbox, kept."""

    snapshot_id: str
    name: str
    sandbox_id: str | None = Field(description="Of the sandbox it was just made from.")
    size_mb: float
    created: str = Field(description="UTC, ISO 8601.")


class ListReply(BaseModel):
    """What the caller has."""

    sandboxes: list[SandboxReply]
    snapshots: list[SnapshotReply]
    hint: str | None = Field(
        default=None, exclude_if=lambda hint: hint is None, description="Only if not all are listed."
    )


class KillReply(BaseModel):
    """What was ended or deleted."""

    killed: str
