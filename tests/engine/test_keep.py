"""Kept containers on real engines: complete output, living sessions, hostile users, dead holders."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from pocket_dock_mcp.agent.bridge import bridge
from pocket_dock_mcp.agent.inside import wire
from pocket_dock_mcp.container.core import LiveContainer
from pocket_dock_mcp.engine.base import STDERR, STDOUT, Engine
from pocket_dock_mcp.engine.docker_api import DockerApiEngine
from pocket_dock_mcp.errors import SandboxDetachedError
from pocket_dock_mcp.models import MIB, Limits
from tests.engines import LABELS, Deadline, Target, connect, eventually
from tests.kept import Kept, keeping
from tests.proxy import proxy

pytestmark = pytest.mark.anyio

LINES = 30_000
PADDING = "x" * 90
PRINT_LINES = (
    f"i=0; while [ $i -lt {LINES} ]; do i=$((i+1)); echo line $i {PADDING}; done; echo end >&2; exit 3"
)
KNOCK = """
import socket, sys
name = {socket!r}
for kind in (socket.SOCK_STREAM, socket.SOCK_SEQPACKET, socket.SOCK_DGRAM):
    squatter = socket.socket(socket.AF_UNIX, kind)
    try:
        squatter.bind(name)
        print(kind.name, 'squatted' if kind == socket.SOCK_STREAM else 'bound')
    except OSError as error:
        print(kind.name, type(error).__name__)
client = socket.socket(socket.AF_UNIX)
client.connect(name)
try:
    client.sendall(b'\\0' * 100_000)
except OSError:
    pass
try:
    print('heard', client.recv(100))
except OSError as error:
    print('heard', type(error).__name__)
"""
KNOCK_FOR_EVER = """
import os, socket
for _ in range(3):
    try:
        os.fork()
    except OSError:
        pass
print('knocking', flush=True)
while True:
    client = socket.socket(socket.AF_UNIX)
    try:
        client.connect({socket!r})
        client.send(b'x' * 1000)
    except OSError:
        pass
    client.close()
"""
HOLDER = """
import sys, anyio, json
from dataclasses import replace
from pocket_dock_mcp.container.core import LiveContainer
from pocket_dock_mcp.container.launch import Launch
from pocket_dock_mcp.engine.docker_api import DockerApiEngine

async def main():
    url, name, image, labels = json.loads(sys.argv[1])
    engine = await DockerApiEngine.connect(url)
    wanted = Launch(name, image, labels, keep=True, detached_ttl_s=600)
    container = await LiveContainer.create(engine, wanted)
    await container.run("x = 41", language="python", session="s")
    run = await container.start("i=0; while :; do i=$((i+1)); echo $i; done | head -n 150000", meta={"n": 1})
    await container.info()
    print(json.dumps([container.uid, run.id]), flush=True)
    await anyio.sleep_forever()

anyio.run(main)
"""


@pytest.fixture
async def kept(engine: Engine, image: str, deadline: Deadline) -> AsyncIterator[Kept]:
    async with keeping(engine, image, deadline) as kept:
        yield kept


async def test_another_process_finds_sessions_and_whole_output(kept: Kept, target: Target) -> None:
    container = await kept.create()
    await container.run("x = 41", language="python", session="s")
    await container.run("y=1", session="s")
    started = await container.start(PRINT_LINES)
    valued = await container.start("import time; print('working'); time.sleep(0.5); 6 * 7", language="python")

    await container.detach()
    engine = await connect(target)  # Nothing of the first one is used again.
    again = await LiveContainer.reattach(engine, kept.wanted)
    try:
        assert {(one.name, one.language) for one in await again.list_sessions()} == {
            ("s", "python"),
            ("s", "shell"),
        }
        result = await again.run("x + 1", language="python", session="s")
        assert (result.value, result.session and result.session.new) == ("42", False)
        assert (await again.run("echo $y", session="s")).stdout == "1\n"

        runs = {run.id: run for run in again.found_runs}
        result = await runs[started.id].wait()
        expected = "".join(f"line {number} {PADDING}\n" for number in range(1, LINES + 1)).encode()
        assert (result.status, result.exit_code, result.stderr) == ("nonzero", 3, "end\n")
        assert runs[started.id].spool(STDOUT).read(0, len(expected) + 1) == expected
        result = await runs[valued.id].wait()
        assert (result.status, result.stdout, result.value) == ("ok", "working\n", "42")
        assert result.files_changed is not None
    finally:
        await again.destroy()
        await engine.aclose()


async def test_a_holder_that_was_killed_is_followed_by_another(
    kept: Kept, target: Target, image: str
) -> None:
    facts = json.dumps([target.url, kept.wanted.name, image, LABELS])
    with subprocess.Popen([sys.executable, "-c", HOLDER, facts], stdout=subprocess.PIPE) as holder:
        try:
            assert holder.stdout is not None
            line = await anyio.to_thread.run_sync(holder.stdout.readline)
        finally:
            holder.send_signal(signal.SIGKILL)
    uid, run_id = json.loads(line)
    kept.wanted = replace(kept.wanted, uid=uid)

    container = await kept.reattach()

    (run,) = container.found_runs
    assert (run.id, run.meta) == (run_id, {"n": 1})
    expected = "".join(f"{number}\n" for number in range(1, 150_001)).encode()
    result = await run.wait()
    assert (result.status, result.stdout_bytes) == ("ok", len(expected))
    assert run.spool(STDOUT).read(0, len(expected)) == expected
    assert (await container.run("x + 1", language="python", session="s")).value == "42"


async def test_a_holder_whose_connection_broke_attaches_again(
    kept: Kept, target: Target, tmp_path: Path
) -> None:
    async with proxy(tmp_path / "engine.sock", target.url) as cable:
        engine = await DockerApiEngine.connect(cable.url)
        container = await LiveContainer.create(engine, kept.wanted)
        kept.wanted = replace(kept.wanted, uid=container.uid)
        run = await container.start("echo early; sleep 1; echo late; exit 3")
        while "early" not in run.peek():
            await run.news()
        await cable.cut()

        # It is never said to have ended well, nor to be gone.
        assert (await run.wait()).status == "indeterminate"
        with pytest.raises(SandboxDetachedError):
            await container.run("true")
        await cable.connect()
        again = await LiveContainer.reattach(engine, kept.wanted)
        result = await again.found_runs[0].wait()
        assert (result.status, result.exit_code, result.stdout) == ("nonzero", 3, "early\nlate\n")

        await again.destroy()
        await container.destroy()
        await engine.aclose()


async def test_more_output_than_is_kept_waits_for_who_comes_later(kept: Kept) -> None:
    size = 6_000_000
    kept.wanted = replace(kept.wanted, kept_output_bytes=4 * MIB)
    container = await kept.create()
    await container.start(f"echo first >&2; head -c {size} /dev/zero")
    container_id = container._running.id
    await container.detach()

    looks: list[str] = []

    async def has_stopped_printing() -> bool:
        stream = await kept.engine.exec(
            container_id, ["sh", "-c", "cat /proc/[0-9]*/stat 2>/dev/null | grep '(head) S'"], user="0:0"
        )
        received = b""
        while (piece := await stream.receive()) is not None:
            received += piece[1]
        await stream.aclose()
        # Asleep, and no more processor time used than a moment ago.
        looks.append(" ".join(received.decode().split()[:15]))
        return looks[-1] != "" and looks[-1:] == looks[-2:-1]

    await eventually(has_stopped_printing, kept.deadline(60))
    again = await kept.reattach()
    (run,) = again.found_runs
    result = await run.wait()

    assert run.missing == (0, 0)
    assert (result.status, result.stdout_bytes, result.stderr) == ("ok", size, "first\n")

    # The oldest has gone to who was there to take it. The next one is told so.
    again = await kept.again(again)
    (run,) = again.found_runs
    result = await run.wait()

    assert (result.status, result.stdout_bytes) == ("ok", size - run.missing[0])
    assert size - 4.1 * MIB < run.missing[0] < size - 3.8 * MIB
    assert run.missing[1] == len("first\n")
    assert f"The first {run.missing[0]} bytes of stdout" in (result.hint or "")


async def test_a_time_limit_holds_while_nobody_is_there(kept: Kept) -> None:
    container = await kept.create()
    await container.start("echo early; sleep 1000", timeout_s=0.5)
    await container.detach()
    began = time.monotonic()

    again = await kept.reattach()
    result = await again.found_runs[0].wait()

    assert (result.status, result.stdout) == ("timeout", "early\n")
    assert result.usage.wall_s < max(5, time.monotonic() - began + 1)


async def test_input_goes_on_after_a_change_of_holder(kept: Kept) -> None:
    container = await kept.create()
    run = await container.start("cat", keep_stdin=True)
    await run.write_stdin("one\n")

    again = await kept.again(container)
    (run,) = again.found_runs
    await run.write_stdin(b"x" * 3_000_000, end=True)
    result = await run.wait()

    assert (result.status, result.stdout_bytes) == ("ok", 3_000_004)


async def test_user_code_can_neither_take_the_socket_nor_use_it(kept: Kept) -> None:
    container = await kept.create()

    result = await container.run(KNOCK.format(socket=wire.SOCKET), language="python")

    assert "SOCK_STREAM OSError" in result.stdout, result
    assert "ready" not in result.stdout
    assert "heard b''" in result.stdout or "heard ConnectionResetError" in result.stdout
    again = await kept.again(container)
    assert (await again.run("echo fine")).stdout == "fine\n"


@pytest.mark.slow
async def test_it_is_taken_up_while_user_code_does_its_worst(kept: Kept) -> None:
    kept.wanted = replace(kept.wanted, limits=Limits(pids=64))
    container = await kept.create()
    knocking = await container.start(KNOCK_FOR_EVER.format(socket=wire.SOCKET), language="python")
    while "knocking" not in knocking.peek():
        await knocking.news()
    bomb = await container.start(
        "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass", language="python"
    )

    for _ in range(4):
        with anyio.fail_after(kept.deadline(30)):
            container = await kept.again(container)
    await container.kill_all()

    assert bomb.id in {run.id for run in container.found_runs}
    assert {(await run.wait()).status for run in container.found_runs} == {"killed"}
    assert (await container.run("echo fine")).stdout == "fine\n"


async def test_the_last_one_takes_the_light_with_him(kept: Kept) -> None:
    kept.wanted = replace(kept.wanted, detached_ttl_s=0.2)
    container = await kept.create()
    await container.write_file("kept.txt", "kept")
    began = time.monotonic()
    started = await container.start("echo done; sleep 1000", timeout_s=1)
    await container.detach()
    # Many times as long as it would wait for somebody, had nothing run.
    await anyio.sleep(kept.deadline(3))

    container = await kept.reattach()
    (run,) = container.found_runs
    result = await run.wait()
    assert (run.id, run.had_ended) == (started.id, True)
    assert (result.status, result.stdout) == ("timeout", "done\n")

    await container.detach()
    assert await kept.has_exited()

    # Not while something ran, and somebody knows how it ended.
    assert time.monotonic() - began > 1
    again = await kept.resume()
    assert (await again.read_file("kept.txt")).data == b"kept"


async def test_limits_are_the_same_after_a_resume(kept: Kept) -> None:
    show = "ulimit -u; ulimit -n; cat /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/pids.max 2>/dev/null; true"
    container = await kept.create()
    before = (await container.run(show)).stdout

    await container.reboot()
    assert (await container.run(show)).stdout == before
    await container.stop()
    container = await kept.resume()
    assert (await container.run(show)).stdout == before
    await container.reboot(fresh=True)
    assert (await container.run(show)).stdout == before


async def test_stopping_waits_for_no_program(kept: Kept) -> None:
    container = await kept.create()
    await container.start("trap '' TERM INT HUP; while :; do sleep 1; done")
    began = time.monotonic()
    await container.stop()
    took = time.monotonic() - began

    # A tenth of a second, where the machine has nothing else to do.
    assert took < kept.deadline(5)
    assert await kept.has_exited()


async def test_an_agent_that_does_not_end_by_itself_is_ended(kept: Kept) -> None:
    container = await kept.create()

    async def refuse(_why: str) -> None:
        """As an agent that was taken over would."""

    container._transport.halt = refuse  # type: ignore[method-assign, assignment]
    await container.stop()

    assert await kept.has_exited()


async def test_half_a_frame_of_one_holder_is_nothing_to_the_next(kept: Kept) -> None:
    container = await kept.create()
    await container._transport._link._stream.send(wire.encode({"op": "ping", "id": 7})[:-2])  # type: ignore[attr-defined]

    again = await kept.again(container)

    assert (await again.run("echo fine")).stdout == "fine\n"
    assert again._transport._link.diagnostics == ""  # type: ignore[attr-defined]


async def test_nonsense_ends_the_holder_and_not_the_container(kept: Kept) -> None:
    container = await kept.create()
    await container.run("x = 41", language="python", session="s")
    await container._transport._link._stream.send(b"\xff" * 100)  # type: ignore[attr-defined]

    again = await kept.reattach()

    assert (await again.run("x + 1", language="python", session="s")).value == "42"


async def test_the_bridge_ends_with_either_side(kept: Kept) -> None:
    container = await kept.create()
    stream = await bridge(kept.engine, (await kept.engine.inspect(kept.wanted.name)).id)
    assert (await stream.receive() or (STDERR, b""))[1].endswith(b"}")
    again = await kept.reattach()

    with anyio.fail_after(kept.deadline(15)):
        while await stream.receive() is not None:
            pass
    await stream.aclose()
    await again.detach()

    async def only_the_agent_is_left() -> bool:
        """Of root's processes: PID 1, its two helpers, and those that look."""
        nonlocal container
        container = await kept.reattach()
        seen = await container.run("cat /proc/[0-9]*/status | grep -c '^Uid:.1.1.1.1$'")
        return seen.stdout.strip() == "1"

    assert await eventually(only_the_agent_is_left, kept.deadline(15))


@pytest.mark.slow
async def test_an_idle_agent_does_not_grow(kept: Kept) -> None:
    container = await kept.create()

    async def resident() -> int:
        return int((await container.run("grep VmRSS /proc/1/status | tr -dc 0-9")).stdout)

    async def work(count: int) -> None:
        for _ in range(count):
            run = await container.start("head -c 20000 /dev/zero; echo x >&2")
            await run.wait()
            run.close()

    await work(25)
    container = await kept.again(container)
    before = await resident()
    await work(25)
    for _ in range(3):
        container = await kept.again(container)

    assert container.found_runs == []
    assert await resident() - before < 512


async def test_no_tree_is_left_that_an_engine_could_not_remove(kept: Kept) -> None:
    chain = (
        "import os\n"
        "for _ in range(1200):\n"
        "    os.mkdir('d'); os.chdir('d')\n"
        "    os.close(os.open('f', os.O_CREAT))\n"
        "os.chmod('.', 0)\n"
    )
    container = await kept.create()
    await container.run(chain, language="python")
    begun = await container.start("while :; do mkdir -p x/y; done")

    await container.stop()
    again = await kept.resume()

    # Wherever it was. Nothing of it is lost.
    assert (await again.run("find / -xdev -mindepth 600 2>/dev/null | head -n 1")).stdout == ""
    assert (await again.run("find . -name f | wc -l")).stdout == "1200\n"
    assert (await begun.wait()).status == "killed"
