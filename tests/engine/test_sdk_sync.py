"""The blocking SDK where blocking matters: Ctrl-C, forks, the interpreter's end, threads, event loops."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from pocket_dock_mcp import Container, ContainerNotRunning, Process, create_new_container
from pocket_dock_mcp.engine.base import Engine
from tests.engines import RUN, Deadline, Target, eventually, is_gone
from tests.sdk import prepare

pytestmark = [pytest.mark.slow]

LABELS = {"tested": RUN}
PRELUDE = f"""
import json, os, random, signal, sys, threading, time
from pathlib import Path
from pocket_dock_mcp import *

def create(name=None):
    return create_new_container(name=name, labels={LABELS!r})

def interrupt():
    os.kill(os.getpid(), signal.SIGINT)

def waits_in(method):
    frame = sys._current_frames()[threading.main_thread().ident]
    if not frame.f_code.co_filename.endswith("threading.py"):
        return False
    while frame := frame.f_back:
        if frame.f_code.co_name == method and "pocket_dock_mcp/sync" in frame.f_code.co_filename:
            return True
    return False

def strike(c, method):
    def look():
        while not (waits_in(method) and c.processes()):
            time.sleep(0.005)
        interrupt()
    threading.Thread(target=look, daemon=True).start()

def idle(c):
    end = time.monotonic() + 20
    while (left := c.processes()) and time.monotonic() < end:
        time.sleep(0.01)
    return [process.command for process in left]
"""
INTERRUPTED = """
from pocket_dock_mcp.container import transfer
transfer.REPORT_EVERY_S = 0.0

def run(c):
    strike(c, "run")
    c.run("trap '' INT TERM; (sleep 600) & sleep 601")

def waiting(c):
    for _ in c.run("echo x; sleep 600", stream=True):
        strike(c, "__next__")

def body(c):
    for _ in c.run("echo x; sleep 600", stream=True):
        interrupt()

def flood(c):
    for number, _ in enumerate(c.run("yes", stream=True)):
        if number == 3:
            interrupt()

def wait(c):
    process = c.run("sleep 600", detach=True)
    strike(c, "wait")
    process.wait()

def session(c):
    with c.session() as session:
        strike(c, "send_and_wait")
        session.send_and_wait("sleep 600")

def python_session(c):
    session = c.session(lang="python")
    strike(c, "send_and_wait")
    try:
        session.send_and_wait("import time; time.sleep(600)")
    finally:
        session.close()

def once():
    hits = iter([interrupt])
    return lambda progress: next(hits, int)()

def push(c):
    c.push("big", "new", on_progress=once())

def push_tree(c):
    c.push("tree", "new_tree", on_progress=once())

def pull(c):
    c.pull("large", "old", on_progress=once())

os.mkdir("tree")
for path in ("big", "tree/file"):
    Path(path).write_bytes(os.urandom(1 << 20) * 64)
Path("old").write_text("old")
found = {}
with create() as c:
    c.run("head -c 67108864 /dev/urandom > large; echo old > new").check()
    for case in (run, waiting, body, flood, wait, session, python_session, push, push_tree, pull):
        here, there = sorted(os.listdir()), c.list_files()
        try:
            case(c)
            how = "was not interrupted"
        except KeyboardInterrupt:
            how = "interrupted"
        left = idle(c)
        # Every name, as a transfer's stage begins with a dot.
        now = (sorted(os.listdir()), c.list_files(), c.run("head -c 9 new").stdout)
        is_clean = now == (here, there, "old\\n")
        found[case.__name__] = [how, left, "clean" if is_clean else c.list_files(), Path("old").read_text()]
print(json.dumps(found))
"""
ANY_MOMENT = """
slowest = 0
def strike_in(seconds):
    def later():
        time.sleep(seconds)
        interrupt()
    thread = threading.Thread(target=later)
    thread.start()
    return thread

with create() as c:
    for _ in range(25):
        begun = time.monotonic()
        try:
            striking = strike_in(random.random() * 0.02)
            try:
                while True:
                    c.run("sleep 0.002")
            finally:
                striking.join()
        except KeyboardInterrupt:
            pass
        slowest = max(slowest, time.monotonic() - begun)
    left = idle(c)
    print(json.dumps([c.run("echo usable").stdout, left, slowest]))
"""
FORKED = """
def in_child(act):
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    act()

c = create(sys.argv[1])
found = []

def use():
    for call in (lambda: c.run("true"), lambda: c.run("true", stream=True), c.info, c.session):
        try:
            call()
        except ContainerNotRunning as error:
            if "forked" not in str(error):
                sys.exit("said: " + str(error))
        else:
            sys.exit("it was used")
    c.shutdown()
    sys.exit(7)

def leave():
    sys.exit(8)

def make():
    with create() as own:
        sys.exit(own.run("exit 9").exit_code)

process = c.run("cat", detach=True)
for act in (use, make, lambda: 1 / 0, lambda: os._exit(6)):
    found.append(in_child(act))
with create() as other, other.session() as session:
    found.append(in_child(leave))
    found.append(session.send_and_wait("echo on").stdout)
process.write("still here")
process.close_stdin()
found.append(process.wait().stdout)
c.shutdown()
print(json.dumps(found))
"""
BUSY = """
def run():
    try:
        c.run("sleep 600")
    except ContainerError:
        pass

threading.Thread(target=run, daemon=True).start()
c.run("yes", stream=True)
c.run("yes > /dev/null", detach=True)
c.session().send("sleep 600")
while len(c.processes()) < 4:
    time.sleep(0.01)
"""
ENDS = {
    "no shutdown": ("", 0, ""),
    "an error": ("1 / 0", 1, "ZeroDivisionError"),
    "busy": (BUSY, 0, ""),
    "Ctrl-C": ("strike(c, 'run'); c.run('sleep 600')", -2, "KeyboardInterrupt"),
    "SIGTERM": ("os.kill(os.getpid(), signal.SIGTERM)", -15, ""),
}


@pytest.fixture(scope="module", autouse=True)
async def nothing_is_left_here(engine: Engine, deadline: Deadline) -> AsyncIterator[None]:
    """See at the end that the engine has nothing of these programs."""
    yield

    async def is_clean() -> bool:
        return not await engine.containers(f"tested={RUN}")

    await eventually(is_clean, within=deadline(20))


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture(autouse=True)
def prepared(target: Target, image: str, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(monkeypatch, target, image, state)


@pytest.fixture
def c() -> Iterator[Container]:
    with create_new_container(labels=LABELS) as made:
        yield made


@pytest.fixture
def name() -> str:
    return f"sdk-{secrets.token_hex(6)}"


def program(cwd: Path, text: str, *args: str) -> subprocess.CompletedProcess[str]:
    """Run a user's program to its end."""
    work = cwd / "work"
    work.mkdir()
    return subprocess.run(
        [sys.executable, "-c", PRELUDE + text, *args], cwd=work, capture_output=True, text=True, timeout=100
    )


def answer(done: subprocess.CompletedProcess[str]) -> Any:
    """Return what a program has printed, which has to have succeeded and not complained."""
    assert (done.returncode, done.stderr) == (0, ""), done.stderr[-4000:]
    return json.loads(done.stdout)


def test_ctrl_c_ends_what_is_waited_for_and_nothing_else(tmp_path: Path) -> None:
    found = answer(program(tmp_path, INTERRUPTED))

    assert found == {case: ["interrupted", [], "clean", "old"] for case in found}
    assert len(found) == 10


def test_ctrl_c_may_come_at_any_moment(tmp_path: Path, deadline: Deadline) -> None:
    said, left, slowest = answer(program(tmp_path, ANY_MOMENT))

    assert (said, left) == ("usable\n", [])
    assert slowest < deadline(10)


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="there the fork itself warns")
def test_a_forked_child_has_nothing_of_its_parents_and_harms_nothing(tmp_path: Path, name: str) -> None:
    done = program(tmp_path, FORKED, name)

    assert done.returncode == 0, done.stderr[-4000:]
    assert json.loads(done.stdout.splitlines()[-1]) == [7, 9, 1, 6, 8, "on\n", "still here"]
    assert done.stderr.count("Traceback") == 1, done.stderr


@pytest.mark.anyio
@pytest.mark.parametrize("how", ENDS)
async def test_a_container_ends_with_its_interpreter(
    engine: Engine, tmp_path: Path, name: str, how: str, deadline: Deadline
) -> None:
    text, status, complaint = ENDS[how]
    done = program(tmp_path, f"c = create({name!r})\nprint(c.run('echo used').stdout)\n{text}\n")

    assert (done.stdout, done.returncode) == ("used\n\n", status), done.stderr
    assert done.stderr.strip().splitlines()[-1:] == [] if not complaint else complaint in done.stderr
    assert done.stderr.count("Traceback") == (1 if complaint else 0), done.stderr
    await eventually(lambda: is_gone(engine, name), within=deadline(20))


def test_callbacks_have_a_thread_and_may_use_their_container(c: Container) -> None:
    heard: list[tuple[str, str]] = []
    threads: list[threading.Thread] = []

    def tell(container: Container, data: str) -> None:
        assert container is c
        threads.append(threading.current_thread())
        heard.append((data, container.run(["echo", "for", data.strip()]).stdout))

    def fail(container: Container, data: str) -> None:
        raise ValueError(data)

    remove_failing = c.on_stdout(fail)
    remove = c.on_stdout(tell)
    c.on_stderr(lambda _container, data: heard.append((data, "stderr")))
    c.on_exit(lambda container, code: heard.append((str(code), container.run("echo exit").stdout)))
    process = c.run("for i in 1 2 3; do read -r _; echo $i; done; exit 4", detach=True)
    for number in range(3):
        process.write("\n")
        while len(heard) <= number:
            threading.Event().wait(0.005)
    assert process.wait(20).exit_code == 4
    assert heard == [*((f"{n}\n", f"for {n}\n") for n in (1, 2, 3)), ("4", "exit\n")]
    assert threading.current_thread() not in threads

    heard.clear()
    remove()
    remove_failing()
    assert c.run("echo out; echo err >&2", detach=True).wait(20).ok
    assert heard == [("err\n", "stderr"), ("0", "exit\n")]


@pytest.mark.anyio
async def test_it_blocks_inside_a_running_event_loop_too() -> None:
    with create_new_container(labels=LABELS) as c, c.session() as session:
        assert c.run("echo in a loop").stdout == "in a loop\n"
        assert [chunk.data for chunk in c.run("echo piece", stream=True)] == ["piece\n"]
        assert session.send_and_wait("echo said").stdout == "said\n"


def test_threads_share_a_container_and_do_not_wait_for_each_other(c: Container) -> None:
    def create_and_use(number: int) -> str:
        with create_new_container(labels=LABELS) as own:
            return own.run(f"echo {number}").stdout

    with ThreadPoolExecutor(4) as pool:
        waiting = pool.submit(c.run, "until [ -e go ]; do sleep 0.01; done; echo gone", timeout=60)
        own = [pool.submit(create_and_use, number) for number in range(2)]
        assert pool.submit(c.run, "touch go; echo went").result(60).stdout == "went\n"
        assert waiting.result(60).stdout == "gone\n"
        assert [one.result(60) for one in own] == ["0\n", "1\n"]


def test_shutting_down_in_another_thread_ends_what_runs(c: Container) -> None:
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(c.run, "sleep 600", timeout=600)
        while not c.processes():
            os.sched_yield()
        c.shutdown()
        assert running.result(60).status == "killed"
    with pytest.raises(ContainerNotRunning):
        c.run("true")


def test_detached_programs_are_found_again() -> None:
    with create_new_container() as c:
        begun = c.run("exec sleep 600", detach=True)
        (found,) = c.detached()
        assert isinstance(found, Process)
        assert found.id == begun.id
        found.kill()
        assert found.wait(20).signal == 15
