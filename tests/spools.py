"""Spools for tests."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

from pocket_dock_mcp.spool import Spool, SpoolBudget

PLENTY = 1 << 40


class Spools:
    """Makes them in one directory, and closes them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._made: list[Spool] = []

    def __call__(
        self,
        *chunks: bytes,
        budget: SpoolBudget | None = None,
        cap_bytes: int = PLENTY,
        memory_bytes: int = 64 * 1024,
        floor_bytes: int = 0,
    ) -> Spool:
        spool = Spool(
            budget or SpoolBudget(PLENTY),
            self.directory,
            cap_bytes=cap_bytes,
            memory_bytes=memory_bytes,
            floor_bytes=floor_bytes,
        )
        self._made.append(spool)
        for chunk in chunks:
            spool.append(chunk)
        return spool

    def __enter__(self) -> Spools:
        return self

    def __exit__(self, *_: object) -> None:
        for spool in self._made:
            spool.close()


def pieces(chance: random.Random, data: bytes, most: int) -> Iterator[bytes]:
    """Cut it into pieces of any length up to `most`, empty ones too."""
    at = 0
    while at < len(data):
        size = chance.randrange(most + 1)
        yield data[at : at + size]
        at += size
