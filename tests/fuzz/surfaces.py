"""All surfaces by name. What they need is imported when one is asked for."""

from __future__ import annotations

from collections.abc import Callable

from tests.fuzz.agent import Agents
from tests.fuzz.archives import ImageArchives, Trees
from tests.fuzz.arguments import Arguments
from tests.fuzz.engine import Engines
from tests.fuzz.files_on_disk import Files
from tests.fuzz.gate import Gates
from tests.fuzz.harness import Surface
from tests.fuzz.http import Http
from tests.fuzz.stdio import Stdio

SURFACES: dict[str, Callable[[], Surface]] = {
    surface.name: surface
    for surface in (Stdio, Http, Arguments, Gates, Agents, Engines, Trees, ImageArchives, Files)
}
