"""Agents that are given what an earlier one in a container of the same image has compiled."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pocket_dock_mcp import policy
from pocket_dock_mcp.agent.bundle import quick_argv, quick_input
from pocket_dock_mcp.container.core import LiveContainer
from pocket_dock_mcp.container.launch import COMPILED, Launch, launch
from pocket_dock_mcp.engine.base import Engine
from pocket_dock_mcp.errors import LimitsNotEnforcedError
from pocket_dock_mcp.models import Limits
from pocket_dock_mcp.testing import FakeEngine
from tests.engines import LABELS, Deadline, eventually, is_gone, unique

pytestmark = [pytest.mark.anyio]

IN_SIGHT = """
import sys
print([finder for finder in sys.meta_path if "agent" in str(finder).lower()], end=" ")
print([name for name in sys.modules if name.startswith("agent")])
"""


def wanted(image: str) -> Launch:
    return Launch(unique("quick"), image, LABELS, limits=Limits(pids=77))


@pytest.fixture
async def image_id(engine: Engine, image: str) -> str:
    """Return the image by its id; what is named by a tag is not remembered."""
    found = (await engine.image(image)).id
    COMPILED.forget(engine.info.identity, found)
    return found


@pytest.mark.fake_too
async def test_the_second_is_given_what_the_first_has_compiled(engine: Engine, image_id: str) -> None:
    facts = []
    for is_known in (False, True):
        assert (COMPILED.of(engine.info.identity, image_id) is not None) == is_known
        async with await LiveContainer.create(engine, wanted(image_id)) as box:
            facts.append((box.home, (await box.info()).limits, (await box.info()).unenforced))
            assert 1_000_000 <= box.uid < 2_000_000
            assert (await box.run("echo hi")).stdout == "hi\n"
    assert facts[0] == facts[1]


@pytest.mark.fake_too
async def test_a_name_is_not_remembered(engine: Engine, image_id: str) -> None:
    name = (await engine.image(image_id)).tags[0]
    async with await LiveContainer.create(engine, wanted(name)):
        assert COMPILED.of(engine.info.identity, name) is None


async def test_it_is_the_same_agent(engine: Engine, image_id: str) -> None:
    async with await LiveContainer.create(engine, wanted(image_id)):
        pass
    async with await LiveContainer.create(engine, wanted(image_id)) as box:
        result = await box.run("import os\nprint(os.getuid())\n6 * 7", language="python")
        assert (result.stdout, result.value) == (f"{box.uid}\n", "42")
        for session in (None, "one"):
            seen = await box.run(IN_SIGHT, language="python", session=session)
            assert seen.stdout == "[] []\n", seen
        assert (await box.run("print(1 +", language="python")).status == "nonzero"
        assert (await box.run("id -u; cat /proc/1/environ", timeout_s=10)).status == "nonzero"


async def test_what_another_python_has_compiled_is_compiled_again(engine: Engine, image_id: str) -> None:
    COMPILED._keep((engine.info.identity, image_id), b"\0\0\0\4some" + b"\0\0\0\1x" * 2)

    async with await LiveContainer.create(engine, wanted(image_id)) as box:
        assert (await box.run("echo hi")).stdout == "hi\n"

    again = COMPILED.of(engine.info.identity, image_id)
    assert again is not None
    assert len(again) > 50_000


@pytest.mark.lease
async def test_its_life_hangs_on_its_input_from_the_first_byte_on(
    engine: Engine, image: str, deadline: Deadline
) -> None:
    spec = policy.agent_spec(unique("quick"), image, quick_argv(), LABELS, Limits(), "none")
    for sent in (b"", quick_input(b"\0\0\0\7half", 1_234_567, "/home/sandbox")):
        container_id = await engine.create(spec)
        stream = await engine.attach(container_id)
        await engine.start(container_id)
        await stream.send(sent)
        await stream.aclose()
        await eventually(lambda: is_gone(engine, container_id), deadline(15))  # noqa: B023  # awaited here


@pytest.mark.parametrize("is_woken", [True, False])
async def test_one_at_ease_works_whether_it_was_woken_or_not(
    engine: Engine, image_id: str, is_woken: bool
) -> None:
    async with await LiveContainer.create(engine, wanted(image_id)):
        pass
    at_ease = replace(wanted(image_id), at_ease=True, env={"given": "yes"})

    running = await launch(engine, at_ease)

    if is_woken:
        running.transport.wake()
    async with LiveContainer(engine, at_ease, running) as box:
        assert (await box.run("echo hi $given")).stdout == "hi yes\n"


@pytest.mark.lease
async def test_one_at_ease_ends_with_who_holds_it(engine: Engine, image_id: str, deadline: Deadline) -> None:
    async with await LiveContainer.create(engine, wanted(image_id)):
        pass
    running = await launch(engine, replace(wanted(image_id), at_ease=True))

    await running.transport.aclose()

    await eventually(lambda: is_gone(engine, running.id), deadline(15))


async def test_limits_that_do_not_hold_are_seen_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeEngine()
    image_id = (await fake.image(FakeEngine.IMAGE)).id
    async with await LiveContainer.create(fake, wanted(image_id)):
        pass
    fake.agent.facts["memory_limit"] = None
    with pytest.raises(LimitsNotEnforcedError, match="memory"):
        await LiveContainer.create(fake, wanted(image_id))
    await fake.aclose()
