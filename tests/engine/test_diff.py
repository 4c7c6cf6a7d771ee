"""What has changed in a sandbox, against its start and against snapshots, on real engines."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest
from mcp.client import Client

from pocket_dock_mcp.container.diffing import MAX_FILE_DIFF, MAX_TEXT_BYTES, TreeDiff
from pocket_dock_mcp.engine.base import Engine
from pocket_dock_mcp.errors import (
    CompareError,
    InvalidArgumentError,
    SandboxFileNotFoundError,
    SandboxLostError,
    SandboxNotFoundError,
    SnapshotNotFoundError,
)
from pocket_dock_mcp.manager.core import Manager
from pocket_dock_mcp.manager.sandbox import Owner, Sandbox, SandboxRequest
from pocket_dock_mcp.manager.sweep import INSTANCE_LABEL
from pocket_dock_mcp.settings import Settings
from tests.engines import Target, connect, eventually
from tests.runs import said
from tests.servers import call, client, environment, failure, text

pytestmark = [pytest.mark.anyio, pytest.mark.front]

ALICE = Owner(session="alice's session", principal="alice")
BOB = Owner(session="bob's session", principal="bob")
HOME = "/home/sandbox"


@pytest.fixture
async def manager(target: Target, tmp_path: Path) -> AsyncIterator[Manager]:
    async with Manager(Settings(state_dir=tmp_path, pool_mb=0), lambda: connect(target)) as manager:
        yield manager


@pytest.fixture
async def sandbox(manager: Manager, image: str) -> Sandbox:
    return await manager.create(ALICE, SandboxRequest(image=image), print)


async def sh(sandbox: Sandbox, command: str) -> None:
    (await sandbox.container.run(command)).check()


async def helpers(engine: Engine, manager: Manager, sandbox: Sandbox) -> list[str]:
    """Return the containers of this manager that are no sandbox."""
    assert manager._access.journal is not None
    found = await engine.containers(f"{INSTANCE_LABEL}={manager._access.journal.instance}")
    return [state.name for state in found if state.name != sandbox.container.name]


async def nothing_of_it_is_left(engine: Engine, manager: Manager, sandbox: Sandbox) -> None:
    async def gone() -> bool:
        return not await helpers(engine, manager, sandbox)

    await eventually(gone, within=20)


def told(found: TreeDiff) -> list[tuple[str, str]]:
    return [(change.change[0], change.path) for change in found.changes]


async def test_one_changed_one_deleted_one_added_and_nothing_else(
    engine: Engine, manager: Manager, sandbox: Sandbox
) -> None:
    await sh(
        sandbox, "echo 1 > kept; echo old > changed; echo bye > deleted; echo same > touched; echo t > twin"
    )
    _, snapshot = await manager.snapshot(ALICE, None, "")
    await sh(
        sandbox, "echo new > changed; rm deleted; echo hello > added; touch touched; cp -p twin x; mv x twin"
    )

    _, since_snapshot = await manager.diff(ALICE, None, since=snapshot.id)
    _, since_start = await manager.diff(ALICE, None)
    await manager.delete_snapshot(ALICE, snapshot.id)

    assert told(since_snapshot) == [
        ("m", f"{HOME}/changed"),
        ("c", f"{HOME}/added"),
        ("d", f"{HOME}/deleted"),
    ]
    assert since_snapshot.counts == (1, 1, 1)
    assert since_snapshot.diff == (
        f"--- {HOME}/changed\n+++ {HOME}/changed\n@@ -1 +1 @@\n-old\n+new\n"
        f"--- /dev/null\n+++ {HOME}/added\n@@ -0,0 +1 @@\n+hello\n"
        f"--- {HOME}/deleted\n+++ /dev/null\n@@ -1 +0,0 @@\n-bye\n"
    )
    assert (since_snapshot.diff_truncated, since_snapshot.unreadable, since_snapshot.unchecked) == (
        False,
        0,
        0,
    )
    new = ("added", "changed", "kept", "touched", "twin")
    assert told(since_start) == [("c", f"{HOME}/{name}") for name in new]
    await nothing_of_it_is_left(engine, manager, sandbox)
    assert manager._access.journal is not None
    assert set(manager._access.journal._live) == {sandbox.container.name}


async def test_a_fresh_sandbox_has_not_changed_and_neither_has_one_of_a_snapshot(
    manager: Manager, sandbox: Sandbox
) -> None:
    _, fresh = await manager.diff(ALICE, None)
    await sh(sandbox, "mkdir -p d; echo 1 > d/f")
    _, snapshot = await manager.snapshot(ALICE, None, "")
    other = await manager.create(ALICE, SandboxRequest(image="", snapshot=snapshot.id), print)
    await manager.delete_snapshot(ALICE, snapshot.id)
    _, again = await manager.diff(ALICE, other.id)
    await sh(other, "echo 2 >> d/f")
    _, changed = await manager.diff(ALICE, other.id)

    assert fresh == again == TreeDiff((), (0, 0, 0), "", diff_truncated=False, unreadable=0, unchecked=0)
    assert told(changed) == [("m", f"{HOME}/d/f")]
    assert changed.diff.endswith("@@ -1 +1,2 @@\n 1\n+2\n")
    await manager.kill(ALICE, other.id)


async def test_a_snapshot_of_somebody_else_of_another_uid_compares_or_is_not_there(
    manager: Manager, sandbox: Sandbox, image: str
) -> None:
    await sh(sandbox, "echo 1 > both; echo 2 > mine")
    other = await manager.create(ALICE, SandboxRequest(image=image), print)
    await sh(other, "echo 1 > both; echo 3 > theirs")
    _, snapshot = await manager.snapshot(ALICE, other.id, "")
    bobs = await manager.create(BOB, SandboxRequest(image=image), print)

    _, found = await manager.diff(ALICE, sandbox.id, since=snapshot.id)

    assert told(found) == [("c", f"{HOME}/mine"), ("d", f"{HOME}/theirs")]
    with pytest.raises(SnapshotNotFoundError):
        await manager.diff(BOB, bobs.id, since=snapshot.id)
    with pytest.raises(SnapshotNotFoundError):
        await manager.diff(BOB, bobs.id, since="yesterday")
    with pytest.raises(SandboxNotFoundError):
        await manager.diff(BOB, sandbox.id)
    await manager.delete_snapshot(ALICE, snapshot.id)


async def test_what_is_no_text_is_told_as_what_it_is(manager: Manager, sandbox: Sandbox) -> None:
    await sh(
        sandbox,
        "echo x > mode; echo x > type; ln -s a link; mkfifo fifo; mkdir -p full/of empty;"
        "echo f > full/of/it;"
        r"printf 'a\0b' > binary; mkdir gone",
    )
    await sh(
        sandbox,
        r"""printf 'line\n' > "$(printf 'odd \n\377 name')"; chmod 600 mode;"""
        "head -c 600000 /dev/zero > large",
    )
    _, found = await manager.diff(ALICE, None, path="~")

    by_name = {change.path.removeprefix(f"{HOME}/"): change for change in found.changes}
    assert set(by_name) == {
        "mode", "type", "link", "fifo", "full/of/it", "empty", "binary", "gone", "large", "odd \n\udcff name",
    }  # fmt: skip
    assert (by_name["link"].type, by_name["link"].notes) == ("symlink", ("to a",))
    assert by_name["fifo"].type == "fifo"
    assert by_name["empty"].type == "directory"
    assert by_name["binary"].notes == ("binary",)
    assert (by_name["large"].size, by_name["large"].notes) == (600_000, ("too large for a text diff",))
    assert (found.too_large, found.diff_truncated) == (1, False)
    assert f"+++ {HOME}/odd \\n\\xff name\n@@ -0,0 +1 @@\n+line\n" in found.diff


async def test_modes_types_and_targets_are_told(manager: Manager, sandbox: Sandbox) -> None:
    await sh(sandbox, r"echo x > mode; echo x > type; ln -s a link; printf 'a\0b' > bin; mkdir d")
    _, snapshot = await manager.snapshot(ALICE, None, "")
    await sh(
        sandbox, r"chmod 600 mode; rm type; mkdir type; ln -sfn b link; printf 'a\0c' > bin; chmod 700 d"
    )
    _, found = await manager.diff(ALICE, None, since=snapshot.id)
    await manager.delete_snapshot(ALICE, snapshot.id)

    assert [
        (change.path.removeprefix(f"{HOME}/"), change.type, change.notes) for change in found.changes
    ] == [
        ("bin", "file", ("binary",)),
        ("d", "directory", ("mode 755 is now 700",)),
        ("link", "symlink", ("to b", "was to a")),
        ("mode", "file", ("mode 644 is now 600",)),
        ("type", "directory", ("was a file",)),
    ]
    assert found.diff == f"--- {HOME}/type\n+++ /dev/null\n@@ -1 +0,0 @@\n-x\n"


async def test_a_path_narrows_it_and_must_be_there(manager: Manager, sandbox: Sandbox) -> None:
    await sh(sandbox, "mkdir a b; echo 1 > a/f; echo 2 > b/f; echo 3 > /tmp/f")

    paths = {}
    for path in ("~/b/f", "a/../b/", "/tmp"):
        paths[path] = [change.path for change in (await manager.diff(ALICE, None, path=path))[1].changes]

    assert paths == {
        "~/b/f": [f"{HOME}/b/f"],
        "a/../b/": [f"{HOME}/b/f"],
        "/tmp": ["/tmp/f"],
    }
    with pytest.raises(SandboxFileNotFoundError):
        await manager.diff(ALICE, None, path="nowhere")
    for path in ("", "a\0b", "x" * 5000):
        with pytest.raises(InvalidArgumentError):
            await manager.diff(ALICE, None, path=path)
    # What is no part of the files has no changes.
    assert (await manager.diff(ALICE, None, path="/proc/self"))[1].changes == ()


async def test_a_path_through_links_leads_to_one_place_or_is_refused(
    manager: Manager, sandbox: Sandbox
) -> None:
    await sh(sandbox, "mkdir D x; echo 1 > D/a; echo 2 > x/f; ln -s x same")
    _, snapshot = await manager.snapshot(ALICE, None, "")
    await sh(
        sandbox, "mv D E; ln -s E D; echo 3 > x/f; ln -s /tmp tl; echo 4 > /tmp/t; rm same; ln -s x same"
    )

    paths = {}
    for path in ("same/f", "tl/t", "D", "/proc/self/status"):
        paths[path] = told((await manager.diff(ALICE, None, since=snapshot.id, path=path))[1])
    with pytest.raises(CompareError, match=f"'{HOME}/D' is or was a symbolic link") as raised:
        await manager.diff(ALICE, None, since=snapshot.id, path="D/a")
    await manager.delete_snapshot(ALICE, snapshot.id)

    assert paths == {
        "same/f": [("m", f"{HOME}/x/f")],
        "tl/t": [("c", "/tmp/t")],
        "D": [("m", f"{HOME}/D"), ("d", f"{HOME}/D/a")],
        "/proc/self/status": [],
    }
    assert raised.value.hint == f"Give one of these paths instead: '{HOME}/D', '{HOME}/E/a'."
    with pytest.raises(SandboxFileNotFoundError):
        await manager.diff(ALICE, None, path="tl/nowhere")


async def test_what_does_not_show_stands_escaped_and_is_seen_to_differ(
    manager: Manager, sandbox: Sandbox
) -> None:
    script = r"""
import os, socket
os.mkdir("n"); open("ends", "w", newline="").write("a\r\nb\n")
open("n/t\t\u202e\x1b[1m", "w").write("x\x1b[2J\u202e\rfake\n")
socket.socket(socket.AF_UNIX).bind("sock")
"""
    (await sandbox.container.run(script, language="python")).check()
    _, found = await manager.diff(ALICE, None, path="n")
    _, snapshot = await manager.snapshot(ALICE, None, "")
    _, unchanged = await manager.diff(ALICE, None, since=snapshot.id)
    await sh(sandbox, r"printf 'a\nb\n' > ends")
    _, ends = await manager.diff(ALICE, None, since=snapshot.id)
    await manager.delete_snapshot(ALICE, snapshot.id)

    assert found.diff == (
        f"--- /dev/null\n+++ {HOME}/n/t\\t\\u202e\\x1b[1m\n@@ -0,0 +1 @@\n+x\\x1b[2J\\u202e\\rfake\n"
    )
    assert unchanged.counts == (0, 0, 0)
    assert ends.diff.endswith("@@ -1,2 +1,2 @@\n-a\\r\n+a\n b\n")


async def test_a_path_that_no_call_can_name_is_told(manager: Manager, sandbox: Sandbox) -> None:
    dig = "import os\nfor _ in range(25): os.mkdir('d' * 200); os.chdir('d' * 200)\nopen('f', 'w').write('x')"
    (await sandbox.container.run(dig, language="python")).check()

    _, found = await manager.diff(ALICE, None)

    assert [change.notes for change in found.changes] == [("its path is too long to be opened",)]


async def test_thousands_of_files_are_counted_and_the_first_told(manager: Manager, sandbox: Sandbox) -> None:
    await sh(sandbox, "mkdir many; cd many; seq 5000 | xargs touch")
    deep = "d/" * 300
    await sh(sandbox, f"mkdir -p {deep}; echo bottom > {deep}f")

    _, found = await manager.diff(ALICE, None, max_paths=50)
    _, cut = await manager.diff(ALICE, None, path="d", max_diff=10)

    assert found.counts == (0, 5_001, 0)
    assert [change.path for change in found.changes[:3]] == [
        f"{HOME}/{deep}f",
        f"{HOME}/many/1",
        f"{HOME}/many/10",
    ]
    assert (len(found.changes), found.diff_truncated) == (50, True)
    assert (cut.diff, cut.diff_truncated) == ("", True)


async def test_a_long_diff_is_cut_and_says_so(manager: Manager, sandbox: Sandbox) -> None:
    await sandbox.container.write_file("long", "".join(f"line {n}\n" for n in range(20_000)))
    await sandbox.container.write_file("short", "end\n")
    assert MAX_TEXT_BYTES > 20_000 * 10

    _, found = await manager.diff(ALICE, None)

    assert found.diff_truncated
    assert MAX_FILE_DIFF // 2 < len(found.diff) < MAX_FILE_DIFF + 500
    assert found.diff.endswith(f"...\n--- /dev/null\n+++ {HOME}/short\n@@ -0,0 +1 @@\n+end\n")


async def test_what_may_not_be_read_is_counted(manager: Manager, sandbox: Sandbox) -> None:
    await sh(sandbox, "mkdir shut; echo 1 > shut/f; chmod 000 shut; echo secret > s; chmod 000 s")

    _, found = await manager.diff(ALICE, None)

    assert [(change.path, change.notes) for change in found.changes] == [
        (f"{HOME}/s", ("could not be read",)),
        (f"{HOME}/shut", ()),
    ]
    assert found.unreadable == 1


async def test_files_that_change_meanwhile_do_no_harm(manager: Manager, sandbox: Sandbox) -> None:
    writer = (
        "import os\nn=0\nwhile True:\n n+=1\n p=f'w{n%50}'\n os.path.isdir(p) and os.rmdir(p)\n"
        " open(p,'w').write('x'*n)\n n%3 or os.remove(p)\n n%3 or os.mkdir(p)"
    )
    await sh(sandbox, "echo 1 > steady")
    run = await sandbox.container.start(writer, language="python")

    for _ in range(2):
        _, found = await manager.diff(ALICE, None)
        assert ("c", f"{HOME}/steady") in told(found)
    await run.kill()
    run.close()


async def test_a_sandbox_that_lies_gets_an_error_and_no_more(manager: Manager, sandbox: Sandbox) -> None:
    killer = (
        "import os,signal\nprint('ready', flush=True)\n"
        "while True:\n for p in filter(str.isdigit, os.listdir('/proc')):\n"
        "  try:\n   if int(p) != os.getpid(): os.kill(int(p), 9)\n"
        "  except OSError: pass"
    )
    await sandbox.container.write_file("killer.py", killer)
    run = await sandbox.container.start("exec python3 killer.py", timeout_s=60)
    await said(run, "ready")

    with pytest.raises(CompareError):
        await manager.diff(ALICE, None)
    await run.kill()
    run.close()
    assert (await manager.diff(ALICE, None))[1].counts == (0, 1, 0)


async def test_nothing_is_left_of_one_that_is_cancelled_or_whose_sandbox_dies(
    engine: Engine, manager: Manager, sandbox: Sandbox
) -> None:
    await manager.diff(ALICE, None)
    for delay in (0.05, 0.25, 0.45):
        with anyio.move_on_after(delay):
            await manager.diff(ALICE, None)
    await nothing_of_it_is_left(engine, manager, sandbox)

    async with anyio.create_task_group() as group:
        group.start_soon(_diff_until_lost, manager, sandbox)
        await engine.remove(sandbox.container._running.id)

    await nothing_of_it_is_left(engine, manager, sandbox)


async def _diff_until_lost(manager: Manager, sandbox: Sandbox) -> None:
    while True:
        try:
            await manager.diff(ALICE, sandbox.id)
        except SandboxLostError:
            return


async def test_a_model_reads_it(target: Target, tmp_path: Path, image: str) -> None:
    async with client(environment(target, tmp_path, image)) as server:
        await call(server, "create_sandbox")
        assert text(await server.call_tool("diff", {})) == "Since start: 0 modified, 0 created, 0 deleted."
        await call(
            server, "run_command", command=r'''echo hi > a; printf '\033[2J' > "$(printf 'b\nC a (2)\033')"'''
        )
        await _reads(server)
        await call(server, "kill", snapshot_id=(await call(server, "snapshot"))["snapshot_id"])
        assert "snapshot_not_found" in await failure(server, "diff", since="snap-" + "0" * 32)


async def _reads(server: Client) -> None:
    result = await server.call_tool("diff", {})
    lines = text(result).splitlines()
    assert lines[0] == "Since start: 0 modified, 2 created, 0 deleted."
    mark = lines[1].split()[2]
    assert lines[1:5] == [
        f"--- changed {mark} ---",
        f"C {HOME}/a (3)",
        f"C {HOME}/b\\nC a (2)\\x1b (4, escaped)",
        f"--- end {mark} ---",
    ]
    assert "\x1b" not in text(result)
    assert result.structured_content is not None
    assert result.structured_content["counts"] == [0, 2, 0]
    assert [one["escaped"] for one in result.structured_content["created"]] == [False, True]
