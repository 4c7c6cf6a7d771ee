"""What a command is surrounded by: the environment, completed by the configuration of project and user."""

from __future__ import annotations

import os
from collections.abc import Mapping

from pocket_dock_mcp.errors import ConfigError


def environ() -> Mapping[str, str]:
    """Return the environment of the process; the engine is that of the configuration if it names none.

    Raises:
        ConfigError: a file or a variable makes no sense.
    """
    from pocket_dock_mcp.projects import project_defaults

    return project_defaults().environ(os.environ)


def engine_named_by() -> str:
    """Return what names the engine in `environ`, for those who tell that it does not answer."""
    from pocket_dock_mcp.projects import project_defaults

    return project_defaults().engine_named_by


def valid_environ() -> Mapping[str, str]:
    """Return what `environ` does, or that of the process as it is: for who looks for mistakes in either."""
    try:
        return environ()
    except ConfigError:
        return os.environ


def heed_log_level() -> None:
    """Have our loggers say as much as the configuration wants, on standard error."""
    import logging

    from pocket_dock_mcp.projects import apply_log_level, project_defaults

    try:
        said = project_defaults()
    except ConfigError:
        # Whatever needs the configuration will tell.
        return
    if "log_level" in said.origins:
        logging.basicConfig(format="pocket-dock: %(levelname)s: %(message)s")
        apply_log_level(said)
