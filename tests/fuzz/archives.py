"""Streams of file trees and tars, as a sandbox sends them, and archives of images, as anybody may hand us.

Nothing may be written anywhere but below the destination, and nothing may be left there but a whole tree.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import random
import shutil
import tarfile
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

from pocket_dock_mcp.archive import frames, names
from pocket_dock_mcp.archive.frames import BadStreamError, frame
from pocket_dock_mcp.archive.incoming import Incoming, SenderFailedError
from pocket_dock_mcp.archive.outgoing import LimitError, Limits
from pocket_dock_mcp.archive.placing import Destination, receiver
from pocket_dock_mcp.archive.tar import FromTar
from pocket_dock_mcp.errors import ImageArchiveError
from pocket_dock_mcp.images.archives import OCI, ArchiveReader
from tests.fuzz.harness import FoundError, Surface
from tests.fuzz.values import INTEGERS, mutated, mutated_bytes

RECORDED = Path(__file__).parents[1] / "archives"
_LIMITS = Limits(200, 1 << 20)
_PIECES = (1, 7, 511, 4096, 1 << 20)
_NAMES = (
    b"x", b"a", b"b", b"a b", b"\xff\xfe", b"n" * 255, b"n" * 256, b"", b".", b"..", b"a/b", b"../out", b"/etc/passwd",
    b"a\0b", b"-rf", b".pocket-dock-x.part", b"out", b"\n",
)  # fmt: skip
_TARGETS = (
    b"a",
    b"../a",
    b"../../out",
    b"/etc/passwd",
    b"a/../../out",
    b"",
    b".",
    b"..",
    b"x" * 5000,
    b"a\0b",
)
_NUMBERS = tuple(number % 2**64 for number in INTEGERS if abs(number) < 2**65)


# -- streams of ours ---------------------------------------------------------------------------------


def stream(rng: random.Random) -> bytes:
    """Return a stream of a small tree, in which hardly anything or a lot is wrong."""
    wrong = rng.choice((0.0, 0.02, 0.2))
    pieces = [frame(frames.TOTAL, frames.TOTALS.pack(3, 100))] if rng.random() < 0.5 else []
    pieces += list(_directory(rng, b"x", wrong, 3))
    pieces.append(frame(frames.COMPLETE))
    if rng.random() < wrong:
        rng.shuffle(pieces)
    data = b"".join(pieces)
    return mutated_bytes(rng, data) if rng.random() < 0.4 else data


def _directory(rng: random.Random, name: bytes, wrong: float, depth: int) -> Iterator[bytes]:
    yield _entry(rng, frames.DIRECTORY, name, wrong)
    for _ in range(rng.randrange(4)):
        kind = rng.randrange(5 if depth else 4)
        if kind == 4:
            yield from _directory(rng, _name(rng, wrong), wrong, depth - 1)
        elif kind == 3:
            link = _name(rng, wrong) + b"\0" + (rng.choice(_TARGETS) if rng.random() < 0.5 else b"a")
            yield _entry(rng, frames.LINK, link, wrong)
        elif kind == 2:
            yield frame(frames.SKIPPED, bytes([rng.randrange(17)]) + rng.choice(_NAMES))
        else:
            yield from _file(rng, wrong)
    if rng.random() >= wrong:
        yield frame(frames.LEAVE)
    if rng.random() < wrong:
        yield frame(rng.choice((frames.PULSE, frames.FAILED, b"?")), rng.randbytes(rng.randrange(12)))


def _file(rng: random.Random, wrong: float) -> Iterator[bytes]:
    content = rng.randbytes(rng.choice((0, 1, 100, 5000)))
    size = rng.choice(_NUMBERS) if rng.random() < wrong else len(content)
    yield _entry(rng, frames.FILE, _name(rng, wrong), wrong, size)
    offset = rng.choice(_NUMBERS) if rng.random() < wrong else 0
    if content:
        yield frame(frames.DATA, frames.OFFSET.pack(offset) + content)
    if rng.random() < wrong:
        yield frame(frames.SKIPPED, bytes([names.CHANGED]) + b"a")
    yield frame(frames.FILE_END, frames.END.pack(rng.choice((0, 0, 0, 1, 2, 3)), size))


def _name(rng: random.Random, wrong: float) -> bytes:
    return rng.choice(_NAMES) if rng.random() < wrong else b"n%d" % rng.randrange(10_000)


def _entry(rng: random.Random, kind: bytes, rest: bytes, wrong: float, size: int = 0) -> bytes:
    mode, time = rng.choice((0o644, 0o755, 0, 0o7777)), rng.choice((0, 10**18))
    if rng.random() < wrong:
        return frame(
            kind,
            frames.ENTRY.pack(mode, rng.choice(_NUMBERS) - 2**63, rng.choice((0, 2**32 - 1)), size) + rest,
        )
    return frame(kind, frames.entry(mode, time, size) + rest)


# -- tars ---------------------------------------------------------------------------------------------


def tar(rng: random.Random) -> bytes:
    """Return a tar as one that walks a tree writes it, in which hardly anything or a lot is wrong."""
    wrong = rng.choice((0.0, 0.05, 0.3))
    buffer = io.BytesIO()
    form = rng.choice((tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT))
    with tarfile.open(
        fileobj=buffer, mode="w", format=form, encoding="utf-8", errors="surrogateescape"
    ) as made:
        for member, content in _members(rng, wrong):
            # What its format cannot say is left out.
            with contextlib.suppress(ValueError, OverflowError):
                made.addfile(member, io.BytesIO(content))
    data = buffer.getvalue()
    return mutated_bytes(rng, data) if rng.random() < 0.4 else data


def _members(rng: random.Random, wrong: float) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    yield _member(".", tarfile.DIRTYPE, rng), b""
    folder = "."
    for number in range(rng.randrange(8)):
        name = f"{folder}/n{number}"
        if rng.random() < wrong:
            name = os.fsdecode(rng.choice(_NAMES)).replace("\0", "")
        kind = rng.choice((tarfile.REGTYPE,) * 4 + (tarfile.DIRTYPE, tarfile.SYMTYPE))
        if rng.random() < wrong:
            kind = rng.choice((b"1", b"3", b"4", b"6", b"7", b"S", b"x", b"g", b"L", b"?"))
        member = _member(name, kind, rng)
        content = rng.randbytes(rng.choice((0, 1, 512, 5000))) if kind == tarfile.REGTYPE else b""
        member.size = len(content)
        member.linkname = os.fsdecode(rng.choice(_TARGETS)).replace("\0", "")
        if rng.random() < wrong:
            keys = ("path", "size", "mtime", "linkpath", "GNU.sparse.map", "comment")
            member.pax_headers = {
                rng.choice(keys): rng.choice(("", "1", "-1", "9" * 40, "1e5", "../out", "1.5.5"))
            }
        folder = name if kind == tarfile.DIRTYPE else folder
        yield member, content


def _member(name: str, kind: bytes, rng: random.Random) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.mode, member.mtime = (
        kind,
        rng.choice((0o755, 0o7777, 0)),
        rng.choice((0, 10**9, 2**40)),
    )
    return member


class Trees(Surface):
    """Both, written to a directory."""

    name = "archives"

    def make(self, rng: random.Random) -> bytes:
        """Return a stream or a tar; the first byte says which, and in what pieces it comes."""
        kind = rng.randrange(2)
        return bytes([kind << 4 | rng.randrange(len(_PIECES))]) + (stream, tar)[kind](rng)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Have a directory of our own, beside which something is that must stay."""
        with tempfile.TemporaryDirectory(prefix="pocket-dock-fuzz-") as folder:
            self._folder = Path(folder)
            (self._folder / "out").write_text("canary")
            yield

    async def attempt(self, data: bytes) -> str:
        """Write it, and see that nothing else has changed."""
        where = self._folder / "in"
        where.mkdir()
        try:
            outcome = self._written(data, where)
            self._look(where, outcome)
        finally:
            _make_removable(where)
            shutil.rmtree(where)
        return outcome

    def _written(self, data: bytes, where: Path) -> str:
        first, rest = (data[0], data[1:]) if data else (0, b"")
        size = _PIECES[first % 16 % len(_PIECES)]
        target = Destination(os.fsencode(where / "copy"), b"")
        incoming = receiver(target, _LIMITS)
        taker = FromTar(incoming.feed) if first >> 4 else incoming
        try:
            for at in range(0, len(rest), size):
                taker.feed(rest[at : at + size])
            if not incoming.is_complete:
                return "cut off"
            target.commit(incoming.top_mode)
        except BadStreamError:
            return "refused"
        except LimitError:
            return "too much"
        except SenderFailedError:
            return "failed"
        except OSError as error:
            # What the file system does not take, such as a time.
            return f"OSError {error.errno}"
        finally:
            incoming.close()
            target.close()
        _check(incoming)
        return "written"

    def _look(self, where: Path, outcome: str) -> None:
        if sorted(path.name for path in self._folder.iterdir()) != ["in", "out"]:
            raise FoundError("Something was written outside of the destination.")
        if (self._folder / "out").read_text() != "canary":
            raise FoundError("A file outside of the destination was changed.")
        left = [path.name for path in where.iterdir()]
        if left not in ([], ["copy"]) or (left and outcome != "written"):
            raise FoundError(f"After {outcome!r} this is left: {left}")
        inside = os.path.realpath(where)
        for path in where.rglob("*"):
            if path.is_symlink() and not os.path.realpath(path).startswith(inside):
                raise FoundError(f"A link leads out: {path.readlink()}")


def _check(incoming: Incoming) -> None:
    counts = incoming.counts
    if counts.files + counts.directories + counts.symlinks > _LIMITS.files or counts.bytes > _LIMITS.bytes:
        raise FoundError(f"More was written than is allowed: {counts.files} files, {counts.bytes} bytes")


def _make_removable(where: Path) -> None:
    where.chmod(0o700)
    for folder, folders, _ in os.walk(where):
        for name in folders:
            path = Path(folder, name)
            if not path.is_symlink():
                path.chmod(0o700)


# -- archives of images -------------------------------------------------------------------------------


class ImageArchives(Surface):
    """Archives of images, read before an engine gets them."""

    name = "images"

    def __init__(self) -> None:
        self._seeds = [gzip.decompress(path.read_bytes()) for path in sorted(RECORDED.glob("*.tar.gz"))]

    def make(self, rng: random.Random) -> bytes:
        """Return what an engine has written, with something changed in a document, a header, or anywhere."""
        data = rng.choice(self._seeds)
        act = rng.randrange(4)
        if act == 0:
            return mutated_bytes(rng, data)
        if act == 1:
            # Headers are what little there is of it, so they are what is aimed at.
            at = 512 * rng.randrange(len(data) // 512)
            return data[:at] + mutated_bytes(rng, data[at : at + 512]) + data[at + 512 :]
        return _with_another_document(rng, data)

    async def attempt(self, data: bytes) -> str:
        """Read it in two ways: as it is, and with what is left out on the way to an engine."""
        outcomes = {_read(data, frozenset()), _read(data, OCI)}
        return " and ".join(sorted(outcomes))


def _with_another_document(rng: random.Random, data: bytes) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(data)) as before, tarfile.open(fileobj=made, mode="w") as after:
        members = before.getmembers()
        documents = [member.name for member in members if member.name.endswith(".json")]
        chosen = rng.choice(documents)
        for member in members:
            file = before.extractfile(member)
            content = b"" if file is None else file.read()
            if member.name == chosen:
                content = _another(rng, content)
                member.size = len(content)
            after.addfile(member, io.BytesIO(content))
    return made.getvalue()


def _another(rng: random.Random, document: bytes) -> bytes:
    if rng.random() < 0.1:
        return rng.choice(
            (
                b"[" * 100_000,
                b"9" * 1_000_000,
                b"\xff\xfe",
                b"{" + b'"a":' * 50_000,
                mutated_bytes(rng, document),
            )
        )
    whole = mutated(rng, json.loads(document))
    try:
        return json.dumps(whole).encode()
    except ValueError:
        return document[:-1]


def _read(data: bytes, drop: frozenset[str]) -> str:
    reader = ArchiveReader(drop=drop)
    try:
        for at in range(0, len(data), 1 << 16):
            reader.feed(data[at : at + (1 << 16)])
        reader.finish()
    except ImageArchiveError:
        return "refused"
    return "read"
