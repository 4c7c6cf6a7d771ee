"""What is of the wrong type, or no text, is refused at once, by an error that says so."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from pocket_dock_mcp.async_ import AsyncContainer, create_new_container, list_containers
from pocket_dock_mcp.async_.host import Host
from pocket_dock_mcp.errors import InvalidArgumentError
from tests.engines import Target
from tests.sdk import hosted, prepare

pytestmark = [pytest.mark.anyio, pytest.mark.fake_too, pytest.mark.front]

HALF = "\ud800"
"""Half a surrogate pair, as JSON may have it."""
ODD: tuple[Any, ...] = (True, 5, 1.5, b"x", ["x"], ("a", 1), {"a": 1}, {1: "a"}, {"a": None}, object())


@pytest.fixture
async def host(
    target: Target, image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Host]:
    prepare(monkeypatch, target, image, tmp_path / "state")
    async with hosted(target) as host:
        yield host


def _odd(*fit: type) -> list[Any]:
    return [value for value in ODD if type(value) not in fit]


@pytest.mark.parametrize(
    ("name", "values"),
    [
        *((name, _odd()) for name in ("image", "name", "profile", "snapshot", "project", "workspace")),
        ("workdir", [*_odd(), HALF]),
        ("env", [*_odd(dict), {"a": 1}, {1: "a"}, {"a": HALF}]),
        ("labels", [*_odd(dict), {"a": 1}, {1: "a"}, {"a": HALF}]),
        ("volumes", [*_odd(dict), {"a": 1}, {1: "a"}, {HALF: "/a"}]),
        ("ports", [*_odd(), "8000", {"8000": 80}, [None]]),
        ("devices", [*_odd(list, tuple), "x", [1], [None]]),
        ("user", ["1000", 1.5, True, [1000]]),
        ("persist", ["false", 1, [], "yes"]),
        ("workspace", ["Memory", "", "ram"]),
        ("mem_limit", [1.5, [], object()]),
    ],
)
async def test_a_container_is_not_made_of_what_it_cannot_be_made_of(
    host: Host, name: str, values: list[Any]
) -> None:
    for value in values:
        with pytest.raises(InvalidArgumentError):
            await create_new_container(**{name: value})
    assert await list_containers() == []


async def test_calls_refuse_what_is_of_the_wrong_type(host: Host, tmp_path: Path) -> None:
    async with await create_new_container() as box:
        for method, arguments in _calls(str(tmp_path / "x")):
            with pytest.raises(InvalidArgumentError):
                await getattr(AsyncContainer, method)(box, **arguments)


def _calls(here: str) -> list[tuple[str, dict[str, Any]]]:
    paths: list[Any] = [*_odd(), None, HALF]
    sizes: list[Any] = [5, (1,), ("a", "b"), (1.5, 2), [0, 1]]
    bare: list[Any] = [5, None, ["x"], HALF]
    counts: list[Any] = ["1", [], 0]
    inputs: tuple[Any, ...] = (["x"], 5, True, HALF, object())
    return [
        *(("run", {"command": "cat", "stdin": value}) for value in inputs),
        *(("run", {"command": "true", "cwd": value}) for value in [*_odd(), HALF]),
        *(("run", {"command": "true", "env": value}) for value in [*_odd(dict), {"a": 1}, {"a": HALF}]),
        *(("run", {"command": "true", "tty": value}) for value in sizes),
        ("run", {"command": f"echo {HALF}"}),
        *(("read_file", {"path": value}) for value in paths),
        *(("list_files", {"path": value}) for value in paths),
        *(("write_file", {"path": value, "content": "x"}) for value in paths),
        *(("write_file", {"path": "x", "content": value}) for value in bare),
        *(
            ("write_file", {"path": "x", "content": "x", "mode": value})
            for value in ("644", 1.5, float("nan"))
        ),
        *(("push", {"src": value, "dest": "x"}) for value in bare),
        *(("pull", {"src": value, "dest": here}) for value in paths),
        *(("pull", {"src": "x", "dest": value}) for value in bare),
        *(("pull", {"src": "x", "dest": here, "max_bytes": value}) for value in counts),
    ]
