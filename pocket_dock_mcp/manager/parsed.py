"""Small files of one directory, each read once.

Whoever looks one up looks at all of them, so it takes the same time whether there is one of that name, and
whosever it is.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from pocket_dock_mcp.errors import StateError

T = TypeVar("T")
_Version = tuple[int, int, int, int]


class ParsedFiles(Generic[T]):
    """What is in the files of a directory. A file is never changed, only replaced as a whole."""

    def __init__(self, directory: Path, prefix: str, parse: Callable[[Path], T | None]) -> None:
        """Read nothing yet.

        Args:
            directory: of the files; it need not be there.
            prefix: with which their names begin. They end with ``.json``.
            parse: returns what is in one; None for one that is gone, or is not what it should be.
        """
        self._directory = directory
        self._prefix = prefix
        self._parse = parse
        self._known: dict[str, tuple[_Version, T | None]] = {}

    def all(self) -> dict[str, T]:
        """Return what is in them, by their names without the ending.

        Raises:
            StateError: the directory cannot be read.
        """
        present = self._versions()
        for name in self._known.keys() - present.keys():
            del self._known[name]
        for name, version in present.items():
            if name not in self._known or self._known[name][0] != version:
                self._known[name] = (version, self._parse(self._directory / f"{name}.json"))
        return {name: found for name, (_, found) in self._known.items() if found is not None}

    def _versions(self) -> dict[str, _Version]:
        present: dict[str, _Version] = {}
        try:
            with os.scandir(self._directory) as entries:
                for entry in entries:
                    if entry.name.startswith(self._prefix) and entry.name.endswith(".json"):
                        self._look(entry, present)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise StateError(
                f"The records of this server in {str(self._directory)!r} cannot be read: {error.strerror}.",
                hint="Make the state directory readable; if too many files are open, try again.",
            ) from error
        return present

    def _look(self, entry: os.DirEntry[str], present: dict[str, _Version]) -> None:
        try:
            found = entry.stat()
        except OSError:
            # Gone meanwhile.
            return
        version = (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
        present[entry.name.removesuffix(".json")] = version
