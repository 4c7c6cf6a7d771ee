"""Copies of interpreters, asked for over the agent's stream. Experimental; see `inside.checkpoints`."""

from __future__ import annotations

import secrets

import anyio

from pocket_dock_mcp.agent.link import AgentLink, RemoteError
from pocket_dock_mcp.agent.requests import Header
from pocket_dock_mcp.agent.transport import CheckpointInfo
from pocket_dock_mcp.errors import (
    AgentError,
    AgentProtocolError,
    CheckpointError,
    CheckpointNotFoundError,
    CheckpointThreadsError,
    PocketDockError,
    ProcessLimitError,
    SessionBusyError,
)

PREFIX = "cp-"
"""What ids begin with."""
DEADLINE = 40.0
"""Seconds: the agent gives user code six, and then ends what does not end by itself."""
MAX_LISTED = 32
_MAX_ID = 100
_MAX_THREADS = 100_000

_WHY: dict[str, tuple[type[PocketDockError], str, str]] = {
    "no_session": (
        CheckpointError,
        "There is no Python session {session!r} that is alive.",
        "Only Python sessions can be copied. Run something in it first.",
    ),
    "busy": (
        SessionBusyError,
        "The session {session!r} is busy, and can be copied and restored only between two runs.",
        "Wait for the run that is under way, or kill it.",
    ),
    "too_many": (
        CheckpointError,
        "There are as many checkpoints as there can be: 8 of one session, 32 in a sandbox.",
        "Drop one with kill(snapshot_id=<checkpoint_id>), end the session to drop its own, or go on without.",
    ),
    "unknown": (
        CheckpointNotFoundError,
        "The session {session!r} has no such checkpoint.",
        CheckpointNotFoundError.default_hint,
    ),
    "died": (
        CheckpointNotFoundError,
        "The checkpoint {checkpoint!r} of the session {session!r} is dead, or died of this.",
        "Its memory may have been needed. What it held has to be made anew.",
    ),
    "late": (
        CheckpointError,
        "The session {session!r} did not fork within six seconds.",
        "Functions of its own that run at a fork may hang; or the sandbox is overloaded.",
    ),
    "tampered": (
        CheckpointError,
        "The session {session!r} did not fork as it should.",
        "Memory ran out, or something that it has run interferes: functions that run at a fork, a subreaper.",
    ),
}


class AgentCheckpoints:
    """Those of one container. See `Checkpoints` for the methods."""

    def __init__(self, link: AgentLink) -> None:
        self._link = link

    async def make(self, session: str) -> str:
        """Copy a session."""
        checkpoint_id = PREFIX + secrets.token_hex(16)
        try:
            await self._ask("make", session, checkpoint_id)
        except anyio.get_cancelled_exc_class():
            with anyio.CancelScope(shield=True):
                await self._abandon(checkpoint_id)
            raise
        return checkpoint_id

    async def restore(self, session: str, checkpoint_id: str) -> None:
        """Have a session go on from a copy."""
        await self._ask("restore", session, checkpoint_id)

    async def drop(self, checkpoint_id: str) -> bool:
        """End a copy."""
        return (await self._ask("drop", "", checkpoint_id)).get("dropped") is True

    async def list(self) -> list[CheckpointInfo]:
        """Return all that are alive."""
        found = (await self._ask("list", "", "")).get("checkpoints")
        if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
            message = "The program in the container sent checkpoints that are none."
            raise AgentProtocolError(message)
        return [
            CheckpointInfo(str(one.get("id"))[:_MAX_ID], str(one.get("session"))[:_MAX_ID])
            for one in found[:MAX_LISTED]
        ]

    async def _abandon(self, checkpoint_id: str) -> None:
        """End what nobody will ever know the id of."""
        try:
            await self.drop(checkpoint_id)
        except AgentError:
            # The link is dead, and it goes with its session at the latest.
            pass

    async def _ask(self, do: str, session: str, checkpoint_id: str) -> Header:
        fields = {"do": do, "session": session, "checkpoint": checkpoint_id}
        try:
            return await self._link.call("checkpoint", deadline=DEADLINE, **fields)
        except RemoteError as error:
            raise _error(error, session, checkpoint_id) from None


def _error(error: RemoteError, session: str, checkpoint_id: str) -> PocketDockError:
    """Return the error for a code of a closed set."""
    threads = error.fields.get("threads")
    if error.reason == "threads":
        count = threads if type(threads) is int and 0 < threads < _MAX_THREADS else "some"
        return CheckpointThreadsError(
            f"The session {session!r} has {count} thread{'' if count == 1 else 's'} besides its main one, "
            "which a copy would not have."
        )
    if error.reason in ("EAGAIN", "ENOMEM", "EMFILE", "ENFILE"):
        return ProcessLimitError(
            f"The session {session!r} could not be forked: it is short of processes, memory or files.",
            hint="End what runs in the background, or close files, and try again.",
        )
    if error.reason not in _WHY:
        return CheckpointError(f"The session {session!r} could not be forked.")
    cls, what, hint = _WHY[error.reason]
    return cls(what.format(session=session, checkpoint=checkpoint_id), hint=hint)
