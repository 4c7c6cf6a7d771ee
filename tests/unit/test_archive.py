"""Streams of file trees: what goes out comes in as it was, and no stream gets out of where it is written."""

from __future__ import annotations

import os
import random
import socket
import stat
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from pocket_dock_mcp.archive import frames, names, outgoing
from pocket_dock_mcp.archive.frames import BadStreamError, frame
from pocket_dock_mcp.archive.incoming import SenderFailedError
from pocket_dock_mcp.archive.outgoing import Counts, LimitError, Limits, Outgoing
from pocket_dock_mcp.archive.placing import Destination, receiver, remove

ROOMY = Limits(100_000, 1 << 40)
TIME = 1_500_000_000_123_456_789
IS_ROOT = os.geteuid() == 0


def sent(path: Path | bytes, limits: Limits = ROOMY) -> tuple[bytes, Counts]:
    out = Outgoing(os.fsencode(path), limits)
    try:
        return b"".join(b"".join(batch) for batch in out.batches()), out.counts
    finally:
        out.close()


def take(
    stream: bytes, to: Path | str, name: bytes = b"", limits: Limits = ROOMY, piece: int = 1 << 16
) -> Counts:
    target = Destination(os.fsencode(to), name)
    incoming = receiver(target, limits)
    try:
        for at in range(0, len(stream), piece):
            incoming.feed(stream[at : at + piece])
        if not incoming.is_complete:
            raise EOFError
        target.commit(incoming.top_mode)
    finally:
        incoming.close()
        target.close()
    return incoming.counts


def listed(root: Path) -> dict[bytes, tuple[object, ...]]:
    """Return all that matters of a tree."""
    found: dict[bytes, tuple[object, ...]] = {}

    for path in (root, *root.rglob("*")):
        status = path.lstat()
        content: object = None
        if path.is_symlink():
            content = path.readlink()
        elif path.is_file():
            content = path.read_bytes()
        found[os.fsencode(path.relative_to(root))] = (status.st_mode, status.st_mtime_ns, content)
    return found


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Path]:
    root = tmp_path / "tree"
    (root / "sub" / "empty").mkdir(parents=True)
    (root / "sub" / "file").write_bytes(bytes(range(256)) * 2000)
    (root / "-rf").write_text("dash")
    (root / "new\nline").write_text("n")
    (root / "empty file").touch()
    Path(os.fsdecode(os.fsencode(root) + b"/\xff\xfe")).write_bytes(b"not utf-8")
    (root / ("n" * 255)).write_text("long")
    (root / "link").symlink_to("sub/file")
    (root / "sub" / "up").symlink_to("../link")
    (root / "dangling").symlink_to("nothing")
    (root / "private").mkdir()
    (root / "private" / "key").write_text("k")
    (root / "private" / "key").chmod(0o600)
    os.link(root / "sub" / "file", root / "sub" / "hard")
    with (root / "sparse").open("wb") as file:
        file.truncate(50_000_000)
        file.seek(20_000_000)
        file.write(b"middle")
    for number, path in enumerate(sorted(root.rglob("*"))):
        os.utime(path, ns=(TIME + number, TIME + number), follow_symlinks=False)
    (root / "private").chmod(0o500)
    os.utime(root, ns=(TIME, TIME))
    yield root
    (root / "private").chmod(0o700)


def entry(kind: bytes, rest: bytes, mode: int = 0o644, size: int = 0, time: int = TIME) -> bytes:
    return frame(kind, frames.entry(mode, time, size) + rest)


def file(name: bytes, content: bytes = b"") -> bytes:
    data = frame(frames.DATA, frames.OFFSET.pack(0) + content) if content else b""
    return entry(frames.FILE, name, size=len(content)) + data + end(len(content))


def end(size: int, verdict: int = frames.WHOLE) -> bytes:
    return frame(frames.FILE_END, frames.END.pack(verdict, size))


def directory(name: bytes, *inner: bytes, mode: int = 0o755) -> bytes:
    return entry(frames.DIRECTORY, name, mode) + b"".join(inner) + frame(frames.LEAVE)


def whole(*inner: bytes) -> bytes:
    return directory(b"x", *inner) + frame(frames.COMPLETE)


# -- as it was ------------------------------------------------------------------------------------


@pytest.mark.parametrize("piece", [1, 7, 1 << 20], ids=["by byte", "odd", "at once"])
def test_a_tree_arrives_as_it_was(tree: Path, tmp_path: Path, piece: int) -> None:
    if piece == 1:
        (tree / "sub" / "file").write_bytes(b"less")
    stream, counts = sent(tree)
    made = take(stream, tmp_path / "copy", b"tree", piece=piece)

    assert listed(tmp_path / "copy") == listed(tree)
    assert counts.skipped == []
    for what in ("files", "directories", "symlinks", "bytes", "total_bytes"):
        assert getattr(made, what) == getattr(counts, what), what
    assert (counts.files, counts.directories, counts.symlinks) == (9, 4, 3)


def test_holes_stay_holes_and_a_hard_link_is_a_file(tree: Path, tmp_path: Path) -> None:
    stream, _ = sent(tree)
    take(stream, tmp_path / "copy")

    assert len(stream) < 5_000_000
    sparse = (tmp_path / "copy" / "sparse").stat()
    assert (sparse.st_size, sparse.st_blocks * 512 < 10_000_000) == (50_000_000, True)
    assert (tmp_path / "copy" / "sub" / "hard").stat().st_nlink == 1


def test_one_file_goes_under_a_name_or_into_a_directory(tmp_path: Path) -> None:
    source = tmp_path / "one"
    source.write_text("content")
    source.chmod(0o751)
    os.utime(source, ns=(TIME, TIME))
    stream, _ = sent(source)
    (tmp_path / "there").mkdir()
    (tmp_path / "elsewhere").symlink_to("there")
    for to, made in (
        ("two", "two"),
        ("there", "there/one"),
        ("there/", "there/one"),
        ("elsewhere", "there/one"),
        ("new/", "new/one"),
        ("a/b/c", "a/b/c"),
    ):
        take(stream, f"{tmp_path}/{to}", b"one")
        assert (tmp_path / made).read_text() == "content"
        assert ((tmp_path / made).stat().st_mode, (tmp_path / made).stat().st_mtime_ns) == (0o100751, TIME)
        (tmp_path / made).unlink()


def test_a_link_to_a_file_is_written_through_and_one_in_a_directory_replaced(tmp_path: Path) -> None:
    (tmp_path / "old").write_text("old")
    (tmp_path / "link").symlink_to("old")
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "one").symlink_to("../old")
    stream = file(b"x", b"new") + frame(frames.COMPLETE)

    take(stream, tmp_path / "there", b"one")
    assert (tmp_path / "old").read_text() == "old"
    assert not (tmp_path / "there" / "one").is_symlink()
    take(stream, tmp_path / "link", b"one")
    assert (tmp_path / "old").read_text() == "new"
    assert (tmp_path / "link").is_symlink()


def test_a_directory_is_merged_with_what_is_there(tmp_path: Path) -> None:
    there = tmp_path / "there"
    (there / "sub" / "kept").mkdir(parents=True)
    (there / "sub" / "file").write_text("old")
    (there / "sub" / "mine").write_text("mine")
    (there / "sub" / "shut").mkdir(mode=0o555)
    there.chmod(0o711)
    inner = [file(b"file", b"new"), directory(b"shut", file(b"f", b"1"), mode=0o555), directory(b"more")]
    stream = whole(directory(b"sub", *inner, mode=0o750))

    take(stream, there)
    take(stream, there)
    assert sorted(p.name for p in (there / "sub").iterdir()) == ["file", "kept", "mine", "more", "shut"]
    assert (there / "sub" / "file").read_text() == "new"
    assert (there / "sub" / "shut" / "f").read_text() == "1"
    modes = [stat.S_IMODE(p.stat().st_mode) for p in (there, there / "sub", there / "sub" / "shut")]
    assert modes == [0o711, 0o750, 0o555]
    assert (there / "sub").stat().st_mtime_ns == TIME
    take(stream, there, b"whole")
    assert (there / "whole" / "sub" / "file").read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["there"]
    (there / "sub" / "shut").chmod(0o700)
    (there / "whole" / "sub" / "shut").chmod(0o700)


@pytest.mark.parametrize("is_link", [False, True])
def test_what_is_in_the_way_stops_it_before_anything_is_changed(tmp_path: Path, is_link: bool) -> None:
    there = tmp_path / "there"
    (there / "b").mkdir(parents=True)
    if is_link:
        (there / "c").symlink_to(tmp_path)
    else:
        (there / "c").write_text("a file")
    before = listed(there)

    for stream in (
        whole(file(b"a", b"1"), directory(b"c", file(b"f"))),
        whole(file(b"a", b"1"), file(b"b")),
    ):
        with pytest.raises(OSError, match="in the way"):
            take(stream, there)
    if not is_link:
        with pytest.raises(OSError, match="no directory"):
            take(whole(), there / "c")
    with pytest.raises(OSError, match="in the way"):
        take(whole(), there, b"c")
    with pytest.raises(OSError, match="in the way"):
        take(file(b"x") + frame(frames.COMPLETE), there, b"b")
    assert listed(there).keys() == before.keys()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["there"]


# -- what is left out -----------------------------------------------------------------------------


def test_what_cannot_be_transferred_is_said(tmp_path: Path) -> None:
    root = tmp_path / "tree"
    (root / "sub").mkdir(parents=True)
    os.mkfifo(root / "fifo")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(root / "socket"))
        for name, target in (
            ("abs", "/etc/passwd"),
            ("up", "../secret"),
            ("sub/up", "../../secret"),
            ("sub/over", "../sub/../../secret"),
            ("fine", "sub/./x"),
        ):
            (root / name).symlink_to(target)
        (root / "suid").write_text("s")
        (root / "suid").chmod(0o4755)
        (root / "sub").chmod(0o3777)
        (root / ".pocket-dock-0123.part").mkdir()
        stream, counts = sent(root)
    made = take(stream, tmp_path / "copy")

    told = {os.fsdecode(path): why for path, why in counts.skipped}
    assert set(told) == {
        "fifo", "socket", "abs", "up", "sub/up", "sub/over", "suid", "sub", ".pocket-dock-0123.part"
    }  # fmt: skip
    assert "setuid" in told["suid"]
    assert (counts.skipped_count, made.skipped_count) == (9, 9)
    assert dict(made.skipped) == dict(counts.skipped)
    assert sorted(p.name for p in (tmp_path / "copy").iterdir()) == ["fine", "sub", "suid"]
    assert stat.S_IMODE((tmp_path / "copy" / "suid").stat().st_mode) == 0o755
    assert stat.S_IMODE((tmp_path / "copy" / "sub").stat().st_mode) == 0o777


@pytest.mark.skipif(IS_ROOT, reason="nothing is closed to root")
def test_what_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "tree" / "shut").mkdir(parents=True, mode=0)
    (tmp_path / "tree" / "closed").touch(mode=0)
    (tmp_path / "tree" / "open").touch()
    _, counts = sent(tmp_path / "tree")
    (tmp_path / "tree" / "shut").chmod(0o700)

    assert sorted(path for path, _ in counts.skipped) == [b"closed", b"shut"]


def test_a_tree_beyond_what_a_path_can_say_works_down_to_a_depth_that_is_said(tmp_path: Path) -> None:
    name = "d" * 60
    fds = [os.open(tmp_path, os.O_RDONLY)]
    for _ in range(names.MAX_DEPTH + 3):
        os.mkdir(name, dir_fd=fds[-1])
        fds.append(os.open(name, os.O_RDONLY, dir_fd=fds[-1]))
        if len(fds) > 2:
            os.close(fds.pop(-2))
    os.close(fds.pop())
    stream, counts = sent(tmp_path / name)
    made = take(stream, tmp_path / "copy")

    assert (counts.directories, made.directories) == (names.MAX_DEPTH, names.MAX_DEPTH)
    assert [why for _, why in counts.skipped] == [names.REASONS[names.DEEP]]


def test_a_file_that_changes_meanwhile_is_said_and_one_that_vanishes_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "tree"
    root.mkdir()
    for name in ("cut", "grown", "gone", "swapped"):
        (root / name).write_bytes(b"1" * 100_000)
    done = False

    def tamper(fd: int, status: os.stat_result) -> Iterator[tuple[int, int]]:
        nonlocal done
        if not done:
            done = True
            os.truncate(root / "cut", 10)
            with (root / "grown").open("ab") as more:
                more.write(b"2" * 100)
            (root / "gone").unlink()
            (root / "swapped").unlink()
            os.mkfifo(root / "swapped")
        yield 0, status.st_size

    monkeypatch.setattr(outgoing, "_extents", tamper)
    # The first one is read while the others are tampered with, whichever that is.
    stream, counts = sent(root)
    take(stream, tmp_path / "copy")

    assert counts.skipped
    for path in (tmp_path / "copy").iterdir():
        content = path.read_bytes()
        assert set(content) <= {ord("1"), ord("2")}
    with pytest.raises(OSError, match="no file"):
        Outgoing(os.fsencode(root / "swapped"), ROOMY)


def test_a_file_that_is_cut_after_it_was_read_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "tree"
    root.mkdir()
    (root / "cut").write_bytes(b"1" * 100_000)

    def tamper(_fd: int, status: os.stat_result) -> Iterator[tuple[int, int]]:
        yield 0, status.st_size
        os.truncate(root / "cut", 10)

    monkeypatch.setattr(outgoing, "_extents", tamper)
    stream, counts = sent(root)
    made = take(stream, tmp_path / "copy")

    assert counts.skipped == made.skipped == [(b"cut", names.REASONS[names.CHANGED])]
    assert (tmp_path / "copy" / "cut").read_bytes() == b"1" * 100_000


def test_any_number_of_things_left_out_goes_with_any_number_of_remarks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "tree"
    root.mkdir()
    for number in range(200):
        (root / f"{number}").symlink_to("/dev/null")
    (root / "changes").write_bytes(b"1")
    (root / "changes").chmod(0o4755)
    deep = root / "d"
    for _ in range(60):
        deep.mkdir()
        deep.chmod(0o2755)
        deep /= "d"

    def tamper(_fd: int, status: os.stat_result) -> Iterator[tuple[int, int]]:
        with (root / "changes").open("ab") as more:
            more.write(b"2")
        yield 0, status.st_size

    monkeypatch.setattr(outgoing, "_extents", tamper)
    stream, counts = sent(root)
    made = take(stream, tmp_path / "copy")

    assert (counts.skipped_count, made.skipped_count) == (262, 262)


def test_a_source_that_is_none_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "file").touch()
    for path in ("fifo", "file/", "nothing"):
        with pytest.raises(OSError):  # noqa: PT011  # which one is the kernel's to say
            Outgoing(os.fsencode(f"{tmp_path}/{path}"), ROOMY)


def test_limits_hold_for_who_sends_and_for_who_takes(tree: Path, tmp_path: Path) -> None:
    stream, counts = sent(tree)
    for limits, what in ((Limits(15, 1 << 40), "files"), (Limits(100, 1_000_000), "bytes")):
        with pytest.raises(LimitError) as caught:
            sent(tree, limits)
        assert caught.value.what == what
        with pytest.raises(LimitError) as caught:
            take(stream, tmp_path / "copy", limits=limits)
        assert caught.value.what == what
    take(stream, tmp_path / "copy", limits=Limits(16, counts.total_bytes or 0))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["copy", "tree"]


# -- hostile streams ------------------------------------------------------------------------------

OUT = b"../../escaped"
DEEPER = [entry(frames.DIRECTORY, b"d", 0o755) for _ in range(names.MAX_DEPTH + 1)]

HOSTILE = {
    "parent": whole(file(b"..")),
    "path up": whole(file(OUT, b"1")),
    "path down": whole(file(b"a/b", b"1")),
    "absolute": whole(file(b"/tmp/escaped", b"1")),
    "itself": whole(directory(b".")),
    "no name": whole(file(b"")),
    "nul": whole(file(b"a\0b")),
    "name too long": directory(b"x") + entry(frames.FILE, b"n" * 256),
    "twice": whole(file(b"a"), file(b"a")),
    "directory twice": whole(directory(b"a"), directory(b"a")),
    "a safe link as a directory": whole(entry(frames.LINK, b"a\0b"), directory(b"a", file(b"f"))),
    "a link over a directory": whole(directory(b"a"), entry(frames.LINK, b"a\0b")),
    "link at the top": entry(frames.LINK, b"x\0..") + frame(frames.COMPLETE),
    "link without a target": whole(entry(frames.LINK, b"a")),
    "link with a name that leads out": whole(entry(frames.LINK, b"../a\0b")),
    "out at the top": directory(b"..") + frame(frames.COMPLETE),
    "two at the top": directory(b"x") + directory(b"x") + frame(frames.COMPLETE),
    "two files at the top": file(b"x") + file(b"y") + frame(frames.COMPLETE),
    "left too often": whole() [: -frames.HEAD.size] + frame(frames.LEAVE),
    "complete inside": entry(frames.DIRECTORY, b"x") + frame(frames.COMPLETE),
    "nothing": frame(frames.COMPLETE),
    "more behind the end": whole() + file(b"a"),
    "unknown": frame(b"?"),
    "data of nothing": entry(frames.DIRECTORY, b"x") + frame(frames.DATA, bytes(9)),
    "data beyond its size": entry(frames.FILE, b"x", size=3) + frame(frames.DATA, bytes(8) + b"1234"),
    "data at an offset that overflows": entry(frames.FILE, b"x", size=3)
    + frame(frames.DATA, struct.pack(">Q", (1 << 64) - 2) + b"1234"),
    "data that goes back": entry(frames.FILE, b"x", size=9)
    + 2 * frame(frames.DATA, frames.OFFSET.pack(0) + b"1"),
    "data without any": entry(frames.FILE, b"x", size=9) + frame(frames.DATA, bytes(8)),
    "a file in a file": entry(frames.FILE, b"x", size=1) + file(b"y"),
    "an end beyond its size": entry(frames.FILE, b"x", size=1) + end(1 << 40),
    "an end before its data": entry(frames.FILE, b"x", size=1)
    + frame(frames.DATA, frames.OFFSET.pack(0) + b"1") + end(0),
    "a frame without end": struct.pack(">cI", frames.DATA, 0xFFFFFFFF),
    "a short entry": frame(frames.FILE, b"x"),
    "a short end": entry(frames.FILE, b"x") + frame(frames.FILE_END),
    "a time with more than a second of nanoseconds": frame(
        frames.DIRECTORY, frames.ENTRY.pack(0o755, 0, 10**9, 0) + b"x"
    ),
    "totals twice": 2 * frame(frames.TOTAL, bytes(16)),
    "short totals": frame(frames.TOTAL),
    "a reason of its own": frame(frames.SKIPPED, b"\xee/etc/passwd"),
    "no reason": frame(frames.SKIPPED),
    "a short failure": frame(frames.FAILED),
    "too deep": b"".join([entry(frames.DIRECTORY, b"x"), *DEEPER]),
}  # fmt: skip


@pytest.mark.parametrize("stream", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_stream_that_is_none_of_ours_is_refused_and_leaves_nothing(tmp_path: Path, stream: bytes) -> None:
    with pytest.raises(BadStreamError):
        take(stream, tmp_path / "in" / "there", b"name")

    assert list(tmp_path.iterdir()) == []


def test_a_link_that_leads_out_is_left_out_here_too(tmp_path: Path) -> None:
    links = [
        entry(frames.LINK, name + b"\0" + target)
        for name, target in ((b"a", b"/etc"), (b"b", b".."), (b"c", b"d/.."), (b"d", b"e/f"), (b"f", b"."))
    ]
    counts = take(whole(*links, directory(b"b", file(b"inside"))), tmp_path / "there")

    assert sorted(p.name for p in (tmp_path / "there").iterdir()) == ["b", "d", "f"]
    assert (tmp_path / "there" / "b" / "inside").exists()
    assert [path for path, _ in counts.skipped] == [b"a", b"b", b"c"]


def test_no_chain_of_links_that_are_kept_leads_out(tmp_path: Path) -> None:
    rng = random.Random(7)
    parts = [b"..", b"a", b"b", b"c", b"."]
    for attempt in range(25):

        def tree_of(depth: int) -> bytes:
            inner = [
                entry(frames.LINK, b"l%d\0" % n + b"/".join(rng.choices([*parts, b"l0", b"l1", b"l2"], k=4)))
                for n in range(3)
            ]
            return b"".join(inner) + (
                b"".join(directory(name, tree_of(depth - 1)) for name in (b"a", b"b")) if depth else b""
            )

        root = tmp_path / f"{attempt}" / "there"
        take(whole(tree_of(2)), root)
        for path in root.rglob("*"):
            if path.is_symlink():
                try:
                    real = path.resolve()
                except (OSError, RuntimeError):
                    continue
                assert real == root or root in real.parents, (path, path.readlink())


def test_a_bomb_ends_in_bounded_space(tmp_path: Path) -> None:
    huge = entry(frames.DIRECTORY, b"x") + entry(frames.FILE, b"f", size=1 << 60)
    with pytest.raises(LimitError):
        take(huge, tmp_path / "there")
    many = entry(frames.DIRECTORY, b"x") + b"".join(file(b"%d" % n) for n in range(2000))
    with pytest.raises(LimitError):
        take(many, tmp_path / "there", limits=Limits(1000, 1000))
    skips = entry(frames.DIRECTORY, b"x") + 5000 * frame(frames.SKIPPED, b"\x03name")
    with pytest.raises(LimitError):
        take(skips, tmp_path / "there", limits=Limits(1000, 1000))
    bits = entry(frames.DIRECTORY, b"x") + 5000 * frame(frames.SKIPPED, bytes([names.BITS]) + b"name")
    changes = entry(frames.DIRECTORY, b"x") + entry(frames.FILE, b"f", size=1)
    changes += 5000 * frame(frames.SKIPPED, bytes([names.CHANGED]) + b"f")
    pulses = 200_000 * frame(frames.PULSE)
    for endless in (bits, changes, pulses):
        with pytest.raises(BadStreamError):
            take(endless, tmp_path / "there")
    assert list(tmp_path.iterdir()) == []


EXTREMES = (-(1 << 63), (1 << 63) - 1, -(1 << 63) * 10**9, ((1 << 63) - 1) * 10**9 + 999_999_999)


@pytest.mark.parametrize("time", EXTREMES)
def test_a_time_that_a_file_system_does_not_know_is_said_and_stops_nothing(
    tmp_path: Path, time: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(*_args: object, **_keys: object) -> None:
        raise OverflowError

    stream = whole(
        entry(frames.FILE, b"f", time=time), end(0), entry(frames.LINK, b"l\0f", time=time), file(b"g")
    )
    counts = take(stream, tmp_path / "there")
    told = [b"f", b"l"] if (tmp_path / "there" / "f").stat().st_mtime_ns // 10**9 != time // 10**9 else []
    assert counts.skipped == [(path, names.REASONS[names.TIME]) for path in told]
    assert (counts.files, counts.symlinks) == (2, 1)

    monkeypatch.setattr(os, "utime", refuses)
    counts = take(stream, tmp_path / "refused")
    assert {path for path, _ in counts.skipped} == {b"f", b"l", b"g", b"."}
    assert {why for _, why in counts.skipped} == {names.REASONS[names.TIME]}


@pytest.mark.parametrize("time", [*EXTREMES, -1, -(10**9), 9_300_000_000 * 10**9 + 5, -9_300_000_000 * 10**9])
def test_every_time_that_a_kernel_knows_can_be_sent(
    tmp_path: Path, time: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "f").touch()
    (tmp_path / "tree" / "l").symlink_to("f")
    times: list[int] = []

    class Status:
        """As of a file of that time, which this file system need not be able to have."""

        def __init__(self, real: os.stat_result) -> None:
            self._real = real

        def __getattr__(self, name: str) -> object:
            return time if name == "st_mtime_ns" else getattr(self._real, name)

    with monkeypatch.context() as patched:
        real, real_fd = os.stat, os.fstat
        patched.setattr(os, "stat", lambda *args, **keys: Status(real(*args, **keys)))
        patched.setattr(os, "fstat", lambda fd: Status(real_fd(fd)))
        stream, counts = sent(tmp_path / "tree")
    assert counts.skipped == []
    kinds = (frames.DIRECTORY, frames.FILE, frames.LINK)
    frames.Decoder(lambda kind, body: times.append(frames.entry_of(body)[1]) if kind in kinds else None).feed(
        stream
    )
    assert times == [time] * 3


def test_a_time_beyond_what_can_be_said_is_the_nearest_one() -> None:
    for time, said in ((1 << 200, EXTREMES[3]), (-(1 << 200), EXTREMES[2])):
        assert frames.entry_of(memoryview(frames.entry(0o644, time, 0)))[1] == said


def test_a_sender_that_gives_up_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(SenderFailedError):
        take(
            entry(frames.DIRECTORY, b"x") + file(b"a", b"1") + frame(frames.FAILED, bytes(4)),
            tmp_path / "a/b",
        )
    with pytest.raises(EOFError):
        take(whole(file(b"a", b"1"))[:-5], tmp_path / "a/b")
    assert list(tmp_path.iterdir()) == []


def mutated(stream: bytes, rng: random.Random) -> bytes:
    """Damage a stream: bytes changed, pieces cut, moved, repeated."""
    data = bytearray(stream)
    for _ in range(rng.randint(1, 6)):
        at, other = rng.randrange(len(data)), rng.randrange(len(data))
        length = rng.choice((1, 2, 5, 17, 40, 200))
        match rng.randrange(4):
            case 0:
                data[at] = rng.randrange(256)
            case 1:
                del data[at : at + length]
            case 2:
                data[at:at] = data[other : other + length]
            case _:
                data[at : at + 2] = rng.choice((b"..", b"/.", b"\0/", b"\xff\xff"))
        if not data:
            return b""
    return bytes(data)


def test_no_damaged_stream_writes_outside_or_leaves_a_half(tmp_path: Path) -> None:
    rng = random.Random(20)
    links = [entry(frames.LINK, b"l%d\0../f" % n) for n in range(3)]
    inner = [directory(b"d%d" % n, file(b"f", b"content"), *links) for n in range(4)]
    stream = frame(frames.TOTAL, bytes(16)) + whole(file(b"f", b"12345"), *inner)
    outside = tmp_path / "outside"
    outside.write_text("safe")
    parent = os.open(tmp_path, os.O_RDONLY)
    kept = 0
    for attempt in range(300):
        box = tmp_path / "box"
        box.mkdir()
        target = box / "there"
        try:
            take(mutated(stream, rng), target, b"", Limits(200, 100_000), piece=rng.choice((3, 64, 1 << 16)))
        except (BadStreamError, LimitError, SenderFailedError, EOFError, OSError):
            assert list(box.iterdir()) == [], attempt
        else:
            kept += 1
            assert [p.name for p in box.iterdir()] == ["there"]
            for path in target.rglob("*"):
                if path.is_symlink():
                    assert names.stays_inside(
                        os.fsencode(path.readlink()), len(path.parts) - len(target.parts) - 1
                    )
        assert sorted(p.name for p in tmp_path.iterdir()) == ["box", "outside"]
        remove(b"box", parent)
    assert outside.read_text() == "safe"
    assert kept > 10
    os.close(parent)


# -- what is left of those that were killed -------------------------------------------------------


def test_what_a_killed_transfer_left_goes_with_the_next_and_one_under_way_stays(tmp_path: Path) -> None:
    left = tmp_path / ".pocket-dock-00ff.part"
    (left / "x" / "deep").mkdir(parents=True)
    (left / "x" / "deep" / "f").touch()
    (left / "x").chmod(0o500)
    target = Destination(os.fsencode(tmp_path / "one"), b"")
    under_way = receiver(target, ROOMY)
    under_way.feed(entry(frames.FILE, b"x", size=3))

    assert not left.exists()
    take(file(b"x") + frame(frames.COMPLETE), tmp_path / "two")
    under_way.feed(frame(frames.DATA, bytes(8) + b"abc") + end(3) + frame(frames.COMPLETE))
    target.commit(0)
    target.close()
    assert (tmp_path / "one").read_text() == "abc"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["one", "two"]
