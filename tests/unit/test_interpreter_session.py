"""An interpreter that runs one cell after another, and lives through what they do to it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.interpreters import Session, session


@pytest.fixture
def cells() -> Iterator[Session]:
    with session() as made:
        yield made


def pid_of(cells: Session) -> int:
    return int(cells.cell("import os\nos.getpid()").result or 0)


# -- cells ----------------------------------------------------------------------------------------


def test_names_stay_from_cell_to_cell(cells: Session) -> None:
    assert cells.cell("x = 20").done["code"] == 0
    assert cells.cell("def f():\n    return x + 1").result is None
    assert cells.cell("f() * 2").result == "42"


def test_a_cell_runs_in_main_which_has_nothing_of_ours(cells: Session) -> None:
    cells.cell("x = 1")

    ran = cells.cell(
        "import sys\nsorted(n for n in globals() if n[:2] != '__'), __name__, sys.modules[__name__].x"
    )

    assert ran.result == "(['sys', 'x'], '__main__', 1)"


def test_an_answer_has_code_time_and_peak(cells: Session) -> None:
    cells.cell("blob = bytearray(1 << 20)")
    done = cells.cell(
        "import os, time\nend = time.process_time() + .05\nwhile time.process_time() < end: pass\n"
        "pid = os.fork()\nif not pid:\n    end = time.process_time() + .05\n"
        "    while time.process_time() < end: pass\n    os._exit(0)\nos.waitpid(pid, 0)[1]"
    ).done

    assert set(done) == {"code", "cpu", "peak"}
    assert 0.1 <= done["cpu"] < 1
    assert done["peak"] > 1 << 20
    assert cells.cell("1").done["cpu"] < 0.05


@pytest.mark.parametrize(
    ("source", "code"),
    [
        ("1 / 0", 1),
        ("x = = 1", 1),
        ("import sys; sys.exit(7)", 7),
        ("raise SystemExit", 0),
        ("quit()", 0),
        ("import sys; sys.exit('bye')", 1),
        ("raise KeyboardInterrupt", 130),
    ],
)
def test_a_cell_that_ends_early_ends_alone(cells: Session, source: str, code: int) -> None:
    cells.cell("x = 5")

    assert cells.cell(source).status == code
    assert cells.cell("x").result == "5"


def test_a_traceback_has_the_lines_of_all_cells_it_goes_through(cells: Session) -> None:
    cells.cell("def f(x):\n    return 1 / x")

    ran = cells.cell("\nf(0)")

    assert 'File "<cell 2>", line 2, in <module>\n    f(0)\n' in ran.err
    assert 'File "<cell 1>", line 2, in f\n    return 1 / x\n' in ran.err
    assert ran.err.count("  File ") == 2
    assert ran.of("error") == [
        {"what": "error", "type": "ZeroDivisionError", "message": "division by zero", "line": 2}
    ]


def test_output_and_errors_of_a_cell_come_before_its_answer(cells: Session) -> None:
    ran = cells.cell(
        "import sys\nprint('out')\nprint('err', file=sys.stderr)\nsys.stdout.write('no newline')"
    )

    assert (ran.out, ran.err, ran.result) == ("out\nno newline", "err\n", "10")


def test_directory_and_environment_stay(cells: Session, tmp_path: Path) -> None:
    cells.cell("import os", cwd=str(tmp_path), env={"A": "b"})

    assert cells.cell("os.getcwd(), os.environ['A']").result == repr((str(tmp_path), "b"))


def test_without_its_directory_a_cell_does_not_run(cells: Session, tmp_path: Path) -> None:
    ran = cells.cell("x = 1", cwd=str(tmp_path / "missing"))

    assert ran.done == {"failed": "cwd", "errno": 2}
    assert cells.cell("x").status == 1


def test_input_is_a_cells_own(cells: Session) -> None:
    assert cells.cell("input()", stdin=b"one\ntwo\n").result == "'one'"
    assert "EOFError" in cells.cell("input()").err
    assert cells.cell("import sys\nsys.stdin.read(), sys.stdin.name", stdin=b"x").result == "('x', '<stdin>')"
    assert cells.cell("import os\nos.read(0, 10)").result == "b''"


def test_a_large_source_is_taken_whole(cells: Session) -> None:
    assert cells.cell(f"len('{'x' * 900_000}')").result == "900000"


def test_await_uses_one_loop_for_all_cells(cells: Session) -> None:
    cells.cell("import asyncio\nqueue = asyncio.Queue()\nasync def later():\n    await queue.put(5)")
    cells.cell("task = asyncio.get_running_loop().create_task(later())\nawait asyncio.sleep(0)")

    assert cells.cell("await queue.get()").result == "5"
    assert cells.cell("asyncio.run(later())").status == 0


def test_future_statements_stay(cells: Session) -> None:
    cells.cell("from __future__ import annotations")

    assert cells.cell("def f(x: no_such): pass\nf.__annotations__").result == "{'x': 'no_such'}"


def test_the_source_of_functions_is_found(cells: Session) -> None:
    cells.cell("def f():\n    return 1")

    assert cells.cell("import inspect\ninspect.getsource(f)").result == repr("def f():\n    return 1\n")


def test_packages_that_a_cell_installs_are_found(tmp_path: Path) -> None:
    where = "import os, sys\nhome = os.path.expanduser('~')\nv = 'python%d.%d' % sys.version_info[:2]\n"
    with session(env={"HOME": str(tmp_path)}) as cells:
        cells.cell(
            where
            + "d = f'{home}/.local/lib/{v}/site-packages'\nos.makedirs(d)\nopen(d + '/new.py', 'w').close()"
        )

        assert cells.cell("import new").status == 0


def test_a_warning_is_given_again_in_another_cell(cells: Session) -> None:
    for _ in range(2):
        assert "UserWarning: careful" in cells.cell("import warnings\nwarnings.warn('careful')").err


def test_threads_go_on_between_cells(cells: Session) -> None:
    cells.cell("import threading\ngo, done = threading.Event(), threading.Event()")
    cells.cell("t = threading.Thread(target=lambda: (go.wait(), done.set())); t.start()")

    assert cells.cell("go.set()\ndone.wait(20)").result == "True"


# -- its end --------------------------------------------------------------------------------------


def test_when_the_other_end_is_closed_it_ends_as_an_interpreter(tmp_path: Path) -> None:
    path = tmp_path / "left"
    cells = Session()
    cells.cell(
        "import atexit, threading\natexit.register(print, 'registered')\n"
        f"f = open({str(path)!r}, 'w'); f.write('kept')\n"
        "threading.Timer(.05, print, ['late']).start()"
    )

    assert cells.close() == 0
    assert cells.output() == ("late\nregistered\n", "")
    assert path.read_text() == "kept"


def test_a_process_that_ends_itself_does_not_answer() -> None:
    cells = Session()
    cells.send("import os; os._exit(4)")

    with pytest.raises(EOFError):
        cells.receive()
    assert cells.close() == 4


# -- interrupts -----------------------------------------------------------------------------------


def test_sigint_ends_a_cell_and_not_the_session(cells: Session) -> None:
    pid = pid_of(cells)
    cells.send("import time\n\ntime.sleep(60)")

    ran = cells.interrupt(pid)

    assert ran.status == 130
    assert ran.err.endswith("KeyboardInterrupt\n")
    assert 'File "<cell 2>", line 3, in <module>\n    time.sleep(60)\n' in ran.err
    assert ran.err.count("  File ") == 1
    assert cells.cell("1").result == "1"


def test_sigint_while_no_cell_runs_does_nothing(cells: Session) -> None:
    pid = pid_of(cells)
    for _ in range(50):
        os.kill(pid, signal.SIGINT)
        assert cells.cell("'fine'").result == "'fine'"


def test_sigint_at_any_moment_ends_a_cell_or_does_nothing(cells: Session) -> None:
    """A storm: each cell is answered, and is whole or interrupted."""
    pid = pid_of(cells)
    storm = os.fork()
    if storm == 0:
        try:
            while True:
                os.kill(pid, signal.SIGINT)
        finally:
            os._exit(0)
    try:
        codes = [cells.cell("x = sum(range(100))\ny = 1 / 0 if x == 0 else x\ny").status for _ in range(300)]
        codes += [cells.cell("1 / 0").status for _ in range(100)]
    finally:
        os.kill(storm, signal.SIGKILL)
        os.waitpid(storm, 0)

    assert set(codes) <= {0, 1, 130}
    assert cells.cell("2 * 21").result == "42"


@pytest.mark.parametrize("handler", ["SIG_IGN", "SIG_DFL", "default_int_handler"])
def test_a_handler_of_a_cell_does_not_keep_the_next_from_being_interrupted(
    cells: Session, handler: str
) -> None:
    pid = pid_of(cells)
    cells.cell(f"import signal\nsignal.signal(signal.SIGINT, signal.{handler})")
    os.kill(pid, signal.SIGINT)

    ran = cells.cell("import os, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(60)")

    assert ran.status == 130


def test_a_handler_of_a_cell_works_in_it(cells: Session) -> None:
    ran = cells.cell(
        "import os, signal\nsignal.signal(signal.SIGINT, lambda *_: print('mine'))\n"
        "os.kill(os.getpid(), signal.SIGINT)\n'went on'"
    )

    assert (ran.out, ran.result) == ("mine\n", "'went on'")


def test_a_slow_repr_is_interrupted(cells: Session) -> None:
    ran = cells.cell(
        "import os, signal, time\nclass Slow:\n    def __repr__(self):\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n        time.sleep(60)\nSlow()"
    )

    assert ran.status == 130
    assert cells.cell("1").result == "1"


def test_an_interrupted_await_does_not_go_on_later(cells: Session) -> None:
    ran = cells.cell(
        "import asyncio, os, signal\nasync def f():\n"
        "    asyncio.get_running_loop().call_soon(os.kill, os.getpid(), signal.SIGINT)\n"
        "    await asyncio.sleep(.05)\n    print('went on')\nawait f()"
    )

    assert ran.status == 130
    assert cells.cell("await asyncio.sleep(.1)").out == ""


# -- cells that are careless with what we need ----------------------------------------------------


@pytest.mark.parametrize(
    "careless",
    [
        "import os\nfor fd in range(256):\n    try: os.close(fd)\n    except OSError: pass",
        "import os; os.closerange(0, 1024)",
        "import sys; sys.stdout.close(); sys.stderr.close(); sys.stdin.close()",
        "import os; os.close(1); os.close(2)",
        "import os; f = open('/dev/null', 'w'); os.dup2(f.fileno(), 1); os.dup2(f.fileno(), 2)",
        "import sys, io; sys.stdout = sys.stderr = io.StringIO()",
        "import sys; sys.stdout = sys.stderr = sys.stdin = None",
        "import sys; sys.stdout.detach(); sys.stderr.detach()",
        "import sys, io; sys.stdout = io.TextIOWrapper(sys.stdout.buffer, 'ascii')",
        "import sys, contextlib; contextlib.redirect_stdout(None).__enter__()",
        "import sys; del sys.stdout, sys.stderr, sys.stdin",
        "import sys; sys.modules.clear()",
        "import sys; sys.modules['__main__'] = None",
        "import builtins; del builtins",
        "del __builtins__",
        "globals().clear()",
        "import builtins; builtins.print, builtins.open, p = None, None, print",
        "import json; json.loads = json.dumps = None",
        "import sys; sys.setrecursionlimit(50)",
        "import gc; gc.freeze(); gc.disable()",
        "import linecache; linecache.cache.clear()",
        "import warnings; warnings.simplefilter('error')",
        "import os, tempfile; os.chdir(tempfile.mkdtemp()); os.rmdir(os.getcwd())",
        "import os; os.environ.clear(); os.environ = {}",
        "import sys; sys.excepthook = None",
        "import sys; sys.path[:] = []; sys.meta_path[:] = []",
        "import threading; threading.Thread(target=threading.Event().wait, daemon=True).start()",
        "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))",
        "def f(): f()\nf()",
        "raise MemoryError",
        "class E(Exception):\n    __str__ = __repr__ = __hash__ = None\nraise E",
        "import sys; sys.settrace(lambda *a: None)",
    ],
)
def test_the_next_cell_runs_prints_fails_and_answers(cells: Session, careless: str) -> None:
    cells.cell(careless)

    ran = cells.cell("import sys\nsys.stdout.write('out ')\nsys.stderr.write('err ')\n6 * 7")
    failed = cells.cell("1 / 0")

    assert (ran.status, ran.out, ran.err, ran.result) == (0, "out ", "err ", "42")
    assert failed.status == 1
    assert "ZeroDivisionError" in failed.err


def test_what_was_printed_into_a_replaced_descriptor_stays_there(cells: Session, tmp_path: Path) -> None:
    path = tmp_path / "there"

    ran = cells.cell(
        f"import os\nprint('here')\nf = open({str(path)!r}, 'w')\nos.dup2(f.fileno(), 1)\nprint('there')"
    )

    assert (ran.out, path.read_text()) == ("here\n", "there\n")
    assert cells.cell("print('here again')").out == "here again\n"


def test_buffered_output_is_not_lost_with_its_descriptor() -> None:
    with session() as cells:
        cells.cell("import sys\nsys.stdout = sys.__stdout__ = open(1, 'w', closefd=False)")

        assert cells.cell("print('x')").out == "x\n"


def test_without_room_for_descriptors_a_cell_does_not_run(cells: Session) -> None:
    cells.cell("import os\nfds = []\ntry:\n    while 1: fds.append(os.dup(0))\nexcept OSError: pass")

    ran = cells.cell("1")

    assert "failed" in ran.done or ran.result == "1"


@pytest.mark.parametrize(
    ("child", "out", "err"),
    [
        ("print('child')", "child\n", ""),
        ("raise SystemExit(3)", "", ""),
        ("1 / 0", "", "ZeroDivisionError: division by zero\n"),
        ("'result'", "", ""),
    ],
)
def test_a_forked_child_never_answers(cells: Session, child: str, out: str, err: str) -> None:
    ran = cells.cell(f"import os\npid = os.fork()\nif pid:\n    os.waitpid(pid, 0)\nelse:\n    {child}")

    assert (ran.status, ran.out, ran.blocks) == (0, out, [])
    assert ran.err.endswith(err)
    assert cells.cell("print('one')").out == "one\n"


def test_a_forked_child_has_neither_report_nor_control(cells: Session) -> None:
    ran = cells.cell(
        "import os\nr, w = os.pipe()\nif not os.fork():\n"
        "    def kind(n):\n        try: return os.readlink('/proc/self/fd/' + n)\n"
        "        except OSError: return ''\n"
        "    os.write(w, ' '.join(kind(n) for n in os.listdir('/proc/self/fd')).encode())\n    os._exit(0)\n"
        "os.wait()\nwords = os.read(r, 4096).decode().split()\n"
        "[[name for name in words if name.startswith(kind)] for kind in ('socket', 'pipe')]"
    )

    sockets, pipes = eval(ran.result or "")
    assert sockets == []
    assert len(set(pipes)) == 1


def test_multiprocessing_works(cells: Session) -> None:
    cells.cell("def f(x):\n    return x * x")

    ran = cells.cell(
        "from multiprocessing import get_context\nwith get_context('fork').Pool(2) as p:\n"
        "    r = p.map(f, range(4))\nr"
    )

    assert (ran.result, ran.err) == ("[0, 1, 4, 9]", "")
