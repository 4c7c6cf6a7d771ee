"""Copies of interpreters that can be gone back to, on real engines."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from pocket_dock_mcp.container.core import LiveContainer
from pocket_dock_mcp.container.launch import Launch
from pocket_dock_mcp.engine.base import Engine
from pocket_dock_mcp.errors import (
    CheckpointError,
    CheckpointNotFoundError,
    CheckpointThreadsError,
    InvalidArgumentError,
    ProcessLimitError,
    SessionBusyError,
)
from pocket_dock_mcp.models import MIB, Limits, RunLimits, RunResult
from tests.engines import LABELS, Deadline, eventually, unique
from tests.kept import keeping

pytestmark = [pytest.mark.anyio, pytest.mark.front]

OF_SESSION = 8
IN_SANDBOX = 32
RESTORES = int(os.environ.get("POCKET_DOCK_TEST_RESTORES", "30"))
HANG = "import time; time.sleep(4244)"


@pytest.fixture(scope="module")
async def container(engine: Engine, image: str) -> AsyncIterator[LiveContainer]:
    limits = Limits(memory_bytes=256 * MIB)
    async with await LiveContainer.create(engine, Launch(unique("copies"), image, LABELS, limits)) as made:
        yield made


class Session:
    """A Python session of its own for a test."""

    def __init__(self, container: LiveContainer) -> None:
        self.container = container
        self.name = unique("c").replace("/", "-")[-40:]

    async def run(self, code: str, **options: Any) -> RunResult:
        return await self.container.run(code, language="python", session=self.name, **options)

    async def says(self, expression: str) -> str | None:
        """Return what an expression's value is shown as."""
        result = await self.run(expression)
        assert result.status == "ok", result
        return result.value

    async def checkpoint(self) -> str:
        return await self.container.checkpoint(self.name)

    async def restore(self, checkpoint_id: str) -> None:
        await self.container.restore(self.name, checkpoint_id)

    async def processes(self) -> int:
        """Return how many processes carry the marker of this session."""
        return await marked(self.container, str(await self.says("import os; os.getgroups()[0]")))


async def marked(container: LiveContainer, marker: str) -> int:
    """Return how many processes are alive that carry a marker."""
    look = f"grep -lE '^Groups:.*{marker}' /proc/[0-9]*/status | xargs -r grep -hE 'State:.[^ZX]' | wc -l"
    return int((await container.run(look)).stdout)


@pytest.fixture
async def session(container: LiveContainer) -> AsyncIterator[Session]:
    made = Session(container)
    yield made
    await container.end_session(made.name)


async def test_everything_in_memory_is_as_it_was(session: Session) -> None:
    await session.run(
        "import collections, os, random\nx = [1]\ndef f():\n    return len(x)\nrandom.seed(7)\n"
        "os.chdir('/tmp'); os.environ['WORD'] = 'old'; big = bytearray(b'a' * 1_000_000)"
    )
    copy = await session.checkpoint()
    await session.run(
        "x.append(2); del f; os.chdir('/'); os.environ['WORD'] = 'new'; big[500_000] = 0; del collections"
    )
    drawn = await session.says("random.random()")
    await session.restore(copy)

    assert await session.says("x, f(), os.getcwd(), os.environ['WORD'], set(big), collections.__name__") == (
        "([1], 1, '/tmp', 'old', {97}, 'collections')"
    )
    assert await session.says("random.random()") == drawn


async def test_an_interpreter_that_was_started_anew_can_be_copied_too(engine: Engine, image: str) -> None:
    wanted = Launch(unique("cold"), image, LABELS, Limits(memory_bytes=128 * MIB), warm_python=False)
    async with await LiveContainer.create(engine, wanted) as cold:
        session = Session(cold)
        copy = await _with(session, "x = 'old'")
        for _ in range(2):
            await session.run("x = 'new'")
            await session.restore(copy)
            assert await session.says("x") == "'old'"


async def test_a_copy_is_restored_again_and_again_and_each_time_alone(session: Session) -> None:
    await session.run("x = []")
    empty = await session.checkpoint()
    await session.run("x.append('first')")
    first = await session.checkpoint()

    for copy, expected in ((empty, "[]"), (first, "['first']"), (empty, "[]"), (first, "['first']")):
        await session.restore(copy)
        assert await session.says("x") == expected
        await session.run("x.append('lost')")
    await session.restore(empty)
    await session.run("x.append('other')")
    other = await session.checkpoint()
    await session.restore(first)
    await session.restore(other)
    assert await session.says("x") == "['other']"


async def test_output_after_it_is_whole_and_in_its_own_run(session: Session) -> None:
    await session.run("import sys, threading; print('before'); saved = sys.stdout")
    copy = await session.checkpoint()
    await session.run("print('in between')")
    for _ in range(2):
        await session.restore(copy)
        result = await session.run(
            "sys.stdout.write('x' * 3_000_000); print('error', file=sys.stderr); saved.write('end')\n21 * 2"
        )
        after = await session.run("print('next')", stdin="unread")

        assert (result.stdout_bytes, result.stdout[-4:], result.stderr) == (3_000_003, "xend", "error\n")
        assert result.value == "42"
        assert (after.stdout, after.stderr) == ("next\n", "")
        assert after.session is not None
        assert not after.session.new


async def test_a_traceback_after_it_shows_the_lines_that_ran(session: Session) -> None:
    await session.run("def f():\n    return 1 / 0  # the division")
    copy = await session.checkpoint()
    await session.run("1")
    await session.restore(copy)
    await session.run("pass  # no division")

    assert "return 1 / 0  # the division" in (await session.run("f()")).stderr


async def test_input_interrupts_and_time_limits_work_after_it(session: Session) -> None:
    await session.run("x = 'kept'")
    await session.restore(await session.checkpoint())

    assert (await session.run("input()", stdin="given\n")).value == "'given'"
    assert (await session.run(HANG, timeout_s=0.3)).status == "timeout"
    assert await session.says("x") == "'kept'"


async def test_threads_are_refused_and_nothing_happens_to_them(session: Session) -> None:
    await session.run(
        "import threading\ndone = threading.Event()\n"
        "threads = [threading.Thread(target=done.wait) for _ in range(2)]\nfor t in threads: t.start()"
    )

    with pytest.raises(CheckpointThreadsError, match="has 2 threads"):
        await session.checkpoint()
    assert await session.says("[t.is_alive() for t in threads]") == "[True, True]"
    await session.run("done.set()\nfor t in threads: t.join()")
    await session.restore(await session.checkpoint())
    assert await session.says("[t.is_alive() for t in threads]") == "[False, False]"


async def test_threads_that_python_does_not_know_are_refused(session: Session) -> None:
    await session.run(
        "import ctypes\nlibc = ctypes.CDLL(None)\npause = ctypes.cast(libc.pause, ctypes.c_void_p)\n"
        "thread = ctypes.c_ulong(); libc.pthread_create(ctypes.byref(thread), None, pause, None)"
    )

    with pytest.raises(CheckpointThreadsError, match="has 1 thread besides"):
        await session.checkpoint()
    assert (await session.run("1 + 1")).value == "2"
    assert await session.processes() == 1


async def test_a_busy_session_is_refused_and_goes_on(session: Session) -> None:
    copy = await _with(session, "x = 'old'")
    busy = await session.container.start(
        "print('on'); input()", language="python", session=session.name, keep_stdin=True
    )
    await busy.news()

    with pytest.raises(SessionBusyError):
        await session.checkpoint()
    with pytest.raises(SessionBusyError):
        await session.restore(copy)
    await busy.write_stdin("\n", end=True)
    assert (await busy.wait()).status == "ok"
    await session.restore(copy)


async def test_runs_that_come_meanwhile_wait_and_see_what_was_restored(session: Session) -> None:
    copy = await _with(session, "x = []")
    for _ in range(5):
        await session.run("x.append('lost')")
        shown: list[str | None] = []

        async def show(shown: list[str | None] = shown) -> None:
            shown.append(await session.says("x"))

        async with anyio.create_task_group() as group:
            group.start_soon(session.restore, copy)
            await anyio.sleep(0)
            group.start_soon(show)
            group.start_soon(show)
        assert shown == ["[]", "[]"]


async def _with(session: Session, code: str) -> str:
    """Run something, and return a checkpoint of what it has made."""
    assert (await session.run(code)).status == "ok"
    return await session.checkpoint()


@pytest.mark.parametrize(
    ("death", "status"),
    [
        ("import os; os._exit(7)", "nonzero"),
        ("import ctypes; ctypes.string_at(0)", "signal"),
        ("import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: pass", "timeout"),
        ("hog = [bytearray(8 << 20) for _ in range(100)]", "oom"),
    ],
)
async def test_a_checkpoint_outlives_the_death_of_its_session(
    session: Session, death: str, status: str
) -> None:
    copy = await _with(session, "import subprocess\nx = 'old'")
    patience = 1 if status == "timeout" else 30
    died = await session.run(f"subprocess.Popen(['sleep', '4345'])\n{death}", timeout_s=patience)

    assert died.status == status
    await session.restore(copy)
    assert await session.says("x") == "'old'"
    assert await session.processes() == 2


async def test_a_new_session_of_the_same_name_can_go_back_too(session: Session) -> None:
    copy = await _with(session, "x = 'old'")
    await session.run("import os; os._exit(1)")
    newer = await _with(session, "x = 'new'")

    await session.restore(copy)
    assert await session.says("x") == "'old'"
    await session.restore(newer)
    assert await session.says("x") == "'new'"


async def test_what_was_restored_takes_along_what_it_replaces(session: Session) -> None:
    copy = await _with(session, "import subprocess")
    await session.run("subprocess.Popen(['sleep', '4345'], start_new_session=True)")
    await session.restore(copy)

    assert await session.processes() == 2


async def test_a_checkpoint_whose_caller_is_gone_is_dropped(session: Session) -> None:
    await session.run("x = 'old'")
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as group:
            group.start_soon(session.checkpoint)
            await anyio.sleep(0)
            scope.cancel()

    assert await session.container.list_checkpoints() == []
    assert await session.says("x") == "'old'"
    assert await session.processes() == 1


async def test_who_takes_up_a_kept_container_finds_its_checkpoints(
    engine: Engine, image: str, deadline: Deadline
) -> None:
    async with keeping(engine, image, deadline) as kept:
        session = Session(await kept.create())
        copy = await _with(session, "x = 'old'")
        await session.run("x = 'new'")
        session.container = await kept.again(session.container)

        assert [one.id for one in await session.container.list_checkpoints()] == [copy]
        await session.restore(copy)
        assert await session.says("x") == "'old'"


@pytest.mark.parametrize("how", ["end_session", "kill_all", "dead session"])
async def test_the_end_of_a_session_is_the_end_of_its_checkpoints(session: Session, how: str) -> None:
    marker = await session.says("import os; os.getgroups()[0]")
    copies = [await session.checkpoint() for _ in range(3)]
    await session.restore(copies[1])
    if how == "dead session":
        await session.run("import os; os._exit(0)")
    if how == "kill_all":
        await session.container.kill_all()
    else:
        assert await session.container.end_session(session.name)

    with pytest.raises(CheckpointNotFoundError):
        await session.restore(copies[0])
    assert await session.container.list_checkpoints() == []

    async def is_gone() -> bool:
        return await marked(session.container, str(marker)) == 0

    await eventually(is_gone, within=10)


async def test_their_number_is_limited_and_they_are_listed_and_dropped(session: Session) -> None:
    await session.run("1")
    copies = [await session.checkpoint() for _ in range(OF_SESSION)]

    with pytest.raises(CheckpointError, match=r"as many checkpoints .* kill\(snapshot_id=<checkpoint_id>\)"):
        await session.checkpoint()
    listed = await session.container.list_checkpoints()
    assert [(one.id, one.session) for one in listed] == [(copy, session.name) for copy in copies]
    assert await session.container.drop_checkpoint(copies[3])
    assert not await session.container.drop_checkpoint(copies[3])
    with pytest.raises(CheckpointNotFoundError):
        await session.restore(copies[3])
    assert await session.checkpoint() not in copies


async def test_their_number_in_a_sandbox_is_limited(container: LiveContainer) -> None:
    sessions = [Session(container) for _ in range(IN_SANDBOX // OF_SESSION + 1)]
    for one in sessions:
        await one.run("1")
    for number in range(IN_SANDBOX):
        await sessions[number // OF_SESSION].checkpoint()

    with pytest.raises(CheckpointError, match="32 in a sandbox"):
        await sessions[-1].checkpoint()
    for one in sessions:
        await container.end_session(one.name)
    assert await container.list_checkpoints() == []


async def test_what_is_not_there_is_said_to_be_so(session: Session) -> None:
    with pytest.raises(CheckpointError, match="no Python session"):
        await session.checkpoint()
    await session.container.run("x=1", session="of-a-shell")
    with pytest.raises(CheckpointError, match="no Python session"):
        await session.container.checkpoint("of-a-shell")
    other = Session(session.container)
    foreign = await _with(other, "x = 'theirs'")
    await session.run("x = 'mine'")
    for missing in (foreign, "cp-0000", ""):
        with pytest.raises(CheckpointNotFoundError):
            await session.restore(missing)
    with pytest.raises(InvalidArgumentError):
        await session.container.checkpoint("no/name")
    assert await session.says("x") == "'mine'"
    await session.container.end_session(other.name)


async def test_a_checkpoint_that_was_killed_is_missed(session: Session) -> None:
    copy = await _with(session, "x = 'live'")

    async def is_gone() -> bool:
        # As soon as it has stopped.
        await session.container.run("kill -9 $(grep -lE 'State:.T' /proc/[0-9]*/status | cut -d/ -f3)")
        return await session.container.list_checkpoints() == []

    await eventually(is_gone, within=10)
    with pytest.raises(CheckpointNotFoundError, match="is dead"):
        await session.restore(copy)
    assert await session.says("x") == "'live'"


async def test_one_that_was_woken_does_nothing(session: Session) -> None:
    copy = await _with(session, "x = 'old'")
    await session.container.run("kill -CONT -1")
    await session.restore(copy)
    await session.restore(copy)
    assert await session.says("x") == "'old'"
    assert await session.processes() == 2


async def test_a_memory_limit_of_a_run_does_not_count_copies(session: Session) -> None:
    await session.run("data = bytearray(40 << 20)")
    for _ in range(3):
        await session.checkpoint()

    limits = RunLimits(memory_bytes=100 * MIB)
    assert (await session.run("import time; time.sleep(0.1)", limits=limits)).status == "ok"


async def test_pipes_of_the_live_session_end_though_there_is_a_copy(session: Session) -> None:
    await session.run(
        "import os, subprocess\np = subprocess.Popen(['cat'], stdin=-1, stdout=-1)\n"
        "r, w = os.pipe(); f = open('kept-file', 'w+'); f.write('0123'); f.flush()"
    )
    copy = await session.checkpoint()

    ended = await session.run("os.close(w); print(os.read(r, 1)); print(p.communicate(b'in'))", timeout_s=20)
    assert ended.stdout == "b''\n(b'in', None)\n"
    await session.run("f.write('4567'); f.flush()")
    await session.restore(copy)
    # Files are no part of a checkpoint, and their position neither.
    assert await session.says("f.tell(), f.seek(0), f.read()") == "(8, 0, '01234567')"
    assert (await session.run("os.write(w, b'x'); os.read(r, 1)")).value == "b''"


async def test_an_event_loop_is_there_after_it(session: Session) -> None:
    await session.run("import asyncio\nawait asyncio.sleep(0)\ntask = asyncio.create_task(asyncio.sleep(9))")
    copy = await session.checkpoint()
    assert await session.says("await asyncio.sleep(0.01, 'live')") == "'live'"
    for _ in range(2):
        await session.restore(copy)
        result = await session.run("await asyncio.sleep(0.01, 'again')")
        assert (result.value, result.stderr) == ("'again'", "")


# -- hostile and careless code ------------------------------------------------------------------------


PATCH = "def no(*a): raise RuntimeError\nimport os, signal, socket, json, time, gc, random, stat\n"


@pytest.mark.parametrize(
    "before",
    [
        PATCH + "os.fork = os._exit = os.waitpid = os.setsid = os.listdir = os.write = no",
        PATCH + "json.loads = json.dumps = time.sleep = time.monotonic = os.get_inheritable = None",
        PATCH + "signal.signal = signal.pthread_sigmask = stat.S_ISREG = random.getstate = no",
        PATCH + "for n in (1, 2, 15, 17, 18): signal.signal(n, signal.SIG_IGN)",
        PATCH + "signal.signal(17, lambda *_: os.wait()); signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)\n"
        "signal.signal(signal.SIGALRM, lambda *_: None)",
        PATCH + "os.register_at_fork(before=no, after_in_parent=no, after_in_child=no)",
        PATCH + "pids = [os.fork() for _ in range(1)]\nif 0 in pids: time.sleep(4244)",
        PATCH + "os.closerange(3, 1000); os.close(0); os.close(1)",
    ],
)
async def test_what_ordinary_programs_do_to_themselves_is_no_obstacle(session: Session, before: str) -> None:
    await session.run(f"x = 'old'\n{before}")
    copy = await session.checkpoint()
    await session.run("x = 'new'")
    await session.restore(copy)

    result = await session.run("print(x)")
    assert (result.status, result.stdout) == ("ok", "old\n")


HOOK = "import os, time, ctypes, signal, socket\ndef hook():\n    {0}\nos.register_at_fork({1}=hook)"
NOISE = "[s.send(b'{0}') for f in range(3, 1100) if (s := _socket(f))]"
SOCKETS = """
def _socket(fd):
    try:
        return socket.socket(fileno=os.dup(fd))
    except OSError:
        return None
"""


@pytest.mark.parametrize(
    "trick",
    [
        HOOK.format("os._exit(0)", "after_in_child"),
        HOOK.format("os._exit(9)", "after_in_child"),
        HOOK.format("os.kill(os.getpid(), 9)", "after_in_child"),
        HOOK.format("os.closerange(3, 3000)", "after_in_child"),
        "import ctypes; ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)",
        SOCKETS + HOOK.format(NOISE.format("ready"), "before"),
        SOCKETS + HOOK.format(NOISE.format("forked"), "after_in_child"),
        SOCKETS + HOOK.format(NOISE.format("threads 99999999999999999999"), "before"),
        SOCKETS + HOOK.format(NOISE.format("x" * 100_000), "before"),
    ],
)
async def test_code_that_tampers_with_forks_is_refused_and_lives(session: Session, trick: str) -> None:
    other = Session(session.container)
    theirs = await _with(other, "x = 'theirs'")
    await session.run(f"x = 'mine'\n{trick}")

    with pytest.raises(CheckpointError):
        await session.checkpoint()

    await other.restore(theirs)
    assert await other.says("x") == "'theirs'"
    assert [one.id for one in await session.container.list_checkpoints()] == [theirs]
    await session.container.end_session(other.name)


async def test_a_hook_that_hangs_is_given_up(session: Session) -> None:
    await session.run(HOOK.format("while os.path.exists('hang'): time.sleep(0.1)", "after_in_child"))
    copies = [await session.checkpoint() for _ in range(2)]
    await session.run("x = 'mine'; open('hang', 'w').close()")

    with pytest.raises(CheckpointError, match="six seconds"):
        await session.checkpoint()
    with pytest.raises(CheckpointError, match="six seconds"):
        await session.restore(copies[0])

    await session.run("os.remove('hang')")
    assert await session.says("x") == "'mine'"
    # It was in the middle of something.
    with pytest.raises(CheckpointNotFoundError):
        await session.restore(copies[0])
    assert await session.processes() == 2
    await session.restore(copies[1])
    assert (await session.run("x")).status == "nonzero"


async def test_a_hook_that_is_a_fork_bomb_ends_with_its_session(session: Session) -> None:
    other = Session(session.container)
    theirs = await _with(other, "x = 'theirs'")
    marker = await session.says("import os; os.getgroups()[0]")
    bomb = "import posix\n    if posix.fork() == 0:\n        while True:\n"
    bomb += "            try: posix.fork()\n            except OSError: pass"
    await session.run(HOOK.format(bomb, "after_in_child"))
    with contextlib.suppress(CheckpointError, ProcessLimitError):
        await session.checkpoint()
    assert await session.container.end_session(session.name)

    async def is_gone() -> bool:
        return await marked(session.container, str(marker)) == 0

    await eventually(is_gone, within=20)
    await other.restore(theirs)
    assert await other.says("x") == "'theirs'"
    await session.container.end_session(other.name)


async def test_a_session_that_closes_all_it_has_is_restored(session: Session) -> None:
    copy = await _with(session, "import os\nx = 'old'")
    await session.run("os.closerange(0, 5000)")
    await session.restore(copy)

    assert await session.says("x") == "'old'"


async def test_a_session_that_kills_all_loses_its_copies(session: Session) -> None:
    copy = await _with(session, "import os\nx = 'old'")
    await session.run("os.kill(-1, 9)")

    async def is_gone() -> bool:
        return await session.container.list_checkpoints() == []

    await eventually(is_gone, within=10)
    with pytest.raises(CheckpointNotFoundError):
        await session.restore(copy)


async def test_when_no_process_can_be_started_nothing_is_lost(engine: Engine, image: str) -> None:
    limits = Limits(memory_bytes=128 * MIB, pids=24)
    async with await LiveContainer.create(engine, Launch(unique("few"), image, LABELS, limits)) as few:
        session = Session(few)
        copy = await _with(session, "x = 'old'")
        fill = "try:\n    while os.fork(): pass\n    time.sleep(4244)\nexcept OSError: pass"
        await session.run(f"x = 'new'\nimport os, time\n{fill}")

        with pytest.raises(ProcessLimitError):
            await session.checkpoint()
        with pytest.raises(ProcessLimitError):
            await session.restore(copy)
        assert await session.says("x") == "'new'"


@pytest.mark.slow
async def test_restores_leave_nothing(session: Session) -> None:
    copy = await _with(session, "import os\nx = bytearray(10 << 20)")
    count = "len(os.listdir('/proc/self/fd')), os.getpid() > 0"
    await session.restore(copy)
    first, info = await session.says(count), await session.container.info()
    for _ in range(RESTORES):
        await session.restore(copy)

    after = await session.container.info()
    assert await session.says(count) == first
    assert after.processes == info.processes
    assert (after.memory_bytes or 0) < (info.memory_bytes or 0) + 8 * MIB
