"""Where a project is: a directory with a file ``.pocket-dock/pocket-dock.yaml``."""

from __future__ import annotations

import os
import re
from pathlib import Path

from pocket_dock_mcp.errors import InvalidArgumentError, StateError
from pocket_dock_mcp.projects.reading import MAX_BYTES, MisreadError, parse
from pocket_dock_mcp.projects.template import IGNORED, template

DIRECTORY = ".pocket-dock"
FILE = "pocket-dock.yaml"

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
"""Of a project or an instance. None of them can lead out of a directory."""


def find_project_root(start: Path | None = None) -> Path | None:
    """Return the nearest directory at or above `start` that is a project; None if there is none.

    The home directory never is one: what lies there configures all that its user does.

    Args:
        start: a directory, or a file in one; None for the working directory.
    """
    try:
        begin = (Path.cwd() if start is None else Path(start)).resolve()
        home = Path.home().resolve()
    except (OSError, RuntimeError, ValueError, TypeError):
        return None
    for directory in (begin, *begin.parents):
        if directory != home and _is_file(config_path(directory)):
            return directory
    return None


def init_project(path: Path | None = None, *, project_name: str | None = None) -> Path:
    """Make a directory a project and return it. What is there already stays as it is.

    Args:
        path: the directory, which is made if there is none; None for the working directory.
        project_name: None for the directory's name.

    Raises:
        InvalidArgumentError: the name is not fit, or the project has another one; or this can be no project.
        StateError: the files cannot be written.
    """
    if project_name is not None and not NAME.fullmatch(project_name):
        message = f"{project_name!r} is no name for a project."
        hint = "Use letters, digits, '_', '.' and '-', at most 63, and a letter or digit first."
        raise InvalidArgumentError(message, hint=hint)
    try:
        root = (Path.cwd() if path is None else Path(path)).resolve()
        is_home = root == Path.home().resolve()
    except (OSError, RuntimeError, ValueError, TypeError) as error:
        raise InvalidArgumentError(f"{path} is no directory: {error}.") from None
    if is_home:
        message = "The home directory cannot be a project: what is in its .pocket-dock is for all projects."
        raise InvalidArgumentError(message, hint="Make a directory for the project.")
    directory = root / DIRECTORY
    try:
        if directory.is_symlink():
            raise InvalidArgumentError(f"{directory} is a link.", hint="Remove it, or put a directory there.")
        directory.mkdir(parents=True, exist_ok=True)
        _put(config_path(root), template(project_name or fitting_name(root)))
        _put(directory / ".gitignore", IGNORED)
    except OSError as error:
        message = f"{directory} cannot be made a project's: {error.strerror}."
        raise StateError(message, hint="Make the directory writable, or choose another.") from None
    if project_name is not None and (found := get_project_name(root)) != project_name:
        message = f"{root} is a project already, and its name is {found!r}."
        raise InvalidArgumentError(message, hint=f"To give it another, edit {config_path(root)}.")
    return root


def get_project_name(root: Path) -> str:
    """Return what a project's file calls it; if it says nothing that can be used, by its directory's name."""
    try:
        with config_path(root).open("rb") as file:
            said = parse(file.read(MAX_BYTES + 1)).get("project_name")
    except (OSError, MisreadError):
        said = None
    is_fit = said is not None and isinstance(said.value, str) and NAME.fullmatch(said.value)
    return str(said.value) if said is not None and is_fit else fitting_name(root)


def config_path(root: Path) -> Path:
    """Return where the file of a project, or of a user's home, is."""
    return root / DIRECTORY / FILE


def fitting_name(root: Path) -> str:
    """Return a name for a project made of its directory's."""
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", root.name).strip("-_.")[:63]
    return name or "project"


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        # Nobody may look there.
        return False


def _put(path: Path, text: str) -> None:
    """Write a file that is not there yet."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    except FileExistsError:
        return
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
    except BaseException:
        # Half a file would never be made whole.
        path.unlink(missing_ok=True)
        raise
