"""An agent that has been taken over: what a faithful one says is changed on its way to the host."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pocket_dock_mcp.agent.inside import wire
from pocket_dock_mcp.engine.base import STDOUT, Stream
from pocket_dock_mcp.testing import FakeEngine

Frame = tuple[wire.Header, bytes]


@dataclass(frozen=True)
class Edit:
    """What becomes of the frames that answer a request. Bytes are text here, a character for each."""

    op: str
    """Of the request; ``ready`` for the first frame of all."""
    kind: str = ""
    """Of the frame; any but data if empty."""
    set: dict[str, Any] = field(default_factory=dict)
    drop: Sequence[str] = ()
    payload: str | None = None
    raw: str | None = None
    """Instead of the frame, whatever is or is not a frame."""
    before: Sequence[tuple[dict[str, Any], str]] = ()
    """Frames that come first; the id of the request where theirs is ``@``."""
    after: Sequence[tuple[dict[str, Any], str]] = ()
    ends: bool = False
    """The stream ends with it."""


class TamperedEngine(FakeEngine):
    """A fake engine all of whose agents are tampered with."""

    def __init__(self, edits: Callable[[], Sequence[Edit]]) -> None:
        super().__init__()
        self._edits = edits

    async def attach(self, container_id: str) -> Stream:
        """Open the first program's streams."""
        return _Tampered(await super().attach(container_id), self._edits)


class _Tampered:
    """A stream that carries an agent's frames, some of them changed."""

    def __init__(self, inner: Stream, edits: Callable[[], Sequence[Edit]]) -> None:
        self._inner = inner
        self._edits = edits
        self._up, self._down = wire.Decoder(), wire.Decoder()
        self._ops: dict[int, str] = {0: "ready"}
        self._has_ended = False

    async def receive(self) -> tuple[int, bytes] | None:
        while not self._has_ended:
            received = await self._inner.receive()
            if received is None or received[0] != STDOUT:
                return received
            changed = b"".join(self._changed(frame) for frame in self._down.feed(received[1]))
            if changed:
                return STDOUT, changed
        return None

    def _changed(self, frame: Frame) -> bytes:
        header, payload = frame
        op, kind = self._ops.get(header["id"], ""), header["kind"]
        for edit in self._edits():
            if edit.op == op and (kind == edit.kind if edit.kind else kind not in ("data", "credit")):
                return self._edited(edit, header, payload)
        return wire.encode(header, payload)

    def _edited(self, edit: Edit, header: wire.Header, payload: bytes) -> bytes:
        self._has_ended = edit.ends
        number = header["id"]
        header = {key: value for key, value in {**header, **edit.set}.items() if key not in edit.drop}
        whole = wire.encode(header, payload if edit.payload is None else _bytes(edit.payload))
        if edit.raw is not None:
            whole = _bytes(edit.raw)
        return b"".join((_all(edit.before, number), whole, _all(edit.after, number)))

    async def send(self, data: bytes) -> None:
        self._note(data)
        await self._inner.send(data)

    def send_nowait(self, data: bytes) -> None:
        self._note(data)
        self._inner.send_nowait(data)

    def _note(self, data: bytes) -> None:
        for header, _ in self._up.feed(data):
            if header["op"] not in ("data", "credit"):
                self._ops[header["id"]] = header["op"]

    async def send_eof(self) -> None:
        await self._inner.send_eof()

    async def aclose(self) -> None:
        await self._inner.aclose()


def _bytes(text: str) -> bytes:
    return text.encode("latin-1")


def _all(frames: Sequence[tuple[dict[str, Any], str]], number: int) -> bytes:
    whole = []
    for header, payload in frames:
        named = {**header, "id": number} if header.get("id") == "@" else header
        whole.append(wire.encode(named, _bytes(payload)))
    return b"".join(whole)
