"""What a container can be asked for, and that it gets it: on real engines. No defect of the seed is ours."""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from pocket_dock_mcp.async_ import (
    AsyncContainer,
    ContainerInfo,
    ContainerNotRunning,
    ImageNotFound,
    create_new_container,
    destroy_container,
    list_containers,
    resume_container,
)
from pocket_dock_mcp.async_.host import Host
from pocket_dock_mcp.engine.base import Engine
from pocket_dock_mcp.errors import FileError, InvalidArgumentError
from pocket_dock_mcp.models import MIB
from tests.engines import Target, eventually, is_gone, remove_image
from tests.sdk import hosted, prepare

pytestmark = [pytest.mark.anyio, pytest.mark.front]

EXACT = [
    "",
    " ",
    "a b",
    "$HOME",
    "`id`",
    "it's",
    '"',
    "\\",
    "a\nb",
    "-n",
    "--",
    "*",
    "~",
    "a=b",
    "é",
    "\udcff",
]
FIXED = (
    "name",
    "uid",
    "memory_limit_bytes",
    "disk_limit_bytes",
    "limits",
    "network",
    "project",
    "sandbox_id",
)


@pytest.fixture(autouse=True)
async def host(
    target: Target, image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Host]:
    prepare(monkeypatch, target, image, tmp_path / "state")
    async with hosted(target) as host:
        yield host


@pytest.fixture
def name() -> str:
    return f"sdk-{secrets.token_hex(6)}"


async def test_every_option_holds_and_a_fresh_reboot_keeps_them_all(
    target: Target, engine: Engine, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Those have a root directory of their own, without ours.
    has_our_files = not target.name.endswith("-next")
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / "given").write_text("from the host")
    monkeypatch.chdir(tmp_path)
    c = await create_new_container(
        name=name,
        mem_limit="96m",
        cpu_percent=50,
        pids_limit=40,
        disk_limit="64m",
        shm_size="2m",
        user=4242,
        env={"GREETING": "hello"},
        workdir="work/here",
        labels={"team": "blue", "org.example/note": "a b"},
        project="tests",
        timeout=math.inf,
        volumes={"shared": "/mnt/shared:ro"} if has_our_files else None,
        ports={0: 8000},
    )
    async with c:
        before = await check(c.name, engine)
        await c.write_file("here-before", "x")
        first = await seen(c)
        assert first == {
            "uid": "4242",
            "pwd": f"{c.home}/work/here",
            "greeting": "hello",
            "shm": "2048",
            "shared": "from the host" if has_our_files else "",
        }
        info = await c.info()
        assert (info.limits.cpus, info.limits.pids) == (0.5, 40)
        assert (info.memory_limit, info.disk_limit_bytes) == ("96 MB", 64 * MIB)
        assert list(info.ports.values()) == [8000]

        await c.reboot(fresh=True)

        assert c.name == name
        again = await c.info()
        assert {field: getattr(again, field) for field in FIXED} == {
            field: getattr(info, field) for field in FIXED
        }
        assert again.id != info.id
        assert again.ports == info.ports
        assert "here-before" not in await c.list_files()
        await c.run(["mkdir", "-p", "work/here"], cwd=c.home)
        assert await seen(c) == first
        assert await check(c.name, engine) == before


async def check(name: str, engine: Engine) -> dict[str, str]:
    """Return the labels that were asked for of the container of that name."""
    labels = (await engine.inspect(name)).labels
    return {key: value for key, value in labels.items() if key in ("team", "org.example/note")}


async def seen(c: AsyncContainer) -> dict[str, str]:
    """Return what programs in a container see of its options."""
    result = await c.run(
        'id -u; pwd; echo "$GREETING"; df -k /dev/shm | tail -n 1 | tr -s " " | cut -d " " -f 2; '
        "cat /mnt/shared/given || echo"
    )
    assert result.ok, result.stderr
    names = ("uid", "pwd", "greeting", "shm", "shared")
    return dict(zip(names, result.stdout.splitlines(), strict=True))


async def test_a_snapshot_is_an_image_to_begin_with_and_has_nothing_of_its_maker(
    engine: Engine, name: str
) -> None:
    async with await create_new_container(name=name, labels={"team": "blue"}, env={"SECRET": "s3cret"}) as c:
        await c.write_file("tools/t", "old")
        image_id = await c.snapshot(name)
        with pytest.raises(InvalidArgumentError, match="no name for an image"):
            await c.snapshot("Not A Name")
    try:
        image = await engine.image(image_id)
        assert image.labels.get("team", "") == ""
        place = "localhost/" if engine.info.kind == "podman" else ""
        assert list(image.tags) == [f"{place}{name}:latest"]
        async with await create_new_container(image=name) as c:
            assert (await c.run("echo new >tools/t; cat tools/t; echo $SECRET")).stdout == "new\n\n"
    finally:
        await remove_image(engine, image_id)


async def test_arguments_arrive_exactly_and_endings_are_the_programs_own() -> None:
    async with await create_new_container() as c:
        result = await c.run(["printf", "%s\\0", *EXACT])
        assert result.stdout == "".join(f"{one}\0" for one in EXACT).encode(
            "utf-8", "surrogateescape"
        ).decode("utf-8", "replace")
        assert (await c.run(["sh", "-c", "kill -15 $$"])).signal == 15
        assert (await c.run(["sh", "-c", "exit 7"])).exit_code == 7
        assert (await c.run(["no-such-program"])).exit_code == 127
        assert (await c.run(["cat"], stdin="in\n")).stdout == "in\n"
        assert (await c.run("1 + 1", lang="python")).value == "2"
        long = await c.run("import sys; print(len(sys.argv))\n" + "#" * 200_000, lang="python")
        assert long.stdout == "1\n"


async def test_bash_is_bash_and_a_shell_is_the_images_own() -> None:
    array = "a=(one 'it is'); echo \"${a[1]}\"; exit ${#a[@]}"
    async with await create_new_container() as c:
        done = await c.run(array, lang="bash")
        assert (done.stdout, done.exit_code) == ("it is\n", 2)
        assert (await c.run("kill -15 $$", lang="Bash")).signal == 15
        assert (await c.run("cat", lang="bash", stdin="in\n")).stdout == "in\n"
        for lang in ("sh", "shell", None):
            assert (await c.run("echo ${BASH_VERSION:-none}", lang=lang)).stdout == "none\n"
        async with await c.session(lang="bash") as session:
            assert (await session.send_and_wait("a=(1 2)")).ok
            assert (await session.send_and_wait("echo ${a[1]}")).stdout == "2\n"
        # As where there is none.
        absent = await c.run("true", lang="bash", env={"PATH": "/nowhere"})
        assert absent.exit_code == 127
        assert "bash" in absent.stderr
        assert "not found" in absent.stderr
        with pytest.raises(InvalidArgumentError, match="empty"):
            await c.run(" ", lang="bash")


async def test_a_cap_on_output_does_not_change_how_a_program_ends() -> None:
    async with await create_new_container() as c:
        result = await c.run("yes | head -c 3000000; exit 3", max_output=1000)
        assert (result.truncated, result.ok, result.exit_code) == (True, False, 3)
        assert result.stdout_bytes == 3_000_000
        assert len(result.stdout.encode()) < 1500
        endless = await c.run("yes", max_output=1000, timeout=0.5)
        assert (endless.truncated, endless.timed_out, endless.ok) == (True, True, False)
        assert endless.stdout.startswith("y\ny\n")
        assert await c.processes() == []


async def test_files_that_are_written_belong_to_the_user_of_the_container() -> None:
    async with await create_new_container() as c:
        await c.write_file("script", "#!/bin/sh\necho ran\n", mode=0o755)
        assert (await c.run("echo '# more' >>script && ./script")).stdout == "ran\n"


async def test_trees_go_in_and_out_with_their_modes(tmp_path: Path) -> None:
    tree = tmp_path / "src"
    (tree / "deep").mkdir(parents=True)
    (tree / "deep/script.sh").write_text("#!/bin/sh\necho pushed\n")
    (tree / "deep/script.sh").chmod(0o755)
    async with await create_new_container() as c:
        seen: list[object] = []
        pushed = await c.push(f"{tree}/", "there/", on_progress=seen.append)
        assert (pushed.files, pushed.skipped_count) == (1, 0)
        assert seen
        (listed,) = (await c.run("find . -name script.sh")).stdout.splitlines()
        assert (await c.run([listed])).stdout == "pushed\n"
        pulled = await c.pull(listed, tmp_path / "back")
        assert pulled.files == 1
        assert (tmp_path / "back").read_text() == "#!/bin/sh\necho pushed\n"
        with pytest.raises(FileNotFoundError):
            await c.push(tmp_path / "nothing", "x")
        with pytest.raises(FileNotFoundError):
            await c.pull("nothing", tmp_path / "x")
        with pytest.raises(InvalidArgumentError, match="terminal"):
            await c.shell()


async def test_nothing_has_a_network_unless_it_asks_and_info_needs_no_ps(image: str) -> None:
    async with await create_new_container() as c:
        running = await c._live.start("exec sleep 60")
        info = await c.info()
        assert isinstance(info, ContainerInfo)
        assert info.image == next(one.image for one in await list_containers() if one.name == c.name)
        assert info.image == image
        assert (info.network, info.ip_address, info.status) == (False, "", "running")
        assert [process["COMMAND"] for process in info.processes] == ["sleep 60"]
        assert info.memory_usage.endswith(" MB")
        assert info.memory_usage_bytes is not None
        assert 0 < info.memory_usage_bytes < info.memory_limit_bytes
        assert info.started_at is not None
        assert abs((info.started_at - info.created_at).total_seconds()) < 60
        await running.kill()
        running.close()


async def test_an_end_does_not_wait_for_what_ignores_signals(target: Target, name: str) -> None:
    kept = await create_new_container(name=name, persist=True)
    run = await kept._live.start("trap '' TERM INT HUP; sleep 600")
    began = time.monotonic()
    await kept.shutdown()
    assert time.monotonic() - began < 9 * target.slowness, "the seed needed ten seconds and more"
    run.close()
    with pytest.raises(ContainerNotRunning):
        await kept.run("true")
    # Looking at it does not start it.
    (item,) = await list_containers()
    assert item.status == "stopped"
    await destroy_container(name)


async def test_an_end_is_quiet_when_somebody_else_has_removed_the_container(engine: Engine) -> None:
    for force in (False, True):
        c = await create_new_container()
        await engine.remove(c.container_id)
        await c.shutdown(force=force)
        await c.shutdown(force=force)


async def test_a_create_that_fails_leaves_nothing_and_frees_its_name(engine: Engine, name: str) -> None:
    with pytest.raises(FileError, match="/proc/here"):
        await create_new_container(name=name, workdir="/proc/here")
    with pytest.raises(ImageNotFound):
        await create_new_container(name=name, image="localhost/nobody-has-this:1")
    await eventually(lambda: is_gone(engine, name), within=15)
    assert await list_containers() == []
    with anyio.fail_after(20):
        async with await create_new_container(name=name) as c:
            assert c.name == name


async def test_what_nobody_uses_ends_by_itself(engine: Engine) -> None:
    c = await create_new_container(idle_timeout=1)
    await c.run("sleep 1.5")
    assert (await c.run("true")).ok, "it is not idle while something runs"
    container_id = c.container_id
    await eventually(lambda: is_gone(engine, container_id), within=20)
    await c.shutdown()


async def test_a_persistent_one_comes_back_with_its_options(name: str) -> None:
    c = await create_new_container(
        name=name, persist=True, user=4242, workdir="work", env={"A": "1"}, labels={"x": "y"}, mem_limit="80m"
    )
    before = await c.info()
    await c.shutdown()
    c = await resume_container(name)
    try:
        assert (await c.run('pwd; id -u; echo "$A"')).stdout == f"{c.home}/work\n4242\n1\n"
        after = await c.info()
        assert {field: getattr(after, field) for field in FIXED} == {
            field: getattr(before, field) for field in FIXED
        }
        assert after.created_at == before.created_at
        await c.reboot(fresh=True)
        assert (await c.run("ls", cwd="/")).ok
    finally:
        await destroy_container(name)


async def test_root_and_labels_of_ours_are_refused(name: str) -> None:
    for options, says in (
        ({"user": 0}, "root"),
        ({"user": 7}, "1000"),
        ({"labels": {"pocket-dock.nonce": "x"}}, "ours"),
        ({"labels": {'a" b': "x"}}, "label"),
        ({"labels": {"a": 1}}, "string"),
        ({"name": "-x"}, "name"),
        ({"name": "a" * 64}, "name"),
        ({"name": "a/b"}, "name"),
    ):
        with pytest.raises(InvalidArgumentError, match=says):
            await create_new_container(**options)
