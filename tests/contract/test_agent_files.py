"""What any agent does with files: one body, over the fake's and over the one in real containers."""

from __future__ import annotations

import contextlib
import os

import anyio
import pytest

from pocket_dock_mcp.agent.inside import wire
from pocket_dock_mcp.agent.link import RemoteError
from pocket_dock_mcp.errors import StreamLostError
from tests import behaviours
from tests.agents import Agent

pytestmark = [pytest.mark.anyio, pytest.mark.contract]

MEGABYTE = 1_000_000


async def test_a_file_is_written_where_there_was_nothing(agent: Agent, folder: str) -> None:
    """With its parents, for the user, readable for all; and says where and how much."""
    path = f"{folder}/a/b/file"

    written = await agent.write(path, b"content")

    assert (written["path"], written["size"], written["overwrote"]) == (path, 7, False)
    data, found = await agent.read(path)
    assert data == b"content"
    assert (found["size"], found["mode"], found["uid"]) == (7, 0o644, agent.facts["uid"])
    assert (await agent.call("stat", path=f"{folder}/a"))["mode"] == 0o755


async def test_a_file_is_replaced_and_keeps_its_mode(agent: Agent, folder: str) -> None:
    """Unless another is asked for."""
    path = f"{folder}/file"
    await agent.write(path, b"first and longer", mode=0o751)

    assert (await agent.write(path, b"second"))["overwrote"]
    data, found = await agent.read(path)
    assert (data, found["mode"]) == (b"second", 0o751)

    await agent.write(path, b"third", mode=0o600)
    data, found = await agent.read(path)
    assert (data, found["mode"]) == (b"third", 0o600)
    assert list((await agent.entries(folder))[0]) == ["file"]


@pytest.mark.parametrize("size", [0, 1, wire.MAX_PAYLOAD, wire.MAX_PAYLOAD + 1, 3 * MEGABYTE])
async def test_a_file_of_any_size_comes_back_as_it_was(agent: Agent, folder: str, size: int) -> None:
    """In one frame, or in as many as the windows allow."""
    data = os.urandom(size)
    await agent.write(f"{folder}/file", data)

    assert (await agent.read(f"{folder}/file"))[0] == data


@pytest.mark.parametrize(
    ("offset", "length"),
    [(0, 10), (5, 0), (300_000, 400_000), (699_999, 5), (700_000, 5), (10**9, 5)],
)
async def test_a_piece_of_a_file_can_be_read(agent: Agent, folder: str, offset: int, length: int) -> None:
    """And the size is that of the whole. Beyond the end there is nothing."""
    data = os.urandom(700_000)
    await agent.write(f"{folder}/file", data)

    piece, found = await agent.read(f"{folder}/file", offset=offset, length=length)

    assert piece == data[offset : offset + length]
    assert found["size"] == len(data)


async def test_writing_through_a_link_changes_what_it_points_to(agent: Agent, folder: str) -> None:
    """The link stays a link, and the reply says where the content went; also when nothing was there."""
    await _prepare(agent, folder)

    through = await agent.write(f"{folder}/odd/link", b"new")
    dangling = await agent.write(f"{folder}/odd/dangling", b"made")

    assert (through["path"], through["overwrote"]) == (f"{folder}/odd/file", True)
    assert (dangling["path"], dangling["overwrote"]) == (f"{folder}/odd/missing", False)
    assert (await agent.read(f"{folder}/odd/file"))[0] == b"new"
    assert (await agent.call("stat", path=f"{folder}/odd/link", follow=False))["type"] == "symlink"


async def test_an_append_adds_to_the_end_and_keeps_the_mode(agent: Agent, folder: str) -> None:
    """The file stays the same one; where there was none it is made, with its parents."""
    path = f"{folder}/a/log"

    made = await agent.write(path, b"one\n", append=True)
    inode = await _inode(agent, path)
    await agent.write(path, b"", append=True, mode=0o640)
    added = await agent.write(path, b"two\n", append=True)

    assert (made["path"], made["size"], made["overwrote"]) == (path, 4, False)
    assert (added["path"], added["size"], added["overwrote"]) == (path, 8, True)
    data, found = await agent.read(path)
    assert (data, found["mode"]) == (b"one\ntwo\n", 0o640)
    assert await _inode(agent, path) == inode
    assert (await agent.call("stat", path=f"{folder}/a"))["mode"] == 0o755


async def test_an_append_of_many_frames_is_whole(agent: Agent, folder: str) -> None:
    """And nothing of it is there before its end; a cancelled one leaves nothing behind."""
    data = os.urandom(2 * MEGABYTE)
    await agent.write(f"{folder}/file", b"old")
    for name in ("file", "new"):
        request_id, request = agent.link.open(None)
        header = {"op": "write", "path": f"{folder}/{name}", "mode": None, "append": True}
        await agent.link.send(request_id, header, b"half")
        await agent.link.send(request_id, {"op": "cancel"})
        with pytest.raises(RemoteError, match="ECANCELED"):
            await agent.link.finish(request_id, request, agent.deadline(15))

    await agent.write(f"{folder}/file", data, append=True)

    assert (await agent.read(f"{folder}/file"))[0] == b"old" + data
    assert list((await agent.entries(folder))[0]) == ["file"]


async def test_an_append_needs_no_right_on_the_directory(agent: Agent, folder: str) -> None:
    """And one on the file."""
    await agent.write(f"{folder}/sealed/file", b"1")
    await agent.write(f"{folder}/sealed/read-only", b"", mode=0o444)
    assert (await agent.run(behaviours.SEAL, cwd=folder)).end["code"] == 0

    await agent.write(f"{folder}/sealed/file", b"2", append=True)

    assert (await agent.read(f"{folder}/sealed/file"))[0] == b"12"
    for path in (f"{folder}/sealed/new", f"{folder}/sealed/read-only", "/etc/passwd", "/etc/new"):
        with pytest.raises(RemoteError, match="EACCES"):
            await agent.write(path, b"x", append=True)


async def test_a_write_can_expect_what_was_read(agent: Agent, folder: str) -> None:
    """What is another file by then, or the same one changed, or gone, stays as it is."""
    path = f"{folder}/file"
    await agent.write(path, b"first")
    version = (await agent.read(path))[1]["version"]
    assert (await agent.read(path))[1]["version"] == version

    await agent.write(path, b"again", expect=version, mode=None)

    assert (await agent.read(path))[0] == b"again"
    with pytest.raises(RemoteError, match="changed"):
        await agent.write(path, b"lost?", expect=version)
    version = (await agent.read(path))[1]["version"]
    await agent.write(path, b"!", append=True)
    with pytest.raises(RemoteError, match="changed"):
        await agent.write(path, b"lost?", expect=version)
    assert (await agent.read(path))[0] == b"again!"
    with pytest.raises(RemoteError, match="changed"):
        await agent.write(f"{folder}/other", b"lost?", expect=version)
    with pytest.raises(RemoteError, match="ENOENT"):
        await agent.write(f"{folder}/none/other", b"lost?", expect=version)
    assert list((await agent.entries(folder))[0]) == ["file"]


async def test_a_cancelled_write_leaves_everything_as_it_was(agent: Agent, folder: str) -> None:
    """The old content, and no half of the new one anywhere."""
    await agent.write(f"{folder}/file", b"old")
    request_id, request = agent.link.open(None)
    await agent.link.send(request_id, {"op": "write", "path": f"{folder}/file", "mode": None}, b"half")

    await agent.link.send(request_id, {"op": "cancel"})
    with pytest.raises(RemoteError, match="ECANCELED"):
        await agent.link.finish(request_id, request, agent.deadline(15))

    assert (await agent.read(f"{folder}/file"))[0] == b"old"
    assert list((await agent.entries(folder))[0]) == ["file"]


async def test_a_cancelled_read_ends_at_once(agent: Agent, folder: str) -> None:
    """And the agent goes on."""
    await agent.write(f"{folder}/file", bytes(3 * MEGABYTE))
    request_id, request = agent.link.open(None)
    request.owed = -(10**9)  # no credit is given back, so that it cannot come to its end
    await agent.link.send(
        request_id, {"op": "read", "path": f"{folder}/file", "offset": 0, "length": 3 * MEGABYTE}
    )

    await agent.link.send(request_id, {"op": "cancel"})
    with pytest.raises(RemoteError, match="ECANCELED"):
        await agent.link.finish(request_id, request, agent.deadline(15))

    await agent.call("ping")


async def test_stat_says_what_a_path_is(agent: Agent, folder: str) -> None:
    """Links are followed unless that is not wanted."""
    await _prepare(agent, folder)

    async def stat(name: str, **fields: bool) -> tuple[object, ...]:
        found = await agent.call("stat", path=f"{folder}/odd/{name}".rstrip("/"), **fields)
        return found["type"], found["path"].removeprefix(f"{folder}/odd")

    assert await stat("") == ("directory", "")
    assert await stat("file") == ("file", "/file")
    assert await stat("fifo") == ("fifo", "/fifo")
    assert await stat("link") == ("file", "/file")
    assert await stat("link", follow=False) == ("symlink", "/link")
    assert await stat("dangling", follow=False) == ("symlink", "/dangling")
    assert await stat("loop", follow=False) == ("symlink", "/loop")
    assert await stat("full/../empty/./../file") == ("file", "/file")
    device = await agent.call("stat", path="/dev/null")
    assert device["type"] == "device"
    content = await agent.call("stat", path=f"{folder}/odd/file")
    assert (content["size"], content["mode"], content["uid"]) == (8, 0o644, agent.facts["uid"])
    assert content["mtime"] > 1_600_000_000


async def test_a_directory_is_listed_with_what_its_entries_are(agent: Agent, folder: str) -> None:
    """Nothing is followed, and a directory without entries is one too."""
    await _prepare(agent, folder)

    entries, reply = await agent.entries(f"{folder}/odd")

    assert {name: entry["type"] for name, entry in entries.items()} == {
        "empty": "directory", "full": "directory", "file": "file", "secret": "file", "fifo": "fifo",
        "loop": "symlink", "link": "symlink", "dangling": "symlink", "trap": "symlink",
    }  # fmt: skip
    assert entries["file"]["size"] == 8
    assert entries["secret"]["mode"] == 0
    assert not reply["truncated"]
    assert (await agent.entries(f"{folder}/odd/empty"))[0] == {}
    assert set((await agent.entries("/"))[0]) >= {"dev", "etc", "home", "proc", "tmp"}


async def test_a_listing_is_cut_off_where_the_caller_wants_it(agent: Agent, folder: str) -> None:
    """And says so, exactly when something is left out."""
    await _prepare(agent, folder)

    two, cut = await agent.entries(f"{folder}/odd/full", limit=2)
    three, whole = await agent.entries(f"{folder}/odd/full", limit=3)

    assert (len(two), cut["truncated"]) == (2, True)
    assert (len(three), whole["truncated"]) == (3, False)


async def test_a_huge_directory_does_not_break_the_window(agent: Agent, folder: str) -> None:
    """As many entries come as fit, and the rest is said to be missing."""
    await agent.write(f"{folder}/file", b"")
    assert (await agent.run(source=behaviours.MAKE_MANY, cwd=folder)).end["code"] == 0

    entries, reply = await agent.entries(f"{folder}/many")

    assert 1000 < len(entries) < behaviours.MANY
    assert reply["truncated"]


async def test_names_may_be_any_bytes(agent: Agent, folder: str) -> None:
    """A newline, a quote, bytes that are no text: listed, read and written like any other."""
    await agent.write(f"{folder}/file", b"")
    assert (await agent.run(behaviours.MAKE_ODD_NAMES, cwd=folder)).stdout == b"ok\n"

    assert set((await agent.entries(f"{folder}/names"))[0]) == set(behaviours.ODD_NAMES)
    for name in behaviours.ODD_NAMES:
        path = f"{folder}/names/{name}"
        written = await agent.write(path, name.encode("utf-8", "surrogateescape"))

        assert (written["path"], written["overwrote"]) == (path, True)
        assert (await agent.read(path))[0] == name.encode("utf-8", "surrogateescape")
        assert (await agent.call("stat", path=path))["path"] == path


_LONG = "x" * 256
_REFUSALS = [
    ("read", "odd/nothing", "ENOENT"),
    ("read", "odd/nothing/file", "ENOENT"),
    ("read", "odd/dangling", "ENOENT"),
    ("read", "odd", "EISDIR"),
    ("read", "/", "EISDIR"),
    ("read", "odd/fifo", "not_regular"),
    ("read", "/dev/zero", "not_regular"),
    ("read", "odd/loop", "ELOOP"),
    ("read", "odd/loop/file", "ELOOP"),
    ("read", "odd/file/file", "ENOTDIR"),
    ("read", "odd/secret", "EACCES"),
    ("read", "/root/secret", "EACCES"),
    ("read", "/root/file", "EACCES"),
    ("read", "/proc/self/environ", "procfs"),
    ("read", "/proc/1/mem", "procfs"),
    ("read", "/dev/../proc/self/environ", "procfs"),
    ("read", "odd/trap/environ", "procfs"),
    ("read", f"odd/{_LONG}", "ENAMETOOLONG"),
    ("write", "odd", "EISDIR"),
    ("write", "/", "EISDIR"),
    ("write", "odd/..", "EISDIR"),
    ("write", "odd/fifo", "not_regular"),
    ("write", "/dev/null", "not_regular"),
    ("write", "odd/loop", "ELOOP"),
    ("write", "odd/file/file", "ENOTDIR"),
    ("write", "odd/file/deeper/file", "ENOTDIR"),
    ("write", "/etc/passwd", "EACCES"),
    ("write", "/etc/new", "EACCES"),
    ("write", "/new", "EACCES"),
    ("write", "/root/new", "EACCES"),
    ("write", "/proc/self/comm", "procfs"),
    ("write", "odd/trap/comm", "procfs"),
    ("write", f"odd/{_LONG}", "ENAMETOOLONG"),
    ("append", "odd", "EISDIR"),
    ("append", "odd/fifo", "not_regular"),
    ("append", "/dev/null", "not_regular"),
    ("append", "odd/loop", "ELOOP"),
    ("append", "odd/file/file", "ENOTDIR"),
    ("append", "/etc/passwd", "EACCES"),
    ("append", "/proc/self/comm", "procfs"),
    ("append", "odd/trap/comm", "procfs"),
    ("append", f"odd/{_LONG}", "ENAMETOOLONG"),
    ("list", "odd/nothing", "ENOENT"),
    ("list", "odd/file", "ENOTDIR"),
    ("list", "odd/fifo", "ENOTDIR"),
    ("list", "odd/loop", "ELOOP"),
    ("list", "/root", "EACCES"),
    ("list", "/proc/self", "procfs"),
    ("list", "odd/trap", "procfs"),
    ("stat", "odd/nothing", "ENOENT"),
    ("stat", "odd/dangling", "ENOENT"),
    ("stat", "odd/loop", "ELOOP"),
    ("stat", "odd/file/file", "ENOTDIR"),
    ("stat", "/root/file", "EACCES"),
    ("stat", "/proc/self/fd", "procfs"),
]


async def test_what_cannot_be_done_with_a_path_is_refused_by_code(agent: Agent, folder: str) -> None:
    """One closed set of codes, none of them a hang, and the agent is well after each."""
    await _prepare(agent, folder)
    found = []

    for op, path, _ in _REFUSALS:
        found.append(
            (op, path, await _refusal(agent, op, path if path.startswith("/") else f"{folder}/{path}"))
        )

    assert found == _REFUSALS
    await agent.call("ping")


@pytest.mark.parametrize("path", ["a\0b", "\ud800"], ids=["nul", "no-bytes"])
async def test_a_path_that_is_none_is_refused_and_no_harm_done(own_agent: Agent, path: str) -> None:
    """The host checks paths; should it forget, the agent lives on."""
    for op in ("read", "write", "stat", "list"):
        with pytest.raises(RemoteError):
            await own_agent.call(op, path=path, length=1, limit=1)

    await own_agent.call("ping")


async def test_file_operations_run_beside_each_other(agent: Agent, folder: str) -> None:
    """Several large ones at a time, up and down at once, each with windows of its own."""
    contents = {f"{folder}/{number}": os.urandom(MEGABYTE) for number in range(4)}

    async def copy(path: str, data: bytes) -> None:
        for _ in range(5):
            await agent.write(path, data)
            assert (await agent.read(path))[0] == data

    with anyio.fail_after(agent.deadline(30)):
        async with anyio.create_task_group() as group:
            for path, data in contents.items():
                group.start_soon(copy, path, data)


# -- helpers --------------------------------------------------------------------------------------


async def _prepare(agent: Agent, folder: str) -> None:
    """Make the directory `odd` with everything in it that is not just a file."""
    await agent.write(f"{folder}/file", b"")
    assert (await agent.run(behaviours.ODD_FILES, cwd=folder)).stdout == b"ok\n"


async def _refusal(agent: Agent, op: str, path: str) -> str:
    try:
        if op in ("write", "append"):
            await agent.write(path, b"content", append=op == "append")
        elif op == "read":
            await agent.read(path, length=100)
        else:
            await agent.call(op, path=path, limit=100)
    except RemoteError as error:
        return error.reason if error.stage == "file" else f"{error.stage}: {error.reason}"
    return "done"


async def _inode(agent: Agent, path: str) -> str:
    """Return what is another one once another file has taken its place."""
    version: str = (await agent.read(path))[1]["version"]
    return version.split("-")[0]


@pytest.mark.parametrize("before", [1, 5, 20])
async def test_the_end_of_a_container_in_the_middle_of_an_upload_is_noticed_soon(
    own_agent: Agent, before: int
) -> None:
    """Docker leaves a connection open on which there is what no container will read any more."""
    link, piece = own_agent.link, bytes(wire.MAX_PAYLOAD)
    request_id, request = link.open(None)
    await link.send(request_id, {"op": "write", "path": f"{own_agent.home}/f", "mode": None})
    for _ in range(before):
        await link.upload(request_id, request, piece, end=False)

    async def upload() -> None:
        with contextlib.suppress(StreamLostError):
            while link.broken is None:
                await link.upload(request_id, request, piece, end=False)

    async with anyio.create_task_group() as group:
        group.start_soon(upload)
        await own_agent.engine.remove(own_agent.container_id)
        with anyio.fail_after(own_agent.deadline(10)):
            assert isinstance(await link.wait_broken(), StreamLostError)
