"""How much room the disk has, looked at while programs run: the kernel knows no quota of a container."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, List, Optional

from . import wire
from .facts import room
from .loop import Timer

if TYPE_CHECKING:
    from .main import Agent

PAUSE = 0.2
"""Seconds between two looks, each of which is one system call."""


class Watch:
    """Answers one request when the disk has lost more than so many bytes: to whom, the engine can tell.

    What others give back meanwhile does not count against it. Nothing is looked at while nothing runs. When
    the disk as a whole is nearly full, a little loss is enough.
    """

    def __init__(self, agent: Agent, request_id: int, header: wire.Header) -> None:
        self._agent = agent
        self._id = request_id
        self._room: int = header["room"]
        self._floor: int = header["floor"]
        self._least = self._room - min(self._room, header["grace"])
        self._free = room("/")
        self._timer: Optional[Timer] = None
        self.wake()

    def wake(self) -> None:
        """Something runs, or is just about to."""
        if self._timer is None and self._free is not None:
            self._timer = self._agent.loop.later(PAUSE, self._look)

    def _look(self) -> None:
        self._timer = None
        self._agent.names.look()
        now = room("/")
        if now is None or self._free is None:
            return
        self._room -= max(0, self._free - now)
        self._free = now
        if self._room < 0 or (now < self._floor and self._room < self._least):
            self._agent.drop(self._id)
            self._agent.send({"kind": "reply", "id": self._id, "free": now})
        elif _busy(self._agent):
            self.wake()

    def abort(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._agent.drop(self._id)


def _busy(agent: Agent) -> List[Any]:
    # The runs and cells.
    return [work for work in agent.work.values() if hasattr(work, "stop_for")]


def watch(agent: Agent, request_id: int, header: wire.Header, _payload: bytes) -> None:
    """Begin a watch."""
    agent.work[request_id] = Watch(agent, request_id, header)


def wake(agent: Agent) -> None:
    """Tell the watches that something runs."""
    for work in list(agent.work.values()):
        if isinstance(work, Watch):
            work.wake()


def stop_runs(agent: Agent, request_id: int, header: wire.Header, _payload: bytes) -> None:
    """End all runs because the sandbox has written too much."""
    for work in _busy(agent):
        work.stop_for("disk", header["used"])
    agent.send({"kind": "reply", "id": request_id})


HANDLERS = {"watch_disk": watch, "disk_full": stop_runs}
