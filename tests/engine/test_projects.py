"""Containers of a project: what its file decides for them, and what is kept of what is done in them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from pocket_dock_mcp.async_ import (
    AsyncContainer,
    create_new_container,
    destroy_container,
    resume_container,
    stop_container,
)
from pocket_dock_mcp.async_.host import Host, settings_for
from pocket_dock_mcp.diagnosis.project import mend, survey, told
from pocket_dock_mcp.manager.core import Manager
from pocket_dock_mcp.manager.observing import PATIENCE
from pocket_dock_mcp.manager.sandbox import LOCAL_PRINCIPAL, Owner, SandboxRequest
from pocket_dock_mcp.models import MIB
from pocket_dock_mcp.projects import get_project_name, init_project
from pocket_dock_mcp.projects.instances import (
    InstanceMetadata,
    ensure_instance_dir,
    list_instance_dirs,
    read_instance_metadata,
    write_instance_metadata,
)
from pocket_dock_mcp.projects.outputs import read_output
from pocket_dock_mcp.projects.runlog import LogPolicy, RunLog
from tests.engines import Target, connect, eventually, unique
from tests.sdk import hosted, prepare

pytestmark = [pytest.mark.anyio, pytest.mark.front]

OWNER = Owner(session="s", principal=LOCAL_PRINCIPAL)


@pytest.fixture
def root(target: Target, image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the project that the test is in; its engine is the one under test."""
    prepare(monkeypatch, target, image, tmp_path / "state")
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    root = init_project(tmp_path / "demo")
    (root / "below").mkdir()
    monkeypatch.chdir(root / "below")
    return root


@pytest.fixture
async def host(root: Path, target: Target) -> AsyncIterator[Host]:
    async with hosted(target) as host:
        yield host


def configure(root: Path, text: str) -> None:
    (root / ".pocket-dock" / "pocket-dock.yaml").write_text(text)


def history(directory: Path) -> list[dict[str, Any]]:
    return RunLog(directory, LogPolicy()).entries()


def output(directory: Path, entry: dict[str, Any]) -> bytes:
    path = RunLog(directory, LogPolicy()).output_path(entry)
    return b"" if path is None else b"".join(data for _, data in read_output(path))


async def facts(box: AsyncContainer) -> tuple[str, str, str]:
    said = await box.run("echo $WHO; cat /sys/class/net/*/operstate | wc -l; pwd")
    who, links, where = said.stdout.split()
    return who, links, where


async def test_a_container_gets_what_its_project_says(root: Path, host: Host) -> None:
    configure(
        root,
        "project_name: demo\ndefault_persist: true\n"
        "containers: {mem_limit: 96m, cpu_percent: 50, idle_timeout: 77, env: {WHO: project, A: b}}\n",
    )
    box = await create_new_container(env={"A": "mine"})
    try:
        info = await box.info()
        said = await box.run('echo "$WHO $A"')
        sandbox = host.manager.get(host.owner, box.sandbox_id)

        assert (info.memory_limit_bytes, sandbox.request.limits.cpus) == (96 * MIB, 0.5)
        assert (box.persist, box.project, said.stdout) == (True, "demo", "project mine\n")
        assert sandbox.request.idle_ttl_s == 77
        assert box.data_path == root / ".pocket-dock" / "instances" / box.name / "data"
        assert box.data_path.is_dir()
    finally:
        await destroy_container(box.name)
    assert list_instance_dirs(root) == []


async def test_what_its_maker_says_outweighs_the_project(root: Path, host: Host) -> None:
    configure(root, "default_persist: true\ncontainers: {mem_limit: 96m, cpu_percent: 50, network: open}\n")
    async with await create_new_container(
        persist=False, mem_limit="128m", cpu_percent=70, network=False, project="other"
    ) as box:
        sandbox = host.manager.get(host.owner, box.sandbox_id)

        assert (sandbox.request.limits.memory_bytes, sandbox.request.limits.cpus) == (128 * MIB, 0.7)
        assert (sandbox.request.network, box.persist, box.project) == ("none", False, "other")
        # It is listed with another project, and leaves nothing in this one.
        assert (box.data_path, list_instance_dirs(root)) == (None, [])


async def test_a_network_and_a_profile_may_be_the_projects(
    root: Path, target: Target, image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("POCKET_DOCK_PROFILE")
    configure(root, f"default_profile: '{image}'\ncontainers: {{network: open}}\n")
    async with hosted(target) as host, await create_new_container() as box:
        request = host.manager.get(host.owner, box.sandbox_id).request

        assert (request.image, request.network) == (image, "open")


async def test_what_is_on_record_of_it(root: Path, host: Host, image: str) -> None:
    async with await create_new_container() as box:
        (directory,) = list_instance_dirs(root)
        metadata = read_instance_metadata(directory)
        assert metadata is not None
        assert (metadata.name, metadata.project, metadata.image) == (box.name, "demo", image)
        assert (metadata.container_id, metadata.sandbox_id) == (box.container_id, box.sandbox_id)
        assert (metadata.persist, metadata.pid) == (False, os.getpid())
    assert list_instance_dirs(root) == []


async def test_every_run_is_in_its_history_with_its_output(root: Path, host: Host) -> None:
    secret = "hunter2-in-the-environment"
    async with await create_new_container(env={"TOKEN": secret}) as box:
        (directory,) = list_instance_dirs(root)
        await box.run("echo out; echo err >&2; exit 3", env={"MORE": secret}, stdin=secret)
        await box.run(["printf", "%s", "a b"])
        await box.run("sleep 60", timeout=0.3)
        await box.run("export PASSWORD=letmein; true")
        await box.run("print(6 * 7)", lang="python")
        entries = history(directory)

        assert [(entry["type"], entry["status"], entry["exit_code"]) for entry in entries] == [
            ("run", "nonzero", 3),
            ("run", "ok", 0),
            ("run", "timeout", None),
            ("run", "ok", 0),
            ("run", "ok", 0),
        ]
        assert entries[1]["command"] == "exec printf %s 'a b'"
        assert (entries[2]["timed_out"], entries[2]["duration_ms"] >= 300) == (True, True)
        assert sorted(output(directory, entries[0]).split()) == [b"err", b"out"]
        assert output(directory, entries[1]) == b"a b"
        assert output(directory, entries[4]) == b"42\n"
        everything = b"".join(path.read_bytes() for path in directory.rglob("*") if path.is_file())
        assert secret.encode() not in everything
        assert b"letmein" not in everything


async def test_what_we_do_ourselves_is_nobodys_run(root: Path, host: Host) -> None:
    async with await create_new_container(workdir="work/dir") as box:
        (directory,) = list_instance_dirs(root)
        await box.write_file("a", "b")
        await box.list_files(".")

        assert history(directory) == []


async def test_runs_begun_by_the_manager_are_told_apart(root: Path, host: Host) -> None:
    async with await create_new_container() as box:
        (directory,) = list_instance_dirs(root)
        sandbox = host.manager.get(host.owner, box.sandbox_id)
        with sandbox.use() as live:
            await (
                await sandbox.runs.start("x = 1", key=None, background=False, language="python", session="s")
            ).run.wait()
            run = await sandbox.runs.start(
                "echo begun; read line", key=None, background=True, keep_stdin=True
            )
            streamed = await live.start("echo live", meta={"kind": "stream"})
            await streamed.wait()

            async def has_begun() -> bool:
                return b"begun" in output(directory, history(directory)[1])

            await eventually(has_begun, within=10)
            running = history(directory)[1]
            assert (running["type"], running["status"]) == ("detach", "running")
            await run.write_stdin("end\n", end=True)

            async def has_ended() -> bool:
                return bool(history(directory)[1]["status"] == "ok")

            # Nobody waits for it.
            await eventually(has_ended, within=10)
        assert [entry["type"] for entry in history(directory)] == ["session", "detach", "stream"]


async def test_each_way_to_run_something_is_told_apart(root: Path, host: Host) -> None:
    async with await create_new_container() as box:
        (directory,) = list_instance_dirs(root)
        await box.run("echo 1")
        streamed = await box.run("echo 2", stream=True)
        assert [chunk.data async for chunk in streamed] == ["2\n"]
        detached = await box.run("echo 3; exit 7", detach=True)
        await detached.wait()
        async with await box.session() as session:
            await session.send_and_wait("echo 4")
        left = await box.run("sleep 600", detach=True)
        assert await left.is_running()

        async def is_told() -> bool:
            return [(entry["type"], entry["status"]) for entry in history(directory)] == [
                ("run", "ok"),
                ("stream", "ok"),
                ("detach", "nonzero"),
                ("session", "ok"),
                ("detach", "running"),
            ]

        await eventually(is_told, within=10)
        assert [output(directory, entry) for entry in history(directory)][:4] == [
            b"1\n",
            b"2\n",
            b"3\n",
            b"4\n",
        ]


async def test_a_run_that_is_cut_off_by_the_end_is_told(root: Path, host: Host) -> None:
    box = await create_new_container(persist=True)
    (directory,) = list_instance_dirs(root)
    sandbox = host.manager.get(host.owner, box.sandbox_id)
    with sandbox.use():
        await sandbox.runs.start("echo soon; sleep 600", key=None, background=True)

        async def has_begun() -> bool:
            return output(directory, history(directory)[0]) == b"soon\n"

        await eventually(has_begun, within=10)
    await stop_container(box.name)
    try:
        (entry,) = history(directory)
        assert (entry["status"], output(directory, entry)) == ("killed", b"soon\n")
        again = await resume_container(box.name)
        await again.run("echo again")
        assert [entry["status"] for entry in history(directory)] == ["killed", "ok"]
    finally:
        await destroy_container(box.name)
    assert list_instance_dirs(root) == []


async def test_a_run_that_ends_while_nobody_is_there_is_told_by_who_comes_next(
    root: Path, target: Target, image: str
) -> None:
    request = SandboxRequest(image=image, persist=True, project_root=str(root), container_name=unique("kept"))
    async with Manager(settings_for(), lambda: connect(target)) as manager:
        sandbox = await manager.create(OWNER, request, lambda _line: None)
        await sandbox.runs.start("echo begun; sleep 1; echo done", key=None, background=True)
    (directory,) = list_instance_dirs(root)
    assert history(directory)[0]["status"] == "running"
    async with Manager(settings_for(), lambda: connect(target)) as manager:
        try:
            await manager.open(OWNER, sandbox.id)

            async def is_told() -> bool:
                return bool(history(directory)[0]["status"] == "ok")

            await eventually(is_told, within=20)
            assert output(directory, history(directory)[0]) == b"begun\ndone\n"
            assert len(list((directory / "logs").glob("detach*"))) == 1
        finally:
            await manager.kill(OWNER, sandbox.id)
    assert list_instance_dirs(root) == []


async def test_whatever_becomes_of_the_logs_a_run_goes_on(root: Path, host: Host) -> None:
    import shutil

    async with await create_new_container() as box:
        (directory,) = list_instance_dirs(root)
        shutil.rmtree(directory / "logs")
        assert (await box.run("echo once")).ok
        assert history(directory)[0]["status"] == "ok"
        shutil.rmtree(directory)
        (directory).write_text("in the way")
        assert (await box.run("echo twice")).ok


async def test_outside_of_projects_there_is_a_history_without_output(
    root: Path, host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    async with await create_new_container(name=unique("history")) as box:
        await box.run("echo hidden")
        directory = tmp_path / "state" / "history" / box.name
        (entry,) = history(directory)

        assert (entry["command"], output(directory, entry), box.data_path) == ("echo hidden", b"", None)
        assert directory.stat().st_mode & 0o777 == 0o700
    assert not directory.exists()


async def test_several_containers_of_a_project_do_not_meet(root: Path, host: Host) -> None:
    async with await create_new_container() as one, await create_new_container() as other:
        await one.run("echo one")
        await other.run("echo other")
        commands = {
            path.name: [entry["command"] for entry in history(path)] for path in list_instance_dirs(root)
        }

        assert commands == {one.name: ["echo one"], other.name: ["echo other"]}


# -- as a user of the command line sees it -------------------------------------------------------------


def command(*argv: str) -> list[str]:
    return [sys.executable, "-m", "pocket_dock_mcp.cli.main", *argv]


async def left_running(root: Path, target: Target, image: str, code: str) -> tuple[str, str, str]:
    """Have a kept container of the project with a run that goes on, which nobody holds."""
    name = unique("followed")
    request = SandboxRequest(
        image=image, persist=True, project=get_project_name(root), project_root=str(root), container_name=name
    )
    async with Manager(settings_for(), lambda: connect(target)) as manager:
        sandbox = await manager.create(OWNER, request, lambda _line: None)
        started = await sandbox.runs.start(code, key=None, background=True)
    return sandbox.id, name, started.id


async def destroyed(target: Target, sandbox_id: str) -> None:
    async with Manager(settings_for(), lambda: connect(target)) as manager:
        await manager.kill(OWNER, sandbox_id)


async def test_a_run_that_goes_on_is_followed_and_ctrl_c_does_not_end_it(
    root: Path, target: Target, image: str
) -> None:
    code = "printf 'one\\377\\n'; echo two >&2; until [ -e go ]; do sleep 0.05; done; echo three"
    sandbox_id, name, run_id = await left_running(root, target, image, code)
    try:
        follow = command("logs", name, run_id, "--follow")
        with subprocess.Popen(follow, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            assert await anyio.to_thread.run_sync(process.stdout.readline) == b"one\xff\n"
            assert await anyio.to_thread.run_sync(process.stderr.readline) == b"two\n"
            process.send_signal(signal.SIGINT)
            assert await anyio.to_thread.run_sync(process.wait, 30) == 130
        async with Manager(settings_for(), lambda: connect(target)) as manager:
            sandbox = await manager.open(OWNER, sandbox_id)
            assert [run.run.is_running for run in sandbox.runs] == [True]
            with sandbox.use() as live:
                await live.write_file("go", "")

        async def is_over() -> bool:
            async with Manager(settings_for(), lambda: connect(target)) as manager:
                await manager.open(OWNER, sandbox_id)
                await anyio.sleep(PATIENCE)
            return bool(history(root / ".pocket-dock" / "instances" / name)[0]["status"] == "ok")

        await eventually(is_over, within=30)
        said = await anyio.run_process(command("logs", name, run_id), check=True)
        assert (said.stdout, said.stderr) == (b"one\xff\nthree\n", b"two\n")
    finally:
        await destroyed(target, sandbox_id)


async def test_the_doctor_finds_what_is_out_of_order_in_a_project(
    root: Path, target: Target, image: str, tmp_path: Path
) -> None:
    configure(root, f"project_name: {unique('project')}\n")
    sandbox_id, name, _ = await left_running(root, target, image, "true")
    record = tmp_path / "state" / "sandboxes" / f"{sandbox_id}.json"
    directories = root / ".pocket-dock" / "instances"
    try:
        for stale in ("empty", "full"):
            directory = ensure_instance_dir(root, stale)
            write_instance_metadata(directory, InstanceMetadata(stale, "demo", image, persist=True))
        (directories / "full" / "data" / "result").write_text("precious")
        # Of a container on another engine, whose process lives.
        directory = ensure_instance_dir(root, "elsewhere")
        write_instance_metadata(directory, InstanceMetadata("elsewhere", "demo", image, pid=os.getpid()))

        engine = await connect(target)
        try:
            state = await survey(engine, root, tmp_path / "state")
            assert (state.stale, state.healthy) == (("empty", "full"), 2)
            (finding,) = told(state, root, engine)
            assert finding.severity == "warning"
            assert f"rm -r {directories / 'full'}" in finding.remedy
            assert mend(state, root) == [f"removed {directories / 'empty'}"]
            assert (directories / "full" / "data" / "result").exists()
            assert (await survey(engine, root, tmp_path / "state")).stale == ("full",)
            record.rename(tmp_path / "lost")
            state = await survey(engine, root, tmp_path / "state")
            assert state.orphaned == (name,)
            assert f"rm --force {name}" in list(told(state, root, engine))[-1].remedy
        finally:
            await engine.aclose()
    finally:
        if (tmp_path / "lost").exists():
            (tmp_path / "lost").rename(record)
        await destroyed(target, sandbox_id)
    assert name not in [path.name for path in list_instance_dirs(root)]


async def test_a_project_from_its_beginning_to_its_end_on_the_command_line(
    root: Path, target: Target, tmp_path: Path
) -> None:
    configure(root, "default_persist: true\ncontainers: {mem_limit: 96m, env: {WHO: project}}\n")
    name = unique("cli")

    async def dock(*argv: str, check: bool = True) -> subprocess.CompletedProcess[bytes]:
        return await anyio.run_process(command(*argv), check=check)

    await dock("create", "--name", name)
    try:
        said = await dock("run", name, "--", "sh", "-c", 'echo "$WHO"; exit 3', check=False)
        assert (said.stdout, said.returncode) == (b"project\n", 3)
        detached = json.loads((await dock("run", "--detach", "--json", name, "echo", "left alone")).stdout)

        entries = json.loads((await dock("logs", "--json")).stdout)
        assert [(one["sandbox"], one["type"]) for one in entries] == [(name, "run"), (name, "detach")]
        assert (entries[0]["status"], entries[0]["exit_code"]) == ("nonzero", 3)
        assert entries[1]["id"] == detached["run_id"]
        assert (await dock("logs", name, entries[0]["id"])).stdout == b"project\n"

        found = json.loads((await dock("status", "--json")).stdout)
        assert (found["containers"], found["running"], found["engine_error"]) == (1, 1, None)
        (instance,) = found["instances"]
        assert (instance["name"], instance["status"], instance["persist"]) == (name, "running", True)
        assert instance["runs"] == 2

        await dock("stop", name)
        assert (root / ".pocket-dock" / "instances" / name / "instance.toml").exists()
        assert json.loads((await dock("status", "--json")).stdout)["stopped"] == 1
    finally:
        await dock("destroy", name)
    assert list_instance_dirs(root) == []
