"""Which engines the tests run on, how to wait on them, and how to see that nothing is left on them."""

from __future__ import annotations

import itertools
import os
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import anyio
import pytest

from pocket_dock_mcp.engine.base import Engine
from pocket_dock_mcp.engine.docker_api import DockerApiEngine
from pocket_dock_mcp.errors import (
    ContainerGoneError,
    EngineConflictError,
    EngineError,
    EngineTimeoutError,
)
from pocket_dock_mcp.testing import FakeEngine
from tests.behaviours import teach

ENGINES_VARIABLE = "POCKET_DOCK_TEST_ENGINES"
IMAGE_VARIABLE = "POCKET_DOCK_TEST_IMAGE"

RUN = secrets.token_hex(6)
"""Of this run of the tests: part of every name and the value of `LABEL`."""
LABEL = "pocket-dock.test"
LABELS = {LABEL: RUN}

_POLL = 0.02
_numbers = itertools.count(1)

T = TypeVar("T")
Deadline = Callable[[float], float]
"""Seconds that a wait may take on the engine under test, given those of an ordinary machine."""


@dataclass(frozen=True)
class Target:
    """An engine to run tests on."""

    name: str
    url: str
    slowness: float = 1.0
    """How many times as long as elsewhere a wait may take. Slow ones run contract and lease tests only."""

    @property
    def is_fake(self) -> bool:
        """Whether it is the one in memory."""
        return self.name == FAKE.name


FAKE = Target("fake", "")
WITH_PROFILES = ("podman", "docker")
"""Engines that have the images of all profiles, unless an option says which; 1.3 GB that others spare."""
SECOND_RELEASES = ("podman-next", "docker-next")
"""Engines that are spared tests of what is built on containers, and not of an engine."""
_SLOWNESS = {"podman-rootless": 20.0}
"""It runs in an emulated machine."""

NAMES = (*WITH_PROFILES, *SECOND_RELEASES, *_SLOWNESS)
"""All that there are, but for the one in memory and those that somebody names by `--engine NAME=URL`."""


def chosen(options: Sequence[str], environ: Mapping[str, str]) -> list[Target]:
    """Return the engines named by ``--engine`` (``NAME`` or ``NAME=URL``), or all of the environment."""
    known = dict(_pair(item) for item in environ.get(ENGINES_VARIABLE, "").split(",") if item.strip())
    wanted = dict(_pair(item) for item in options) if options else known
    if not wanted:
        raise pytest.UsageError(f"These tests need container engines. {_REMEDY}")
    targets = []
    for name, url in wanted.items():
        url = url or known.get(name, "")
        if not url and name != FAKE.name:
            raise pytest.UsageError(f"Nobody said where the engine {name!r} is. {_REMEDY}")
        targets.append(Target(name, url, _SLOWNESS.get(name, 1.0)))
    return targets


_REMEDY = (
    "Run scripts/test; or run scripts/engines up, and name what it prints with --engine NAME=URL or in "
    f"{ENGINES_VARIABLE}=NAME=URL,NAME=URL; or say --engine fake for what needs no real one."
)


def _pair(item: str) -> tuple[str, str]:
    name, _, url = item.strip().partition("=")
    return name, url


async def connect(target: Target) -> Engine:
    """Connect to an engine. An emulated machine may be silent for longer than we allow a user's engine."""
    if target.is_fake:
        fake = FakeEngine()
        teach(fake)
        return fake
    for _ in range(int(target.slowness) - 1):
        try:
            return await DockerApiEngine.connect(target.url)
        except EngineTimeoutError:
            pass
    return await DockerApiEngine.connect(target.url)


def unique(what: str) -> str:
    """Return a name that nothing else on a shared engine has."""
    return f"pocket-dock-test-{RUN}-{what}-{next(_numbers)}"


async def eventually(check: Callable[[], Awaitable[T]], within: float) -> T:
    """Ask again until the answer is true, and return it. The one place where tests wait by looking.

    Raises:
        TimeoutError: it was not, `within` seconds.
    """
    with anyio.fail_after(within):
        while not (answer := await check()):  # an engine has to be asked
            await anyio.sleep(_POLL)
    return answer


async def is_gone(engine: Engine, container_id: str) -> bool:
    """Whether the engine knows no such container."""
    try:
        await engine.inspect(container_id)
    except ContainerGoneError:
        return True
    return False


async def remove_image(engine: Engine, reference: str) -> None:
    """Remove an image as soon as the engine has got rid of the containers that were made from it."""

    async def removed() -> bool:
        try:
            await engine.remove_image(reference)
        except EngineConflictError:
            return False
        return True

    await eventually(removed, within=20)


async def leftovers(engine: Engine) -> list[str]:
    """Say what this run of the tests has left on an engine."""
    containers = await engine.containers(f"{LABEL}={RUN}")
    images = await engine.images(f"{LABEL}={RUN}")
    return [
        *(f"container {state.name} ({state.id[:12]}, {state.status})" for state in containers),
        *(f"image {' '.join(state.tags)} ({state.id[:19]})" for state in images),
    ]


async def clean(target: Target) -> list[str]:
    """Return what is left on an engine even after a moment, having removed it."""
    engine = await connect(target)

    async def nothing_is_left() -> bool:
        return not await leftovers(engine)

    try:
        try:
            await eventually(nothing_is_left, within=5 * target.slowness)
        except TimeoutError:
            pass
        left = await leftovers(engine)
        for container in await engine.containers(f"{LABEL}={RUN}"):
            left += await _attempt(engine.remove(container.id))
        for image in await engine.images(f"{LABEL}={RUN}"):
            left += await _attempt(engine.remove_image(image.id))
        return [f"{target.name}: {what}" for what in left]
    finally:
        await engine.aclose()


async def _attempt(removal: Awaitable[None]) -> list[str]:
    """Await a removal; say so if it fails."""
    try:
        await removal
    except EngineError as error:
        return [f"not even by force: {error}"]
    return []


def image_override() -> str | None:
    """Return the image with python3 that the environment names, if it does."""
    return os.environ.get(IMAGE_VARIABLE)
