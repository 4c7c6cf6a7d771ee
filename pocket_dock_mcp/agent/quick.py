"""Agents that need not be compiled: the first in a container of an image compiles, the next are given that.

Compiling is half of the time from a container's start to its agent's first word. What was compiled is opaque
here: it came out of a container, so nobody but a container of the same image ever reads it, and what an image
makes of its own is its own affair. It is asked for before any program of a user has run.
"""

from __future__ import annotations

import collections

from pocket_dock_mcp.agent.agent_process import CALL_DEADLINE
from pocket_dock_mcp.agent.link import AgentLink, RemoteError

MOST_IMAGES = 32
_ID = "sha256:"

_Key = tuple[str, str]


class CompiledAgents:
    """What agents were compiled to, by engine and image."""

    def __init__(self) -> None:
        self._kept: collections.OrderedDict[_Key, bytes] = collections.OrderedDict()

    def of(self, engine: str, image: str) -> bytes | None:
        """Return what an agent in a container of this image has compiled; None if none has yet."""
        found = self._kept.get((engine, image))
        if found is not None:
            self._kept.move_to_end((engine, image))
        return found

    async def learn(self, engine: str, image: str, link: AgentLink) -> None:
        """Ask an agent that is ready and has no user yet. A name may be another image's tomorrow."""
        if not image.startswith(_ID) or (engine, image) in self._kept:
            return
        try:
            compiled = await link.fetch("compiled", deadline=CALL_DEADLINE)
        except RemoteError:
            return
        if compiled:
            self._keep((engine, image), compiled)

    def inherit(self, engine: str, parent: str, image: str) -> None:
        """Let an image that was made of a container of another one have what that has: the same Python."""
        if (compiled := self.of(engine, parent)) is not None:
            self._keep((engine, image), compiled)

    def forget(self, engine: str, image: str) -> None:
        """It was of no use."""
        self._kept.pop((engine, image), None)

    def _keep(self, key: _Key, compiled: bytes) -> None:
        self._kept[key] = compiled
        while len(self._kept) > MOST_IMAGES:
            self._kept.popitem(last=False)
