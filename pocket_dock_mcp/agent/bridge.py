"""A new stream to an agent that has outlived its old one: an engine exec joins it to the agent's socket."""

from __future__ import annotations

from pocket_dock_mcp.agent.inside.wire import SOCKET, VISITORS_SOCKET
from pocket_dock_mcp.engine.base import Engine, ExecStream

_PROGRAM = """\
import os, socket, struct, sys, threading
agent = socket.socket(socket.AF_UNIX)
agent.connect({socket!r})
if struct.unpack("3i", agent.getsockopt(1, socket.SO_PEERCRED, 12))[1]:
    sys.exit("ConnectionRefusedError: somebody else listens")
try:
    # The agent kills as uid 0 with the user's rights where nothing else helps, which would hit this as well.
    os.setresgid(1, 1, 1); os.setresuid(1, 1, 1)
except OSError:
    pass
def copy(read, write):
    try:
        while True:
            data = read(262144)
            if not data:
                break
            write(data)
    except OSError:
        pass
    os._exit(0)
def put(data):
    while data:
        data = data[os.write(1, data):]
threading.Thread(target=copy, args=(lambda size: os.read(0, size), agent.sendall), daemon=True).start()
copy(agent.recv, put)
"""


async def bridge(engine: Engine, container_id: str, *, visits: bool = False) -> ExecStream:
    """Join a new stream to the agent of a container. Its first frame is the agent's ``ready``.

    Who `visits` takes nobody's place.

    Raises:
        EngineError: the container does not run, or the engine failed.
    """
    return await engine.exec(container_id, bridge_argv(visits=visits), user="0:0")


def bridge_argv(*, visits: bool = False) -> tuple[str, ...]:
    """Return the command that is the bridge inside."""
    program = _PROGRAM.format(socket=VISITORS_SOCKET if visits else SOCKET)
    return ("python3", "-I", "-S", "-u", "-c", program)
