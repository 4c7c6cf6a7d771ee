"""What becomes of exceptions below a call of the engine."""

from __future__ import annotations

import pytest

from pocket_dock_mcp.engine.docker_connection import engine_call
from pocket_dock_mcp.errors import EngineError

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("kind", [RuntimeError, ValueError])
async def test_what_breaks_is_named_and_told_in_few_words(kind: type[Exception]) -> None:
    """Those of the HTTP client hold the answer: 50 KB of an inspected container, say."""
    with pytest.raises(EngineError) as caught:
        async with engine_call("create", "image", 5):
            raise kind("the head was torn " + "x" * 50_000)

    assert "create 'image'" in caught.value.message
    assert f"{kind.__name__}: the head was torn" in caught.value.message
    assert len(caught.value.message) < 500


async def test_what_is_short_is_told_as_it_is() -> None:
    with pytest.raises(EngineError, match=r"ConnectionResetError\(104, 'reset'\)"):
        async with engine_call("create", "image", 5):
            raise ConnectionResetError(104, "reset")
