"""Files that no image can hold, for their names or paths: found before one is made, and not lost unsaid."""

from __future__ import annotations

import os

from pocket_dock_mcp.agent.bundle import source_of
from pocket_dock_mcp.agent.inside.whiteouts import MAX_PATH
from pocket_dock_mcp.agent.transport import Program, Transport
from pocket_dock_mcp.container.asking import ask
from pocket_dock_mcp.container.endings import status_of
from pocket_dock_mcp.errors import UnkeepableNamesError, WorkspaceError
from pocket_dock_mcp.output import escaped

LOOK_TIMEOUT_S = 60.0
_MAX_ANSWER = 64 * 1024
_NAMED = 3
_MOST_SHOWN = 200
_FIND = "exec find / -xdev -name '.wh.*'"


async def require_none(transport: Transport) -> None:
    """See that an image would have all files of a container.

    Raises:
        UnkeepableNamesError: it would not.
        WorkspaceError: nobody could look.
        And what `Transport.start` raises.
    """
    answer = await (_by_python(transport) if transport.kind == "agent" else _by_find(transport))
    paths = [os.fsdecode(line) for line in answer.splitlines()]
    if not paths:
        return
    named = ", ".join(escaped(path)[0][:_MOST_SHOWN] for path in paths[:_NAMED])
    more = " and more" if len(paths) > _NAMED else ""
    what = f"files whose names begin with .wh., or whose paths have more than {MAX_PATH} bytes"
    raise UnkeepableNamesError(f"No image can hold {what}, and here are such: {named}{more}.")


async def _by_python(transport: Transport) -> bytes:
    looking = Program("python", source_of("whiteouts"), cwd="/", timeout_s=LOOK_TIMEOUT_S)
    end, answer = await ask(transport, looking, _MAX_ANSWER)
    if (status := status_of(end)) != "ok":
        raise WorkspaceError(f"The files could not be looked through: what does it ended as {status}.")
    return answer


async def _by_find(transport: Transport) -> bytes:
    looking = Program("shell", _FIND, cwd="/", timeout_s=LOOK_TIMEOUT_S)
    end, answer = await ask(transport, looking, _MAX_ANSWER)
    # It also fails where it may not look, and where there is no find; then this is all that can be known.
    if (status := status_of(end)) not in ("ok", "nonzero"):
        raise WorkspaceError(f"The files could not be looked through: what does it ended as {status}.")
    return b"".join(line for line in answer.splitlines(keepends=True) if line.startswith(b"/"))
