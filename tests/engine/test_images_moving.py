"""Images in one file: out of an engine, into it and into any other, whole or not at all."""

from __future__ import annotations

import gzip
import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import anyio
import pytest

from pocket_dock_mcp.engine.base import Engine
from pocket_dock_mcp.errors import ImageArchiveError, ImageNotFoundError
from pocket_dock_mcp.images.moving import load, save
from pocket_dock_mcp.testing import FakeEngine
from pocket_dock_mcp.testing.images import pack
from tests.engines import LABELS, Deadline, Target, eventually, unique
from tests.lab import Lab, in_pieces, tar_of

pytestmark = [pytest.mark.anyio, pytest.mark.front]

RECORDED = sorted((Path(__file__).parent.parent / "archives").glob("*.tar.gz"))
Done = subprocess.CompletedProcess[bytes]
Start = Callable[..., "subprocess.Popen[bytes]"]
Dock = Callable[..., Done]


def nothing(_count: int) -> None:
    """Be told nothing."""


@pytest.fixture
def start(target: Target, tmp_path: Path) -> Start:
    """Return what starts `pocket-dock` on the engine under test."""
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "POCKET_DOCK_ENGINE": target.url,
        "POCKET_DOCK_STATE_DIR": str(tmp_path / "state"),
    }

    def start(
        *argv: str, stdin: int = subprocess.DEVNULL, stdout: int = subprocess.PIPE
    ) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "pocket_dock_mcp.cli.main", *argv]
        return subprocess.Popen(command, env=environ, stdin=stdin, stdout=stdout, stderr=subprocess.PIPE)

    return start


@pytest.fixture
def dock(start: Start) -> Dock:
    """Return what runs `pocket-dock` to its end."""

    def dock(*argv: str, data: bytes | None = None, stdout: int = subprocess.PIPE) -> Done:
        stdin = subprocess.DEVNULL if data is None else subprocess.PIPE
        with start(*argv, stdin=stdin, stdout=stdout) as process:
            out, err = process.communicate(data, timeout=90)
        return Done(argv, process.returncode, out, err)

    return dock


@pytest.fixture
async def tags(lab: Lab) -> list[str]:
    """Return the names of two small images."""
    tags = [lab.tag("moved"), lab.tag("moved")]
    for tag in tags:
        await lab.engine.import_rootfs(in_pieces(tar_of({"etc/name": tag.encode()})), tag, labels=LABELS)
    return tags


async def missing(engine: Engine, tags: list[str]) -> list[str]:
    """Return the images that the engine lacks."""
    found = []
    for tag in tags:
        try:
            await engine.image(tag)
        except ImageNotFoundError:
            found.append(tag)
    return found


@pytest.mark.parametrize("name", ["images.tar", "images.tar.gz"])
async def test_several_images_leave_in_one_file_and_come_back(
    lab: Lab, tags: list[str], dock: Dock, tmp_path: Path, name: str
) -> None:
    file = tmp_path / name
    options = [option for tag in tags for option in ("--image", tag)]

    left = await anyio.to_thread.run_sync(lambda: dock("export", *options, "-o", str(file)))
    assert left.returncode == 0, left.stderr
    assert b"2 images in" in left.stdout
    assert (file.read_bytes()[:2] == b"\x1f\x8b") == name.endswith(".gz")
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == [name]
    for tag in tags:
        await lab.engine.remove_image(tag)

    came = await anyio.to_thread.run_sync(lambda: dock("import", str(file), "--json"))
    assert came.returncode == 0, came.stderr
    # In the order in which the engine has put them into the file.
    found = sorted((one["name"], one["new"]) for one in json.loads(came.stdout))
    assert found == [(tag, True) for tag in sorted(tags)]
    assert await missing(lab.engine, tags) == []

    again = await anyio.to_thread.run_sync(lambda: dock("import", str(file)))
    assert again.stdout.count(b"was there already") == 2


async def test_images_go_through_pipes(lab: Lab, tags: list[str], dock: Dock) -> None:
    left = await anyio.to_thread.run_sync(lambda: dock("export", "--image", tags[0], "-o", "-"))
    assert left.returncode == 0, left.stderr
    await lab.engine.remove_image(tags[0])

    came = await anyio.to_thread.run_sync(lambda: dock("import", "-", data=gzip.compress(left.stdout)))

    assert came.returncode == 0, came.stderr
    assert await missing(lab.engine, tags) == []


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.name)
async def test_what_any_engine_has_written_comes_into_this_one(engine: Engine, path: Path) -> None:
    """With its names and labels; also alone, where engines are wont to mistake its name."""
    data = gzip.decompress(path.read_bytes())

    async def pieces() -> AsyncGenerator[bytes, None]:
        yield data

    arrived = await load(engine, pieces, checking=nothing, loading=nothing)
    try:
        names = [f"localhost/pocket-dock-test/recorded-{number}:1" for number in (1, 2)]
        assert [arrival.name for arrival in arrived] == names
        assert all(arrival.before is None for arrival in arrived)
        assert all(arrival.image.labels["pocket-dock.recorded"] == "yes" for arrival in arrived)
        one = b"".join([piece async for piece in save(engine, names[:1])])
    finally:
        for arrival in arrived:
            await engine.remove_image(arrival.name)

    async def pieces_of_one() -> AsyncGenerator[bytes, None]:
        yield one

    arrived = await load(engine, pieces_of_one, checking=nothing, loading=nothing)
    assert [arrival.name for arrival in arrived] == names[:1]
    await engine.remove_image(names[0])


async def test_of_a_damaged_file_nothing_comes(lab: Lab, tags: list[str], dock: Dock, tmp_path: Path) -> None:
    """Neither of one that was cut, nor of one in which another file lies than it says."""
    whole = b"".join([piece async for piece in save(lab.engine, tags)])
    for tag in tags:
        await lab.engine.remove_image(tag)
    (tmp_path / "cut.tar.gz").write_bytes(gzip.compress(whole)[:-30])
    refused = await anyio.to_thread.run_sync(lambda: dock("import", str(tmp_path / "cut.tar.gz")))

    assert refused.returncode == 1
    assert refused.stdout == b""
    assert len([line for line in refused.stderr.splitlines() if line.startswith(b"pocket-dock: ")]) == 1
    evil = tags[1].replace("moved", "evil!")
    for data in (whole[: len(whole) * 2 // 3], whole.replace(tags[1].encode(), evil.encode()), b""):

        async def pieces(data: bytes = data) -> AsyncGenerator[bytes, None]:
            yield data

        with pytest.raises(ImageArchiveError):
            await load(lab.engine, pieces, checking=nothing, loading=nothing)
    assert await missing(lab.engine, tags) == tags


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
async def test_an_export_that_is_cut_short_leaves_no_file(
    start: Start, image: str, tmp_path: Path, number: signal.Signals, deadline: Deadline
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "images.tar.gz").write_bytes(b"of yesterday")

    async def has_begun(process: subprocess.Popen[bytes]) -> bool:
        assert process.poll() is None, "it was too fast"
        return _written_without_a_name(process.pid, folder) > 0

    with start("export", "--image", image, "-o", str(folder / "images.tar.gz")) as process:
        await eventually(lambda: has_begun(process), within=deadline(60))
        process.send_signal(number)
        await anyio.to_thread.run_sync(process.communicate)

    assert process.returncode == (130 if number == signal.SIGINT else -number)
    assert [path.name for path in folder.iterdir()] == ["images.tar.gz"]
    assert (folder / "images.tar.gz").read_bytes() == b"of yesterday"


def _written_without_a_name(process: int, folder: Path) -> int:
    """Return how many bytes are in files of a folder that a process has open and that have no name yet."""
    total = 0
    for path in Path(f"/proc/{process}/fd").iterdir():
        try:
            if str(path.readlink()).startswith(f"{folder}/#"):
                total += path.stat().st_size
        except OSError:
            # It has just been closed.
            continue
    return total


async def test_an_export_goes_to_files_and_pipes_only(tags: list[str], dock: Dock, tmp_path: Path) -> None:
    link = tmp_path / "link.tar"
    link.symlink_to(tmp_path / "target.tar")

    def export(*argv: str) -> Done:
        return dock("export", "--image", tags[0], *argv)

    assert b"no file" in export("-o", "/dev/null").stderr
    assert Path("/dev/null").is_char_device()
    assert b"cannot be written" in export("-o", str(tmp_path / "nothing" / "x.tar")).stderr
    assert export("-o", str(link)).returncode == 0
    assert link.is_symlink()
    assert (tmp_path / "target.tar").stat().st_size > 0

    ours, theirs = pty.openpty()
    try:
        refused = dock("export", "--image", tags[0], "-o", "-", stdout=theirs)
    finally:
        os.close(ours)
        os.close(theirs)
    assert refused.returncode == 2
    assert b"nothing for a terminal" in refused.stderr


async def test_what_is_not_there_is_not_exported(tags: list[str], dock: Dock, tmp_path: Path) -> None:
    file = tmp_path / "x.tar"
    missing = ["--image", tags[0], "--image", f"localhost/{unique('none')}"]
    for argv, status in ((missing, 1), (["--profile", "huge"], 2), ([], 2)):
        refused = dock("export", *argv, "-o", str(file))

        assert refused.returncode == status
        assert len(refused.stderr.splitlines()) == 1
        assert not file.exists()


async def test_images_that_an_engine_has_taken_in_before_it_fails_are_taken_back() -> None:
    """The archive is whole; the engine cannot do with the second one."""
    fake = FakeEngine()
    fake.add_image("localhost/first:1")
    first = b"".join([piece async for piece in fake.save_images(["localhost/first:1"])])
    await fake.remove_image("localhost/first:1")
    second = tar_of({"etc/hello": b"hello"})
    data = _joined(first, second)

    async def pieces() -> AsyncGenerator[bytes, None]:
        yield data

    with pytest.raises(ImageArchiveError):
        await load(fake, pieces, checking=nothing, loading=nothing)

    assert await missing(fake, ["localhost/first:1", "localhost/second:1"]) == [
        "localhost/first:1",
        "localhost/second:1",
    ]
    assert "load_images" in fake.calls


def _joined(archive: bytes, layer: bytes) -> bytes:
    """Add an image to an archive of the fake engine's that it cannot load."""
    import hashlib
    import io
    import tarfile

    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        files = {one.name: tar.extractfile(one).read() for one in tar.getmembers()}  # type: ignore[union-attr]
    digest = f"sha256:{hashlib.sha256(layer).hexdigest()}"
    config = json.dumps({"rootfs": {"diff_ids": [digest]}}).encode()
    manifest = json.loads(files.pop("manifest.json"))
    manifest.append({"Config": "second.json", "RepoTags": ["localhost/second:1"], "Layers": ["second.tar"]})
    files |= {"second.json": config, "second.tar": layer}
    return pack({**files, "manifest.json": json.dumps(manifest).encode()})
