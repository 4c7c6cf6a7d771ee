"""The SDK under test: its host on the engine under test, with a state directory of the test's own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from pocket_dock_mcp.async_.host import Host, host_of, settings_for
from tests.engines import Target, connect


def prepare(monkeypatch: pytest.MonkeyPatch, target: Target, image: str, state_dir: Path) -> None:
    """Say in the environment which engine, image and state directory are used."""
    monkeypatch.setenv("POCKET_DOCK_STATE_DIR", str(state_dir))
    monkeypatch.setenv("POCKET_DOCK_PROFILE", image)
    if target.is_fake:
        monkeypatch.delenv("POCKET_DOCK_ENGINE", raising=False)
    else:
        monkeypatch.setenv("POCKET_DOCK_ENGINE", target.url)


@asynccontextmanager
async def hosted(target: Target) -> AsyncIterator[Host]:
    """Have the host of this loop, for as long as the block lasts; the environment is prepared."""
    host = host_of(settings_for(), lambda: connect(target))
    async with host.working():
        yield host
