"""Pure: the entries of a tar that comes piece by piece from anywhere: read, hashed, and handed on or dropped.

Python's own reader believes what a header says of its size, and keeps names of any length. This one has
bounds for all that it keeps, knows the few kinds of entries that an archive of images has, and no others.
"""

from __future__ import annotations

import hashlib
import posixpath
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from pocket_dock_mcp.errors import ImageArchiveError

MAX_ENTRIES = 100_000
MAX_DOCUMENT = 8 * 1024 * 1024
"""Bytes of one JSON document. Configurations of images have some thousand."""
MAX_DOCUMENTS = 64 * 1024 * 1024
"""Bytes of all of them, which are kept until the end."""
MAX_ENTRY = 1 << 40
_MAX_EXTENSION = 1024 * 1024
"""Bytes that a name or the like may have; a path has four thousand."""
_BLOCK = 512
_CHUNK = 1024 * 1024
"""Bytes that are unpacked of a compressed layer at a time, to hash them."""

_PAX, _PAX_GLOBAL, _GNU_NAME, _GNU_LINK = b"x", b"g", b"L", b"K"
_EXTENSIONS = (_PAX, _PAX_GLOBAL, _GNU_NAME, _GNU_LINK)
_FILES = (tarfile.REGTYPE, tarfile.AREGTYPE)
_TYPES = (*_FILES, tarfile.DIRTYPE, tarfile.SYMTYPE)


@dataclass(slots=True)
class Entry:
    """A file of an archive that has gone by."""

    digest: str = ""
    unpacked: str = ""
    """The digest of what is compressed in it, if it is."""
    document: bytes | None = None
    target: str | None = None
    """Where it leads, if it is a link."""


@dataclass(slots=True)
class _Header:
    """What comes before an entry's content."""

    raw: bytearray = field(default_factory=bytearray)
    name: str | None = None
    link: str | None = None
    size: int | None = None


class Entries:
    """Is fed with a tar, and hands it on without what is dropped."""

    def __init__(self, *, drop: frozenset[str], verify: bool) -> None:
        self.found: dict[str, Entry] = {}
        """Files and links by their names, in the order in which they came."""
        self.is_over = False
        """Whether the mark at its end has come."""
        self._drop = drop
        self._verify = verify
        self._pending = bytearray()
        self._header = _Header()
        self._content: _Content | None = None
        self._documents = 0

    def feed(self, data: bytes) -> bytes:
        """Take the next piece; return what is to be handed on. Raises `ImageArchiveError`."""
        self._pending += data
        out = bytearray()
        while self._step(out):
            pass
        return bytes(out)

    def _step(self, out: bytearray) -> bool:
        """Take one header or one piece of content from what is pending; False where there is too little."""
        if self.is_over:
            # Padding up to the size of a record.
            if any(self._pending):
                raise damaged("something follows its end")
            out += self._pending
            self._pending.clear()
            return False
        if self._content is not None:
            return self._take_content(out)
        if len(self._pending) < _BLOCK:
            return False
        block = bytes(self._pending[:_BLOCK])
        del self._pending[:_BLOCK]
        if not any(block):
            self.is_over = True
            out += block
        else:
            self._take_header(block, out)
        return True

    def _take_header(self, block: bytes, out: bytearray) -> None:
        try:
            info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except (tarfile.HeaderError, ValueError) as error:
            raise damaged(f"what should be an entry of it is none ({error})") from error
        self._header.raw += block
        if not 0 <= info.size <= MAX_ENTRY:
            raise damaged("an entry has an impossible size")
        if info.type in _EXTENSIONS:
            if info.size > _MAX_EXTENSION:
                raise damaged("an entry's name is too long")
            self._content = _Content(info.size, is_kept=True, kind=info.type)
            return
        self._begin(info, out)

    def _begin(self, info: tarfile.TarInfo, out: bytearray) -> None:
        """Begin an entry of which all headers have come."""
        header, self._header = self._header, _Header()
        name = inside(info.name if header.name is None else header.name)
        if info.type not in _TYPES:
            raise damaged(f"{name!r} is neither a file, a folder nor a link")
        if len(self.found) >= MAX_ENTRIES:
            raise damaged(f"it has more than {MAX_ENTRIES} entries")
        size = info.size if header.size is None else header.size
        entry = Entry()
        if info.type == tarfile.SYMTYPE:
            link = info.linkname if header.link is None else header.link
            entry.target = inside(posixpath.join(posixpath.dirname(name), link))
        if info.type in _FILES or entry.target is not None:
            if name in self.found:
                raise damaged(f"{name!r} is in it twice")
            self.found[name] = entry
        if info.type not in _FILES:
            size = 0
        is_passed = name not in self._drop
        if is_passed:
            out += header.raw
        self._content = _Content(size, entry=entry, is_passed=is_passed, hashes=self._verify)

    def _take_content(self, out: bytearray) -> bool:
        content = self._content
        if content is None or (content.left and not self._pending):
            return False
        count = min(content.left, len(self._pending))
        data = bytes(self._pending[:count])
        del self._pending[:count]
        content.left -= count
        self._note(content, data, out)
        if content.left:
            return False
        self._content = None
        self._end(content)
        return True

    def _note(self, content: _Content, data: bytes, out: bytearray) -> None:
        if content.kind:
            self._header.raw += data
        elif content.is_passed:
            out += data
        part = data[: content.size]
        content.size -= len(part)
        content.add(part)

    def _end(self, content: _Content) -> None:
        if content.kind:
            self._extend(content)
        elif content.entry is not None:
            content.settle(content.entry)
            self._documents += len(content.entry.document or b"")
            if self._documents > MAX_DOCUMENTS:
                raise damaged("it has more descriptions than images")

    def _extend(self, content: _Content) -> None:
        """Heed an entry that is about the next one."""
        data = bytes(content.kept)
        if content.kind == _GNU_NAME:
            self._header.name = _text(data.rstrip(b"\0"))
        elif content.kind == _GNU_LINK:
            self._header.link = _text(data.rstrip(b"\0"))
        else:
            for key, value in _records(data):
                self._heed(key, value, is_global=content.kind == _PAX_GLOBAL)

    def _heed(self, key: str, value: str, *, is_global: bool) -> None:
        if key.startswith("GNU.sparse") or (is_global and key in ("path", "linkpath", "size")):
            raise damaged(f"it has an extension that no image needs ({key!r})")
        if key == "path":
            self._header.name = value
        elif key == "linkpath":
            self._header.link = value
        elif key == "size":
            if not value.isdecimal() or int(value) > MAX_ENTRY:
                raise damaged("an entry has an impossible size")
            self._header.size = int(value)


class _Content:
    """The content of an entry, as it goes by."""

    def __init__(
        self,
        size: int,
        *,
        entry: Entry | None = None,
        is_passed: bool = False,
        is_kept: bool = False,
        hashes: bool = False,
        kind: bytes = b"",
    ) -> None:
        self.size = size
        """Bytes to come that belong to it; behind them is padding."""
        self.left = -(-size // _BLOCK) * _BLOCK
        self.entry = entry
        self.is_passed = is_passed
        self.kind = kind
        self.kept = bytearray()
        self._is_kept = is_kept
        self._is_new = True
        self._hash = hashlib.sha256() if hashes else None
        self._unpacked: Any = None
        self._inflate: Any = None

    def add(self, data: bytes) -> None:
        if self._is_new and data:
            self._is_new = False
            self._is_kept = self._is_kept or (data[:1] in b"{[ \n" and self.size + len(data) <= MAX_DOCUMENT)
            if self._hash is not None and data[:2] == b"\x1f\x8b":
                self._unpacked, self._inflate = hashlib.sha256(), zlib.decompressobj(31)
        if self._is_kept:
            self.kept += data
        if self._hash is not None:
            self._hash.update(data)
        if self._inflate is not None:
            self._add_unpacked(data)

    def _add_unpacked(self, data: bytes) -> None:
        try:
            while data and not self._inflate.eof:
                self._unpacked.update(self._inflate.decompress(data, _CHUNK))
                data = self._inflate.unconsumed_tail
        except zlib.error:
            # It only looked like one; the digest of what it is counts.
            self._inflate = None

    def settle(self, entry: Entry) -> None:
        entry.digest = "" if self._hash is None else self._hash.hexdigest()
        if self._inflate is not None:
            entry.unpacked = self._unpacked.hexdigest()
        entry.document = bytes(self.kept) if self._is_kept else None


def inside(name: str) -> str:
    """Return a path in its shortest form. Raises `ImageArchiveError` if it leads out of the archive."""
    path = posixpath.normpath(name)
    if path.startswith(("/", "../")) or path == ".." or "\0" in path:
        raise damaged(f"it has an entry {name[:200]!r}, which leads out of it")
    return path


def _records(data: bytes) -> Iterator[tuple[str, str]]:
    """Yield the keys and values of an extended header: ``LENGTH KEY=VALUE\\n``, one after the other."""
    while data.rstrip(b"\0"):
        length, space, _ = data.partition(b" ")
        if not space or not length.isdigit() or len(length) > 8 or not len(length) < int(length) <= len(data):
            raise damaged("an extended header of it makes no sense")
        key, _, value = data[len(length) + 1 : int(length) - 1].partition(b"=")
        yield _text(key), _text(value)
        data = data[int(length) :]


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def damaged(how: str) -> ImageArchiveError:
    """Return the error for what is not as it should be."""
    return ImageArchiveError(
        f"This is no archive of images, or a damaged one: {how}.",
        hint="Nothing was loaded. Fetch it again, or make it anew with 'pocket-dock export'.",
    )
