"""From an image to a running container that answers, or to nothing at all: no half-made container is left."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import anyio

from pocket_dock_mcp import policy
from pocket_dock_mcp.agent.agent_transport import AgentTransport, Keep
from pocket_dock_mcp.agent.bundle import agent_argv, quick_argv, quick_input
from pocket_dock_mcp.agent.exec_transport import ExecTransport
from pocket_dock_mcp.agent.link import AgentLink, RemoteError
from pocket_dock_mcp.agent.quick import CompiledAgents
from pocket_dock_mcp.agent.requests import Header
from pocket_dock_mcp.agent.transport import Transport
from pocket_dock_mcp.beside import patiently
from pocket_dock_mcp.container.disk import require_free
from pocket_dock_mcp.container.host_paths import HostAccess
from pocket_dock_mcp.container.outfit import Gates, Opened, equip, is_gated, new_gate
from pocket_dock_mcp.container.provisioning import admit, verify, with_provisions
from pocket_dock_mcp.container.workspace import check_memory, memory_of, put_back
from pocket_dock_mcp.engine.base import Engine, EngineInfo, Stream
from pocket_dock_mcp.errors import (
    AgentError,
    ContainerGoneError,
    EngineConflictError,
    EngineError,
    InvalidArgumentError,
    LimitsNotEnforcedError,
    ProgramNotFoundError,
    SandboxLostError,
)
from pocket_dock_mcp.models import (
    MIB,
    Confinement,
    ContainerSpec,
    Facts,
    Limits,
    Network,
    RunStatus,
    Workspace,
)
from pocket_dock_mcp.outside import PROXY_PORT, Device, Volume

logger = logging.getLogger(__name__)

READY_DEADLINE = 30.0
"""Seconds from start to the agent's first frame. Usual: 0.05; a machine in deep trouble gets the rest."""
REMOVE_DEADLINE = 10.0
ANSWER_DEADLINE = 5.0
"""Seconds for the engine to say what it has made, when nobody wants it any more: then it can be removed."""
ADOPT_DEADLINE = 10.0
PAUSE = 0.02
SHARED = "shared"
KEPT_LABEL = "pocket-dock.kept"
"""On a kept container: how it is spoken to when it is resumed, and whether its uid is shared."""
COMPILED = CompiledAgents()
"""Of this process: what is worth keeping of an image is worth it whoever launches the next container."""


@dataclass(frozen=True, slots=True)
class Launch:
    """What is wanted of one container."""

    name: str
    image: str
    labels: Mapping[str, str]
    limits: Limits = field(default_factory=Limits)
    network: Network = "none"
    env: Mapping[str, str] = field(default_factory=dict)
    """Of everything that runs inside. Never part of the container's configuration: a commit keeps that."""
    uid: int | None = None
    """None for a random one. A snapshot's files belong to the uid of the sandbox that it was made from."""
    shares_uid: bool | None = None
    """Whether other containers have that uid; None is that they have if one is given."""
    enforce: Literal["strict", "best-effort"] = "strict"
    warm_python: bool = True
    """Whether Python runs in children of a warm interpreter, or each time in a new one."""
    at_ease: bool = False
    """Whether its agent loads the most of itself only at the first call, or after `Transport.wake`: of many
    that start at once, each would keep the others from starting."""
    keep: bool = False
    """Whether it outlives who holds it: it runs on without, and its files stay when it has stopped."""
    min_free_bytes: int = 0
    """That the engine's disk must have free."""
    workspace: Workspace = "disk"
    """Where the home directory is."""
    detached_ttl_s: float | None = None
    """Seconds after which a kept one stops by itself, with nobody who holds it and no run that goes on."""
    volumes: tuple[Volume, ...] = ()
    """What it is to see of the host's files, as far as `host` allows."""
    devices: tuple[Device, ...] = ()
    host: HostAccess = field(default_factory=HostAccess)
    confinement: Confinement = field(default_factory=Confinement)
    gates: Gates | None = field(default=None, compare=False, repr=False)
    """Makes what answers its programs when they connect to the outside, for a network that is neither none
    nor the engine's."""
    kept_output_bytes: int = 64 * MIB
    """Output of one run that a kept one keeps; a run that prints more while nobody holds it waits."""

    @property
    def has_shared_uid(self) -> bool:
        """Whether other containers may have its uid."""
        return self.uid is not None if self.shares_uid is None else self.shares_uid


@dataclass(slots=True)
class Running:
    """A container that answers."""

    id: str
    transport: Transport
    unenforced: tuple[str, ...]
    gate: Opened | None = None
    """What answers its programs when they connect to the outside; None where there is nothing, or another
    holds it."""
    ended: tuple[RunStatus, str] | None = None
    """What became of runs that were under way when it was ended on purpose."""


@dataclass(slots=True)
class Attempt:
    """How far a launch has come, for one who has to know when it fails."""

    is_pending: bool = False
    """Whether the engine was asked for a container and has not answered: it may still come."""


async def launch(engine: Engine, wanted: Launch, attempt: Attempt | None = None) -> Running:
    """Create, start and greet a container.

    When the caller is cancelled, an answer of the engine that is due is waited for, a moment.

    Raises:
        ImageNotFoundError: the engine does not have the image.
        LimitsNotEnforcedError: a limit does not hold inside, and `enforce` is strict.
        SandboxLostError: it started and ended at once.
        EngineError: the engine refused.
    """
    attempt = attempt or Attempt()
    uid = wanted.uid or policy.random_uid()
    compiled = COMPILED.of(engine.info.identity, wanted.image) if _can_be_quick(wanted) else None
    if compiled is not None:
        try:
            return await _with_agent(engine, wanted, uid, attempt, compiled)
        except NoPythonError as error:
            logger.info("the agent has to be compiled again for %s: %s", wanted.image, error)
            COMPILED.forget(engine.info.identity, wanted.image)
        except SandboxLostError:
            # Whatever it was: the next one does not depend on it.
            COMPILED.forget(engine.info.identity, wanted.image)
            raise
    try:
        return await _with_agent(engine, wanted, uid, attempt)
    except NoPythonError as error:
        logger.info("no agent in %s (%s); using plain execs", wanted.image, error)
    _require_little(wanted)
    return await _with_exec(engine, wanted, uid, attempt)


def _require_little(wanted: Launch) -> None:
    """Refuse what needs an agent."""
    if wanted.workspace != "disk":
        message = f"The image {wanted.image!r} has no python3, which a workspace in memory needs."
        raise InvalidArgumentError(message, hint="Use workspace='disk'.")
    if is_gated(wanted.network):
        message = f"The image {wanted.image!r} has no python3, which a network of chosen hosts needs."
        raise InvalidArgumentError(
            message, hint="Use network='none', or 'open' for the engine's own network."
        )


def _can_be_quick(wanted: Launch) -> bool:
    """Whether its agent need not have its own source: to start again, or to start interpreters with."""
    return wanted.warm_python and not wanted.keep


async def dispose(engine: Engine, running: Running) -> bool:
    """End a container that nobody has been given; whether the engine has confirmed that it is gone."""
    with anyio.CancelScope(shield=True), anyio.move_on_after(REMOVE_DEADLINE):
        await running.transport.aclose()
        return await _remove(engine, running.id)
    return False


class NoPythonError(Exception):
    """The image cannot run the agent."""


async def _with_agent(
    engine: Engine, wanted: Launch, uid: int, attempt: Attempt, compiled: bytes | None = None
) -> Running:
    labels = _labels(wanted, "agent")
    argv = agent_argv() if compiled is None else quick_argv()
    spec = policy.agent_spec(
        wanted.name,
        wanted.image,
        argv,
        labels,
        wanted.limits,
        wanted.network,
        memory=memory_of(wanted.workspace, wanted.limits),
        keep=wanted.keep,
        confinement=wanted.confinement,
    )
    container_id = await _create_again(engine, await with_provisions(engine, wanted, spec), attempt)
    try:
        return await start_agent(engine, container_id, wanted, uid, compiled)
    except BaseException as error:
        with anyio.CancelScope(shield=True), anyio.move_on_after(REMOVE_DEADLINE):
            await _remove(engine, container_id)
        if isinstance(error, ProgramNotFoundError):
            raise NoPythonError(str(error)) from error
        raise


async def start_agent(
    engine: Engine, container_id: str, wanted: Launch, uid: int, compiled: bytes | None = None
) -> Running:
    """Start a created container, or one that has exited. Without success its stream is closed again."""
    given = await admit(engine, wanted)
    gate = new_gate(wanted.network, wanted.gates)
    link: AgentLink | None = None
    try:
        # Attached before it starts: from its first moment on the container's life hangs on this stream.
        stream = await engine.attach(container_id)
        link = AgentLink(stream)
        if compiled is not None:
            stream.send_nowait(quick_input(compiled, uid, policy.HOME))
        await engine.start(container_id)
        first = await _await_ready(link)
        if compiled is None and _can_be_quick(wanted):
            await COMPILED.learn(engine.info.identity, wanted.image, link)
        transport = await AgentTransport.open(
            link,
            uid=uid,
            home=policy.HOME,
            processes=policy.user_processes(wanted.limits, shares_uid=wanted.has_shared_uid),
            limits=wanted.limits,
            env=wanted.env,
            warm=wanted.warm_python,
            keep=Keep(wanted.detached_ttl_s, wanted.kept_output_bytes) if wanted.keep else None,
            way_out=None if gate is None else PROXY_PORT,
            begun=None if compiled is None else first,
        )
        if not wanted.at_ease:
            transport.wake()
        if gate is not None:
            await equip(transport, gate)
        missing = check_facts(wanted, transport.facts, engine.info)
        await verify(transport, given)
        await put_back(transport)
        return Running(container_id, transport, missing, gate)
    except BaseException as error:
        if link is not None:
            with anyio.CancelScope(shield=True):
                await link.aclose()
        if isinstance(error, (AgentError, RemoteError)):
            message = f"The sandbox did not come up: {error}"
            raise SandboxLostError(
                message, hint="Try again; if it stays so, look at the engine's own log."
            ) from error
        raise


async def _await_ready(link: AgentLink) -> Header:
    try:
        return await link.wait_ready(READY_DEADLINE)
    except AgentError as error:
        if link.diagnostics:
            # It started and could not run: a python3 that is too old or incomplete.
            last_line = link.diagnostics.strip().splitlines()[-1]
            raise NoPythonError(last_line) from error
        raise


async def _with_exec(engine: Engine, wanted: Launch, uid: int, attempt: Attempt) -> Running:
    labels = _labels(wanted, "exec")
    spec = policy.exec_spec(
        wanted.name,
        wanted.image,
        labels,
        wanted.limits,
        wanted.network,
        keep=wanted.keep,
        confinement=wanted.confinement,
    )
    container_id = await _create_again(engine, await with_provisions(engine, wanted, spec), attempt)
    try:
        return await start_exec(engine, container_id, wanted, uid)
    except BaseException:
        with anyio.CancelScope(shield=True), anyio.move_on_after(REMOVE_DEADLINE):
            await _remove(engine, container_id)
        raise


async def start_exec(engine: Engine, container_id: str, wanted: Launch, uid: int) -> Running:
    """Start one whose image has no python3, likewise."""
    given = await admit(engine, wanted)
    stream: Stream | None = None
    try:
        stream = await engine.attach(container_id)
        await engine.start(container_id)
        transport = await ExecTransport.open(
            engine, container_id, stream, uid=uid, home=policy.HOME, env=wanted.env
        )
        await verify(transport, given)
        # Nobody looks at its disk in there. It is told, and no reason to refuse the image.
        return Running(container_id, transport, (*check_facts(wanted, transport.facts, engine.info), "disk"))
    except BaseException as error:
        if stream is not None:
            with anyio.CancelScope(shield=True):
                await stream.aclose()
        # With an init before it, a shell that is missing is noticed only now.
        if isinstance(error, (AgentError, ProgramNotFoundError)):
            message = f"The image {wanted.image!r} can start neither python3 nor /bin/sh."
            raise ProgramNotFoundError(message, hint="Use an image that has one of them.") from error
        raise


def _labels(wanted: Launch, kind: Literal["agent", "exec"]) -> Mapping[str, str]:
    kept = f"{kind}-{SHARED}" if wanted.has_shared_uid else kind
    return {**wanted.labels, KEPT_LABEL: kept} if wanted.keep else wanted.labels


async def _create_again(engine: Engine, spec: ContainerSpec, attempt: Attempt) -> str:
    """Create a container whose name may not be free yet: engines remove in the background."""
    deadline = anyio.current_time() + REMOVE_DEADLINE
    while True:
        attempt.is_pending = True
        try:
            container_id = await patiently(partial(engine.create, spec), ANSWER_DEADLINE)
            attempt.is_pending = False
            return container_id
        except EngineConflictError:
            attempt.is_pending = False
            if anyio.current_time() > deadline or await _is_anothers(engine, spec):
                raise
            await anyio.sleep(PAUSE)


async def _is_anothers(engine: Engine, spec: ContainerSpec) -> bool:
    """Whether the container that has the name is not an earlier one of ours, which is on its way out."""
    try:
        state = await engine.inspect(spec.name)
    except ContainerGoneError:
        return False
    is_ours = all(state.labels.get(label) == value for label, value in spec.labels.items())
    return not is_ours and state.status != "removing"


async def _remove(engine: Engine, container_id: str) -> bool:
    try:
        await engine.remove(container_id)
    except EngineError as error:
        # Its lease is closed, and the next start's sweep knows its name.
        logger.warning("could not remove container %s: %s", container_id, error)
        return False
    return True


def check_facts(wanted: Launch, facts: Facts, info: EngineInfo) -> tuple[str, ...]:
    """Return the limits that do not hold. Raises `LimitsNotEnforcedError` if they have to."""
    missing = policy.unenforced(
        wanted.limits,
        wanted.network,
        facts,
        wanted.confinement,
        given=[*(one.target for one in wanted.volumes), *(one.target for one in wanted.devices)],
        memory=memory_of(wanted.workspace, wanted.limits),
    )
    missing += check_memory(wanted.workspace, wanted.limits, facts)
    if info.rootless and info.kind == "podman":
        # It drops all ulimits that it is asked for. Programs get theirs from the agent (`inside/children`).
        missing = tuple(name for name in missing if not name.startswith("ulimits: "))
    if missing and wanted.enforce == "strict":
        message = f"The engine accepted these limits and did not apply them: {', '.join(missing)}."
        raise LimitsNotEnforcedError(message, missing=missing)
    require_free(facts.disk_free, wanted.min_free_bytes)
    return missing
