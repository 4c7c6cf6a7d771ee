"""What this process is about to make on an engine, on disk before it makes it.

One append-only file for each process, locked for as long as the process lives. A file that can be locked
belongs to a dead process; what it intended and did not undo is what a sweep may remove, and nothing else.
The lock is the kernel's, so neither a reused process id nor a reboot can fool it.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, get_args

from pocket_dock_mcp.errors import StateError
from pocket_dock_mcp.manager.locking import create_locked, open_locked

logger = logging.getLogger(__name__)

Kind = Literal["container", "image"]

LONGEST = 200
"""Lines of history that a journal may have, beyond some for all that is open."""


@dataclass(frozen=True, slots=True)
class Intent:
    """One object that a process intended to make."""

    kind: Kind
    name: str
    """A container's name or an image's tag; unguessable, chosen by us."""
    nonce: str
    """Also a label of the object: a name alone could be somebody else's."""
    is_made: bool = False
    """Whether the engine has confirmed it. If not, and it is not there, it may still be coming."""


@dataclass(slots=True)
class Record:
    """The file of one process, read back."""

    instance: str
    engine: str
    """Identity of the engine that it used; empty when it never reached one."""
    intents: dict[str, Intent] = field(default_factory=dict)
    age_s: float = field(default=0.0, compare=False)
    """Seconds since it was last written: how long nothing new has been asked for."""


class Journal:
    """This process's own file. Closing it with nothing left on the engine removes it."""

    def __init__(self, directory: Path) -> None:
        """Create and lock the file.

        Raises:
            StateError: the directory cannot be written.
        """
        self.instance = secrets.token_hex(8)
        self._path = directory / f"{self.instance}.jsonl"
        try:
            self._file = create_locked(self._path)
        except OSError as error:
            raise _unwritable(directory, error) from error
        self._engine = ""
        self._live: dict[str, Intent] = {}
        self._is_torn = False
        self._lines = 0

    def use_engine(self, identity: str) -> None:
        """Note which engine the coming intents are about."""
        self._engine = identity
        self._write({"engine": identity})

    def is_open_about_another(self, identity: str) -> bool:
        """Whether something of it is left on another engine than this: then it cannot serve for both."""
        return bool(self._live) and self._engine not in ("", identity)

    def intend(self, kind: Kind, name: str, nonce: str | None = None) -> Intent:
        """Note an object before it is made, or one that is to go, and return the intent with its nonce.

        Raises:
            StateError: it cannot be noted; so it must not be made.
        """
        intent = Intent(kind, name, nonce or secrets.token_hex(8))
        self._write({"intend": kind, "name": name, "nonce": intent.nonce})
        self._live[name] = intent
        return intent

    def made(self, name: str) -> None:
        """Note that the engine has made an object: when it is not there any more, it is gone for good."""
        intent = self._live.get(name)
        if intent is not None:
            self._live[name] = replace(intent, is_made=True)
            self._note({"made": name})

    def find(self, name: str) -> Intent | None:
        """Return an intent that is not settled."""
        return self._live.get(name)

    def settled(self, name: str) -> None:
        """Note that an object is gone, was never made, or is kept on purpose."""
        if self._live.pop(name, None) is None:
            return
        if self._live:
            self._note({"settled": name})
            if self._lines > LONGEST + 4 * len(self._live):
                self._shorten()
            return
        # Nothing is open: the history can go, and the file never grows for long.
        try:
            os.ftruncate(self._file.fileno(), 0)
        except OSError as error:
            logger.warning("could not shorten the journal: %s", error)
        self._lines = 0
        self._note({"engine": self._engine})

    def _shorten(self) -> None:
        """Put a file without history in its place: something may be open as long as this process lives."""
        lines: list[dict[str, str]] = [{"engine": self._engine}]
        for intent in self._live.values():
            lines.append({"intend": intent.kind, "name": intent.name, "nonce": intent.nonce})
            lines += [{"made": intent.name}] if intent.is_made else []
        try:
            file = create_locked(self._path, "".join(json.dumps(line) + "\n" for line in lines))
        except OSError as error:
            logger.warning("could not shorten the journal: %s", error)
            return
        self._file.close()
        self._file, self._lines, self._is_torn = file, len(lines), False

    def close(self) -> None:
        """Release the lock; remove the file unless something of ours may still be on the engine."""
        if self._file.closed:
            return
        if not self._live:
            try:
                self._path.unlink(missing_ok=True)
            except OSError as error:
                logger.warning("could not remove the journal: %s", error)
        self._file.close()

    def _note(self, line: dict[str, str]) -> None:
        """Write what does no harm when it is missing: the object is looked for once more, and that is all."""
        try:
            self._write(line)
        except StateError as error:
            logger.warning("%s", error)

    def _write(self, line: dict[str, str]) -> None:
        # Handed to the kernel: that survives SIGKILL. A power failure ends the containers as well.
        self._lines += 1
        data = json.dumps(line).encode() + b"\n"
        if self._is_torn:
            data = b"\n" + data
        try:
            # Not through the file's buffer, which would try a failed write again later, behind others.
            if os.write(self._file.fileno(), data) == len(data):
                self._is_torn = False
                return
            error = OSError(0, "the disk is full")
        except OSError as failure:
            error = failure
        self._is_torn = True
        raise _unwritable(self._path, error) from error


def _unwritable(path: Path, error: OSError) -> StateError:
    return StateError(f"The records of this server cannot be written to {str(path)!r}: {error.strerror}.")


@contextmanager
def dead_records(directory: Path) -> Iterator[Iterator[tuple[Path, Record]]]:
    """Yield the records of dead processes one by one, each locked while it is looked at."""

    def walk() -> Iterator[tuple[Path, Record]]:
        for path in sorted(directory.glob("*.jsonl")):
            try:
                file = open_locked(path)
            except OSError:
                # Its process lives.
                continue
            if file is not None:
                with file:
                    record = _parse(path.stem, file.read())
                    record.age_s = time.time() - os.fstat(file.fileno()).st_mtime
                    yield path, record

    yield walk()


def settle(path: Path, names: Collection[str]) -> None:
    """Note in a dead process's record, which is held, what is settled; it does not get younger by that."""
    before = path.stat()
    with path.open("a", encoding="utf-8") as file:
        # On a line of its own: the process may have died in the middle of one.
        file.write("\n" + "".join(json.dumps({"settled": name}) + "\n" for name in names))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def _parse(instance: str, text: str) -> Record:
    record = Record(instance, "")
    for line in text.splitlines():
        try:
            fields = json.loads(line)
        except (ValueError, RecursionError):
            # The process died in the middle of writing it: then it had not acted on it yet.
            continue
        # A disk may give back anything; one bad line must not keep us from the others.
        if isinstance(fields, dict) and all(isinstance(value, str) for value in fields.values()):
            _apply(record, fields)
    return record


def _apply(record: Record, fields: dict[str, str]) -> None:
    kind, name, nonce = fields.get("intend"), fields.get("name"), fields.get("nonce")
    if "engine" in fields:
        record.engine = fields["engine"]
    elif kind in get_args(Kind) and name and nonce:
        record.intents[name] = Intent("image" if kind == "image" else "container", name, nonce)
    elif (made := record.intents.get(fields.get("made", ""))) is not None:
        record.intents[made.name] = replace(made, is_made=True)
    elif "settled" in fields:
        record.intents.pop(fields["settled"], None)
