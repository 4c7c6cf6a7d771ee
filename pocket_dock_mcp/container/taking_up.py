"""Kept containers are taken up again: one that runs, or one that has stopped."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import anyio

from pocket_dock_mcp.agent.agent_process import KeptRun
from pocket_dock_mcp.agent.agent_transport import AgentTransport
from pocket_dock_mcp.agent.bridge import bridge
from pocket_dock_mcp.agent.link import AgentLink, RemoteError
from pocket_dock_mcp.container.launch import (
    ADOPT_DEADLINE,
    KEPT_LABEL,
    PAUSE,
    READY_DEADLINE,
    REMOVE_DEADLINE,
    SHARED,
    Launch,
    NoPythonError,
    Running,
    check_facts,
    start_agent,
    start_exec,
)
from pocket_dock_mcp.container.outfit import equip, new_gate
from pocket_dock_mcp.engine.base import ContainerState, Engine
from pocket_dock_mcp.errors import (
    AgentError,
    ContainerGoneError,
    EngineConflictError,
    EngineError,
    FilterMissingError,
    InvalidArgumentError,
    LimitsNotEnforcedError,
    SandboxBusyError,
    SandboxDetachedError,
    SandboxError,
    SandboxLostError,
    SandboxStateError,
    StreamLostError,
)

logger = logging.getLogger(__name__)

RETRY_PAUSE = 0.3
BRIDGE_DEADLINE = 10.0
"""Seconds within which an engine's exec that broke is tried again."""
BEAT = 5.0
"""Seconds between two signs of life of a visitor."""
FULL_HINT = "Try again when one of them has ended."


class NobodyListensError(SandboxDetachedError):
    """Its agent is not the one that was left: somebody has restarted the container from outside."""


async def resume(engine: Engine, wanted: Launch) -> Running:
    """Start a kept container that has stopped, with the files that it has.

    Raises:
        SandboxStateError: it runs, or is not one that is kept.
        ContainerGoneError: there is none of that name that is ours.
        FilterMissingError: it was made without our filter of system calls.
        And what `launch` raises; it is left stopped then.
    """
    state = await _settled(engine, wanted)
    if state.status not in ("exited", "created", "stopping"):
        message = f"The sandbox cannot be resumed: it is {state.status}."
        raise SandboxStateError(
            message, hint="Attach to it again instead." if state.status == "running" else None
        )
    uid = wanted.uid
    if uid is None:
        message = "A container can be resumed only with the uid that it had: its files belong to it."
        raise InvalidArgumentError(message)
    start = start_exec if _is_bare(state) else start_agent
    deadline = anyio.current_time() + REMOVE_DEADLINE
    try:
        while True:
            try:
                with _filter_asked_for():
                    running = await start(engine, state.id, wanted, uid)
                await running.transport.adopt({}, ADOPT_DEADLINE)
                return running
            except (EngineConflictError, SandboxLostError):
                # Podman may still tidy up after its last end, with the new beginning in its way.
                if anyio.current_time() > deadline:
                    raise
            await anyio.sleep(RETRY_PAUSE)
            await engine.stop(state.id)
    except BaseException as error:
        with anyio.CancelScope(shield=True), anyio.move_on_after(REMOVE_DEADLINE):
            await _stop(engine, state.id)
        if isinstance(error, NoPythonError):
            message = f"The sandbox's python3 does not work any more: {error}"
            raise SandboxLostError(message, hint="Its files are kept; create a new one.") from error
        raise


@contextmanager
def _filter_asked_for() -> Iterator[None]:
    """Have it said what to do with a sandbox that was made with another filter than is asked for now."""
    try:
        yield
    except LimitsNotEnforcedError as error:
        if error.missing == ("seccomp",):
            raise FilterMissingError from error
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
        FilterMissingError: it was made without our filter of system calls.
        SandboxDetachedError: it runs and does not answer.
        EngineError: the engine refused.
    """
    return await _join(engine, wanted, visits=False)


async def visit(engine: Engine, wanted: Launch) -> tuple[Running, list[KeptRun]]:
    """Join a kept container that runs, beside whoever holds it, and return the runs that it knows of.

    Raises: what `rejoin` raises; and
        SandboxBusyError: as many visit it as can.
        NobodyListensError: its agent takes no visitors (yet): it is of an earlier release, or just starting.
    """
    return await _join(engine, wanted, visits=True)


async def _join(engine: Engine, wanted: Launch, *, visits: bool) -> tuple[Running, list[KeptRun]]:
    state = await find_kept(engine, wanted)
    if state.status != "running":
        raise _does_not_run(state.status)
    if _is_bare(state):
        message = "The sandbox cannot be attached to: its image has no python3."
        raise SandboxStateError(message, hint="Stop it and resume it: its files are kept.")
    link = await _linked(engine, state.id, visits=visits)
    try:
        if visits:
            link.beat(BEAT)
        transport, found = await AgentTransport.rejoin(link)
        with _filter_asked_for():
            missing = check_facts(wanted, transport.facts, engine.info)
        # Who only visits leaves it to the holder to answer what goes out.
        gate = None if visits else new_gate(wanted.network, wanted.gates)
        if gate is not None:
            await equip(transport, gate)
        return Running(state.id, transport, missing, gate), found
    except BaseException as error:
        with anyio.CancelScope(shield=True):
            await link.aclose()
        if isinstance(error, (AgentError, RemoteError)):
            raise _unattached(error, link.diagnostics) from error
        raise


async def _linked(engine: Engine, container_id: str, *, visits: bool) -> AgentLink:
    """Return a link over which the agent has spoken.

    Programs that use up all processes or memory of the container can be in the way of the engine's exec,
    which breaks then before it has become our program: so it is tried again.
    """
    deadline = anyio.current_time() + BRIDGE_DEADLINE
    while True:
        try:
            link = AgentLink(await bridge(engine, container_id, visits=visits))
        except EngineConflictError as error:
            # It has stopped just now.
            raise _does_not_run("stopping") from error
        try:
            await link.wait_ready(READY_DEADLINE)
            return link
        except BaseException as error:
            with anyio.CancelScope(shield=True):
                await link.aclose()
            if not isinstance(error, (AgentError, RemoteError)):
                raise
            broken = _unattached(error, link.diagnostics)
            was_cut = type(error) is StreamLostError and not isinstance(broken, NobodyListensError)
            if not was_cut or anyio.current_time() > deadline:
                raise broken from error
        await anyio.sleep(RETRY_PAUSE)


def _unattached(error: AgentError | RemoteError, diagnostics: str) -> SandboxError:
    """Say why the bridge into a container broke. What it says of itself is uid 0's word, not a program's."""
    if isinstance(error, RemoteError) and error.stage == "visit":
        return SandboxBusyError("As many processes are using this sandbox as can.", hint=FULL_HINT)
    said = diagnostics.strip().splitlines()[-1:] or [str(error)]
    kind = NobodyListensError if said[0].startswith("ConnectionRefusedError") else SandboxDetachedError
    message = f"The sandbox could not be attached to: {said[0]}"
    return kind(message, hint="Try again; or stop it, and its files stay.")


def _does_not_run(status: str) -> SandboxStateError:
    message = f"The sandbox cannot be attached to: it is {status}."
    return SandboxStateError(message, hint="Resume it: its files are kept.")


async def as_made(engine: Engine, wanted: Launch) -> Launch:
    """Return what is wanted of a kept container, with what is written on it of how it was made.

    Raises: what `find_kept` raises.
    """
    _, _, shared = (await find_kept(engine, wanted)).labels[KEPT_LABEL].partition("-")
    return replace(wanted, shares_uid=shared == SHARED)


def runs_on(state: ContainerState) -> bool:
    """Whether a kept container runs on without anybody who holds it, and can be taken up: it has an agent."""
    return not _is_bare(state)


def _is_bare(state: ContainerState) -> bool:
    """Whether its image has no python3."""
    return state.labels[KEPT_LABEL].startswith("exec")


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
