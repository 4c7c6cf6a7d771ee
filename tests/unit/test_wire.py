"""Frames, whole and hostile."""

from __future__ import annotations

import pytest

from pocket_dock_mcp.agent.inside import wire


def test_frames_survive_any_chunking() -> None:
    data = (
        wire.encode({"op": "x", "id": 1}, b"payload") + wire.encode({"id": 2}) + wire.encode({"id": 3}, b"z")
    )

    for size in (1, 2, 3, 7, len(data)):
        decoder = wire.Decoder()
        frames = [frame for at in range(0, len(data), size) for frame in decoder.feed(data[at : at + size])]
        assert frames == [({"op": "x", "id": 1}, b"payload"), ({"id": 2}, b""), ({"id": 3}, b"z")]


def test_undecodable_names_survive_in_headers() -> None:
    header = {"path": b"a\xff\n".decode("utf-8", "surrogateescape")}

    assert wire.Decoder().feed(wire.encode(header)) == [(header, b"")]


@pytest.mark.parametrize(
    "raw",
    [
        wire.PREFIX.pack(wire.MAX_HEADER + 1, 0),
        wire.PREFIX.pack(2, wire.MAX_PAYLOAD + 1),
        wire.PREFIX.pack(2**32 - 1, 2**32 - 1),
        wire.PREFIX.pack(4, 0) + b"null",
        wire.PREFIX.pack(2, 0) + b"[]",
        wire.PREFIX.pack(3, 0) + b"\xff\xfe\xfd",
        wire.PREFIX.pack(200_000, 0) + b"[" * 200_000,
    ],
)
def test_what_is_no_frame_is_refused_at_once(raw: bytes) -> None:
    with pytest.raises(wire.FrameError):
        wire.Decoder().feed(raw)
