"""Which sandboxes are kept beyond this process: one small file each, locked by the process that holds one.

The file is the authority, as with snapshots: a container without one is not ours to go on with, whatever
its labels say. It has the sandbox's environment, so nobody but its owner may read it.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any

from pydantic import TypeAdapter

from pocket_dock_mcp.errors import SandboxBusyError, StateError
from pocket_dock_mcp.manager.escaping import MARK, escaped, restored
from pocket_dock_mcp.manager.locking import create_locked, open_locked
from pocket_dock_mcp.manager.parsed import ParsedFiles
from pocket_dock_mcp.manager.sandbox import SandboxRequest
from pocket_dock_mcp.models import Limits

logger = logging.getLogger(__name__)

_ID = re.compile(r"sb-[0-9a-f]{32}")
_MARKED = json.dumps(MARK)[1:-1]
_END_OF_TIME = 253_402_300_799.0
"""The last second that has a date of four digits."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What it takes to reach a kept sandbox, or to start it again."""

    id: str
    principal: str
    """Who may use it."""
    engine: str
    """Identity of the engine that has its container."""
    container: str
    """The container's name."""
    nonce: str
    """The container's label of that kind: with another one it is not ours."""
    image_id: str
    uid: int
    request: SandboxRequest
    created: float
    """Seconds since the epoch."""
    renewing: bool = False
    """Whether its container is just being replaced by a fresh one: there may be none, and that is no loss."""


class Claim:
    """A record that this process holds: no other process goes on with that sandbox meanwhile."""

    def __init__(self, path: Path, file: IO[str], kept: Kept) -> None:
        self._path = path
        self._file = file
        self.kept = kept

    def update(self, **changes: Any) -> None:
        """Change what is on record, at once."""
        self.kept = replace(self.kept, **changes)
        file = create_locked(self._path, _text(self.kept))
        self._file.close()
        self._file = file

    def renewal(self, begins: bool) -> None:
        """Put on record that its container is being replaced by a fresh one, or has been.

        Raises:
            StateError: that it begins cannot be recorded. That it is over is for the next one to find out.
        """
        try:
            if self.kept.renewing != begins and self.is_on_record():
                self.update(renewing=begins)
        except OSError as error:
            if begins:
                raise unwritten(error) from error
            logger.warning("the record %s cannot be written: %s", self._path, error)

    def is_on_record(self) -> bool:
        """Whether the sandbox is still there for others to find: nobody has destroyed it meanwhile."""
        try:
            return not self._file.closed and os.path.samestat(
                self._path.stat(), os.fstat(self._file.fileno())
            )
        except FileNotFoundError:
            return False

    def remove(self) -> None:
        """Take the sandbox off the record. Idempotent."""
        if not self._file.closed:
            self._path.unlink(missing_ok=True)
            self._file.close()

    def release(self) -> None:
        """Leave it to others. Idempotent."""
        self._file.close()


class KeptStore:
    """The records in one directory. A file that cannot be read is passed over, and warned of once."""

    def __init__(self, directory: Path, *, is_quiet: bool = False) -> None:
        """Read nothing yet.

        Args:
            directory: of the records.
            is_quiet: warn of nothing: whoever reads tells in another way.
        """
        self._directory = directory
        self._is_quiet = is_quiet
        self._files = ParsedFiles(directory, "sb-", self._read)
        self._warned: set[Path] = set()

    def add(self, kept: Kept) -> Claim:
        """Put a sandbox on record, held by this process.

        Raises:
            StateError: it cannot be written, or not be read again.
        """
        path = self._path(kept.id)
        try:
            return Claim(path, create_locked(path, _text(kept)), kept)
        except OSError as error:
            raise unwritten(error) from error

    def claim(self, sandbox_id: str) -> Claim | None:
        """Hold a record; None if there is none (any more).

        Raises:
            SandboxBusyError: another process holds it.
        """
        path = self._path(sandbox_id)
        try:
            file = open_locked(path)
        except OSError:
            raise SandboxBusyError from None
        if file is None:
            return None
        kept = _parse(file.read(), sandbox_id)
        if kept is None:
            file.close()
            return None
        return Claim(path, file, kept)

    def strike(self, sandbox_id: str) -> None:
        """Take a sandbox off the record that another process holds, and whose container is gone."""
        self._path(sandbox_id).unlink(missing_ok=True)

    def is_held(self, sandbox_id: str) -> bool:
        """Whether some process holds this record now."""
        try:
            claim = self.claim(sandbox_id)
        except SandboxBusyError:
            return True
        if claim is not None:
            claim.release()
        return False

    def empty(self) -> bool:
        """Whether no sandbox of anybody is on record."""
        return next(self._directory.glob("sb-*.json"), None) is None

    def find(self, principal: str, engine: str, sandbox_id: str) -> Kept | None:
        """Return a principal's record on this engine, or None for any other: after the same time."""
        if not _ID.fullmatch(sandbox_id):
            return None
        kept = self._files.all().get(sandbox_id)
        mine = kept is not None and kept.principal == principal and kept.engine == engine
        return kept if mine else None

    def has_container(self, name: str, nonce: str) -> bool:
        """Whether a sandbox on record, of anybody on any engine, has this container."""
        return any(kept.container == name and kept.nonce == nonce for kept in self.records())

    def of(self, principal: str | None, engine: str) -> list[Kept]:
        """Return a principal's (None: everybody's) records on this engine, oldest first."""
        mine = [
            kept for kept in self.records() if kept.engine == engine and principal in (None, kept.principal)
        ]
        return sorted(mine, key=lambda kept: kept.created)

    def records(self) -> Iterator[Kept]:
        """Return everybody's, on all engines."""
        yield from self._files.all().values()

    def unreadable(self) -> list[Path]:
        """Return the files that should be records and are none. What has gone meanwhile is not among them."""
        every = sorted(self._directory.glob("sb-*.json"))
        return [path for path in every if self._read(path) is None and path.exists()]

    def _read(self, path: Path) -> Kept | None:
        try:
            kept = _parse(path.read_bytes().decode(), path.stem)
        except FileNotFoundError:
            return None
        except (OSError, ValueError):
            kept = None
        if kept is None and not self._is_quiet and path not in self._warned:
            self._warned.add(path)
            logger.warning(
                "the record %s cannot be read, so its sandbox is not listed, and runs on if it ran; "
                "pocket-dock doctor says what to do about it",
                path,
            )
        return kept

    def _path(self, sandbox_id: str) -> Path:
        return self._directory / f"{sandbox_id}.json"


def unwritten(error: OSError) -> StateError:
    """Return the error for a record that cannot be written."""
    message = f"The sandbox cannot be put on record: {error.strerror}."
    return StateError(message, hint="Make room in the state directory, or make it writable.")


def _text(kept: Kept) -> str:
    """Return what is on record of a sandbox.

    Raises:
        StateError: nobody could read it.
    """
    text = json.dumps(escaped(asdict(kept)))
    if _parse(text, kept.id) != kept:
        # Before anything is kept: a sandbox whose record cannot be read is lost to its owner.
        message = "The sandbox cannot be put on record: something that it was given is of a wrong kind."
        raise StateError(message, hint="Look at the types of what it is created with.")
    return text


@functools.cache
def _shape() -> TypeAdapter[Kept]:
    return TypeAdapter(Kept)


def _parse(text: str, sandbox_id: str) -> Kept | None:
    """Return the record of a sandbox; None if it is not one of ours, or of another release, or damaged."""
    try:
        fields = json.loads(text)
        request = fields["request"]
        request["limits"] = Limits(**request["limits"])
        # These take any types, but no names that they do not know.
        Kept(**{**fields, "request": SandboxRequest(**request)})
        kept = _shape().validate_json(text, strict=True)
        if _MARKED in text:
            kept = restored(kept)
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return kept if kept.id == sandbox_id and 0 <= kept.created <= _END_OF_TIME else None
