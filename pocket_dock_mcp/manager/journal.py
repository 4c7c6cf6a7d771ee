"""What this process is about to make on an engine, on disk before it makes it.

One append-only file for each process, locked for as long as the process lives. A file that can be locked
belongs to a dead process; what it intended and did not undo is what a sweep may remove, and nothing else.
The lock is the kernel's, so neither a reused process id nor a reboot can fool it.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pocket_dock_mcp.manager.locking import create_locked, open_locked

Kind = Literal["container", "image"]


@dataclass(frozen=True, slots=True)
class Intent:
    """One object that a process intended to make."""

    kind: Kind
    name: str
    """A container's name or an image's tag; unguessable, chosen by us."""
    nonce: str
    """Also a label of the object: a name alone could be somebody else's."""


@dataclass(slots=True)
class Record:
    """The file of one process, read back."""

    instance: str
    engine: str
    """Identity of the engine that it used; empty when it never reached one."""
    intents: dict[str, Intent] = field(default_factory=dict)


class Journal:
    """This process's own file. Closing it with nothing left on the engine removes it."""

    def __init__(self, directory: Path) -> None:
        """Create and lock the file.

        Raises:
            OSError: the directory cannot be written.
        """
        self.instance = secrets.token_hex(8)
        self._path = directory / f"{self.instance}.jsonl"
        self._file = create_locked(self._path)
        self._engine = ""
        self._live: set[str] = set()

    def use_engine(self, identity: str) -> None:
        """Note which engine the coming intents are about."""
        self._engine = identity
        self._write({"engine": identity})

    def intend(self, kind: Kind, name: str, nonce: str | None = None) -> Intent:
        """Note an object before it is made, or one that is to go, and return the intent with its nonce."""
        intent = Intent(kind, name, nonce or secrets.token_hex(8))
        self._live.add(name)
        self._write({"intend": kind, "name": name, "nonce": intent.nonce})
        return intent

    def settled(self, name: str) -> None:
        """Note that an object is gone, was never made, or is kept on purpose."""
        self._live.discard(name)
        if self._live:
            self._write({"settled": name})
            return
        # Nothing is open: the history can go, and the file never grows for long.
        self._file.truncate(0)
        self._write({"engine": self._engine})

    def close(self) -> None:
        """Release the lock; remove the file unless something of ours may still be on the engine."""
        if self._file.closed:
            return
        if not self._live:
            self._path.unlink(missing_ok=True)
        self._file.close()

    def _write(self, line: dict[str, str]) -> None:
        # Flushed to the kernel: that survives SIGKILL. A power failure ends the containers as well.
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()


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
                    yield path, _parse(path.stem, file.read())

    yield walk()


def _parse(instance: str, text: str) -> Record:
    record = Record(instance, "")
    for line in text.splitlines():
        try:
            fields = json.loads(line)
        except ValueError:
            # The process died in the middle of writing it: then it had not acted on it yet.
            continue
        if "engine" in fields:
            record.engine = fields["engine"]
        elif "intend" in fields:
            intent = Intent(fields["intend"], fields["name"], fields["nonce"])
            record.intents[intent.name] = intent
        elif "settled" in fields:
            record.intents.pop(fields["settled"], None)
    return record
