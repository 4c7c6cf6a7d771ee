"""Images without python3: the same container, by plain execs."""

from __future__ import annotations

import io
import os
import tarfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from pocket_dock_mcp.container import launch
from pocket_dock_mcp.container.asked import devices_of, volumes_of
from pocket_dock_mcp.container.core import LiveContainer
from pocket_dock_mcp.container.host_paths import HostAccess
from pocket_dock_mcp.container.launch import Launch
from pocket_dock_mcp.engine.base import Engine
from pocket_dock_mcp.errors import (
    DiskFullError,
    FileChangedError,
    FileDeniedError,
    FileError,
    FileIsDirectoryError,
    FileNotDirectoryError,
    FileNotRegularError,
    InvalidArgumentError,
    PortError,
    ProgramNotFoundError,
    ProvisionError,
    SandboxFileNotFoundError,
    SandboxLostError,
    SandboxStateError,
    SymlinkLoopError,
    TransferLimitError,
    UnkeepableNamesError,
)
from pocket_dock_mcp.models import Edit
from tests.engines import LABELS, Deadline, eventually, is_gone, remove_image, unique
from tests.gates import Gates
from tests.kept import keeping

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
async def bare_image(engine: Engine, image: str) -> AsyncIterator[str]:
    """Yield an image that has a shell and no python3."""
    tag = f"localhost/{unique('bare')}:1"
    context = io.BytesIO()
    recipe = b"ARG BASE\nFROM ${BASE}\nRUN rm -f /usr/bin/python3*\n"
    with tarfile.open(fileobj=context, mode="w") as tar:
        entry = tarfile.TarInfo("Containerfile")
        entry.size = len(recipe)
        tar.addfile(entry, io.BytesIO(recipe))
    async for _ in engine.build(context.getvalue(), tag, build_args={"BASE": image}, labels=LABELS):
        pass
    yield tag
    await remove_image(engine, tag)


@pytest.fixture(scope="module")
async def container(engine: Engine, bare_image: str) -> AsyncIterator[LiveContainer]:
    async with await LiveContainer.create(engine, Launch(unique("bare"), bare_image, LABELS)) as made:
        yield made


async def test_it_says_which_way_it_is_reached_and_holds_the_same_limits(container: LiveContainer) -> None:
    info = await container.info()

    # Without an agent nobody looks at the disk while programs run.
    assert (info.transport, info.python, info.unenforced) == ("exec", None, ("disk",))


async def test_a_network_of_chosen_hosts_is_refused_and_leaves_nothing(
    engine: Engine, bare_image: str
) -> None:
    name = unique("bare")
    wanted = Launch(name, bare_image, LABELS, network=("example.com",), gates=Gates())
    with pytest.raises(InvalidArgumentError, match="no python3"):
        await LiveContainer.create(engine, wanted)
    assert await is_gone(engine, name)


async def test_a_command_has_output_exit_code_directory_environment_and_input(
    container: LiveContainer,
) -> None:
    result = await container.run(
        'echo "$A"; pwd; cat; echo err >&2; exit 3', cwd="/tmp", env={"A": "b c"}, stdin="input\n"
    )

    assert (result.status, result.exit_code) == ("nonzero", 3)
    assert (result.stdout, result.stderr) == ("b c\n/tmp\ninput\n", "err\n")


async def test_user_code_has_no_privilege_and_cannot_touch_pid_1(container: LiveContainer) -> None:
    result = await container.run("id -u; grep Cap /proc/self/status; kill -9 1; cat /proc/1/environ")

    assert result.stdout.startswith(f"{container.uid}\n")
    assert result.stdout.count("0000000000000000") == 5
    assert "not permitted" in result.stderr
    assert "denied" in result.stderr


async def test_a_time_limit_kills_everything(container: LiveContainer) -> None:
    began = time.monotonic()
    result = await container.run(
        "trap '' TERM; echo early; setsid sleep 1001 & sleep 1002; sleep 1003", timeout_s=1
    )

    assert (result.status, result.stdout) == ("timeout", "early\n")
    assert time.monotonic() - began < 5
    assert "sleep 100" not in (await container.run("cat /proc/[0-9]*/cmdline | tr '\\0' ' '")).stdout


async def test_a_cancelled_run_is_killed(container: LiveContainer) -> None:
    with anyio.move_on_after(0.5):
        await container.run("sleep 2002")

    assert "2002" not in (await container.run("cat /proc/[0-9]*/cmdline | tr '\\0' ' '")).stdout


async def test_python_is_refused_with_the_way_out(container: LiveContainer) -> None:
    with pytest.raises(InvalidArgumentError, match="run_command"):
        await container.run("print(1)", language="python")


async def test_a_missing_directory_is_told(container: LiveContainer) -> None:
    with pytest.raises(SandboxFileNotFoundError, match="nowhere"):
        await container.run("true", cwd="/nowhere")


async def test_files_are_written_whole_replaced_and_read_in_pieces(container: LiveContainer) -> None:
    data = bytes(range(256)) * 8000

    first = await container.write_file("dir/sub/data.bin", data, mode=0o600)
    second = await container.write_file("dir/sub/data.bin", data)
    whole = await container.read_file("dir/sub/data.bin")
    piece = await container.read_file("dir/sub/data.bin", offset=1000, max_bytes=10)

    assert (first.overwrote, second.overwrote) == (False, True)
    assert first.path == f"{container.home}/dir/sub/data.bin"
    assert (whole.data, whole.mode, whole.complete) == (data, 0o600, True)
    assert (piece.data, piece.size) == (data[1000:1010], len(data))


@pytest.mark.parametrize(
    ("make", "path", "error"),
    [
        ("mkfifo fifo", "fifo", FileNotRegularError),
        ("true", "/dev/zero", FileNotRegularError),
        ("mkdir -p folder", "folder", FileIsDirectoryError),
        ("ln -s loop2 loop1; ln -s loop1 loop2", "loop1", SymlinkLoopError),
    ],
)
async def test_what_is_no_plain_file_is_refused(
    container: LiveContainer, make: str, path: str, error: type[FileError]
) -> None:
    await container.run(make)

    with pytest.raises(error):
        await container.read_file(path)
    with pytest.raises(error):
        await container.write_file(path, "x")


async def test_missing_forbidden_and_undecodable_paths_are_told_apart(container: LiveContainer) -> None:
    with pytest.raises(SandboxFileNotFoundError):
        await container.read_file("missing")
    with pytest.raises(FileDeniedError):
        await container.write_file("/etc/new", "x")
    with pytest.raises(InvalidArgumentError, match="UTF-8"):
        await container.read_file("\udcff")


async def test_a_directory_lists_odd_names_with_types_and_sizes(container: LiveContainer) -> None:
    await container.run(
        "mkdir odd; cd odd; touch 'new\nline' ./-dash '*' .hidden; ln -s x link; mkdir d; echo hi > f"
    )

    entries, more = await container.list_files("odd")
    some, cut = await container.list_files("odd", limit=3)

    assert [(entry.name, entry.type) for entry in entries] == [
        ("*", "file"),
        ("-dash", "file"),
        (".hidden", "file"),
        ("d", "directory"),
        ("f", "file"),
        ("link", "symlink"),
        ("new\nline", "file"),
    ]
    assert next(entry.size for entry in entries if entry.name == "f") == 3
    assert (more, len(some), cut) == (False, 3, True)
    with pytest.raises(FileNotDirectoryError):
        await container.list_files("odd/f")


async def test_the_lease_holds_here_too(engine: Engine, bare_image: str) -> None:
    container = await LiveContainer.create(engine, Launch(unique("lease"), bare_image, LABELS))

    await container._transport.aclose()

    await eventually(lambda: is_gone(engine, container._running.id), within=5)
    assert (await container.run("true")).status in ("lost", "indeterminate")
    with pytest.raises(SandboxLostError):
        await container.run("true")
    await container.aclose()


async def test_an_image_without_even_a_shell_is_told_and_leaves_nothing(engine: Engine) -> None:
    tag = f"localhost/{unique('empty')}:1"
    empty = io.BytesIO()
    with tarfile.open(fileobj=empty, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("file"))

    async def pieces() -> AsyncIterator[bytes]:
        yield empty.getvalue()

    await engine.import_rootfs(pieces(), tag, labels=LABELS)
    try:
        with pytest.raises(ProgramNotFoundError):
            await LiveContainer.create(engine, Launch(unique("empty"), tag, LABELS))
    finally:
        await remove_image(engine, tag)


async def test_appends_and_edits_work_without_python(container: LiveContainer) -> None:
    made = await container.write_file("log/a", "one\n", append=True, mode=0o640)
    added = await container.write_file("log/a", "two\n", append=True)
    edited = await container.edit_file("log/a", [Edit("one", "1"), Edit("two", "2")])
    found = await container.read_file("log/a")

    assert (made.overwrote, made.size, made.path) == (False, 4, f"{container.home}/log/a")
    assert (added.overwrote, added.size) == (True, 8)
    assert (edited.replacements, edited.size) == ((1, 1), 4)
    assert (found.data, found.mode) == (b"1\n2\n", 0o640)
    for path, error in (
        ("/etc/passwd", FileDeniedError),
        ("/etc/new", FileDeniedError),
        ("log", FileIsDirectoryError),
    ):
        with pytest.raises(error):
            await container.write_file(path, "x", append=True)


async def test_an_append_to_a_full_disk_leaves_what_was_there(container: LiveContainer) -> None:
    await container.run("head -c 16700000 /dev/zero > /dev/shm/full; printf old > /dev/shm/f")

    for path in ("/dev/shm/f", "/dev/shm/new"):
        with pytest.raises(DiskFullError):
            await container.write_file(path, bytes(200_000), append=True)

    assert (await container.read_file("/dev/shm/f")).data == b"old"
    assert (await container.run("ls /dev/shm; rm /dev/shm/*")).stdout == "f\nfull\n"


async def test_a_file_that_was_changed_meanwhile_is_not_overwritten(container: LiveContainer) -> None:
    await container.write_file("mine", "old")
    version = (await container.read_file("mine")).version
    await container.run("echo theirs > mine")

    with pytest.raises(FileChangedError, match="Nothing was written"):
        await container._transport.write(f"{container.home}/mine", b"ours", mode=None, expect=version)

    assert (await container.read_file("mine")).data == b"theirs\n"
    assert "pocket-dock" not in (await container.run("ls -A")).stdout


async def test_a_search_is_refused_with_the_way_out(container: LiveContainer) -> None:
    with pytest.raises(InvalidArgumentError, match="run_command with find or grep"):
        await container.find_files(grep="x")


async def test_files_that_no_image_can_hold_are_named_here_too(
    engine: Engine, container: LiveContainer
) -> None:
    await container.write_file(".wh.same", "work")
    try:
        with pytest.raises(UnkeepableNamesError, match=r"/\.wh\.same\."):
            await container.commit(f"localhost/{unique('never')}:1", labels={})
    finally:
        await container.run("rm .wh.same")
    tag = f"localhost/{unique('once')}:1"
    await container.commit(tag, labels={})
    await remove_image(engine, tag)


async def test_a_kept_one_can_be_stopped_and_resumed_and_no_more(
    engine: Engine, bare_image: str, deadline: Deadline
) -> None:
    async with keeping(engine, bare_image, deadline) as kept:
        container = await kept.create()
        assert (await container.info()).kept == "files"
        await container.write_file("kept.txt", "kept")
        run = await container.start("sleep 600")
        with pytest.raises(SandboxStateError, match="python3"):
            await container.detach()
        with pytest.raises(SandboxStateError, match="Stop it and resume it"):
            await kept.reattach()

        await container.stop()
        assert (await run.wait()).status == "killed"
        again = await kept.resume()
        assert (await again.read_file("kept.txt")).data == b"kept"
        assert again.uid == container.uid
        await again.reboot()
        assert (await again.run("cat kept.txt")).stdout == "kept"


async def test_a_tree_goes_in_and_out_by_tar(container: LiveContainer, tmp_path: Path) -> None:
    root = tmp_path / "tree"
    (root / "sub" / "empty").mkdir(parents=True)
    (root / "sub" / "script").write_text("#!/bin/sh\necho ran\n")
    (root / "sub" / "script").chmod(0o750)
    (root / ("n" * 200)).write_text("long")
    (root / "new\nline").write_text("n")
    Path(os.fsdecode(os.fsencode(root) + b"/\xff\xfe")).write_bytes(b"not utf-8")
    (root / "big").write_bytes(bytes(range(256)) * 20_000)
    (root / "up").symlink_to("sub/script")
    (root / "out").symlink_to("/etc/passwd")
    os.mkfifo(root / "fifo")
    (root / "shut").mkdir()
    (root / "shut" / "key").write_text("k")
    (root / "shut").chmod(0o555)
    os.utime(root / "big", ns=(0, 1_500_000_000_123_456_789))

    for source, destination in (
        (str(root), "made/for/it"),
        (f"{root}/", "made/for/it"),
        (str(root), "made/for"),
    ):
        pushed = await container.push(source, destination)
        assert sorted(one.path for one in pushed.skipped) == ["fifo", "out"]
    assert pushed.path.endswith("/made/for/tree")
    ran = await container.run(
        "cd made/for/it && sub/script && stat -c '%a %Y %N' shut sub/script big up; ls -A . .."
    )
    shut, script = (int((root / name).stat().st_mtime) for name in ("shut", "sub/script"))
    assert ran.stdout.splitlines()[:4] == [
        "ran", f"555 {shut} 'shut'", f"750 {script} 'sub/script'", "644 1500000000 'big'"
    ]  # fmt: skip
    assert ".part" not in ran.stdout

    pulled = await container.pull("made/for/it", tmp_path / "back")
    assert (pulled.files, pulled.directories, pulled.symlinks) == (6, 4, 1)
    for path in root.rglob("*"):
        copy = tmp_path / "back" / path.relative_to(root)
        if path.name in ("fifo", "out"):
            assert not copy.is_symlink()
            assert not copy.exists()
            continue
        assert copy.lstat().st_mode == path.lstat().st_mode
        if path.is_file():
            assert copy.read_bytes() == path.read_bytes()
    assert (tmp_path / "back" / "big").stat().st_mtime_ns // 10**9 == 1_500_000_000
    one = await container.pull("made/for/it/sub/script", f"{tmp_path}/new/")
    assert (tmp_path / "new" / "script").read_text() == "#!/bin/sh\necho ran\n"
    assert one.files == 1
    two = await container.push(root / "big", "/tmp")
    assert two.path == "/tmp/big"
    await container.push(root / "sub" / "script", "/tmp/big")
    assert (await container.run("/tmp/big")).stdout == "ran\n"


async def test_what_tar_cannot_do_is_said_and_leaves_nothing(
    container: LiveContainer, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("1")
    (tmp_path / "tree" / "made").mkdir(parents=True)
    await container.run(
        "chmod -R u+w ~; rm -rf ~/*; echo f > made; mkdir d secret; mkfifo pipe; ln -s / out;ln -s ../.. d/up"
    )
    with pytest.raises(SandboxFileNotFoundError):
        await container.pull("nothing", tmp_path / "x")
    with pytest.raises(FileNotRegularError):
        await container.pull("pipe", tmp_path / "x")
    with pytest.raises(FileDeniedError):
        await container.push(tmp_path / "file", "/etc/none/file")
    with pytest.raises(FileNotDirectoryError):
        await container.push(f"{tmp_path}/tree/", ".")
    with pytest.raises(FileNotDirectoryError):
        await container.push(tmp_path / "tree", "made")
    (tmp_path / "d").write_text("1")
    with pytest.raises(FileIsDirectoryError):
        await container.push(tmp_path / "d", ".")
    pulled = await container.pull("d", tmp_path / "x")
    assert [one.path for one in pulled.skipped] == ["up"]
    assert list((tmp_path / "x").iterdir()) == []
    assert (await container.run("ls -A; cat made; ls /etc/none")).stdout.startswith(
        "d\nmade\nout\npipe\nsecret\nf\n"
    )
    with pytest.raises(TransferLimitError):
        await container.pull("/usr/share", tmp_path / "y", max_files=50)
    assert not (tmp_path / "y").exists()


async def test_ports_do_not_lead_in_and_devices_are_not_given(
    container: LiveContainer, engine: Engine, bare_image: str
) -> None:
    with pytest.raises(PortError, match="python3"):
        await container.open_port(80)
    wanted = Launch(unique("bare"), bare_image, LABELS, devices=devices_of(["/dev/null:/dev/mine"]))
    with pytest.raises(InvalidArgumentError, match="python3"):
        await LiveContainer.create(engine, wanted)


async def test_volumes_are_there_all_the_same(engine: Engine, bare_image: str, seen: Path) -> None:
    (seen / "file").write_text("from the host")
    volumes = volumes_of({str(seen): "/data with space:ro"})
    wanted = Launch(unique("bare"), bare_image, LABELS, volumes=volumes, host=HostAccess((seen,)), keep=True)
    container = await LiveContainer.create(engine, wanted)
    try:
        assert (await container.run("cat '/data with space/file'")).stdout == "from the host"
        assert "Read-only" in (await container.run("touch '/data with space/new'")).stderr
    finally:
        await container.destroy()


async def test_a_volume_that_is_silently_missing_is_noticed(
    engine: Engine, bare_image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def without(_engine: object, _wanted: object, spec: object) -> object:
        return spec

    monkeypatch.setattr(launch, "with_provisions", without)
    volumes = volumes_of({str(tmp_path): "/data"})
    wanted = Launch(unique("bare"), bare_image, LABELS, volumes=volumes, host=HostAccess((tmp_path,)))
    with pytest.raises(ProvisionError, match="nothing is mounted there"):
        await LiveContainer.create(engine, wanted)
