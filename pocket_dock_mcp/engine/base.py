"""The port: a container engine as this project needs it.

Nothing here or above knows a field of the Docker API. A second adapter (a cluster whose nodes hand out
the same byte streams, say) needs these verbs and no more.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from pocket_dock_mcp.models import ContainerSpec

EngineKind = Literal["podman", "docker", "fake"]

STDOUT = 1
STDERR = 2


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """Who answers, and what that means for us."""

    kind: EngineKind
    version: str
    url: str
    rootless: bool
    cgroup_version: int
    """1 or 2."""
    identity: str
    """Of the store behind the address: the same engine is recognised when it is reached another way."""


@dataclass(frozen=True, slots=True)
class EngineDetails:
    """How an engine is set up, for people. What it does not tell is empty; nothing is decided by it."""

    api_version: str
    storage_driver: str
    storage_dir: str
    """On the engine's machine."""
    backing_filesystem: str
    runtime: str
    """What starts containers: ``runc``, ``crun`` and the like."""
    runtime_version: str
    security_options: tuple[str, ...]
    cgroup_driver: str
    kernel: str
    system: str
    """The operating system of the engine's machine."""
    swarm: bool = False
    """Whether it is part of a cluster of Docker's own kind."""


ContainerStatus = Literal["created", "running", "paused", "stopping", "exited", "removing", "unknown"]
"""``stopping``: its first program has ended, and the engine is not done with that; it cannot start yet."""


@dataclass(frozen=True, slots=True)
class ContainerState:
    """A container as the engine sees it."""

    id: str
    name: str
    status: ContainerStatus
    labels: Mapping[str, str] = field(default_factory=dict)
    exit_code: int | None = None
    """Only when it has exited."""
    oom_killed: bool = False
    size_bytes: int | None = None
    """Of what it has written to its disk; only where it was asked for."""


@dataclass(frozen=True, slots=True)
class HostMount:
    """Something of the engine's machine that a container sees."""

    source: str
    target: str
    type: str
    propagation: str


@dataclass(frozen=True, slots=True)
class Published:
    """A port of the engine's machine that leads into a container without us."""

    address: str
    host_port: int
    port: str


@dataclass(frozen=True, slots=True)
class ContainerSetup:
    """How the engine says that it has set a container up. What holds inside is another matter."""

    argv: tuple[str, ...] = ()
    """The first program and its arguments."""
    user: str = ""
    privileged: bool = False
    added_capabilities: tuple[str, ...] = ()
    """Without ``CAP_``."""
    seccomp: Literal["ours", "engine", "none", "other"] = "engine"
    """Whose filter of system calls: ``other`` is neither ours nor the engine's own."""
    no_new_privileges: bool = False
    other_security_options: tuple[str, ...] = ()
    apparmor: str = ""
    selinux: str = ""
    """The label of its processes."""
    network: str = ""
    """``none``, ``host``, ``bridge`` and the like."""
    published: tuple[Published, ...] = ()
    namespaces: Mapping[str, str] = field(default_factory=dict)
    """Of pid, ipc, uts, user and cgroup: whose, in the engine's words; empty is its default."""
    read_only_root: bool = False
    mounts: tuple[HostMount, ...] = ()
    devices: tuple[str, ...] = ()
    """Paths on the engine's machine."""
    memory_bytes: int = 0
    swap_bytes: int | None = None
    """With memory, as the Docker API counts; -1 is no limit."""
    cpus: float = 0.0
    pids: int = 0
    """Zero and less is no limit, as for the others."""
    cgroup_parent: str = ""
    restart_policy: str = ""
    log_driver: str = ""
    auto_remove: bool = False
    health_check: tuple[str, ...] = ()
    """What the engine runs in it on its own account; ``NONE`` or empty is nothing."""
    open_stdin: bool = False
    stdin_once: bool = False
    tty: bool = False
    runtime: str = ""


@dataclass(frozen=True, slots=True)
class ImageState:
    """An image that the engine has."""

    id: str
    tags: tuple[str, ...]
    labels: Mapping[str, str]
    size_bytes: int


@dataclass(frozen=True, slots=True)
class ExecState:
    """A program started by :meth:`Engine.exec`."""

    running: bool
    exit_code: int | None
    """None while it runs, or where the engine has lost track."""


class Stream(Protocol):
    """A program's standard streams as one connection."""

    async def receive(self) -> tuple[int, bytes] | None:
        """Return ``(STDOUT | STDERR, data)``, or None at the end of the stream.

        Raises:
            StreamLostError: the connection broke.
        """

    async def send(self, data: bytes) -> None:
        """Write to standard input; returns when the transport has room again.

        One call's bytes are never interleaved with another's.

        Raises:
            StreamLostError: the connection broke or was closed.
        """

    def send_nowait(self, data: bytes) -> None:
        """Write without waiting for room: for a few bytes, by whoever reads and so must not wait.

        Quiet when the connection is gone; `receive` tells.
        """

    async def send_eof(self) -> None:
        """Close standard input and go on reading, as far as the engine allows it."""

    async def aclose(self) -> None:
        """Close both directions at once. Idempotent, never raises for a dead peer."""


class ExecStream(Stream, Protocol):
    """The streams of one program started with :meth:`Engine.exec`."""

    async def state(self) -> ExecState:
        """Ask the engine how the program fares. Only this tells how it ended, never the output."""


class Engine(Protocol):
    """A connection to one container engine. Every verb has a deadline and raises `EngineError`s."""

    @property
    def info(self) -> EngineInfo:
        """Who this is; known since connecting."""

    async def ping(self) -> None:
        """Raise `EngineUnavailableError` or `EngineTimeoutError` unless the engine answers now."""

    async def details(self) -> EngineDetails:
        """Say how it is set up. May take a second."""

    async def create(self, spec: ContainerSpec) -> str:
        """Create a container, hardened and not started, and return its id.

        Raises:
            ImageNotFoundError: the engine has no such image (it is not pulled here).
            EngineConflictError: the name is taken.
            RuntimeNotThereError: the engine does not start containers with that runtime.
        """

    async def attach(self, container_id: str) -> Stream:
        """Open the first program's streams. Call before `start`, or its first output is lost.

        A container that has exited and is to start again is attached to in the same way.

        The stream is the container's lease: when it closes, the first program reads end-of-file.
        """

    async def start(self, container_id: str) -> None:
        """Start it, or start it again when it has exited and was created to be kept.

        Raises:
            ProgramNotFoundError: the image has no such program.
        """

    async def stop(self, container_id: str) -> None:
        """Kill everything in it and return when it has exited; what was created to be kept can start again.

        Quiet when it does not run, or is gone.
        """

    async def inspect(self, container_id: str, *, size: bool = False) -> ContainerState:
        """Say how it is; with `size` also how much it has written, for which an engine looks at all of it.

        Raises:
            ContainerGoneError: there is no such container.
        """

    async def setup(self, container_id: str) -> ContainerSetup:
        """Say how it was set up, for people and audits; nothing else is decided by it.

        Raises:
            ContainerGoneError: there is no such container.
        """

    async def remove(self, container_id: str) -> None:
        """Kill and remove it with its anonymous volumes. Quiet when it is gone already."""

    async def containers(self, label: str) -> list[ContainerState]:
        """List containers in any state that carry ``label`` (``key`` or ``key=value``)."""

    async def exec(
        self,
        container_id: str,
        argv: Sequence[str],
        *,
        user: str,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
    ) -> ExecStream:
        """Start another program in a running container, attached, with an open standard input."""

    async def commit(self, container_id: str, tag: str, *, labels: Mapping[str, str]) -> str:
        """Make an image of the container's filesystem and return the image's id.

        Its configuration is sanitised: no environment of ours, no labels but these.
        """

    async def image(self, reference: str) -> ImageState:
        """Look up an image that the engine has.

        Raises:
            ImageNotFoundError: it has none of that name or id.
        """

    async def images(self, label: str) -> list[ImageState]:
        """List images that carry ``label`` (``key`` or ``key=value``)."""

    def pull(self, reference: str) -> AsyncIterator[str]:
        """Fetch an image from its registry, yielding progress lines.

        Raises:
            ImageNotFoundError: the registry refused, has no such image, or cannot be reached.
        """

    def build(
        self,
        context: bytes,
        tag: str,
        *,
        build_args: Mapping[str, str],
        labels: Mapping[str, str],
        no_cache: bool = False,
    ) -> AsyncIterator[str]:
        """Build an image from a tar of a ``Containerfile`` and its context, yielding progress lines.

        With `no_cache` every step is carried out, also one that was before.

        Raises:
            ImageBuildError: a step failed; the message has the last lines.
        """

    async def import_rootfs(
        self, tar: AsyncIterable[bytes], tag: str, *, labels: Mapping[str, str] | None = None
    ) -> str:
        """Make an image of one layer from the tar of a root filesystem and return its id.

        Raises:
            ImageBuildError: it is no such tar.
        """

    def save_images(self, references: Sequence[str]) -> AsyncIterator[bytes]:
        """Yield an archive of all these images, as a tar in pieces, that any engine can load.

        Raises:
            ImageNotFoundError: the engine lacks one of them; nothing was yielded.
        """

    async def load_images(self, archive: AsyncIterable[bytes]) -> list[str]:
        """Take in the images of such an archive, and return what the engine calls them: names or ids.

        What had one of the names before loses it. Of an archive that ends early some images may come in.

        Raises:
            ImageArchiveError: it is none, or a damaged one.
        """

    async def remove_image(self, reference: str) -> None:
        """Remove an image. Quiet when it is gone already.

        Raises:
            EngineConflictError: a container is made of it.
        """

    async def aclose(self) -> None:
        """Release connections, and whatever was started to reach the engine. Idempotent."""
