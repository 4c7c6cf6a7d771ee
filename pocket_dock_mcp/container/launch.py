"""From an image to a running container that answers, or to nothing at all: no half-made container is left."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import anyio

from pocket_dock_mcp import policy
from pocket_dock_mcp.agent.agent_process import KeptRun
from pocket_dock_mcp.agent.agent_transport import AgentTransport, Keep
from pocket_dock_mcp.agent.bridge import bridge
from pocket_dock_mcp.agent.bundle import agent_argv, quick_argv, quick_input
from pocket_dock_mcp.agent.exec_transport import ExecTransport
from pocket_dock_mcp.agent.link import AgentLink, RemoteError
from pocket_dock_mcp.agent.quick import CompiledAgents
from pocket_dock_mcp.agent.transport import Transport
from pocket_dock_mcp.engine.base import ContainerState, Engine, Stream
from pocket_dock_mcp.errors import (
    AgentError,
    ContainerGoneError,
    EngineConflictError,
    EngineError,
    InvalidArgumentError,
    LimitsNotEnforcedError,
    ProgramNotFoundError,
    SandboxDetachedError,
    SandboxLostError,
    SandboxStateError,
)
from pocket_dock_mcp.models import ContainerSpec, Facts, Limits, Network, RunStatus

logger = logging.getLogger(__name__)

READY_DEADLINE = 30.0
"""Seconds from start to the agent's first frame. Usual: 0.05; a machine in deep trouble gets the rest."""
REMOVE_DEADLINE = 10.0
PAUSE = 0.02
RETRY_PAUSE = 0.3
KEPT_LABEL = "pocket-dock.kept"
"""On a kept container: how it is spoken to when it is resumed."""
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
    enforce: Literal["strict", "best-effort"] = "strict"
    warm_python: bool = True
    """Whether Python runs in children of a warm interpreter, or each time in a new one."""
    keep: bool = False
    """Whether it outlives who holds it: it runs on without, and its files stay when it has stopped."""
    detached_ttl_s: float | None = None
    """Seconds after which a kept one stops by itself, with nobody who holds it and no run that goes on."""


@dataclass(slots=True)
class Running:
    """A container that answers."""

    id: str
    transport: Transport
    unenforced: tuple[str, ...]
    ended: tuple[RunStatus, str] | None = None
    """What became of runs that were under way when it was ended on purpose."""


async def launch(engine: Engine, wanted: Launch) -> Running:
    """Create, start and greet a container.

    Raises:
        ImageNotFoundError: the engine does not have the image.
        LimitsNotEnforcedError: a limit does not hold inside, and `enforce` is strict.
        SandboxLostError: it started and ended at once.
        EngineError: the engine refused.
    """
    uid = wanted.uid or policy.random_uid()
    compiled = COMPILED.of(engine.info.identity, wanted.image) if _can_be_quick(wanted) else None
    if compiled is not None:
        try:
            return await _with_agent(engine, wanted, uid, compiled)
        except _NoPythonError as error:
            logger.info("the agent has to be compiled again for %s: %s", wanted.image, error)
            COMPILED.forget(engine.info.identity, wanted.image)
    try:
        return await _with_agent(engine, wanted, uid)
    except _NoPythonError as error:
        logger.info("no agent in %s (%s); using plain execs", wanted.image, error)
    return await _with_exec(engine, wanted, uid)


def _can_be_quick(wanted: Launch) -> bool:
    """Whether its agent need not have its own source: to start again, or to start interpreters with."""
    return wanted.warm_python and not wanted.keep


async def dispose(engine: Engine, running: Running) -> bool:
    """End a container that nobody has been given; whether the engine has confirmed that it is gone."""
    with anyio.CancelScope(shield=True), anyio.move_on_after(REMOVE_DEADLINE):
        await running.transport.aclose()
        return await _remove(engine, running.id)
    return False


class _NoPythonError(Exception):
    """The image cannot run the agent."""


async def _with_agent(engine: Engine, wanted: Launch, uid: int, compiled: bytes | None = None) -> Running:
    labels = _labels(wanted, "agent")
    argv = agent_argv() if compiled is None else quick_argv()
    spec = policy.agent_spec(
        wanted.name, wanted.image, argv, labels, wanted.limits, wanted.network, keep=wanted.keep
    )
    container_id = await _create_again(engine, spec)
    try:
        return await _start_agent(engine, container_id, wanted, uid, compiled)
    except BaseException as error:
        with anyio.CancelScope(shield=True), anyio.move_on_after(REMOVE_DEADLINE):
            await _remove(engine, container_id)
        if isinstance(error, ProgramNotFoundError):
            raise _NoPythonError(str(error)) from error
        raise


async def _start_agent(
    engine: Engine, container_id: str, wanted: Launch, uid: int, compiled: bytes | None = None
) -> Running:
    """Start a created container, or one that has exited. Without success its stream is closed again."""
    link: AgentLink | None = None
    try:
        # Attached before it starts: from its first moment on the container's life hangs on this stream.
        stream = await engine.attach(container_id)
        link = AgentLink(stream)
        if compiled is not None:
            stream.send_nowait(quick_input(compiled))
        await engine.start(container_id)
        await _await_ready(link)
        if compiled is None and _can_be_quick(wanted):
            await COMPILED.learn(engine.info.identity, wanted.image, link)
        transport = await AgentTransport.open(
            link,
            uid=uid,
            home=policy.HOME,
            processes=policy.user_processes(wanted.limits, shares_uid=wanted.uid is not None),
            limits=wanted.limits,
            env=wanted.env,
            warm=wanted.warm_python,
            keep=Keep(wanted.detached_ttl_s) if wanted.keep else None,
        )
        return Running(container_id, transport, _check(wanted, transport.facts))
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
    labels = _labels(wanted, "exec")
    spec = policy.exec_spec(
        wanted.name, wanted.image, labels, wanted.limits, wanted.network, keep=wanted.keep
    )
    container_id = await _create_again(engine, spec)
    try:
        return await _start_exec(engine, container_id, wanted, uid)
    except BaseException:
        with anyio.CancelScope(shield=True), anyio.move_on_after(REMOVE_DEADLINE):
            await _remove(engine, container_id)
        raise


async def _start_exec(engine: Engine, container_id: str, wanted: Launch, uid: int) -> Running:
    stream: Stream | None = None
    try:
        stream = await engine.attach(container_id)
        await engine.start(container_id)
        transport = await ExecTransport.open(
            engine, container_id, stream, uid=uid, home=policy.HOME, env=wanted.env
        )
        return Running(container_id, transport, _check(wanted, transport.facts))
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
    return {**wanted.labels, KEPT_LABEL: kind} if wanted.keep else wanted.labels


async def _create_again(engine: Engine, spec: ContainerSpec) -> str:
    """Create a container whose name may not be free yet: engines remove in the background."""
    deadline = anyio.current_time() + REMOVE_DEADLINE
    while True:
        try:
            return await engine.create(spec)
        except EngineConflictError:
            if anyio.current_time() > deadline:
                raise
            await anyio.sleep(PAUSE)


async def resume(engine: Engine, wanted: Launch) -> Running:
    """Start a kept container that has stopped, with the files that it has.

    Raises:
        SandboxStateError: it runs, or is not one that is kept.
        ContainerGoneError: there is none of that name that is ours.
        And what `launch` raises; it is left stopped then.
    """
    state = await _settled(engine, wanted)
    if state.status not in ("exited", "created", "stopping"):
        message = f"The sandbox cannot be resumed: it is {state.status}."
        raise SandboxStateError(
            message, hint="Attach to it again instead." if state.status == "running" else None
        )
    if wanted.uid is None:
        message = "A container can be resumed only with the uid that it had: its files belong to it."
        raise InvalidArgumentError(message)
    start = _start_exec if state.labels[KEPT_LABEL] == "exec" else _start_agent
    deadline = anyio.current_time() + REMOVE_DEADLINE
    try:
        while True:
            try:
                return await start(engine, state.id, wanted, wanted.uid)
            except (EngineConflictError, SandboxLostError):
                # Podman may still tidy up after its last end, with the new beginning in its way.
                if anyio.current_time() > deadline:
                    raise
            await anyio.sleep(RETRY_PAUSE)
            await engine.stop(state.id)
    except BaseException as error:
        with anyio.CancelScope(shield=True), anyio.move_on_after(REMOVE_DEADLINE):
            await _stop(engine, state.id)
        if isinstance(error, _NoPythonError):
            message = f"The sandbox's python3 does not work any more: {error}"
            raise SandboxLostError(message, hint="Its files are kept; create a new one.") from error
        raise


async def _settled(engine: Engine, wanted: Launch) -> ContainerState:
    """Return the state of a kept container, when the engine is done with its last end."""
    deadline = anyio.current_time() + REMOVE_DEADLINE
    while True:
        state = await find_kept(engine, wanted)
        if state.status != "stopping" or anyio.current_time() > deadline:
            return state
        await anyio.sleep(PAUSE)


async def rejoin(engine: Engine, wanted: Launch) -> tuple[Running, list[KeptRun]]:
    """Take up a kept container that runs, and return the runs that it knows of.

    Raises:
        SandboxStateError: it does not run, or cannot be taken up.
        ContainerGoneError: there is none of that name that is ours.
        LimitsNotEnforcedError: a limit does not hold (any more), and `enforce` is strict.
        SandboxDetachedError: it runs and does not answer.
        EngineError: the engine refused.
    """
    state = await find_kept(engine, wanted)
    if state.status != "running":
        raise _does_not_run(state.status)
    if state.labels[KEPT_LABEL] == "exec":
        message = "The sandbox cannot be attached to: its image has no python3."
        raise SandboxStateError(message, hint="Stop it and resume it: its files are kept.")
    try:
        link = AgentLink(await bridge(engine, state.id))
    except EngineConflictError as error:
        # It has stopped just now.
        raise _does_not_run("stopping") from error
    try:
        await link.wait_ready(READY_DEADLINE)
        transport, found = await AgentTransport.rejoin(link)
        return Running(state.id, transport, _check(wanted, transport.facts)), found
    except BaseException as error:
        with anyio.CancelScope(shield=True):
            await link.aclose()
        if isinstance(error, (AgentError, RemoteError)):
            message = f"The sandbox could not be attached to: {error} {link.diagnostics}".strip()
            raise SandboxDetachedError(message, hint="Try again; or stop it and resume it.") from error
        raise


def _does_not_run(status: str) -> SandboxStateError:
    message = f"The sandbox cannot be attached to: it is {status}."
    return SandboxStateError(message, hint="Resume it: its files are kept.")


async def find_kept(engine: Engine, wanted: Launch) -> ContainerState:
    """Return the state of a kept container that carries the labels that it was made with.

    Raises:
        ContainerGoneError: there is none of that name, or it is somebody else's.
        SandboxStateError: it is not one that is kept.
    """
    state = await engine.inspect(wanted.name)
    if any(state.labels.get(label) != value for label, value in wanted.labels.items()):
        message = f"The container {wanted.name!r} is not ours."
        raise ContainerGoneError(message)
    if KEPT_LABEL not in state.labels:
        message = "The sandbox is not one that is kept."
        raise SandboxStateError(message)
    return state


async def _stop(engine: Engine, container_id: str) -> None:
    try:
        await engine.stop(container_id)
    except EngineError as error:
        logger.warning("could not stop container %s: %s", container_id, error)


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
