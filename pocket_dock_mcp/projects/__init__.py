"""Projects: where one is, what its file says, and what its containers have left in it."""

from __future__ import annotations

from pocket_dock_mcp.projects.config import Configuration, Origin, ProjectConfig, label, load_config
from pocket_dock_mcp.projects.defaults import ProjectDefaults, apply_log_level, project_defaults
from pocket_dock_mcp.projects.roots import find_project_root, get_project_name, init_project

__all__ = [
    "Configuration",
    "Origin",
    "ProjectConfig",
    "ProjectDefaults",
    "apply_log_level",
    "find_project_root",
    "get_project_name",
    "init_project",
    "label",
    "load_config",
    "project_defaults",
]
