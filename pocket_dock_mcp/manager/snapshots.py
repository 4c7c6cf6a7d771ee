"""Which snapshots there are and whose they are: one small file each, outliving the process.

The file is the authority, not the image's labels: labels travel with an image, and anybody may write them.
"""

from __future__ import annotations

import json
import re
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path

from pocket_dock_mcp import policy
from pocket_dock_mcp.engine.base import ImageState
from pocket_dock_mcp.errors import InvalidArgumentError
from pocket_dock_mcp.manager.locking import create_locked
from pocket_dock_mcp.manager.parsed import ParsedFiles
from pocket_dock_mcp.manager.sweep import NONCE_LABEL
from pocket_dock_mcp.models import Workspace

UID_LABEL = "pocket-dock.uid"
"""On an image of a sandbox's files: whose they are. It decides who can write them, and nothing else."""
SNAPSHOTS = "localhost/pocket-dock/snapshot"
FORKS = "localhost/pocket-dock/fork"
"""Where images of sandboxes' files have their names on the engine."""
_ID = re.compile(r"snap-[0-9a-f]{32}")
# An engine also finds an image by the end of its name.
_NAME = re.compile(
    r"(?:^|/)pocket-dock/(?:snapshot|fork)(?=[:@]|$)|:snap-[0-9a-f]{32}(?=@|$)|(?:^|/)fork:[0-9a-f]{32}(?=@|$)"
)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """An image of a sandbox's files."""

    id: str
    name: str
    """As given by its maker; may be empty."""
    principal: str
    """Who may use it."""
    engine: str
    """Identity of the engine that has the image."""
    tag: str
    image_id: str
    uid: int
    """Of the files' owner: a sandbox made from it runs as this uid."""
    created: float
    """Seconds since the epoch."""
    size_bytes: int
    workspace: Workspace = "disk"
    """Where the home directory was."""

    def workspace_for(self, wanted: Workspace | None) -> Workspace:
        """Return where the home directory is to be of a sandbox that is made from it.

        Raises:
            InvalidArgumentError: it cannot be there.
        """
        if wanted == "memory" and self.workspace == "disk":
            # They are on the disk where the file system in memory would hide them.
            message = (
                "The files of this snapshot cannot go into a workspace in memory: they are of one on disk."
            )
            raise InvalidArgumentError(message, hint="Leave workspace out.")
        return wanted or self.workspace


def new_id() -> str:
    """Return an unguessable snapshot id."""
    return f"snap-{secrets.token_hex(16)}"


def uid_of(image: ImageState) -> int | None:
    """Return whose the files of an image are, if it is one of a sandbox's files."""
    said = image.labels.get(UID_LABEL, "")
    if not re.fullmatch(r"[0-9]{4,7}", said, re.ASCII):
        return None
    return int(said) if policy.is_sandbox_uid(int(said)) else None


def require_no_snapshot(reference: str) -> None:
    """Refuse an image reference that names somebody's files, whether there are such, and whosever.

    Raises:
        InvalidArgumentError: it does.
    """
    if _NAME.search(reference) is not None:
        message = "The files of a sandbox are not used by the name of their image."
        raise InvalidArgumentError(message, hint="Give snapshot=<snapshot_id> instead.")


def is_of_files(image: ImageState) -> bool:
    """Whether an image on the engine is one of a sandbox's files.

    Anybody can give an image a name like those of ours; so what counts is the label that these have as well.
    """
    has_name = any(tag.startswith((f"{SNAPSHOTS}:", f"{FORKS}:")) for tag in image.tags)
    return has_name and bool(image.labels.get(NONCE_LABEL))


class SnapshotStore:
    """The snapshots on record in one directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._files = ParsedFiles(directory, "snap-", self._read)

    def add(self, snapshot: Snapshot) -> None:
        """Put a snapshot on record."""
        create_locked(self._path(snapshot.id), json.dumps(asdict(snapshot))).close()

    def empty(self) -> bool:
        """Whether nobody has a snapshot on any engine."""
        return next(self._directory.glob("snap-*.json"), None) is None

    def find(self, principal: str, engine: str, snapshot_id: str) -> Snapshot | None:
        """Return a principal's snapshot on this engine, or None for any other: after the same time."""
        if not _ID.fullmatch(snapshot_id):
            return None
        found = self._files.all().get(snapshot_id)
        mine = found is not None and found.principal == principal and found.engine == engine
        return found if mine else None

    def of(self, principal: str, engine: str) -> list[Snapshot]:
        """Return a principal's snapshots on this engine, oldest first."""
        mine = [one for one in self.everybodys(engine) if one.principal == principal]
        return sorted(mine, key=lambda snapshot: snapshot.created)

    def has_tag(self, tag: str) -> bool:
        """Whether a snapshot on record, of anybody, has this image."""
        snapshot_id = tag.rpartition(":")[2]
        found = self._read(self._path(snapshot_id)) if _ID.fullmatch(snapshot_id) else None
        return found is not None and found.tag == tag

    def everybodys(self, engine: str) -> list[Snapshot]:
        """Return all snapshots on this engine, whoever they belong to."""
        return [snapshot for snapshot in self._files.all().values() if snapshot.engine == engine]

    def has_image(self, principal: str, engine: str, image: ImageState) -> bool:
        """Whether an image on this engine is a snapshot of this principal."""
        return any(one.image_id == image.id for one in self.of(principal, engine))

    def remove(self, snapshot_id: str) -> None:
        """Take a snapshot off the record. Quiet when it is not on it."""
        self._path(snapshot_id).unlink(missing_ok=True)

    def _path(self, snapshot_id: str) -> Path:
        return self._directory / f"{snapshot_id}.json"

    def _read(self, path: Path) -> Snapshot | None:
        try:
            return Snapshot(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            # Gone meanwhile, or not one of ours.
            return None
