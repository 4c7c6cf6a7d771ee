"""What can be done with one container, on real engines."""

from __future__ import annotations

import resource
import time
from collections.abc import AsyncIterator

import anyio
import pytest

from pocket_dock_mcp.container.core import LiveContainer
from pocket_dock_mcp.container.launch import Launch
from pocket_dock_mcp.engine.base import Engine
from pocket_dock_mcp.errors import (
    FileDeniedError,
    FileError,
    FileIsDirectoryError,
    FileNotRegularError,
    InvalidArgumentError,
    SandboxClosedError,
    SandboxFileNotFoundError,
    SandboxLostError,
    SymlinkLoopError,
)
from pocket_dock_mcp.models import MIB, Limits
from tests.engines import LABELS, eventually, is_gone, unique

pytestmark = pytest.mark.anyio

FORK_BOMB = "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass"


@pytest.fixture(scope="module")
async def container(engine: Engine, image: str) -> AsyncIterator[LiveContainer]:
    async with await LiveContainer.create(engine, Launch(unique("container"), image, LABELS)) as made:
        yield made


async def test_a_shell_command_returns_its_output_and_exit_code(container: LiveContainer) -> None:
    result = await container.run("echo out; echo err >&2; exit 3")

    assert (result.status, result.exit_code) == ("nonzero", 3)
    assert (result.stdout, result.stderr) == ("out\n", "err\n")


ALONE = """
import os, socket
print(os.listdir("/sys/class/net"), os.path.exists("/proc/net/if_inet6"))
for name in ("localhost", socket.gethostname()):
    print(name, socket.gethostbyname(name).startswith("127."))
"""


async def test_without_a_network_it_is_alone_and_knows_its_names(
    engine: Engine, container: LiveContainer
) -> None:
    told = (await container.run(ALONE, language="python")).stdout.splitlines()

    assert told[0].startswith("['lo']")
    assert told[1:] == ["localhost True", "sandbox True"]
    assert (await engine.setup(container.container_id)).network == "none"


async def test_without_a_network_docker_mounts_no_file_about_it(
    engine: Engine, container: LiveContainer
) -> None:
    mounted = (await container.run("grep -c ' /etc/hosts \\| /etc/resolv.conf ' /proc/self/mountinfo")).stdout

    assert (mounted == "0\n") == (engine.info.kind == "docker")


async def test_python_runs_as_a_fresh_main_module(container: LiveContainer) -> None:
    await container.run("leak = 1", language="python")

    result = await container.run("print(__name__, 'leak' in globals(), sum(range(5)))", language="python")

    assert result.stdout == "__main__ False 10\n"


@pytest.mark.parametrize(
    ("code", "status", "exit_code"),
    [
        ("import sys; sys.exit(7)", "nonzero", 7),
        ("import sys; sys.exit('bye')", "nonzero", 1),
        ("raise ValueError('no')", "nonzero", 1),
        ("x = = 1", "nonzero", 1),
        ("import os; os._exit(4)", "nonzero", 4),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "signal", None),
        ("print('Killed'); import sys; sys.exit(137)", "nonzero", 137),
        ("import threading, time; threading.Thread(target=time.sleep, args=(.1,)).start()", "ok", 0),
    ],
)
async def test_python_ends_as_an_interpreter_ends(
    container: LiveContainer, code: str, status: str, exit_code: int | None
) -> None:
    result = await container.run(code, language="python")

    assert (result.status, result.exit_code) == (status, exit_code)


async def test_a_traceback_has_the_users_frames_and_lines_only(container: LiveContainer) -> None:
    result = await container.run("def f():\n    1 / 0\nf()", language="python")

    assert result.stderr.startswith(
        'Traceback (most recent call last):\n  File "<code>", line 3, in <module>\n    f()'
    )
    assert "agent" not in result.stderr


async def test_code_of_a_mebibyte_runs_and_more_is_refused(container: LiveContainer) -> None:
    code = f"print(len('{'x' * (MIB - 20)}'))"

    assert (await container.run(code, language="python")).ok
    with pytest.raises(InvalidArgumentError, match="write_file"):
        await container.run(code + "#" * 1000, language="python")


async def test_environment_directory_and_input_reach_the_program(container: LiveContainer) -> None:
    result = await container.run(
        'echo "$A"; pwd; cat', cwd="/tmp", env={"A": "b c\nd"}, stdin="in\0put" * 100_000
    )

    assert result.stdout == "b c\nd\n/tmp\n" + "in\0put" * 100_000


async def test_a_program_that_does_not_read_its_input_is_no_trouble(container: LiveContainer) -> None:
    assert (await container.run("true", stdin=b"x" * 20_000_000)).ok


async def test_a_cancelled_upload_harms_nobody_else(container: LiveContainer) -> None:
    for _ in range(5):
        with anyio.move_on_after(0.02):
            await container.run("sleep 5", stdin=b"x" * 30_000_000)
        with anyio.move_on_after(0.02):
            await container.write_file("never", b"x" * 100_000_000)

        assert (await container.run("cat", stdin="fine")).stdout == "fine"
    assert "never" not in [entry.name for entry in (await container.list_files())[0]]


async def test_a_time_limit_kills_everything_and_keeps_output_and_files(container: LiveContainer) -> None:
    await container.write_file("kept.txt", "kept")
    command = (
        "trap '' TERM INT HUP; echo early; (setsid sh -c \"trap '' TERM; while :; do sleep 1; done\" &); "
        "setsid sleep 1000 & sleep 1000; while :; do sleep 1; done"
    )

    began = time.monotonic()
    result = await container.run(command, timeout_s=1)
    took = time.monotonic() - began

    assert result.status == "timeout"
    assert result.stdout == "early\n"
    assert took < 1.5
    assert (await container.info()).processes == 0
    assert (await container.read_file("kept.txt")).data == b"kept"
    assert (await container.run("echo usable")).stdout == "usable\n"


async def test_a_fork_bomb_is_cleared_and_the_sandbox_lives(container: LiveContainer) -> None:
    result = await container.run(FORK_BOMB, language="python", timeout_s=1)

    assert result.status == "timeout"
    assert (await container.info()).processes == 0
    assert (await container.run("echo usable")).ok


async def test_killing_one_run_leaves_the_other(container: LiveContainer) -> None:
    results = {}

    async def survivor() -> None:
        results["survivor"] = await container.run("sleep 3; echo survived")

    async def sleeps() -> bool:
        return (await container.info()).processes == 2

    async with anyio.create_task_group() as group:
        group.start_soon(survivor)
        # The bomb leaves nobody a process to fork.
        await eventually(sleeps, within=5)
        results["bomb"] = await container.run(FORK_BOMB, language="python", timeout_s=1)

    assert results["bomb"].status == "timeout"
    assert results["survivor"].stdout == "survived\n"


async def test_a_background_child_does_not_outlive_its_run(container: LiveContainer) -> None:
    result = await container.run("sleep 1000 & echo hi", timeout_s=20)

    assert (result.status, result.stdout) == ("ok", "hi\n")
    assert (await container.info()).processes == 0


async def test_out_of_memory_is_told_with_the_limit_and_leaves_the_sandbox_usable(
    container: LiveContainer,
) -> None:
    result = await container.run("x = bytearray(2 << 30)", language="python")

    assert result.status == "oom"
    assert "512 MiB" in (result.hint or "")
    assert (await container.run("echo usable")).ok


@pytest.mark.slow
async def test_two_gigabytes_of_output_are_counted_and_not_kept(container: LiveContainer) -> None:
    # The first flood grows the buffers that every later one uses.
    await container.run("head -c 50000000 /dev/zero")
    before = _peak_rss()

    result = await container.run("echo first; head -c 2000000000 /dev/zero; echo; echo last", timeout_s=300)

    assert result.status == "ok"
    assert result.stdout_bytes == 2_000_000_000 + len("first\n\nlast\n")
    assert result.truncated
    assert result.stdout.startswith("first\n")
    assert result.stdout.endswith("last\n")
    assert len(result.stdout) < 2 * MIB
    assert _peak_rss() - before < 32 * MIB


def _peak_rss() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


async def test_a_cancelled_run_is_killed(container: LiveContainer) -> None:
    with anyio.move_on_after(0.3):
        await container.run("trap '' TERM; sleep 1000 & sleep 1000", timeout_s=None)

    assert (await container.info()).processes == 0


async def test_runs_go_on_side_by_side(container: LiveContainer) -> None:
    outputs: list[str] = []

    async def one(number: int) -> None:
        outputs.append((await container.run(f"sleep 0.2; echo {number}")).stdout)

    began = time.monotonic()
    async with anyio.create_task_group() as group:
        for number in range(20):
            group.start_soon(one, number)

    assert sorted(outputs) == sorted(f"{number}\n" for number in range(20))
    assert time.monotonic() - began < 20 * 0.2


@pytest.mark.parametrize(
    "arguments",
    [
        {"code": ""},
        {"code": " \n\t"},
        {"code": "a\0b"},
        {"code": "x" * 131_072},
        {"code": "true", "language": "cobol"},
        {"code": "true", "timeout_s": 0},
        {"code": "true", "timeout_s": -1},
        {"code": "true", "timeout_s": float("nan")},
        {"code": "true", "timeout_s": float("inf")},
        {"code": "true", "output_bytes": 0},
        {"code": "true", "output_bytes": 10**12},
        {"code": "true", "env": {"a=b": "c"}},
        {"code": "true", "env": {"": "c"}},
        {"code": "true", "env": {"a": "b\0"}},
        {"code": "true", "env": {"a": "b" * 10_000_000}},
        {"code": "true", "cwd": "a\0"},
        {"code": "true", "cwd": ""},
    ],
)
async def test_an_argument_that_can_never_work_is_refused_at_once(
    container: LiveContainer, arguments: dict[str, object]
) -> None:
    with pytest.raises(InvalidArgumentError):
        await container.run(**arguments)  # type: ignore[arg-type]


async def test_a_directory_that_is_not_there_is_told_before_anything_runs(container: LiveContainer) -> None:
    for language, code in (("shell", "touch /tmp/ran"), ("python", "open('/tmp/ran', 'w')")):
        with pytest.raises(SandboxFileNotFoundError, match="nowhere"):
            await container.run(code, language=language, cwd="/nowhere")
    with pytest.raises(SandboxFileNotFoundError):
        await container.read_file("/tmp/ran")


@pytest.mark.parametrize(
    ("make", "path", "error"),
    [
        ("mkfifo fifo", "fifo", FileNotRegularError),
        ("ln -s fifo2 link && mkfifo fifo2", "link", FileNotRegularError),
        ("true", "/dev/zero", FileNotRegularError),
        ("mkdir -p dir", "dir", FileIsDirectoryError),
        ("ln -s loop2 loop1; ln -s loop1 loop2", "loop1", SymlinkLoopError),
        ("ln -s /proc/self/mem mem", "mem", FileDeniedError),
        ("true", "/proc/1/environ", FileDeniedError),
        ("true", "/dev/stdin", FileDeniedError),
        ("true", "/root/secret", FileDeniedError),
        ("touch plain", "plain/x", FileError),
    ],
)
async def test_what_is_no_plain_file_is_refused_and_not_waited_for(
    container: LiveContainer, make: str, path: str, error: type[FileError]
) -> None:
    await container.run(make)

    with anyio.fail_after(2):
        with pytest.raises(error):
            await container.read_file(path)
        with pytest.raises(error):
            await container.write_file(path, "x")


@pytest.mark.parametrize("path", ["a\0b", "", "x" * 5000, "y" * 300])
async def test_a_path_that_can_never_be_is_refused(container: LiveContainer, path: str) -> None:
    with pytest.raises(InvalidArgumentError):
        await container.write_file(path, "x")


@pytest.mark.parametrize(
    "name", ["sp ace", "new\nline", "-rf", "$(id)", "qu'ote\"", "*", "ü", "a\\b", "\udcff"]
)
async def test_odd_names_are_names(container: LiveContainer, name: str) -> None:
    written = await container.write_file(f"odd/{name}", name.encode("utf-8", "surrogateescape"))
    entries, _ = await container.list_files("odd")

    assert written.path == f"/home/sandbox/odd/{name}"
    assert (await container.read_file(f"odd/{name}")).data == name.encode("utf-8", "surrogateescape")
    assert name in [entry.name for entry in entries]


async def test_a_large_file_goes_in_and_comes_out_unchanged(container: LiveContainer) -> None:
    data = bytes(range(256)) * (40 * MIB // 256)

    await container.write_file("large.bin", data)
    piece = await container.read_file("large.bin", offset=1000, max_bytes=100)

    assert (await container.read_file("large.bin")).data == data
    assert piece.data == data[1000:1100]
    assert (piece.size, piece.complete) == (len(data), False)


async def test_a_write_is_whole_or_not_at_all(engine: Engine, image: str) -> None:
    limits = Limits(file_bytes=1 * MIB)
    async with await LiveContainer.create(engine, Launch(unique("full"), image, LABELS, limits)) as container:
        await container.write_file("f", "old")

        with pytest.raises(FileError, match="larger than one file"):
            await container.write_file("f", b"x" * (2 * MIB))

        assert (await container.read_file("f")).data == b"old"
        assert [entry.name for entry in (await container.list_files())[0]] == ["f"]


async def test_a_write_keeps_the_mode_of_what_it_replaces(container: LiveContainer) -> None:
    await container.write_file("script", "#!/bin/sh\necho ran\n", mode=0o755)
    await container.write_file("script", "#!/bin/sh\necho again\n")

    assert (await container.run("./script")).stdout == "again\n"


async def test_a_container_that_is_removed_from_outside_is_lost_and_its_run_never_ok(
    engine: Engine, image: str
) -> None:
    async with await LiveContainer.create(engine, Launch(unique("lost"), image, LABELS)) as container:
        statuses = []

        async def run() -> None:
            statuses.append((await container.run("echo going; sleep 1000")).status)

        async with anyio.create_task_group() as group:
            group.start_soon(run)
            await eventually(lambda: _has_process(container), within=5)
            await engine.remove(container._running.id)

        assert statuses == ["lost"]
        with pytest.raises(SandboxLostError):
            await container.run("true")


async def _has_process(container: LiveContainer) -> bool:
    return bool((await container.info()).processes)


async def test_closing_removes_the_container_and_refuses_later_calls(engine: Engine, image: str) -> None:
    container = await LiveContainer.create(engine, Launch(unique("closed"), image, LABELS))

    await container.aclose()
    await container.aclose()

    await eventually(lambda: is_gone(engine, container._running.id), within=5)
    with pytest.raises(SandboxClosedError):
        await container.run("true")


async def test_the_sandboxs_environment_is_not_in_the_containers_configuration(
    engine: Engine, image: str
) -> None:
    wanted = Launch(unique("secret"), image, LABELS, env={"TOKEN": "s3cret"})
    async with await LiveContainer.create(engine, wanted) as container:
        assert (await container.run("echo $TOKEN")).stdout == "s3cret\n"
        assert "s3cret" not in (await container.run("cat /proc/*/cmdline; cat /proc/1/environ")).stdout
