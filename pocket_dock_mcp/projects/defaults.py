"""What a container gets that its maker does not say: environment over project over user."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pocket_dock_mcp.models import MIB, Network
from pocket_dock_mcp.projects.config import Configuration, Origin, ProjectConfig, load_config
from pocket_dock_mcp.projects.roots import find_project_root, fitting_name
from pocket_dock_mcp.settings import Settings, variable

ENGINE = variable("engine")
_VARIABLES = {
    "socket": "engine",
    "default_profile": "profile",
    "idle_timeout": "idle_ttl_s",
    "mem_limit": "memory_mb",
    "cpu_percent": "cpus",
}
"""Keys that a setting of the environment outweighs."""


@dataclass(frozen=True, slots=True)
class ProjectDefaults:
    """What holds for containers made at some place. None: not said by anybody, and ours is the default."""

    root: Path | None = None
    """Of the project; None outside of any."""
    project: str | None = None
    """The project's name."""
    profile: str | None = None
    persist: bool = False
    engine: str | None = None
    """As the variable POCKET_DOCK_ENGINE."""
    idle_timeout: float | None = None
    """Seconds."""
    memory_bytes: int | None = None
    cpu_percent: float | None = None
    """100 is one core."""
    network: Network | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    config: ProjectConfig = field(default_factory=ProjectConfig)
    """All that the files say."""
    origins: Mapping[str, Origin] = field(default_factory=dict)
    """Where each of them is from, by the field of `config`."""

    @property
    def engine_named_by(self) -> str:
        """What names the engine: the variable, or the place in a file."""
        origin = self.origins.get("socket")
        is_files = origin is not None and origin.layer in ("project", "user")
        return f"'socket' ({origin.place})" if is_files and origin is not None else ENGINE

    def environ(self, environ: Mapping[str, str]) -> Mapping[str, str]:
        """Return an environment that names the engine of the configuration, unless it names one itself."""
        if self.engine is None or environ.get(ENGINE, "").strip():
            return environ
        return {**environ, ENGINE: self.engine}


def project_defaults(start: Path | None = None, environ: Mapping[str, str] | None = None) -> ProjectDefaults:
    """Return what holds for containers made at `start`: by the environment, the project and its user.

    Args:
        start: where a project is looked for, upwards; None for the working directory.
        environ: None for that of the process.

    Raises:
        ConfigError: a file or a variable makes no sense.
    """
    environ = os.environ if environ is None else environ
    loaded = load_config(find_project_root(start), environ)
    config, root = loaded.config, loaded.root
    settings = Settings.from_environ(environ)
    said = {key: setting for key, setting in _VARIABLES.items() if environ.get(variable(setting), "").strip()}
    origins = {**loaded.origins, **{key: Origin("environment", variable(said[key])) for key in said}}
    return ProjectDefaults(
        root=root,
        project=None if root is None else config.project_name or fitting_name(root),
        profile=settings.profile if "default_profile" in said else config.default_profile,
        persist=config.default_persist,
        engine=settings.engine if "socket" in said else config.socket,
        idle_timeout=settings.idle_ttl_s if "idle_timeout" in said else config.idle_timeout,
        memory_bytes=settings.memory_mb * MIB if "mem_limit" in said else config.mem_limit,
        cpu_percent=settings.cpus * 100 if "cpu_percent" in said else config.cpu_percent,
        network=config.network,
        env=config.env,
        config=config,
        origins=origins,
    )


def apply_log_level(defaults: ProjectDefaults) -> None:
    """Have our loggers say as much as the configuration wants; if it says nothing, they stay as they are."""
    if "log_level" in defaults.origins:
        logging.getLogger("pocket_dock_mcp").setLevel(defaults.config.log_level.upper())


__all__ = ["Configuration", "ProjectDefaults", "apply_log_level", "project_defaults"]
