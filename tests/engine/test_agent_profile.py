"""The `agent` profile through the server: what is preloaded, and values, figures and images as replies."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from typing import Any

import pytest
from mcp.client import Client
from mcp.types import CallToolResult, ImageContent

from pocket_dock_mcp.engine.base import Engine
from pocket_dock_mcp.images import ImageStore
from tests.engines import Target
from tests.servers import call, client, environment, text

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

PLOT = "import matplotlib.pyplot as plt\nfor n in range({count}):\n    plt.figure(); plt.plot(range(n + 2))\n"


@pytest.fixture(scope="module")
async def server(
    engine: Engine, target: Target, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Client]:
    """Return a client of a server with one sandbox of the profile."""
    image = (await ImageStore(engine).ensure("agent", print)).id
    async with client(environment(target, tmp_path_factory.mktemp("home"), image)) as connected:
        await call(connected, "create_sandbox", memory_mb=1024)
        yield connected


async def ran(server: Client, code: str, **arguments: Any) -> CallToolResult:
    result = await server.call_tool("run_code", {"code": code, **arguments})
    assert not result.is_error, text(result)
    return result


def images(result: CallToolResult) -> list[bytes]:
    return [base64.b64decode(block.data) for block in result.content if isinstance(block, ImageContent)]


async def test_what_is_preloaded_is_there_at_once_and_random_anew(server: Client) -> None:
    code = "import sys; print([name in sys.modules for name in ('pandas', 'numpy', 'matplotlib.pyplot')])"
    assert (await call(server, "run_code", code=code))["stdout"] == "[True, True, True]\n"

    draw = "import numpy; print(numpy.random.rand())"
    assert len({(await call(server, "run_code", code=draw))["stdout"] for _ in range(3)}) == 3


async def test_a_data_frame_is_a_short_preview_with_shape_and_types(server: Client) -> None:
    code = "import pandas as pd\npd.DataFrame({'a': range(1000), 'b': ['x'] * 1000})"

    value = (await call(server, "run_code", code=code))["result"]

    assert "1000 rows x 2 columns" in value
    assert "int64" in value
    assert len(value) < 500


@pytest.mark.parametrize("session", [None, "plots"])
async def test_all_open_figures_come_back_as_images(server: Client, session: str | None) -> None:
    result = await ran(server, PLOT.format(count=3) + "plt.show()", session=session)

    found = images(result)
    assert len(found) == 3
    assert all(data.startswith(b"\x89PNG") for data in found)
    assert result.structured_content is not None
    assert result.structured_content["stderr"] == ""
    if session is not None:
        assert images(await ran(server, "1", session=session)) == []


async def test_a_saved_figure_comes_back_once(server: Client) -> None:
    result = await ran(server, PLOT.format(count=1) + "plt.savefig('figure.png')")

    assert len(images(result)) == 1
    assert "figure.png" in text(result)


async def test_a_large_image_is_scaled_and_a_false_one_is_none(server: Client) -> None:
    code = (
        "from PIL import Image\nImage.effect_noise((3000, 2500), 100).save('large.png')\n"
        "open('false.png', 'w').write('no image')\nNone"
    )

    found = images(await ran(server, code))

    assert len(found) == 1
    assert len(found[0]) < 700_000


async def test_an_image_that_is_the_last_value_comes_back(server: Client) -> None:
    assert len(images(await ran(server, "from PIL import Image\nImage.new('RGB', (3000, 10), 'red')"))) == 1


async def test_many_figures_stay_within_one_reply(server: Client) -> None:
    result = await ran(server, PLOT.format(count=20))

    assert 10 <= len(images(result)) < 20
    assert sum(len(data) for data in images(result)) < 700_000
    assert "more images are not shown" in text(result)


async def test_a_traceback_has_no_frame_of_a_library(server: Client) -> None:
    code = "import pandas as pd\ndef f(x):\n    return 1 / 0\npd.Series([1]).apply(f)"

    stderr = (await call(server, "run_code", code=code))["stderr"]

    assert "ZeroDivisionError" in stderr
    assert "line 3, in f" in stderr
    assert "site-packages" not in stderr
    assert "dist-packages" not in stderr


async def test_javascript_runs_fresh_and_in_sessions(server: Client) -> None:
    async def run(code: str, **arguments: Any) -> dict[str, Any]:
        return await call(server, "run_code", code=code, language="javascript", **arguments)

    fresh = await run("console.log('hi'); [1, 2].map(x => x * 2)")
    assert (fresh["stdout"], fresh["result"]) == ("hi\n", "[ 2, 4 ]")
    failed = await run("throw new TypeError('bad')")
    assert (failed["status"], failed["exit_code"]) == ("nonzero", 1)
    assert "TypeError: bad" in failed["stderr"]
    assert (await run("process.exit(4)"))["exit_code"] == 4

    await run("const x = 5; function f() { return x }", session="js")
    assert (await run("const x = 6\nf()", session="js"))["result"] == "6"
    assert (await run("require('fs').readFileSync(0, 'utf8')", session="js", stdin="in"))["result"] == '"in"'
    assert (await run("x", session="other"))["status"] == "nonzero"
    ended = await run("process.exit(3)", session="js")
    assert (ended["exit_code"], ended["session"]["alive"]) == (3, False)


async def test_a_session_with_arrays_can_be_copied(server: Client) -> None:
    await call(server, "run_code", code="import numpy\na = numpy.ones((600, 600))\nb = a @ a", session="s")
    saved = await call(server, "run_code", code="a *= 2", session="s", checkpoint="save")
    back = await call(
        server, "run_code", code="float((a @ a).sum())", session="s", checkpoint=saved["checkpoint_id"]
    )

    assert back["result"] == "216000000.0"
