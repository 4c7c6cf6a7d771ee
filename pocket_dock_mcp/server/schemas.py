"""What goes over the wire: parameters with their descriptions, and structured results.

The descriptions are part of the product: a model reads them and nothing else.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field

SandboxId = Annotated[
    str | None,
    Field(description="From create_sandbox. May be left out while you have exactly one sandbox."),
]
Path = Annotated[
    str, Field(description="Absolute, or relative to the home directory /home/sandbox. Links are followed.")
]
Cwd = Annotated[
    str | None,
    Field(description="Working directory: absolute, or relative to the home directory (the default)."),
]
Env = Annotated[dict[str, str] | None, Field(description="Environment variables to add.")]
Stdin = Annotated[str | None, Field(description="Text for standard input. Without it there is no input.")]
TimeoutS = Annotated[
    float, Field(description="Seconds of wall time, up to 86400; then all processes of the run are killed.")
]
MaxOutput = Annotated[
    int | None,
    Field(
        description="Bytes of each of stdout and stderr to return: head and tail. Default 8192, up to 65536."
    ),
]


class Usage(BaseModel):
    """What a run cost."""

    wall_s: float
    cpu_s: float
    peak_memory_mb: float


class RunReply(BaseModel):
    """How a run ended and what it printed."""

    sandbox_id: str
    status: Literal["ok", "nonzero", "signal", "timeout", "oom", "killed", "lost", "indeterminate"]
    exit_code: int | None = Field(description="As observed; null if it did not exit by itself.")
    signal: int | None
    stdout: str
    stderr: str
    stdout_bytes: int = Field(description="True total, whatever is shown.")
    stderr_bytes: int
    truncated: bool
    control_chars_removed: bool
    usage: Usage
    hint: str | None


class SandboxReply(BaseModel):
    """A sandbox and what it may use."""

    sandbox_id: str
    name: str
    image: str
    home: str
    python: str | None
    memory_mb: int
    cpus: float
    pids: int
    network: str
    expires_in_s: int = Field(description="Unless it is used; each call starts the time anew.")
    unenforced: list[str] = Field(description="Limits that this engine does not apply.")


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


class WriteReply(BaseModel):
    """What a write did."""

    sandbox_id: str
    path: str
    size: int
    overwrote: bool


class ReadReply(BaseModel):
    """A file, or a range of its lines."""

    sandbox_id: str
    path: str
    content: str
    encoding: Literal["utf-8", "base64"]
    size: int = Field(description="Bytes of the whole file.")
    total_lines: int | None
    start_line: int | None = Field(description="Of the content, from 1; null for base64.")
    end_line: int | None
    truncated: bool


class KillReply(BaseModel):
    """What was ended or deleted."""

    killed: str
