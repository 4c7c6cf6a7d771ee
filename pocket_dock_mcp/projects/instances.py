"""The directory of each container of a project: ``.pocket-dock/instances/NAME``.

In it are ``instance.toml``, which says what it was made of; ``data``, for files to be shared with it; and
``logs`` with ``history.jsonl``, which say what was done in it. Nobody but their owner may read them.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from pocket_dock_mcp.errors import InvalidArgumentError, StateError
from pocket_dock_mcp.projects import toml
from pocket_dock_mcp.projects.roots import DIRECTORY, NAME

METADATA = "instance.toml"
DATA = "data"
MAX_METADATA = 64 * 1024


@dataclass(frozen=True, slots=True)
class InstanceMetadata:
    """What is on record of a container in its project."""

    name: str
    project: str
    image: str
    container_id: str = ""
    sandbox_id: str = ""
    """By which it is known to all that is not of the project."""
    profile: str = ""
    created_at: str = ""
    """In UTC, as ISO 8601 has it."""
    persist: bool = False
    """Whether it outlives the program that made it."""
    pid: int = 0
    """Of the process that made it."""
    mem_limit: int = 0
    """Bytes; 0 where it is not known."""
    cpu_percent: float = 0.0
    ports: Mapping[str, int] = field(default_factory=dict)
    """By port of the host."""


def instances_path(root: Path) -> Path:
    """Return where the directories of a project's containers are."""
    return root / DIRECTORY / "instances"


def instance_path(root: Path, name: str) -> Path:
    """Return the directory of one container, which may not be there.

    Raises:
        InvalidArgumentError: the name is none that a container can have.
    """
    if not NAME.fullmatch(name):
        message = f"{name!r} is no name of a container."
        hint = "Use letters, digits, '_', '.' and '-', at most 63, and a letter or digit first."
        raise InvalidArgumentError(message, hint=hint)
    return instances_path(root) / name


def ensure_instance_dir(root: Path, name: str) -> Path:
    """Make the directory of a container, and return it.

    Raises:
        InvalidArgumentError: as of `instance_path`.
        StateError: it cannot be made, or a link is in its place.
    """
    path = instance_path(root, name)
    try:
        for directory in (path.parent, path, path / DATA, path / "logs"):
            directory.mkdir(mode=0o700, exist_ok=True)
            if directory.is_symlink():
                # What is in a project may come from somebody else: nothing is written through it.
                raise NotADirectoryError(0, "it is a link")
    except OSError as error:
        message = f"{path} cannot be made: {error.strerror}."
        raise StateError(message, hint="Make the project's directory writable.") from None
    return path


def write_instance_metadata(directory: Path, metadata: InstanceMetadata) -> None:
    """Put on record what a container is, at once: nobody ever reads a half.

    Raises:
        StateError: it cannot be written.
    """
    temporary = directory / f".{METADATA}.{secrets.token_hex(4)}"
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        with os.fdopen(os.open(temporary, flags, 0o600), "w", encoding="utf-8") as file:
            file.write(toml.dumps(asdict(metadata)))
        temporary.replace(directory / METADATA)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        message = f"{directory / METADATA} cannot be written: {error.strerror}."
        raise StateError(message, hint="Make the project's directory writable.") from None


def read_instance_metadata(directory: Path) -> InstanceMetadata | None:
    """Return what is on record of a container; None if that is nothing that can be read."""
    try:
        with (directory / METADATA).open("rb") as file:
            said = toml.loads(file.read(MAX_METADATA).decode())
    except (OSError, ValueError, RecursionError):
        return None
    known = {one.name: said[one.name] for one in fields(InstanceMetadata) if one.name in said}
    blank = InstanceMetadata("", "", "")
    if any(type(value) is not type(getattr(blank, name)) for name, value in known.items()):
        return None
    # Its directory says its name: one that was copied is another.
    return InstanceMetadata(**{"project": "", "image": "", **known, "name": directory.name})  # type: ignore[arg-type]


def list_instance_dirs(root: Path) -> list[Path]:
    """Return the directories of a project's containers, by name."""
    return sorted(_directories(instances_path(root)))


def _directories(path: Path) -> Iterator[Path]:
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if NAME.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False):
                    yield path / entry.name
    except OSError:
        return


def remove_instance_dir(root: Path, name: str) -> bool:
    """Remove the directory of a container with all that is in it; whether it is gone. Links are not followed.

    Raises:
        InvalidArgumentError: as of `instance_path`.
    """
    path = instance_path(root, name)
    # Files that its programs have left in `data` may belong to others.
    shutil.rmtree(path, ignore_errors=True)
    return not path.exists()
