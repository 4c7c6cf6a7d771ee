"""What can be asked of one running container, whichever way it is reached.

Two ways: the agent (`agent_transport`), and for images without python3 plain engine execs
(`exec_transport`), which are slower and give fewer guarantees.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from pocket_dock_mcp.errors import AgentError
from pocket_dock_mcp.models import Facts, FileContent, FileEntry, FileWritten, Language, RunUsage

OnOutput = Callable[[int, bytes], None]
"""Called with (1 for stdout or 2 for stderr, data) as output arrives. Must not block."""


@dataclass(frozen=True, slots=True)
class Program:
    """What to run."""

    language: Language
    code: str
    """A shell command, or Python source."""
    env: Mapping[str, str] = field(default_factory=dict)
    """On top of the sandbox's environment."""
    cwd: str | None = None
    """Absolute, or relative to the home directory; None is the home directory."""
    stdin: bytes | None = None
    """Written to standard input, which is then closed; None is /dev/null."""
    timeout_s: float | None = None
    """Wall time after which every process of the run is killed."""


@dataclass(frozen=True, slots=True)
class RunEnd:
    """How a program ended, as observed. Exactly one of `exit_code` and `signal` is set."""

    exit_code: int | None
    signal: int | None
    timed_out: bool
    killed: bool
    oom: bool
    usage: RunUsage


class Transport(Protocol):
    """A running container. Every method raises `AgentError`s when the container cannot be reached."""

    @property
    def kind(self) -> Literal["agent", "exec"]:
        """Which way."""

    @property
    def facts(self) -> Facts:
        """What was found inside when it was opened."""

    async def run(self, program: Program, on_output: OnOutput) -> RunEnd:
        """Run a program to its end. When the caller is cancelled, the run is killed first.

        Raises:
            FileError: its `cwd` cannot be entered.
            ProcessLimitError: no process can be started.
        """

    async def kill_all(self) -> None:
        """Kill every process of the user. Runs under way end as killed."""

    async def read(self, path: str, *, offset: int, length: int) -> FileContent:
        """Read up to `length` bytes of a regular file.

        Raises:
            FileError: by what is wrong.
        """

    async def write(self, path: str, data: bytes, *, mode: int | None) -> FileWritten:
        """Create or replace a file at once (never half), making missing parents. Raises `FileError`."""

    async def list_directory(self, path: str, *, limit: int) -> tuple[list[FileEntry], bool]:
        """Return up to `limit` entries in no order, and whether there are more. Raises `FileError`."""

    async def stats(self) -> tuple[int | None, int | None]:
        """Return memory in use in bytes and the number of user processes; None where unknown."""

    async def wait_broken(self) -> AgentError:
        """Wait until the container cannot be reached any more and return why."""

    async def aclose(self) -> None:
        """Give up the container: its lease ends, and so does it. Idempotent."""
