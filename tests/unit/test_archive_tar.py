"""Tar, judged like a stream of ours: what a well-behaved one says arrives, and no other gets out."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import random
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from pocket_dock_mcp.archive.frames import BadStreamError
from pocket_dock_mcp.archive.outgoing import Counts, LimitError, Limits, Outgoing
from pocket_dock_mcp.archive.placing import Destination, receiver, remove
from pocket_dock_mcp.archive.tar import FromTar, ToTar

ROOMY = Limits(100_000, 1 << 40)
TIME = 1_500_000_000_123_456_789


def take(data: bytes, to: Path, limits: Limits = ROOMY, piece: int = 4096) -> Counts:
    target = Destination(os.fsencode(to), b"name")
    incoming = receiver(target, limits)
    tar = FromTar(incoming.feed)
    try:
        for at in range(0, len(data), piece):
            tar.feed(data[at : at + piece])
        if not incoming.is_complete:
            raise EOFError
        target.commit(incoming.top_mode)
    finally:
        incoming.close()
        target.close()
    return incoming.counts


def entry(name: str, kind: bytes = tarfile.REGTYPE, content: bytes = b"", **fields: object) -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.size, info.mode = kind, len(content), 0o755 if kind == tarfile.DIRTYPE else 0o644
    for field, value in fields.items():
        setattr(info, field, value)
    return info.tobuf(tarfile.GNU_FORMAT) + content + bytes(-len(content) % 512)


def tarred(*entries: bytes) -> bytes:
    return b"".join(entries) + bytes(1024)


TOP = entry("./", tarfile.DIRTYPE)


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
@pytest.mark.parametrize("piece", [1, 513, 1 << 20])
def test_what_tar_writes_of_a_tree_arrives(tmp_path: Path, form: int, piece: int) -> None:
    root = tmp_path / "tree"
    long = "l" * (90 if form == tarfile.USTAR_FORMAT else 200)
    (root / "sub" / long).mkdir(parents=True)
    (root / "sub" / long / "file").write_bytes(bytes(range(256)) * 20)
    (root / "empty").touch(mode=0o600)
    (root / "link").symlink_to("sub/x")
    os.mkfifo(root / "fifo")
    os.utime(root / "empty", ns=(TIME, TIME))
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w", format=form) as tar:
        tar.add(root, ".")
    counts = take(whole.getvalue(), tmp_path / "copy", piece=piece)

    copy = tmp_path / "copy"
    assert (copy / "sub" / long / "file").read_bytes() == bytes(range(256)) * 20
    assert os.readlink(copy / "link") == "sub/x"  # noqa: PTH115  # as it stands
    assert (copy / "empty").stat().st_mode == 0o100600
    assert (copy / "empty").stat().st_mtime_ns // 10**9 == TIME // 10**9
    assert [path for path, _ in counts.skipped] == [b"fifo"]
    assert (counts.files, counts.directories, counts.symlinks) == (2, 3, 1)


def test_one_file_arrives(tmp_path: Path) -> None:
    take(tarred(entry("./some name", content=b"content")), tmp_path / "copy")

    assert (tmp_path / "copy").read_bytes() == b"content"


def test_a_stream_becomes_a_tar_that_others_read(tmp_path: Path) -> None:
    root = tmp_path / "tree"
    (root / "sub").mkdir(parents=True)
    (root / "sub" / ("n" * 150)).write_text("long")
    (root / "plain").write_text("p")
    (root / "link").symlink_to("sub")
    with (root / "sparse").open("wb") as file:
        file.truncate(3_000_000)
        file.seek(1_000_000)
        file.write(b"middle")
    os.utime(root / "plain", ns=(TIME, TIME))
    made = tmp_path / "made.tar"
    outgoing = Outgoing(os.fsencode(root), ROOMY)
    with made.open("wb") as file:
        writer = ToTar(file)
        for batch in outgoing.batches():
            writer.feed(b"".join(batch))
    outgoing.close()

    with tarfile.open(made) as tar:
        assert sorted(tar.getnames()) == sorted(
            ["x", "x/link", "x/plain", "x/sparse", "x/sub", "x/sub/" + "n" * 150, "z"]
        )
        content = tar.extractfile("x/sparse")
        assert content is not None
        assert content.read() == (root / "sparse").read_bytes()
        assert tar.getmember("x/plain").mtime == pytest.approx(TIME / 1e9)
        assert tar.getnames()[-1] == "z"


def negative() -> bytes:
    """Return a header that says in binary that its file has a size of -512."""
    block = bytearray(entry("./s")[:512])
    block[124:136] = b"\xff" * 10 + b"\xfe\0"
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


@pytest.mark.parametrize("seconds", [-(1 << 63), -9_300_000_000, 9_300_000_000, (1 << 63) - 1, 1 << 70])
def test_times_far_from_now_arrive_as_near_as_can_be(tmp_path: Path, seconds: int) -> None:
    note = f"mtime={seconds}.5\n"
    record = f"{len(note) + 3} {note}".encode()
    counts = take(tarred(TOP, entry("n", b"x", content=record), entry("./f", content=b"1")), tmp_path / "in")

    assert counts.files == 1
    is_exact = int((tmp_path / "in" / "f").stat().st_mtime) == seconds
    assert [path for path, _ in counts.skipped] == ([] if is_exact else [b"f"])


HOSTILE = {
    "absolute": tarred(TOP, entry("/tmp/escaped", content=b"1")),
    "up": tarred(TOP, entry("../escaped", content=b"1")),
    "up in the middle": tarred(TOP, entry("./a/../../escaped", content=b"1")),
    "through a link": tarred(TOP, entry("./l", tarfile.SYMTYPE, linkname="x"), entry("./l/f", content=b"1")),
    "into a link": tarred(TOP, entry("./l", tarfile.SYMTYPE, linkname="x"), entry("./l", content=b"1")),
    "a directory for a link": tarred(
        TOP, entry("./d", tarfile.DIRTYPE), entry("./d", tarfile.SYMTYPE, linkname="x")
    ),
    "a directory that comes again": tarred(
        TOP, entry("./d", tarfile.DIRTYPE), entry("./e", tarfile.DIRTYPE), entry("./d", tarfile.DIRTYPE)
    ),
    "a directory that never came": tarred(TOP, entry("./d/f", content=b"1")),
    "nothing at the top": tarred(entry("./d/f", content=b"1")),
    "two at the top": tarred(entry("./a", content=b"1"), entry("./b", content=b"1")),
    "the top twice": tarred(TOP, TOP),
    "link at the top": tarred(entry("./a", tarfile.SYMTYPE, linkname="x")),
    "only the end": tarred(),
    "bad checksum": TOP[:150] + b"9" + TOP[151:] + bytes(1024),
    "an unknown kind": tarred(TOP, entry("./v", b"V")),
    "old sparse": tarred(TOP, entry("./s", b"S")),
    "a note without end": entry("note", b"L", content=bytes(70_000)),
    "notes without end": b"".join(entry("note", b"x", content=b"") for _ in range(9)),
    "new sparse": tarred(
        TOP, entry("n", b"x", content=b"22 GNU.sparse.major=1\n"), entry("./s", content=b"1")
    ),
    "a record that lies": tarred(TOP, entry("n", b"x", content=b"999 path=a\n")),
    "a size that is none": tarred(TOP, entry("n", b"x", content=b"11 size=-1\n"), entry("./s", content=b"1")),
    "a size below nothing": tarred(TOP, negative()),
    "a name in a record": tarred(
        TOP, entry("n", b"x", content=b"19 path=../escaped\n"), entry("./s", content=b"1")
    ),
    "a nul in a record": tarred(TOP, entry("n", b"x", content=b"12 path=a\0b\n"), entry("./s", content=b"1")),
    "a target with a nul": tarred(TOP, entry("n", b"L", content=b"../x\0"), entry("./s", content=b"1")),
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_tar_that_is_none_of_a_tree_is_refused_and_leaves_nothing(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(BadStreamError):
        take(data, tmp_path / "in" / "there")

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_a_packed_tar_is_refused(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    # Noise, so that it stays longer than a tar's blocks are.
    with pytest.raises(BadStreamError):
        take(pack(tarred(TOP, entry("./a", content=random.Random(1).randbytes(4096)))), tmp_path / "there")

    assert list(tmp_path.iterdir()) == []


def test_links_out_of_it_hard_links_and_devices_are_left_out(tmp_path: Path) -> None:
    counts = take(
        tarred(
            TOP,
            entry("./a", tarfile.SYMTYPE, linkname="/etc/passwd"),
            entry("./b", tarfile.SYMTYPE, linkname="../.."),
            entry("./c", tarfile.LNKTYPE, linkname="/etc/passwd"),
            entry("./d", tarfile.CHRTYPE, devmajor=1, devminor=3),
            entry("./e", content=b"1", mode=0o4755),
        ),
        tmp_path / "there",
    )

    assert [path for path, _ in counts.skipped] == [b"a", b"b", b"c", b"d", b"e"]
    assert [path.name for path in (tmp_path / "there").iterdir()] == ["e"]
    assert (tmp_path / "there" / "e").stat().st_mode == 0o100755


def test_a_tar_without_end_ends_at_the_limits(tmp_path: Path) -> None:
    many = TOP + b"".join(entry(f"./{number}") for number in range(3000))
    huge = TOP + entry("./huge", size=1 << 50)
    fifos = TOP + b"".join(entry("./f", tarfile.FIFOTYPE) for number in range(3000))
    for data in (many, huge, fifos):
        with pytest.raises(LimitError):
            take(data, tmp_path / "there", Limits(1000, 1 << 30))
    for cut in (1, 600, 1024):
        with pytest.raises(EOFError):
            take(tarred(TOP, entry("./a", content=b"1"))[: -1024 - cut], tmp_path / "there")
    assert list(tmp_path.iterdir()) == []


def test_no_damaged_tar_writes_outside_or_leaves_a_half(tmp_path: Path) -> None:
    rng = random.Random(3)
    parts = [
        TOP, entry("./f", content=b"1" * 700), entry("./d", tarfile.DIRTYPE),
        entry("./d/l", tarfile.SYMTYPE, linkname="../f"),
        entry("./d/g", content=b"2"), entry("n", b"x", content=b"12 path=d/h\n"), entry("./h", content=b"3"),
    ]  # fmt: skip
    parent = os.open(tmp_path, os.O_RDONLY)
    kept = 0
    for attempt in range(250):
        chosen = parts[:] if rng.random() < 0.5 else [TOP, *rng.choices(parts, k=6)]
        data = bytearray(tarred(*chosen))
        for _ in range(rng.randrange(4)):
            at = rng.randrange(len(data))
            data[at : at + 2] = rng.choice((b"..", b"/.", b"7", b"\0\0", b"\xff\xff"))
        if rng.random() < 0.5:
            # So that not the checksum alone keeps it out.
            for start in range(0, len(data) - 512, 512):
                block = data[start : start + 512]
                if block[257:262] == b"ustar":
                    checksum = sum(block[:148]) + 256 + sum(block[156:512])
                    data[start + 148 : start + 156] = b"%06o\0 " % checksum
        box = tmp_path / "box"
        box.mkdir()
        try:
            take(bytes(data), box / "there", Limits(100, 100_000))
        except (BadStreamError, LimitError, EOFError, OSError):
            assert list(box.iterdir()) == [], attempt
        else:
            kept += 1
            assert [path.name for path in box.iterdir()] == ["there"]
        assert [path.name for path in tmp_path.iterdir()] == ["box"]
        remove(b"box", parent)
    assert kept > 5
    os.close(parent)
