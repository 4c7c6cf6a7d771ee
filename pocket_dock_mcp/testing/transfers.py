"""The file operations of a fake agent."""

from __future__ import annotations

import errno
import json
from typing import TYPE_CHECKING, Any, Protocol

from pocket_dock_mcp.agent.inside import wire
from pocket_dock_mcp.engine.base import STDOUT
from pocket_dock_mcp.testing.filetree import READ, SEARCH, WRITE, Node, append, replace
from pocket_dock_mcp.testing.streams import Credit

if TYPE_CHECKING:
    from pocket_dock_mcp.testing.agent import FakeAgent


class RefusedError(Exception):
    """Refused for a reason that has no errno."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class Transfer(Protocol):
    """A read or a write under way."""

    credit: Credit

    def feed(self, data: bytes, *, end: bool) -> None:
        """Take a piece of what the host sends."""

    def abort(self) -> None:
        """The host does not want it any more."""


class Reader:
    """A read: one frame when the file fits, else a stream that waits for credit."""

    def __init__(self, agent: FakeAgent, request_id: int, header: wire.Header) -> None:
        node = agent.container.files.walk(header["path"], agent.uid).existing()
        _require_regular(node)
        node.require(agent.uid, READ)
        self.credit = Credit(wire.WINDOW)
        self._agent = agent
        self._id = request_id
        self._node = node
        offset = header.get("offset", 0)
        self._data = node.data[offset : offset + header["length"]]

    def feed(self, data: bytes, *, end: bool) -> None:
        """Nothing is expected."""

    def abort(self) -> None:
        """Send no more."""
        self.credit.close()

    async def run(self) -> None:
        """Send it all."""
        data = self._data
        while len(data) > wire.MAX_PAYLOAD:
            amount = await self.credit.take(wire.MAX_PAYLOAD)
            if amount == 0:
                return
            self._agent.send({"kind": "data", "id": self._id, "s": STDOUT}, data[:amount])
            data = data[amount:]
        self._agent.drop_transfer(self._id)
        self._agent.reply(self._id, data, **describe(self._node), version=self._node.version)


class Writer:
    """A write: collected, and put in its place at the end."""

    def __init__(self, agent: FakeAgent, request_id: int, header: wire.Header) -> None:
        self.credit = Credit(wire.WINDOW)
        self._agent = agent
        self._id = request_id
        self._mode = header.get("mode")
        self._append = bool(header.get("append"))
        self._expected = header.get("expect")
        parents = self._expected is None
        self._place = agent.container.files.walk(header["path"], agent.uid, parents=parents)
        self._data = bytearray()
        if self._place.node is not None:
            _require_regular(self._place.node)
        if not self._append:
            self._place.parent.require(agent.uid, WRITE | SEARCH)

    def abort(self) -> None:
        """Put nothing in its place."""

    def feed(self, data: bytes, *, end: bool) -> None:
        """Take a piece."""
        self._data += data
        if not end:
            self._agent.send({"kind": "credit", "id": self._id, "n": len(data)})
            return
        self._agent.drop_transfer(self._id)
        size = self._commit()
        overwrote = self._place.node is not None
        self._agent.reply(self._id, path=self._place.path, size=size, overwrote=overwrote)

    def _commit(self) -> int:
        """Put it in its place and return the file's new size."""
        place, uid = self._place, self._agent.uid
        if self._append:
            return append(place, bytes(self._data), self._mode, uid).size
        now = place.parent.entries.get(place.name)
        if self._expected is not None and (now is None or now.version != self._expected):
            refusal = "changed"
            raise RefusedError(refusal)
        replace(place, bytes(self._data), self._mode, uid)
        return len(self._data)


def stat_path(agent: FakeAgent, header: wire.Header) -> dict[str, Any]:
    """Return the reply to a ``stat``."""
    place = agent.container.files.walk(header["path"], agent.uid, follow=header.get("follow", True))
    return {**describe(place.existing()), "path": place.path}


def list_directory(agent: FakeAgent, header: wire.Header) -> tuple[list[bytes], bool]:
    """Return a listing's pieces, and whether it was cut off."""
    node = agent.container.files.walk(header["path"], agent.uid).existing()
    if node.type != "directory":
        raise NotADirectoryError(errno.ENOTDIR, "not a directory")
    node.require(agent.uid, READ)
    lines = [_line(name, entry) for name, entry in node.entries.items()]
    kept: list[bytes] = []
    size = 0
    for line in lines:
        size += len(line)
        if len(kept) >= header["limit"] or size > wire.MAX_LISTING:
            break
        kept.append(line)
    return pieces(b"".join(kept)), len(kept) < len(lines)


def pieces(data: bytes) -> list[bytes]:
    """Cut data into what single frames may carry."""
    return [data[at : at + wire.MAX_PAYLOAD] for at in range(0, len(data), wire.MAX_PAYLOAD)]


def describe(node: Node) -> dict[str, Any]:
    """Return what a header says of a file."""
    return {"type": node.type, "size": node.size, "mode": node.mode, "mtime": node.mtime, "uid": node.uid}


def _line(name: str, node: Node) -> bytes:
    return (json.dumps({"name": name, **describe(node)}) + "\n").encode("ascii")


def _require_regular(node: Node) -> None:
    if node.type == "directory":
        raise IsADirectoryError(errno.EISDIR, "is a directory")
    if node.type != "file":
        raise RefusedError("not_regular")
