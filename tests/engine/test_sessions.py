"""Persistent interpreters and shells, on real engines."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from pocket_dock_mcp.container.core import LiveContainer
from pocket_dock_mcp.container.launch import Launch
from pocket_dock_mcp.engine.base import Engine
from pocket_dock_mcp.errors import SandboxFileNotFoundError, SessionBusyError, SessionDiedError
from pocket_dock_mcp.models import MIB, Limits, RunLimits, RunResult
from tests.engines import LABELS, eventually, unique

pytestmark = [pytest.mark.anyio, pytest.mark.front]

LANGUAGES = ["python", "shell"]
SET = {"python": "x = {value!r}", "shell": "x={value}"}
SHOW = {"python": "print(x)", "shell": "echo $x"}
HANG = {"python": "import time; time.sleep(4244)", "shell": "sleep 4244"}
DIE = {"python": "import os; os._exit(7)", "shell": "exit 7"}
DIE_LATER = {
    "python": "import threading, os\nthreading.Timer(0.2, os._exit, [7]).start()",
    "shell": "(sleep 0.2; kill -9 $$) &",
}


@pytest.fixture(scope="module")
async def container(engine: Engine, image: str) -> AsyncIterator[LiveContainer]:
    limits = Limits(memory_bytes=256 * MIB)
    async with await LiveContainer.create(engine, Launch(unique("sessions"), image, LABELS, limits)) as made:
        yield made


class Session:
    """One session of its own for a test."""

    def __init__(self, container: LiveContainer, language: str) -> None:
        self.container = container
        self.language = language
        self.name = unique("s").replace("/", "-")[-40:]

    async def run(self, code: str, **options: Any) -> RunResult:
        return await self.container.run(code, language=self.language, session=self.name, **options)

    async def show(self) -> str:
        return (await self.run(SHOW[self.language])).stdout.strip()

    async def set(self, value: str) -> None:
        assert (await self.run(SET[self.language].format(value=value))).status == "ok"


@pytest.fixture(params=LANGUAGES)
async def session(request: pytest.FixtureRequest, container: LiveContainer) -> AsyncIterator[Session]:
    made = Session(container, request.param)
    yield made
    await container.end_session(made.name)


async def test_what_is_set_in_one_run_is_there_in_the_next(session: Session) -> None:
    first = await session.run(SET[session.language].format(value="here"))
    second = await session.run(SHOW[session.language])

    assert second.stdout == "here\n"
    assert first.session is not None
    assert second.session is not None
    assert (first.session.new, second.session.new) == (True, False)


async def test_sessions_and_fresh_runs_do_not_see_each_other(session: Session) -> None:
    other = Session(session.container, session.language)
    await session.set("mine")
    await other.set("yours")
    fresh = await session.container.run(SHOW[session.language], language=session.language)

    assert [await session.show(), await other.show()] == ["mine", "yours"]
    assert "mine" not in fresh.stdout
    assert "yours" not in fresh.stdout
    await session.container.end_session(other.name)
    assert await session.show() == "mine"


async def test_sessions_run_in_parallel_and_one_runs_in_order(session: Session) -> None:
    others = [Session(session.container, session.language) for _ in range(3)]
    await session.set("0")
    append = "x += '{0}'" if session.language == "python" else "x=${{x}}{0}"
    hang = await session.container.start(HANG["shell"], session=others[0].name)
    async with anyio.create_task_group() as group:
        for number in range(1, 6):
            group.start_soon(session.run, append.format(number))
            await anyio.sleep(0)
    assert sorted(await session.show()) == list("012345")
    assert hang.is_running
    await hang.kill()
    assert (await hang.wait()).status == "killed"


async def test_a_session_that_ends_says_so_and_the_next_run_begins_a_new_one(session: Session) -> None:
    await session.set("old")
    ended = await session.run(DIE[session.language])

    assert (ended.status, ended.exit_code) == ("nonzero", 7)
    assert ended.session is not None
    assert not ended.session.alive
    assert ended.hint is not None
    again = await session.run("1" if session.language == "python" else "true")
    assert again.session is not None
    assert again.session.new


async def test_a_session_that_died_unseen_runs_nothing_before_that_was_told(session: Session) -> None:
    await session.run(DIE_LATER[session.language])

    async def is_gone() -> bool:
        return session.name not in [one.name for one in await session.container.list_sessions()]

    await eventually(is_gone, within=10)
    with pytest.raises(SessionDiedError, match="has not run"):
        await session.run(DIE[session.language])
    assert (await session.run("1" if session.language == "python" else "true")).session.new  # type: ignore[union-attr]


async def test_a_session_that_was_ended_is_begun_anew_without_a_word(session: Session) -> None:
    for _ in range(5):
        await session.set("old")
        assert await session.container.end_session(session.name)
        begun = await session.run("1" if session.language == "python" else "true")
        assert begun.status == "ok"
        assert begun.session is not None
        assert begun.session.new


async def test_a_killed_session_takes_everything_in_it_along(session: Session) -> None:
    leave = (
        "import subprocess; subprocess.Popen(['sleep', '4343'])"
        if session.language == "python"
        else "sleep 4343 &"
    )
    await session.run(leave)
    seen = "cat /proc/[0-9]*/cmdline | tr '\\0' ' '"
    assert "sleep 4343" in (await session.container.run(seen)).stdout

    assert await session.container.end_session(session.name)

    async def is_gone() -> bool:
        return "sleep 4343" not in (await session.container.run(seen)).stdout

    await eventually(is_gone, within=10)


async def test_a_time_limit_ends_the_run_and_all_that_it_began(session: Session) -> None:
    result = await session.run(HANG[session.language], timeout_s=0.3)

    assert result.status == "timeout"
    assert result.usage.wall_s < 2
    assert (await session.container.run("cat /proc/[0-9]*/cmdline | tr '\\0' ' '")).stdout.count("4244") == 0


async def test_an_interpreter_survives_the_time_limit_of_a_run(container: LiveContainer) -> None:
    session = Session(container, "python")
    await session.set("kept")
    result = await session.run("import time\nprint('so far')\ntime.sleep(4244)", timeout_s=0.3)

    assert (result.status, result.stdout) == ("timeout", "so far\n")
    assert result.session is not None
    assert result.session.alive
    assert await session.show() == "kept"


async def test_an_interpreter_that_does_not_let_go_is_killed(container: LiveContainer) -> None:
    session = Session(container, "python")
    stubborn = "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: pass"

    result = await session.run(stubborn, timeout_s=0.3)

    assert result.status == "timeout"
    assert result.session is not None
    assert not result.session.alive


async def test_a_cancelled_run_is_interrupted(session: Session) -> None:
    with anyio.move_on_after(0.3):
        await session.run(HANG[session.language])

    assert (await session.container.run("cat /proc/[0-9]*/cmdline | tr '\\0' ' '")).stdout.count("4244") == 0
    assert (await session.run("print(1)" if session.language == "python" else "echo 1")).stdout == "1\n"


async def test_a_run_that_waits_longer_than_its_limit_is_not_run(session: Session) -> None:
    busy = await session.container.start(
        HANG[session.language], language=session.language, session=session.name
    )
    with pytest.raises(SessionBusyError):
        await session.run(
            "open('trace', 'w')" if session.language == "python" else "touch trace", timeout_s=0.2
        )
    await busy.kill()
    await busy.wait()

    assert (await session.container.run("ls trace")).exit_code == 2


async def test_a_run_that_waits_can_be_killed(session: Session) -> None:
    busy = await session.container.start(
        HANG[session.language], language=session.language, session=session.name
    )
    waiting = await session.container.start("1", language=session.language, session=session.name)
    await waiting.kill()

    assert (await waiting.wait()).status == "killed"
    assert busy.is_running
    await busy.kill()
    await busy.wait()


async def test_standard_input_belongs_to_the_run(session: Session) -> None:
    read = "import sys\nprint(repr(sys.stdin.read()))" if session.language == "python" else "cat; echo ."

    given = await session.run(read, stdin="two\nlines")
    none = await session.run(read)

    assert "two" in given.stdout
    assert none.stdout in ("''\n", ".\n")
    assert (await session.run("print(2)" if session.language == "python" else "echo 2")).stdout == "2\n"


async def test_environment_and_directory_stay(session: Session) -> None:
    show = (
        "import os; print(os.getcwd(), os.environ['WORD'])"
        if session.language == "python"
        else 'echo "$(pwd) $WORD"'
    )
    await session.run("1" if session.language == "python" else ":", cwd="/usr", env={"WORD": "it's"})

    assert (await session.run(show)).stdout == "/usr it's\n"
    with pytest.raises(SandboxFileNotFoundError):
        await session.run(show, cwd="/nowhere")
    assert (await session.run(show)).stdout == "/usr it's\n"


async def test_output_is_whole_and_in_its_own_run(session: Session) -> None:
    write = (
        "import sys; sys.stdout.write('x' * 3_000_000); sys.stderr.write('no newline')"
        if session.language == "python"
        else "head -c 3000000 /dev/zero; printf 'no newline' >&2"
    )
    result = await session.run(write)

    assert (result.stdout_bytes, result.stderr) == (3_000_000, "no newline")
    after = await session.run("print('next')" if session.language == "python" else "echo next")
    assert (after.stdout, after.stderr) == ("next\n", "")


async def test_limits_of_a_run_hold_in_a_session(session: Session) -> None:
    flood = "while True: print('y' * 1000)" if session.language == "python" else "yes"

    result = await session.run(flood, limits=RunLimits(output_bytes=100_000), timeout_s=30)

    assert result.status == "output_limit"


async def test_a_limit_on_cpu_time_counts_what_this_run_uses(session: Session) -> None:
    busy = {
        "python": "import time\nwhile time.process_time() < 0.6: pass",
        "shell": "python3 -c 'import time\nwhile time.process_time() < 0.6: pass'",
    }
    assert (await session.run(busy[session.language])).status == "ok"

    after = await session.run(
        "sleep 0.2" if session.language == "shell" else "time.sleep(0.2)", limits=RunLimits(cpu_s=0.3)
    )

    assert after.status == "ok", after.hint


async def test_a_session_that_runs_out_of_memory_says_so(session: Session) -> None:
    hog = "x = [bytearray(8 << 20) for _ in range(100)]"
    code = hog if session.language == "python" else f'python3 -c "{hog}"'

    result = await session.run(code)

    assert result.status == "oom"
    assert (await session.container.run("echo well")).stdout == "well\n"


async def test_files_that_a_session_keeps_open_are_told_too(container: LiveContainer) -> None:
    python = Session(container, "python")
    opened = await python.run("f = open('kept-open', 'w'); None")
    written = await python.run("f.write('x' * 10); f.flush()")

    assert opened.files_changed is not None
    assert written.files_changed is not None
    assert opened.files_changed.created == (("/home/sandbox/kept-open", 0),)
    assert written.files_changed.modified == (("/home/sandbox/kept-open", 10),)


# -- shells -------------------------------------------------------------------------------------------


async def test_a_shell_keeps_directory_functions_and_options(container: LiveContainer) -> None:
    shell = Session(container, "shell")
    await shell.run("cd /tmp; f() { echo f-$1; }; export E=e; set -f")

    assert (await shell.run('pwd; f 1; sh -c "echo \\$E"; echo *')).stdout == "/tmp\nf-1\ne\n*\n"


@pytest.mark.parametrize(
    ("code", "exit_code", "stdout"),
    [
        ("printf 'no newline'", 0, "no newline"),
        ("read -r y; echo got:$y; cat", 0, "got:\n"),
        ("if", 2, ""),
        ("echo 'unclosed", 2, ""),
        ("(exit 9)", 9, ""),
        ("break; echo on", 0, ""),
        ("continue", 0, ""),
        ("set -x; set +x 2>/dev/null", 0, ""),
        ("exec >/tmp/elsewhere; echo hidden", 0, ""),
        ("echo one\necho two # comment", 0, "one\ntwo\n"),
        ("cat <<X\nhere\nX\n", 0, "here\n"),
        ("unset IFS; alias printf=false; printf() { return 1; }; IFS=x; read() { :; }", 0, ""),
    ],
)
async def test_ordinary_commands_do_a_shell_no_harm(
    container: LiveContainer, code: str, exit_code: int, stdout: str
) -> None:
    shell = Session(container, "shell")
    await shell.set("kept")
    result = await shell.run(code)

    assert (result.exit_code, result.stdout) == (exit_code, stdout)
    assert (await shell.run("echo $x")).stdout == "kept\n"
    await container.end_session(shell.name)


async def test_exec_ends_the_session_with_the_programs_exit_code(container: LiveContainer) -> None:
    shell = Session(container, "shell")
    await shell.set("gone")
    result = await shell.run("exec sh -c 'echo last; exit 12'")

    assert (result.exit_code, result.stdout) == (12, "last\n")
    assert result.session is not None
    assert not result.session.alive


async def test_what_a_shell_left_in_the_background_speaks_in_a_later_run(container: LiveContainer) -> None:
    shell = Session(container, "shell")
    await shell.run("mkfifo gate; (read -r x < gate; echo later) &")
    assert (await shell.run("echo now")).stdout == "now\n"

    assert (await shell.run("echo x > gate; wait")).stdout == "later\n"


# -- interpreters -------------------------------------------------------------------------------------


async def test_sys_exit_ends_the_run_and_not_the_session(container: LiveContainer) -> None:
    python = Session(container, "python")
    await python.set("kept")
    result = await python.run("import sys; sys.exit(5)")

    assert (result.status, result.exit_code) == ("nonzero", 5)
    assert await python.show() == "kept"


async def test_the_last_expressions_value_comes_back(container: LiveContainer) -> None:
    python = Session(container, "python")

    assert (await python.run("y = 20\ny * 2 + 2")).value == "42"
    assert (await python.run("y = 1")).value is None
    assert (await container.run("[1, 'two']", language="python")).value == "[1, 'two']"


async def test_a_fork_in_a_session_does_not_answer_for_it(container: LiveContainer) -> None:
    python = Session(container, "python")
    await python.run("import os\npid = os.fork()\nif pid: os.waitpid(pid, 0)")

    assert (await python.run("print('one')")).stdout == "one\n"


async def test_random_numbers_differ_from_run_to_run(container: LiveContainer) -> None:
    seen = [
        (await container.run("import random; print(random.random())", language="python")).stdout
        for _ in range(5)
    ]

    assert len(set(seen)) == 5
