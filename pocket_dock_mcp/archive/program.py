"""Packs the modules of this package into the source of one program, for the other end of a transfer."""

from __future__ import annotations

import functools
from importlib import resources

_MODULES = ("frames", "names", "outgoing", "incoming", "placing", "inside")

_LOADER = """\
import sys, types
package = sys.modules["archive"] = types.ModuleType("archive")
package.__path__ = []
for name, source in {sources!r}:
    module = sys.modules["archive." + name] = types.ModuleType("archive." + name)
    module.__package__ = "archive"
    setattr(package, name, module)
    exec(compile(source, name + ".py", "exec", 0, True, 2), module.__dict__)
sys.modules["archive.inside"].main()
"""


@functools.cache
def program() -> str:
    """Return the source of what runs inside; see `inside`."""
    here = resources.files("pocket_dock_mcp.archive")
    sources = [(name, here.joinpath(f"{name}.py").read_text(encoding="utf-8")) for name in _MODULES]
    return _LOADER.format(sources=sources)
