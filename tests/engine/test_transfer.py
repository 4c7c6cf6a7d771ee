"""Files and trees into a container and out of it, on real engines."""

from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import anyio
import anyio.abc
import pytest

from pocket_dock_mcp.archive.names import REASONS
from pocket_dock_mcp.container import transfer, transfer_errors
from pocket_dock_mcp.container.core import LiveContainer
from pocket_dock_mcp.container.launch import Launch
from pocket_dock_mcp.engine.base import Engine
from pocket_dock_mcp.errors import (
    DiskFullError,
    FileDeniedError,
    FileError,
    FileNotDirectoryError,
    FileNotRegularError,
    HostFileError,
    HostFileInTheWayError,
    HostFileNotFoundError,
    InvalidArgumentError,
    RunNotStartedError,
    SandboxError,
    SandboxFileNotFoundError,
    SandboxLostError,
    TransferError,
    TransferLimitError,
)
from pocket_dock_mcp.models import MIB, Limits, TransferProgress
from tests.engines import LABELS, Deadline, eventually, unique
from tests.kept import keeping

pytestmark = [pytest.mark.anyio, pytest.mark.front]

CLEAR = "chmod -R u+rwx ~; rm -rf ~/*"
STAGES = "ls -dA ~/.pocket-dock-* ~/*/.pocket-dock-* 2>/dev/null || true"
# Types, modes, times and contents, by name; names are shown so that each is one line.
LISTED = r"""cd "$1" && find . -mindepth 1 -printf '%y %m %T@ %l ' -exec sh -c '
printf %s "$1" | od -An -v -tx1 | tr -d "\n"; [ -f "$1" ] && [ ! -L "$1" ] && md5sum < "$1" || echo
' sh {} \; | sort"""


@pytest.fixture(scope="module")
async def container(engine: Engine, image: str) -> AsyncIterator[LiveContainer]:
    async with await LiveContainer.create(engine, Launch(unique("moves"), image, LABELS)) as made:
        yield made


async def sh(container: LiveContainer, command: str) -> str:
    return (await container.run(command)).check().stdout


async def here(command: str, *args: str) -> str:
    done = await anyio.run_process(["/bin/sh", "-c", command, "sh", *args])
    return done.stdout.decode()


async def stages(container: LiveContainer) -> str:
    return await sh(container, STAGES)


def make_tree(root: Path) -> None:
    """Make a tree with what trees of users have, and what they should not have."""
    (root / "sub" / "empty").mkdir(parents=True)
    (root / "-rf *").write_text("dash")
    (root / "new\nline").write_text("n")
    (root / "sub" / "blob").write_bytes(random.Random(1).randbytes(700_000))
    Path(os.fsdecode(os.fsencode(root) + b"/\xff\xfe")).write_bytes(b"not utf-8")
    (root / ("n" * 255)).write_text("long")
    (root / "run.sh").write_text("#!/bin/sh\necho ran\n")
    (root / "run.sh").chmod(0o750)
    (root / "sub" / "up").symlink_to("../run.sh")
    (root / "private").mkdir()
    (root / "private" / "key").write_text("k")
    (root / "private" / "key").chmod(0o400)
    with (root / "sparse").open("wb") as file:
        file.truncate(30_000_000)
        file.seek(10_000_000)
        file.write(b"middle")
    for number, path in enumerate(sorted(root.rglob("*"))):
        os.utime(path, ns=(0, 1_500_000_000_123_456_789 + number), follow_symlinks=False)
    (root / "private").chmod(0o555)


async def test_a_tree_goes_in_and_comes_back_as_it_was(container: LiveContainer, tmp_path: Path) -> None:
    make_tree(tmp_path / "tree")
    seen: list[TransferProgress] = []

    pushed = await container.push(tmp_path / "tree", "there/deep/tree", on_progress=seen.append)
    assert pushed.path == "/home/sandbox/there/deep/tree"
    assert (pushed.files, pushed.directories, pushed.symlinks, pushed.skipped) == (8, 4, 1, ())
    assert seen[-1] == TransferProgress(8, pushed.bytes, seen[-1].total_bytes)
    expected = await here(LISTED, str(tmp_path / "tree"))
    assert await sh(container, f"set -- there/deep/tree; {LISTED}") == expected
    owner = await sh(container, "find there -not -user $(id -u) | wc -l; there/deep/tree/run.sh")
    assert owner == "0\nran\n"
    used = int((await sh(container, "du -k there/deep/tree/sparse")).split()[0])
    assert used < 10_000

    pulled = await container.pull("there/deep/tree", tmp_path / "back" / "again", on_progress=seen.append)
    assert (pulled.files, pulled.directories, pulled.symlinks, pulled.skipped) == (8, 4, 1, ())
    assert pulled.path == str(tmp_path / "back" / "again")
    assert await here(LISTED, pulled.path) == expected
    assert {path.lstat().st_uid for path in (tmp_path / "back").rglob("*")} == {os.geteuid()}
    assert seen[-1].bytes == pulled.bytes
    # Once more, over what is there.
    await container.push(f"{tmp_path}/tree/", "there/deep/tree")
    await container.pull("there/deep/tree/", tmp_path / "back" / "again")
    assert await here(LISTED, pulled.path) == expected
    assert await stages(container) == ""
    assert sorted(path.name for path in (tmp_path / "back").iterdir()) == ["again"]


async def test_where_things_land(container: LiveContainer, tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "f").write_text("1")
    await sh(container, f"{CLEAR}; mkdir dir; ln -s dir link")
    root = "/home/sandbox"
    for source, destination, path, there in (
        ("src/f", "g", "g", "g"),
        ("src/f", "dir", "dir/f", "dir/f"),
        ("src/f", "dir/", "dir/f", "dir/f"),
        ("src/f", "link", "dir/f", "dir/f"),
        ("src/f", "new/", "new/f", "new/f"),
        ("src/f", "~/a/b", "a/b", "a/b"),
        ("src/", f"{root}/src/", "src", "src/f"),
        ("src", "whole", "whole", "whole/f"),
        ("src", "dir", "dir/src", "dir/src/f"),
        ("src/.", "dir", "dir", "dir/f"),
        ("src", ".", "src", "src/f"),
    ):
        moved = await container.push(f"{tmp_path}/{source}", destination)
        assert moved.path == f"{root}/{path}", (source, destination)
        assert await sh(container, f"cat {there} && rm {there}") == "1"
    await sh(container, "mkdir -p out/sub; echo 2 > out/sub/f; ln -s out latest")
    for source, there in (("out", "here/sub/f"), ("out/", "here/sub/f"), ("out", "here/out/sub/f"),
                          ("latest", "here/latest/sub/f"), ("out/sub/f", "here/f")):  # fmt: skip
        await container.pull(source, tmp_path / "here")
        assert (tmp_path / there).read_text() == "2\n"
    moved = await container.pull("out/sub/f", f"{tmp_path}/parents/made/")
    assert moved.path == f"{tmp_path}/parents/made/f"


async def test_what_cannot_be_is_a_typed_error_and_changes_nothing(
    container: LiveContainer, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("1")
    (tmp_path / "tree" / "x").mkdir(parents=True)
    os.mkfifo(tmp_path / "fifo")
    await sh(
        container, f"{CLEAR}; mkdir d; echo old > f; mkfifo pipe; echo 1 > shut; chmod 0 shut; echo f > x"
    )

    with pytest.raises(HostFileNotFoundError, match="this machine"):
        await container.push(tmp_path / "nothing", "x")
    with pytest.raises(FileNotFoundError):
        await container.pull("nothing", tmp_path / "made" / "for it")
    with pytest.raises(FileNotDirectoryError):
        await container.pull("f/g", tmp_path / "y")
    with pytest.raises(SandboxFileNotFoundError):
        await container.pull("d/g/..", tmp_path / "y")
    for source in ("pipe", "/dev/null", "/proc/cpuinfo"):
        with pytest.raises(FileNotRegularError, match="neither a file nor") as caught:
            await container.pull(source, tmp_path / "y")
        assert "run" not in caught.value.hint
    with pytest.raises(HostFileError, match="cannot be made there"):
        await container.pull("d", "/proc/")
    for source in ("file", "tree"):
        with pytest.raises(FileError, match=f"'/proc/{source}' cannot be made there"):
            await container.push(tmp_path / source, "/proc/")
    with pytest.raises(HostFileError, match="neither a file nor"):
        await container.push(tmp_path / "fifo", "y")
    with pytest.raises(FileDeniedError):
        await container.pull("shut", tmp_path / "y")
    with pytest.raises(FileDeniedError):
        await container.push(tmp_path / "file", "/etc/made/file")
    with pytest.raises(FileNotDirectoryError):
        await container.push(tmp_path / "tree", "f")
    with pytest.raises(FileNotDirectoryError):
        await container.push(f"{tmp_path}/tree/", ".")
    with pytest.raises(HostFileInTheWayError):
        await container.pull("d", tmp_path / "file")
    for bad in ("", "a\0b"):
        with pytest.raises(InvalidArgumentError):
            await container.pull("f", tmp_path / bad if bad else "")
        with pytest.raises(InvalidArgumentError):
            await container.push(tmp_path / "file", bad)
    with pytest.raises(InvalidArgumentError):
        await container.pull("f", tmp_path / "y", max_files=0)
    assert await sh(container, "ls -A; cat f") == "d\nf\npipe\nshut\nx\nold\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fifo", "file", "tree"]


async def test_what_is_left_out_is_said_both_ways(container: LiveContainer, tmp_path: Path) -> None:
    root = tmp_path / "tree"
    root.mkdir()
    (root / "out").symlink_to("/etc/passwd")
    (root / "up").symlink_to("../x")
    (root / "in").symlink_to("suid")
    os.mkfifo(root / "fifo")
    (root / "suid").touch()
    (root / "suid").chmod(0o6755)
    pushed = await container.push(root, "left/out")
    assert sorted(one.path for one in pushed.skipped) == ["fifo", "out", "suid", "up"]
    assert (
        await sh(container, "cd left/out; stat -c '%n %a %F' *")
        == "in 777 symbolic link\nsuid 755 regular empty file\n"
    )

    await sh(
        container,
        "cd left/out; ln -s /etc/shadow a; ln -s ../../../etc b; mkfifo c; chmod 4711 suid; ln suid hard;"
        "python3 -c \"import socket; socket.socket(socket.AF_UNIX).bind('s')\"; mkdir shut; chmod 0 shut;"
        "mkdir one two; ln -s one two/three; ln -s /dev/null dev",
    )
    pulled = await container.pull("left/out", tmp_path / "back")
    why = {one.path: one.reason for one in pulled.skipped}
    assert set(why) == {"a", "b", "c", "s", "shut", "dev", "suid", "hard"}
    assert set(why.values()) <= set(REASONS.values())
    assert pulled.skipped_count == 8
    assert sorted(path.name for path in (tmp_path / "back").iterdir()) == ["hard", "in", "one", "suid", "two"]
    assert (tmp_path / "back" / "hard").stat().st_nlink == 1
    assert (tmp_path / "back" / "suid").stat().st_mode & 0o7777 == 0o711
    await sh(container, "chmod 700 left/out/shut")


async def test_trees_of_the_kernel_and_many_things_left_out_are_no_tampering(
    container: LiveContainer, tmp_path: Path
) -> None:
    for number in range(30):
        (tmp_path / "tree" / f"{number}").mkdir(parents=True)
        (tmp_path / "tree" / f"{number}").chmod(0o2755)
        for link in range(5):
            (tmp_path / "tree" / f"{number}" / f"{link}").symlink_to("/nothing")
    pushed = await container.push(tmp_path / "tree", "many")
    assert (pushed.skipped_count, len(pushed.skipped)) == (180, 100)
    await sh(container, "chmod g+s many/*; for n in $(seq 90); do ln -s /x many/$n.l; done")
    pulled = await container.pull("many", tmp_path / "back")
    assert (pulled.directories, pulled.skipped_count) == (31, 120)

    for tree in ("/dev", "/sys/kernel", "/proc/sys", "/proc/self"):
        pulled = await container.pull(tree, tmp_path / "kernel")
        assert pulled.skipped_count > len(pulled.skipped) // 2


async def test_times_far_from_now_are_kept_or_said(container: LiveContainer, tmp_path: Path) -> None:
    root = tmp_path / "tree"
    root.mkdir()
    seconds = (-(1 << 40), -3_000_000_000, -1, 9_300_000_000, 14_000_000_000, 1 << 40)
    for second in seconds:
        (root / f"{second}").touch()
        os.utime(root / f"{second}", (second, second))
    pushed = await container.push(f"{root}/", "times")
    times = dict(
        line.split() for line in (await sh(container, "cd times; stat -c '%n %Y' -- *")).splitlines()
    )
    for second in seconds:
        has = int((root / f"{second}").stat().st_mtime)
        assert (int(times[f"{second}"]) == has) != (f"{second}" in {one.path for one in pushed.skipped})

    # A file system in memory has times that a disk's cannot have.
    far = "mkdir /dev/shm/far; cd /dev/shm/far; for s in -1099511627776 99999999999; do touch -d @$s -- $s"
    times = dict(
        line.split() for line in (await sh(container, f"{far}; done; stat -c '%n %Y' -- *")).splitlines()
    )
    pulled = await container.pull("/dev/shm/far", tmp_path / "far")
    for path in (tmp_path / "far").iterdir():
        is_kept = int(path.stat().st_mtime) == int(times[path.name])
        assert is_kept != (path.name in {one.path for one in pulled.skipped})
    assert pulled.files == 2
    (alone,) = (await container.pull("/dev/shm/far/-1099511627776", tmp_path / "alone")).skipped
    assert alone.path == "alone"
    await sh(container, "rm -r /dev/shm/far")


async def test_limits_of_a_pull_are_told_and_nothing_is_left(
    container: LiveContainer, tmp_path: Path
) -> None:
    await sh(container, f"{CLEAR}; mkdir many; cd many; touch $(seq 300); truncate -s 3G a b c d e f")
    with pytest.raises(TransferLimitError, match="200 files") as caught:
        await container.pull("many", tmp_path / "x", max_files=200)
    assert "max_files" in caught.value.hint
    with pytest.raises(TransferLimitError, match="bytes") as caught:
        await container.pull("many", tmp_path / "x")
    assert "max_bytes" in caught.value.hint
    assert list(tmp_path.iterdir()) == []
    pulled = await container.pull("many", tmp_path / "x", max_bytes=1 << 40)
    assert (pulled.files, (tmp_path / "x" / "a").stat().st_size) == (306, 3 << 30)


async def test_a_disk_that_is_full_leaves_the_old_files(engine: Engine, image: str, tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(bytes(90 * MIB))
    (tmp_path / "new").write_text("new")
    limits = Limits(memory_bytes=192 * MIB)
    wanted = Launch(unique("full"), image, LABELS, limits=limits, workspace="memory")
    async with await LiveContainer.create(engine, wanted) as container:
        await sh(container, "echo old > big")
        with pytest.raises(DiskFullError):
            await container.push(tmp_path / "big", "big")
        assert await sh(container, f"cat big; {STAGES}") == "old\n"
        await container.push(tmp_path / "new", "new")
        assert (await container.pull("new", tmp_path / "back")).bytes == 3


async def test_one_that_is_cancelled_leaves_nothing_on_either_side(
    container: LiveContainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "REPORT_EVERY_S", 0.0)
    (tmp_path / "big").write_bytes(random.Random(2).randbytes(MIB) * 64)
    await sh(container, f"{CLEAR}; head -c {64 * MIB} /dev/urandom > big; echo old > new")
    (tmp_path / "old").write_text("old")

    for number in range(3):
        with anyio.CancelScope() as scope:

            def cancel(
                progress: TransferProgress, scope: anyio.CancelScope = scope, at: int = number
            ) -> None:
                if progress.bytes >= at * 8 * MIB:
                    scope.cancel()

            await container.push(tmp_path / "big", "new", on_progress=cancel)
        assert scope.cancelled_caught
        with anyio.CancelScope() as scope:
            await container.pull("big", tmp_path / "old", on_progress=lambda _p, s=scope: s.cancel())  # type: ignore[misc]
        assert scope.cancelled_caught
    assert await sh(container, f"ls; cat new; {STAGES}") == "big\nnew\nold\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["big", "old"]
    assert (tmp_path / "old").read_text() == "old"
    assert (await container.info()).processes == 0


async def test_a_push_that_is_cancelled_when_all_is_under_way_has_not_happened(
    container: LiveContainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "REPORT_EVERY_S", 0.0)
    (tmp_path / "many").mkdir()
    for number in range(2000):
        (tmp_path / "many" / f"{number}").touch()
    await sh(container, CLEAR)

    with anyio.CancelScope() as scope:

        def cancel(progress: TransferProgress) -> None:
            if progress.files == 2000:
                scope.cancel()

        await container.push(tmp_path / "many", "many", on_progress=cancel)
    assert scope.cancelled_caught
    assert await sh(container, f"ls; {STAGES}") == ""


async def test_an_error_of_whoever_is_told_of_progress_is_raised_as_it_is(
    container: LiveContainer, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("1")
    await sh(container, f"{CLEAR}; echo 1 > file")

    def fail(_progress: TransferProgress) -> None:
        raise BrokenPipeError(tmp_path)

    with pytest.raises(BrokenPipeError, match="pytest"):
        await container.push(tmp_path / "file", "new", on_progress=fail)
    with pytest.raises(BrokenPipeError, match="pytest"):
        await container.pull("file", tmp_path / "back", on_progress=fail)
    assert await stages(container) == ""


async def test_a_sandbox_that_dies_meanwhile_is_said_and_leaves_nothing_here(
    engine: Engine, image: str, tmp_path: Path
) -> None:
    async with await LiveContainer.create(engine, Launch(unique("dies"), image, LABELS)) as container:
        await sh(container, f"head -c {100 * MIB} /dev/urandom > big")
        (tmp_path / "file").write_bytes(bytes(MIB))

        async def die() -> None:
            await engine.remove((await engine.inspect(container.name)).id)

        async with anyio.create_task_group() as group:
            deaths: list[int] = []

            def at_first(progress: TransferProgress) -> None:
                if progress.bytes and not deaths:
                    deaths.append(progress.bytes)
                    group.start_soon(die)

            with pytest.raises(SandboxLostError):
                await container.pull("big", tmp_path / "back", on_progress=at_first)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]
        with pytest.raises(SandboxLostError):
            await container.push(tmp_path / "file", "file")


async def test_a_program_that_is_killed_or_stopped_or_forged_is_an_error(
    container: LiveContainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "big").write_bytes(bytes(64 * MIB))
    await sh(container, f"{CLEAR}; head -c {64 * MIB} /dev/zero > big")

    acts = {
        "push": partial(container.push, tmp_path / "big", "new"),
        "pull": partial(container.pull, "big", tmp_path / "back"),
    }

    async def tamper(_progress: object, signal: str = "KILL") -> None:
        try:
            await container.run(f"kill -{signal} -1; true", timeout_s=20)
        except RunNotStartedError:
            # It has met what starts programs, too.
            pass

    async def struck(act: str, signal: str) -> TransferError:
        """Transfer until it is hit, which is never before the first bytes are through."""
        for _ in range(8):
            async with anyio.create_task_group() as group:
                hits: list[int] = []

                def once(progress: TransferProgress, group: anyio.abc.TaskGroup = group) -> None:
                    if progress.bytes and not hits:  # noqa: B023  # it is called before the next round
                        hits.append(progress.bytes)  # noqa: B023
                        group.start_soon(tamper, progress, signal)

                try:
                    await acts[act](on_progress=once)
                except TransferError as error:
                    return error
            (tmp_path / "back").unlink(missing_ok=True)
            await container.run("rm -f new")
        raise AssertionError

    monkeypatch.setattr(transfer, "REPORT_EVERY_S", 0.0)
    monkeypatch.setattr(transfer, "END_S", 1.0)
    for signal, error in (("KILL", "broken off"), ("STOP", "stalled")):
        monkeypatch.setattr(transfer_errors, "STALL_S", 3.0 if signal == "STOP" else 100.0)
        for act in acts:
            assert error in str(await struck(act, signal))
    await container.kill_all()
    assert await sh(container, f"ls; {STAGES}") == "big\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["big"]


async def test_a_kept_sandbox_keeps_nothing_of_a_transfer_whose_client_goes(
    engine: Engine, image: str, deadline: Deadline, tmp_path: Path
) -> None:
    (tmp_path / "big").write_bytes(bytes(64 * MIB))
    async with keeping(engine, image, deadline) as kept:
        container = await kept.create()
        await container.push(tmp_path / "big", "big")
        for act in ("push", "pull"):
            async with anyio.create_task_group() as group:
                gone: list[int] = []

                def leave(
                    progress: TransferProgress,
                    container: LiveContainer = container,
                    group: anyio.abc.TaskGroup = group,
                    gone: list[int] = gone,
                ) -> None:
                    if progress.bytes and not gone:
                        gone.append(progress.bytes)
                        group.start_soon(container.detach)

                moves = {
                    "push": partial(container.push, tmp_path / "big", "new"),
                    "pull": partial(container.pull, "big", tmp_path / "back"),
                }
                with pytest.raises(SandboxError):
                    await moves[act](on_progress=leave)
            container = await kept.reattach()

            async def is_quiet(container: LiveContainer = container) -> bool:
                return (await container.info()).processes == 0

            await eventually(is_quiet, deadline(15))
            assert await sh(container, f"ls; {STAGES}") == "big\n"
        assert sorted(path.name for path in tmp_path.iterdir()) == ["big"]
