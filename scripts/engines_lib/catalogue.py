"""The engines by name."""

from __future__ import annotations

from .engine import Engine
from .machine import RootlessPodman
from .neighbours import NextDocker, NextPodman
from .own import Docker, Podman
from .state import State

MACHINES = (RootlessPodman.name,)


def all_engines(state: State) -> dict[str, Engine]:
    kinds = (Podman, Docker, NextPodman, NextDocker, RootlessPodman)
    return {engine.name: engine for engine in (kind(state) for kind in kinds)}
