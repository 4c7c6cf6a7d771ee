"""The blocking SDK is the asynchronous one, name by name: seen from outside, without its generator."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any, cast

import pytest

import pocket_dock_mcp
from pocket_dock_mcp import async_, sync

RENAMED = {
    "__aenter__": "__enter__",
    "__aexit__": "__exit__",
    "__aiter__": "__iter__",
    "__anext__": "__next__",
    "aclose": "close",
}
CLASSES = sorted(name for name in async_.__all__ if name.startswith("Async"))
FUNCTIONS = sorted(name for name in async_.__all__ if inspect.isfunction(getattr(async_, name)))
_ASYNC = re.compile(r"\bAsync(?=[A-Z])|\basync |\bawait |\ba(?=close\b)|\basynchronous\b")
_ARTICLE = re.compile(r"\ban? (?=context|iterator)")


def plain(text: object) -> str:
    """Return a signature or docstring without what may differ between the colours."""
    words = " ".join(str(text).replace("blocking", "asynchronous").split())
    return _ARTICLE.sub("", _ASYNC.sub("", words))


def members(cls: type[Any]) -> Iterator[tuple[str, Any]]:
    """Yield what users may use of a class."""
    for name in dir(cls):
        if not name.startswith("_") or name in RENAMED:
            yield name, inspect.getattr_static(cls, name)


def mirror_of(name: str) -> Any:
    return getattr(sync, name.removeprefix("Async"))


def test_both_colours_have_the_same_names() -> None:
    assert [name.removeprefix("Async") for name in CLASSES] == [
        "Container",
        "ContainerPool",
        "ExecStream",
        "Process",
        "Session",
    ]
    assert sorted(sync.__all__) == sorted(
        name.removeprefix("Async") if name in CLASSES else name for name in async_.__all__
    )
    both = {*sync.__all__, "AsyncContainer", "AsyncContainerPool"}
    assert set(cast("list[str]", pocket_dock_mcp.__all__)) == both
    for name in both:
        assert getattr(pocket_dock_mcp, name) is getattr(sync, name, getattr(async_, name, None))


@pytest.mark.parametrize("name", [name for name in async_.__all__ if name not in CLASSES])
def test_values_are_the_same_and_functions_block(name: str) -> None:
    there, here = getattr(async_, name), getattr(sync, name)
    if not inspect.iscoroutinefunction(there):
        assert here is there
        return
    assert not inspect.iscoroutinefunction(here)
    assert plain(inspect.signature(here)) == plain(inspect.signature(there))
    assert plain(here.__doc__) == plain(there.__doc__)
    assert here.__doc__


@pytest.mark.parametrize("name", CLASSES)
def test_classes_have_the_same_members_signatures_and_docs(name: str) -> None:
    there, here = getattr(async_, name), mirror_of(name)
    ours = dict(members(there))
    theirs = {name for name in dir(here) if not name.startswith("_")}
    assert theirs == {RENAMED.get(one, one) for one in ours if not one.startswith("_")}
    assert plain(here.__doc__) == plain(there.__doc__)
    for member, value in ours.items():
        mirrored = inspect.getattr_static(here, RENAMED.get(member, member))
        assert type(mirrored) is type(value)
        assert plain(mirrored.__doc__) == plain(value.__doc__), member
        assert mirrored.__doc__ or member.startswith("_"), member
        if not isinstance(value, property):
            assert plain(inspect.signature(mirrored)) == plain(inspect.signature(value)), member
            assert not inspect.iscoroutinefunction(mirrored)


def test_constructors_of_users_are_the_same() -> None:
    there, here = async_.AsyncContainerPool, sync.ContainerPool
    assert inspect.signature(there) == inspect.signature(here)
    assert plain(there.__init__.__doc__) == plain(here.__init__.__doc__)


def test_overloads_are_the_same() -> None:
    there = inspect.getsource(inspect.getmodule(async_.AsyncContainer.run) or async_)
    here = inspect.getsource(inspect.getmodule(sync.Container.run) or sync)
    pattern = re.compile(r"@overload\n    (?:async )?def run\((.*?)\) -> (?:Async)?(\w+): \.\.\.", re.DOTALL)
    assert pattern.findall(there) == pattern.findall(here)
    assert len(pattern.findall(there)) == 3


def test_nothing_in_the_docs_is_of_the_other_colour() -> None:
    for name in CLASSES:
        for _, value in [("", mirror_of(name)), *members(mirror_of(name))]:
            assert not re.search(r"\bawait\b|\basync\b|\bAsync[A-Z]", value.__doc__ or ""), name
