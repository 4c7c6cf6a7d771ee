"""Copies of a container's interpreters, to go back to. Experimental.

A checkpoint is a fork of a session's interpreter, so it has the variables as they were, and neither threads
nor connections. What is outside of the process is not part of it: files, and memory that is shared.
"""

from __future__ import annotations

from pocket_dock_mcp.agent.agent_checkpoints import PREFIX
from pocket_dock_mcp.agent.transport import CheckpointInfo, Checkpoints, Program, Transport
from pocket_dock_mcp.container.arguments import checked_session
from pocket_dock_mcp.container.holding import HeldContainer
from pocket_dock_mcp.errors import InvalidArgumentError


class Checkpointing(HeldContainer):
    """The part of `LiveContainer` that copies interpreters."""

    async def checkpoint(self, session: str) -> str:
        """Copy a Python session as it is between two runs, and return the copy's id for `restore`.

        It costs a process, and the memory that the session or the copy changes afterwards. It outlives the
        session's process if that crashes or is killed for its time, and ends with `end_session`.

        Raises:
            CheckpointThreadsError: the session has threads.
            SessionBusyError: a run is under way in it.
            ProcessLimitError: no process can be started.
            CheckpointError: there is no such session, or too many checkpoints, or it cannot be forked.
            InvalidArgumentError: the image has no python3.
            SandboxLostError, SandboxClosedError: the container is not there any more.
        """
        async with self._reaching():
            return await _of(self._transport).make(checked_session(session) or "")

    async def restore(self, session: str, checkpoint_id: str) -> None:
        """Have a session go on from a checkpoint of it; what it is now ends. Any number of times.

        When this fails the session is as it was.

        Raises:
            CheckpointNotFoundError: the session has no such checkpoint, or it has died.
            SessionBusyError, ProcessLimitError, CheckpointError, InvalidArgumentError, SandboxLostError,
                SandboxClosedError: as for `checkpoint`.
        """
        async with self._reaching():
            await _of(self._transport).restore(checked_session(session) or "", checkpoint_id)

    async def drop_checkpoint(self, checkpoint_id: str) -> bool:
        """End a checkpoint; False if there is none of this id.

        Raises:
            SandboxLostError, SandboxClosedError: the container is not there any more.
        """
        async with self._reaching():
            found = self._transport.checkpoints
            return found is not None and await found.drop(checkpoint_id)

    async def list_checkpoints(self) -> list[CheckpointInfo]:
        """Return the checkpoints of all sessions, in the order in which they were made.

        Raises:
            SandboxLostError, SandboxClosedError: the container is not there any more.
        """
        async with self._reaching():
            found = self._transport.checkpoints
            return [] if found is None else await found.list()


def is_checkpoint(some_id: str) -> bool:
    """Whether an id is one of a checkpoint, if it is one at all."""
    return some_id.startswith(PREFIX)


SAVE = "save"
"""Instead of a checkpoint's id: make one."""


async def prepare(container: Checkpointing, checkpoint: str, program: Program) -> str:
    """Copy a program's session before it runs there, or have it go back to a copy; return the copy's id.

    Raises:
        InvalidArgumentError: it is not to run in a Python session, or `checkpoint` can be no id.
        SessionError, ProcessLimitError, SandboxLostError, SandboxClosedError: as for `Checkpointing`.
    """
    if program.session is None or program.language != "python":
        message = "A checkpoint is one of a Python session, and this run has none."
        raise InvalidArgumentError(message, hint="Name the session, or leave checkpoint out.")
    if checkpoint != SAVE and not is_checkpoint(checkpoint):
        message = f"checkpoint is {checkpoint[:80]!r}; it must be {SAVE!r}, or a checkpoint_id ({PREFIX}...)."
        raise InvalidArgumentError(message, hint=f"A run with {SAVE!r} returns its checkpoint_id.")
    if checkpoint == SAVE:
        return await container.checkpoint(program.session)
    await container.restore(program.session, checkpoint)
    return checkpoint


def _of(transport: Transport) -> Checkpoints:
    if transport.checkpoints is None:
        message = "This sandbox's image has no python3 that works, so there are no sessions to copy."
        raise InvalidArgumentError(
            message, hint="Create a sandbox of an image that has it, such as 'minimal'."
        )
    return transport.checkpoints
