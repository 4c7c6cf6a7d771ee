"""A sandbox: a container leased to an owner, with an id, a lifetime and limits."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pocket_dock_mcp import policy
from pocket_dock_mcp.container.arguments import checked_environment
from pocket_dock_mcp.container.asked import check_volumes, ports_of
from pocket_dock_mcp.container.core import LiveContainer
from pocket_dock_mcp.container.workspace import memory_home_bytes
from pocket_dock_mcp.errors import InvalidArgumentError, SandboxError
from pocket_dock_mcp.manager.audit import AuditLog
from pocket_dock_mcp.manager.naming import check_naming, check_title
from pocket_dock_mcp.manager.runs import RunBook
from pocket_dock_mcp.models import MIB, Limits, Network, Workspace
from pocket_dock_mcp.outside import Device, PortMapping, Volume
from pocket_dock_mcp.settings import Settings

if TYPE_CHECKING:
    from pocket_dock_mcp.manager.records import Claim


LOCAL_PRINCIPAL = "local"
"""Whoever can start a process on this account: over stdio and on the command line there is nobody else."""


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose a sandbox is. Decided by the front end from the connection, never from what a client types."""

    session: str
    """Ends with the connection; its sandboxes end with it."""
    principal: str
    """Who is behind the connection; snapshots belong to it."""


@dataclass(frozen=True, slots=True)
class SandboxRequest:
    """What is asked for."""

    image: str
    """A profile's name or an image reference; without meaning when `snapshot` is given."""
    snapshot: str | None = None
    limits: Limits = field(default_factory=Limits)
    network: Network = "none"
    env: Mapping[str, str] = field(default_factory=dict)
    idle_ttl_s: float = 1800.0
    """It ends after so many seconds without a call."""
    max_lifetime_s: float = 86_400.0
    """It ends so many seconds after its creation, whatever runs in it."""
    name: str = ""
    """For people; need not be unique."""
    project_root: str = ""
    """The directory of the project that it belongs to, which has its history; empty for none."""
    workspace: Workspace | None = None
    """Where its home directory is; None for that of the snapshot, or the disk."""
    persist: bool = False
    """It outlives the session and this process: it is stopped where others end, and ended on request only."""
    container_name: str = ""
    """The container's name on the engine, which nobody else may have; empty for one of ours."""
    user: int | None = None
    """The uid of everything that runs in it; None for a random one, or that of its first files."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """On its container, for other tools; nothing here goes by them, and no image has them."""
    project: str = ""
    """Which project it belongs to, for those who list."""
    workdir: str = ""
    """Where its maker's runs begin; empty for the home directory."""
    ports: tuple[PortMapping, ...] = ()
    """Of the host that lead into it while a process holds it."""
    volumes: tuple[Volume, ...] = ()
    """What it sees of the host's files."""
    host_roots: tuple[str, ...] = ()
    """Where those may be if the settings do not say so: a front end's word to people, never a model's."""
    devices: tuple[Device, ...] = ()
    run_timeout_s: float | None = None
    """Seconds that a run of its user's command line may take unless it says otherwise; None for any."""
    disposable: bool = False
    """It is kept only so that one command after another can use it: pruning removes it, and a shutdown."""


class Sandbox:
    """A live sandbox. Its methods are its container's; see `use`."""

    def __init__(
        self, sandbox_id: str, owner: Owner, request: SandboxRequest, container: LiveContainer
    ) -> None:
        self.id = sandbox_id
        self.owner = owner
        self.request = request
        self.container = container
        self.claim: Claim | None = None
        """On its record, if it is kept beyond this process, and not only visited."""
        self.runs = RunBook(container)
        self.log = AuditLog(None).open(sandbox_id, owner.principal, owner.session)
        """What is done with it goes there."""
        self.ports_seen: set[int] = set()
        """TCP ports that its owner has been told of."""
        self.created = time.time()
        """Seconds since the epoch."""
        self._began = self._last_used = time.monotonic()
        self._users = 0
        self._has_ended = False

    @property
    def is_kept(self) -> bool:
        """Whether it is on record, held by us or by another process."""
        return self.claim is not None or self.container.visits

    async def look_for_runs(self) -> None:
        """Learn of the runs that other processes have begun in it since.

        Raises: what `LiveContainer.run` raises.
        """
        self.runs.adopt(await self.container.look_for_runs())

    async def has_run(self, run_id: str) -> bool:
        """Whether there is a run of this id, whoever has begun it; its output comes to us from then on."""
        try:
            if self.runs.get(run_id) is None and self.is_kept:
                await self.look_for_runs()
        except SandboxError:
            return False
        if (found := self.runs.get(run_id)) is None:
            return False
        found.run.follow()
        if found.run.had_ended:
            # All of its output is on its way.
            await found.run.outcome()
        return True

    def belongs_to(self, owner: Owner) -> bool:
        """Whether a caller may use it: its session, or if it is kept, anybody of its principal."""
        if self.request.persist:
            return self.owner.principal == owner.principal
        return self.owner == owner

    @property
    def is_in_use(self) -> bool:
        """Whether it is held for a call."""
        return self._users > 0

    @contextmanager
    def use(self) -> Iterator[LiveContainer]:
        """Hold the sandbox for a call: while it is held it does not count as idle."""
        self._users += 1
        try:
            yield self.container
        finally:
            self._users -= 1
            self._last_used = time.monotonic()
            self._close_runs()

    def ended(self) -> None:
        """It is no more: the output of its runs goes, when those who are just being told of it have been."""
        self._has_ended = True
        self._close_runs()

    def _close_runs(self) -> None:
        if self._has_ended and not self._users:
            self.runs.close()

    def expiry(self) -> float:
        """Return when it ends unless it is used again, on the monotonic clock."""
        # What persists does so that its runs may go on without anybody.
        is_used = (
            self._users
            or self.container.is_connected
            or (self.runs.is_busy if self.request.persist else self.runs.is_attended)
        )
        last_used = time.monotonic() if is_used else self._last_used
        return min(self._began + self.request.max_lifetime_s, last_used + self.request.idle_ttl_s)

    @property
    def is_too_old(self) -> bool:
        """Whether it has reached its maximum lifetime."""
        return time.monotonic() >= self._began + self.request.max_lifetime_s

    def expiry_reason(self) -> str:
        """Say why it ends, for its owner."""
        if self.is_too_old:
            return f"it reached its maximum lifetime of {self.request.max_lifetime_s:g} s"
        return f"it was not used for {self.request.idle_ttl_s:g} s"

    def remaining_s(self) -> float:
        """Return how many seconds are left, if it is not used."""
        return max(0.0, self.expiry() - time.monotonic())


def new_id() -> str:
    """Return an unguessable sandbox id: 128 bits."""
    return f"sb-{secrets.token_hex(16)}"


def check_request(request: SandboxRequest, settings: Settings) -> None:
    """Refuse what makes no sense, or exceeds what is configured.

    Raises:
        InvalidArgumentError: says what may be.
    """
    checked_environment(request.env)
    check_title(request.name)
    check_naming(request.container_name, request.labels, request.user)
    policy.check_limits(
        request.limits,
        max_memory_bytes=settings.max_memory_mb * MIB,
        max_cpus=settings.max_cpus,
        max_pids=settings.max_pids,
        max_disk_bytes=settings.max_disk_mb * MIB,
    )
    ports_of(request.ports)
    check_volumes(request.volumes, request.workspace)
    if request.workspace == "memory":
        memory_home_bytes(request.limits)
        if request.persist:
            message = "A workspace in memory does not persist: it is gone when the sandbox stops."
            raise InvalidArgumentError(message, hint="Use workspace='disk', or take a snapshot.")
    for name, value in (("ttl_s", request.idle_ttl_s), ("max_lifetime_s", request.max_lifetime_s)):
        if not 1 <= value <= settings.max_lifetime_s:
            message = f"{name} is {value:.15g}; it must be from 1 to {settings.max_lifetime_s:.15g} seconds."
            raise InvalidArgumentError(message)
