"""Sandboxes on your own Podman or Docker, for LLM agents and everybody else.

The SDK: `create_new_container` and what else `pocket_dock_mcp.sync` has, for programs without an event loop;
`pocket_dock_mcp.async_` for those with one. Names are imported when they are first looked at: whoever wants
the command line only does not wait for them.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from types import ModuleType
from typing import TYPE_CHECKING

from pocket_dock_mcp.version import __version__ as __version__
from pocket_dock_mcp.version import get_version as get_version

if TYPE_CHECKING:
    from pocket_dock_mcp.async_ import AsyncContainer as AsyncContainer
    from pocket_dock_mcp.async_ import AsyncContainerPool as AsyncContainerPool
    from pocket_dock_mcp.sync import *  # noqa: F403


class _Package(ModuleType):
    """This package. Its `doctor` is the SDK's function, also when the subpackage of it was imported."""

    def __setattr__(self, name: str, value: object) -> None:
        if name != "doctor" or not isinstance(value, ModuleType):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package

_OF_THE_OTHER_COLOUR = ("AsyncContainer", "AsyncContainerPool")


def __getattr__(name: str) -> object:
    # `from pocket_dock_mcp import policy` asks for an attribute first, be it while the SDK is being imported.
    is_module = name != "doctor" and find_spec(f"{__name__}.{name}") is not None
    if is_module or (name.startswith("__") and name != "__all__"):
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    from importlib import import_module

    sync = import_module("pocket_dock_mcp.sync")
    if name == "__all__":
        return sorted([*sync.__all__, *_OF_THE_OTHER_COLOUR])
    if name in _OF_THE_OTHER_COLOUR:
        return getattr(import_module("pocket_dock_mcp.async_"), name)
    if name in sync.__all__:
        return getattr(sync, name)
    message = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(message)
