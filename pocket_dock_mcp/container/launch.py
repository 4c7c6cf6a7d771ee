"""From an image to a running container that answers, or to nothing at all: no half-made container is left."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import anyio

from pocket_dock_mcp import policy
from pocket_dock_mcp.agent.agent_transport import AgentTransport
from pocket_dock_mcp.agent.bundle import agent_argv
from pocket_dock_mcp.agent.exec_transport import ExecTransport
from pocket_dock_mcp.agent.link import AgentLink, RemoteError
from pocket_dock_mcp.agent.transport import Transport
from pocket_dock_mcp.engine.base import Engine, Stream
from pocket_dock_mcp.errors import (
    AgentError,
    EngineConflictError,
    EngineError,
    LimitsNotEnforcedError,
    ProgramNotFoundError,
    SandboxLostError,
)
from pocket_dock_mcp.models import ContainerSpec, Facts, Limits, Network

logger = logging.getLogger(__name__)

READY_DEADLINE = 30.0
"""Seconds from start to the agent's first frame. Usual: 0.05; a machine in deep trouble gets the rest."""
REMOVE_DEADLINE = 10.0
NAME_PAUSE = 0.05


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
    enforce: Literal["strict", "best-effort"] = "strict"
    warm_python: bool = True
    """Whether Python runs in children of a warm interpreter, or each time in a new one."""


@dataclass(frozen=True, slots=True)
class Running:
    """A container that answers."""

    id: str
    transport: Transport
    unenforced: tuple[str, ...]


async def launch(engine: Engine, wanted: Launch) -> Running:
    """Create, start and greet a container.

    Raises:
        ImageNotFoundError: the engine does not have the image.
        LimitsNotEnforcedError: a limit does not hold inside, and `enforce` is strict.
        SandboxLostError: it started and ended at once.
        EngineError: the engine refused.
    """
    uid = wanted.uid or policy.random_uid()
    try:
        return await _with_agent(engine, wanted, uid)
    except _NoPythonError as error:
        logger.info("no agent in %s (%s); using plain execs", wanted.image, error)
    return await _with_exec(engine, wanted, uid)


async def dispose(engine: Engine, running: Running) -> bool:
    """End a container that nobody has been given; whether the engine has confirmed that it is gone."""
    with anyio.CancelScope(shield=True), anyio.move_on_after(REMOVE_DEADLINE):
        await running.transport.aclose()
        return await _remove(engine, running.id)
    return False


class _NoPythonError(Exception):
    """The image cannot run the agent."""


async def _with_agent(engine: Engine, wanted: Launch, uid: int) -> Running:
    spec = policy.agent_spec(
        wanted.name, wanted.image, agent_argv(), wanted.labels, wanted.limits, wanted.network
    )
    container_id = await engine.create(spec)
    link: AgentLink | None = None
    try:
        # Attached before it starts: from its first moment on the container's life hangs on this stream.
        link = AgentLink(await engine.attach(container_id))
        await engine.start(container_id)
        await _await_ready(link)
        transport = await AgentTransport.open(
            link,
            uid=uid,
            home=policy.HOME,
            processes=policy.user_processes(wanted.limits),
            limits=wanted.limits,
            env=wanted.env,
            warm=wanted.warm_python,
        )
        missing = _check(wanted, transport.facts)
    except BaseException as error:
        with anyio.CancelScope(shield=True), anyio.move_on_after(REMOVE_DEADLINE):
            if link is not None:
                await link.aclose()
            await _remove(engine, container_id)
        if isinstance(error, ProgramNotFoundError):
            raise _NoPythonError(str(error)) from error
        if isinstance(error, (AgentError, RemoteError)):
            message = f"The sandbox did not come up: {error}"
            raise SandboxLostError(
                message, hint="Try again; if it stays so, look at the engine's own log."
            ) from error
        raise
    return Running(container_id, transport, missing)


async def _await_ready(link: AgentLink) -> None:
    try:
        await link.wait_ready(READY_DEADLINE)
    except AgentError as error:
        if link.diagnostics:
            # It started and could not run: a python3 that is too old or incomplete.
            last_line = link.diagnostics.strip().splitlines()[-1]
            raise _NoPythonError(last_line) from error
        raise


async def _with_exec(engine: Engine, wanted: Launch, uid: int) -> Running:
    spec = policy.exec_spec(wanted.name, wanted.image, wanted.labels, wanted.limits, wanted.network)
    container_id = await _create_again(engine, spec)
    stream: Stream | None = None
    try:
        stream = await engine.attach(container_id)
        await engine.start(container_id)
        transport = await ExecTransport.open(
            engine, container_id, stream, uid=uid, home=policy.HOME, env=wanted.env
        )
        missing = _check(wanted, transport.facts)
    except BaseException as error:
        with anyio.CancelScope(shield=True), anyio.move_on_after(REMOVE_DEADLINE):
            if stream is not None:
                await stream.aclose()
            await _remove(engine, container_id)
        # With an init before it, a shell that is missing is noticed only now.
        if isinstance(error, (AgentError, ProgramNotFoundError)):
            message = f"The image {wanted.image!r} can start neither python3 nor /bin/sh."
            raise ProgramNotFoundError(message, hint="Use an image that has one of them.") from error
        raise
    return Running(container_id, transport, missing)


async def _create_again(engine: Engine, spec: ContainerSpec) -> str:
    """Create a container whose name may not be free yet: engines remove in the background."""
    deadline = anyio.current_time() + REMOVE_DEADLINE
    while True:
        try:
            return await engine.create(spec)
        except EngineConflictError:
            if anyio.current_time() > deadline:
                raise
            await anyio.sleep(NAME_PAUSE)


async def _remove(engine: Engine, container_id: str) -> bool:
    try:
        await engine.remove(container_id)
    except EngineError as error:
        # Its lease is closed, and the next start's sweep knows its name.
        logger.warning("could not remove container %s: %s", container_id, error)
        return False
    return True


def _check(wanted: Launch, facts: Facts) -> tuple[str, ...]:
    missing = policy.unenforced(wanted.limits, wanted.network, facts)
    if missing and wanted.enforce == "strict":
        message = f"The engine accepted these limits and did not apply them: {', '.join(missing)}."
        raise LimitsNotEnforcedError(message)
    return missing
