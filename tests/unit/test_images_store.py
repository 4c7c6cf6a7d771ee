"""How many do the work, who sees it, and what it costs when there is none: on the fake engine."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from pocket_dock_mcp.errors import (
    EngineTimeoutError,
    ImageBuildError,
    ImageNotFoundError,
    InvalidArgumentError,
)
from pocket_dock_mcp.images import ImageStore, ProfileInfo
from pocket_dock_mcp.images.base import pull
from pocket_dock_mcp.images.profiles import make_profile
from pocket_dock_mcp.testing import FakeEngine

pytestmark = pytest.mark.anyio

REMOTE = "registry.example/team/image:1"


@pytest.fixture
def fake() -> FakeEngine:
    fake = FakeEngine()
    fake.add_image(REMOTE, remote=True)
    return fake


@pytest.fixture
def profile(tmp_path: Path) -> ProfileInfo:
    (tmp_path / "Containerfile").write_text("FROM scratch\n")
    return make_profile("tiny", tmp_path)


@pytest.fixture
def store(fake: FakeEngine, profile: ProfileInfo) -> ImageStore:
    return ImageStore(fake, profiles=[profile], base_image=FakeEngine.IMAGE, environ={})


async def test_an_image_that_is_there_costs_one_look(fake: FakeEngine, store: ImageStore) -> None:
    built = await store.ensure("tiny", print)
    fake.calls.clear()
    lines: list[str] = []

    for _ in range(3):
        assert await store.ensure("tiny", lines.append) == built
        await store.ensure(FakeEngine.IMAGE, lines.append)

    assert fake.calls == ["image"] * 6
    assert lines == []


async def test_a_profile_is_built_and_labelled(store: ImageStore, profile: ProfileInfo) -> None:
    lines: list[str] = []

    image = await store.ensure("tiny", lines.append)

    assert profile.image_tag in image.tags
    assert image.labels["pocket-dock.profile"] == "tiny"
    assert image.labels["pocket-dock.recipe"]
    assert "building the image of the profile tiny, once" in lines


async def test_an_image_of_an_older_recipe_is_built_anew(fake: FakeEngine, profile: ProfileInfo) -> None:
    fake.add_image(profile.image_tag, labels={"pocket-dock.recipe": "old"})
    store = ImageStore(fake, profiles=[profile], base_image=FakeEngine.IMAGE, environ={})

    image = await store.ensure("tiny", print)

    assert image.labels["pocket-dock.recipe"] != "old"


async def test_a_reference_is_pulled_once(fake: FakeEngine, store: ImageStore) -> None:
    lines: list[str] = []

    await store.ensure(REMOTE, lines.append)
    await store.ensure(REMOTE, lines.append)

    assert fake.calls.count("pull") == 1
    assert lines == [f"{REMOTE}: Pulling {REMOTE}"]


@pytest.mark.parametrize("reference", ["localhost/nothing:1", "0123456789ab", "sha256:" + "0" * 64])
async def test_what_no_registry_can_have_is_not_pulled(
    fake: FakeEngine, store: ImageStore, reference: str
) -> None:
    with pytest.raises(ImageNotFoundError):
        await store.ensure(reference, print)

    assert "pull" not in fake.calls


async def test_an_image_that_nobody_has_is_reported_missing(store: ImageStore) -> None:
    with pytest.raises(ImageNotFoundError):
        await store.ensure("registry.example/nothing", print)


@pytest.mark.parametrize("reference", ["", "Minimal", "../version", "a b", "tiny\n"])
async def test_nonsense_does_not_reach_the_engine(
    fake: FakeEngine, store: ImageStore, reference: str
) -> None:
    with pytest.raises(InvalidArgumentError, match="tiny"):
        await store.ensure(reference, print)

    assert fake.calls == []


async def test_a_registry_that_does_not_answer_is_not_waited_for(fake: FakeEngine) -> None:
    """A firewall that drops packets looks like this."""
    fake.delay("pull", anyio.Event())

    with anyio.fail_after(5), pytest.raises(ImageNotFoundError, match="does not answer"):
        await pull(fake, REMOTE, print, patience=0.1)


async def test_two_callers_share_the_work_and_its_progress(fake: FakeEngine, store: ImageStore) -> None:
    go_on = anyio.Event()
    fake.delay("build", go_on)
    first: list[str] = []
    second: list[str] = []

    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            group.start_soon(store.ensure, "tiny", first.append)
            await anyio.wait_all_tasks_blocked()
            group.start_soon(store.ensure, "tiny", second.append)
            await anyio.wait_all_tasks_blocked()
            go_on.set()

    assert fake.calls.count("build") == 1
    assert second[0] == f"joining the work of another call: {first[0]}"
    assert second[1:] == first[1:]
    assert any("FROM" in line for line in second)


async def test_when_the_one_who_works_is_cancelled_another_goes_on(
    fake: FakeEngine, store: ImageStore, profile: ProfileInfo
) -> None:
    go_on = anyio.Event()
    fake.delay("build", go_on)
    scope = anyio.CancelScope()

    async def first() -> None:
        with scope:
            await store.ensure("tiny", print)

    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            group.start_soon(first)
            await anyio.wait_all_tasks_blocked()
            group.start_soon(store.ensure, "tiny", print)
            await anyio.wait_all_tasks_blocked()
            scope.cancel()
            go_on.set()

    assert (await fake.image(profile.image_tag)).labels["pocket-dock.profile"] == "tiny"


async def test_a_failure_is_everybodys_who_waited_and_nobodys_after(
    fake: FakeEngine, store: ImageStore
) -> None:
    """Five callers must not wait for five failures in a row, and a later one may have better luck."""
    go_on = anyio.Event()
    fake.delay("build", go_on)
    fake.fail("build", ImageBuildError("The disk is full."))
    caught: list[str] = []

    async def caller() -> None:
        with pytest.raises(ImageBuildError) as failure:
            await store.ensure("tiny", print)
        caught.append(failure.value.message)

    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(caller)
            await anyio.wait_all_tasks_blocked()
            go_on.set()

    assert caught == ["The disk is full."] * 5
    assert fake.calls.count("build") == 1
    assert (await store.ensure("tiny", print)).id


async def test_a_failure_of_the_engine_is_not_taken_for_one_of_the_image(
    fake: FakeEngine, store: ImageStore
) -> None:
    fake.fail("build", EngineTimeoutError("The engine is stuck."))

    with pytest.raises(EngineTimeoutError):
        await store.ensure("tiny", print)


async def test_two_images_are_worked_on_at_the_same_time(fake: FakeEngine, store: ImageStore) -> None:
    go_on = anyio.Event()
    fake.delay("build", go_on)

    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            group.start_soon(store.ensure, "tiny", print)
            await anyio.wait_all_tasks_blocked()
            await store.ensure(REMOTE, print)
            go_on.set()
