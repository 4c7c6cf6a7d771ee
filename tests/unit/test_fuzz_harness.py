"""The fuzzer's own part that makes a failing input smaller."""

from __future__ import annotations

import random

import anyio
import pytest

from tests.fuzz.harness import FoundError, Surface, shrink

pytestmark = pytest.mark.anyio


class Waiting(Surface):
    """Fails for what has an x, after a while that a test chooses."""

    name = "waiting"

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.attempts = 0

    def make(self, rng: random.Random) -> bytes:
        return rng.randbytes(1)

    async def attempt(self, data: bytes) -> str:
        self.attempts += 1
        await anyio.sleep(self._seconds)
        if b"x" in data:
            raise FoundError("an x")
        return "none"


async def test_an_input_is_made_as_small_as_it_still_fails() -> None:
    assert await shrink(Waiting(0), b"a" * 50 + b"x" + b"b" * 20) == b"x"


async def test_attempts_that_take_too_long_end_with_the_smallest_so_far() -> None:
    surface = Waiting(3600)

    assert await shrink(surface, b"aaxx", seconds=0.05) == b"aaxx"
    assert surface.attempts == 1


async def test_there_are_only_so_many_attempts() -> None:
    surface = Waiting(0)

    await shrink(surface, b"x" * 1000 + b"y" * 3000)
    assert surface.attempts <= 200
