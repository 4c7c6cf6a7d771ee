"""Python without the warm interpreter: slower, and otherwise the same."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from pocket_dock_mcp.container.core import LiveContainer
from pocket_dock_mcp.container.launch import Launch
from pocket_dock_mcp.engine.base import Engine
from tests.engines import LABELS, unique

pytestmark = [pytest.mark.anyio, pytest.mark.front]


@pytest.fixture(scope="module")
async def container(engine: Engine, image: str) -> AsyncIterator[LiveContainer]:
    wanted = Launch(unique("cold"), image, LABELS, warm_python=False)
    async with await LiveContainer.create(engine, wanted) as made:
        yield made


async def test_there_is_no_interpreter_before_the_first_run(container: LiveContainer) -> None:
    result = await container.run("cat /proc/[0-9]*/comm | grep -c python3")

    # The agent, and what executes programs for it.
    assert result.stdout == "2\n"


async def test_code_runs_as_in_the_warm_one(container: LiveContainer) -> None:
    code = "import sys\nprint(__name__, sys.argv, 'agent' in sys.modules)\nx = 6\nx * 7"

    result = await container.run(code, language="python")

    assert (result.status, result.stdout, result.value) == ("ok", "__main__ [''] False\n", "42")


async def test_it_ends_and_fails_as_the_warm_one(container: LiveContainer) -> None:
    assert (await container.run("raise SystemExit(7)", language="python")).exit_code == 7
    failed = await container.run("def f():\n    1 / 0\nf()", language="python")
    assert failed.stderr.startswith('Traceback (most recent call last):\n  File "<code>", line 3')
    assert (await container.run("input()", language="python", stdin="line\n")).value == "'line'"


async def test_it_has_only_what_is_its_own(container: LiveContainer) -> None:
    code = (
        "import os\nlinks = []\nfor n in os.listdir('/proc/self/fd'):\n    try:\n"
        "        links.append(os.readlink(f'/proc/self/fd/{n}').split(':')[0])\n"
        "    except OSError:\n        pass\nsorted(links)"
    )

    result = await container.run(code, language="python")

    assert result.value == "['/dev/null', 'pipe', 'pipe', 'pipe']"


async def test_sessions_keep_their_variables(container: LiveContainer) -> None:
    await container.run("x = 1", language="python", session="s")

    assert (await container.run("x + 1", language="python", session="s")).value == "2"
