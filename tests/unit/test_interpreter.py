"""One Python program from start to end, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import interpreters
from tests.interpreters import Ran, run_once

POOL = """
from multiprocessing import get_context
def f(x):
    return x + 1
if __name__ == "__main__":
    with get_context("fork").Pool(2) as pool:
        print(pool.map(f, [1, 2]))
"""
NOISY_DEL = "class A:\n    def __del__(self): print('gone', A.__name__)\n"


def really(source: str, path: Path) -> Ran:
    """What an interpreter does with the same program, its name replaced by ours."""
    path.write_text(source, encoding="utf-8")
    argv = [interpreters.PYTHON, "-u", str(path)]
    done = subprocess.run(argv, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=30)
    return Ran(done.returncode, done.stdout, done.stderr.replace(str(path), "<code>"), [], {})


@pytest.mark.parametrize(
    "source",
    [
        "print(__name__, [n for n in globals() if n not in ('__file__', '__cached__')], __builtins__)",
        "print(__doc__, __annotations__, __package__, __spec__)\nx: int = 1\nprint(__annotations__)",
        "'''doc'''\nprint(__doc__)",
        "from __future__ import annotations\nx: no_such = 1\nprint(__annotations__)",
        "import sys\nprint(sys.modules['__main__'].__dict__ is globals())",
        "if __name__ == '__main__':\n    print('main')",
        # Exit statuses.
        "import sys; sys.exit(7)",
        "import sys; sys.exit(-1)",
        "import sys; sys.exit('bye')",
        "raise SystemExit",
        "raise SystemExit(True)",
        "raise SystemExit(None)",
        "raise SystemExit((1, 2))",
        "import os; os._exit(4)",
        "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
        "raise KeyboardInterrupt",
        "import os, signal, time; os.kill(os.getpid(), signal.SIGINT); time.sleep(30)",
        "import atexit; atexit.register(print, 'end'); raise KeyboardInterrupt",
        # Threads, what is registered, and what is left.
        "import threading; threading.Timer(.05, print, ['late']).start()",
        "import threading, time; threading.Thread(target=time.sleep, args=[60], daemon=True).start()",
        "import atexit; atexit.register(print, 'one'); atexit.register(print, 'two'); raise SystemExit(3)",
        "import atexit, sys; atexit.register(sys.exit, 3)",
        "from concurrent.futures import ThreadPoolExecutor as T\nT().submit(print, 'pool')",
        "import sys; sys.stdout.close()",
        "import sys; sys.stdout = None; sys.stderr = None",
        "import os; os.close(1)",
        NOISY_DEL + "a = A()",
        NOISY_DEL + "a = A()\na.a = a",
        NOISY_DEL + "import signal\nsignal.signal(signal.SIGTERM, lambda *_: A)\na = A()",
        # Errors.
        "def f():\n    1 / 0\nf()",
        "x = 1\ndef f(x:\n    pass",
        "  x = 1",
        "return 1",
        "for x in 1, 2:\n  continue\nbreak",
        "try:\n    1 / 0\nexcept ZeroDivisionError as e:\n    raise ValueError('x') from e",
        "try:\n    1 / 0\nexcept ZeroDivisionError as e:\n    raise ValueError('x')",
        "try:\n    1 / 0\nexcept ZeroDivisionError as e:\n    raise ValueError('x') from None",
        "assert 0, '\\n' + 'x' * 1000",
        "import sys\nsys.excepthook = lambda *a: print('hook', a[0], a[2].tb_lineno)\n1 / 0",
        "exec('1 / 0')",
        # What is not on lines as it seems.
        "x = '''\n\f'''\n\n1 / 0",
        "x = 1\r\ny = 2\r\n1 / 0\r\n",
        # The source of functions.
        "import inspect\ndef f():\n    return 1\nprint(inspect.getsource(f))",
        "import warnings\nwarnings.warn('careful')",
        "import pickle\ndef f(): pass\nprint(pickle.loads(pickle.dumps(f)) is f)",
        POOL,
        "import os\nif os.fork():\n    print('parent', os.wait()[1])\nelse:\n    print('child')",
    ],
)
def test_a_program_does_what_it_does_in_an_interpreter(source: str, tmp_path: Path) -> None:
    expected = really(source, tmp_path / "program.py")

    ran = run_once(source)

    assert (ran.status, ran.out) == (expected.status, expected.out)
    if "Exception ignored" not in expected.err:
        assert ran.err == expected.err


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("import sys; sys.exit(2 ** 70)", ""),
        ("class E(Exception):\n    def __str__(self): 1 / 0\nraise E", "E: <"),
        ("raise type('Odd', (Exception,), {'__module__': None})", "Odd"),
    ],
)
def test_odd_ends_are_ends(source: str, said: str, tmp_path: Path) -> None:
    ran = run_once(source)

    assert ran.status == really(source, tmp_path / "program.py").status
    assert said in ran.err


@pytest.mark.skipif(sys.version_info < (3, 11), reason="there are no exception groups")
def test_an_exception_group_is_shown_as_by_an_interpreter(tmp_path: Path) -> None:
    source = (
        "def f(x):\n    1 / x\nerrors = []\n"
        "try: f(0)\nexcept ArithmeticError as e: errors.append(e)\nraise ExceptionGroup('many', errors)"
    )

    assert run_once(source).err == really(source, tmp_path / "program.py").err


def test_output_that_is_lost_makes_the_status_120() -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    source = "import io, sys\nsys.stdout = open(1, 'w', closefd=False)\nprint('x')\nsys.exit(3)"

    assert run_once(source, stdout=full).status == 120
    os.close(full)


@pytest.mark.parametrize("holder", ["f = file", "def g(): return f\nf = file; l = [g]; l.append(l)"])
def test_a_file_that_is_left_open_is_written(holder: str, tmp_path: Path) -> None:
    path = tmp_path / "left.txt"

    ran = run_once(f"file = open({str(path)!r}, 'w')\nfile.write('kept')\n{holder}")

    assert (ran.status, path.read_text()) == (0, "kept")


def test_a_file_that_is_left_open_beside_a_daemon_thread_is_written(tmp_path: Path) -> None:
    path = tmp_path / "left.txt"

    ran = run_once(
        f"file = open({str(path)!r}, 'w')\nfile.write('kept')\n"
        "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()"
    )

    assert (ran.status, path.read_text()) == (0, "kept")


def test_a_daemon_thread_keeps_its_globals_to_the_end() -> None:
    source = (
        "import threading, atexit, time\n"
        "def spin():\n    global n\n    while True: n += 1; time.sleep(0)\n"
        "n = 0\nthreading.Thread(target=spin, daemon=True).start()\n"
    )

    ran = run_once(source)

    assert (ran.status, ran.err) == (0, "")


def test_input_is_read() -> None:
    assert run_once("import sys\nprint(input() + sys.stdin.read())", stdin=b"a\nb").out == "ab\n"


# -- the last expression --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "result"),
    [
        ("2 + 2", "4"),
        ("x = 4\nx", "4"),
        ("x = 4\nx\n\n# that was it\n   \n", "4"),
        ("x = 4; x", "4"),
        ("x = 4\n(x +\n  1)", "5"),
        ("x = 4\n(\n  x\n)", "4"),
        ("x = 'a b'\nx \\\n  .split()", "['a', 'b']"),
        ("[\n1,\n2]", "[1, 2]"),
        ("'doc'", "'doc'"),
        ("x = 1\n'text'", "'text'"),
        ("x = 1\n'''a\nb'''", "'a\\nb'"),
        ("f'{1 + 1}'", "'2'"),
        ("r'\\d'", "'\\\\d'"),
        ("(y := 5)", "5"),
        ("'x' if 0 else '#'", "'#'"),
        ("\n\n5", "5"),
        ("\ufeff5", "5"),
        ("x = 1\r\nx\r\n", "1"),
        ("# -*- coding: utf-8 -*-\n'\u00e4'", "'\u00e4'"),
        ("None", None),
        ("print", "<built-in function print>"),
        ("x = 1", None),
        ("x = (1,\n 2)", None),
        ("2 + 2;", None),
        ("2 + 2 ; # quiet", None),
        ("2 + 2 # loud;", "4"),
        ("';'", "';'"),
        ("if 1:\n    2", None),
        ("if 1: 2", None),
        ("for i in range(3):\n    i", None),
        ("def f():\n    return 1", None),
        ("x = '''\n2 + 2\n# '''", None),
        ("", None),
        ("# nothing", None),
    ],
)
def test_the_last_expression_is_reported(source: str, result: str | None) -> None:
    ran = run_once(source)

    assert (ran.status, ran.out, ran.err) == (0, "", "")
    assert ran.result == result


def test_all_before_the_last_expression_runs_once_and_in_order() -> None:
    ran = run_once("print(1)\nprint(2)\nprint(3) or 4")

    assert (ran.out, ran.result) == ("1\n2\n3\n", "4")


def test_a_docstring_alone_is_docstring_and_result() -> None:
    assert run_once("'doc'\n").result == "'doc'"
    assert run_once("import atexit\natexit.register(lambda: print(__doc__))").out == "None\n"


@pytest.mark.parametrize("lines", [1, 20_000])
def test_errors_have_their_line_wherever_the_last_expression_is(lines: int) -> None:
    ran = run_once("x = 1\n" * lines + "1 / 0")

    assert ran.of("error")[0]["line"] == lines + 1
    assert f'File "<code>", line {lines + 1}, in <module>\n    1 / 0\n' in ran.err


def test_await_is_allowed_outside_of_functions() -> None:
    source = (
        "import asyncio\n"
        "async def f(x):\n    await asyncio.sleep(0)\n    return x\n"
        "lock = asyncio.Lock()\n"
        "async with lock:\n    x = await f(3)\n"
        "await f(x + 1)"
    )
    ran = run_once(source)

    assert (ran.err, ran.result) == ("", "4")


def test_an_error_behind_an_await_has_the_users_frames_only() -> None:
    ran = run_once("import asyncio\nasync def f():\n    1 / 0\nawait asyncio.gather(f())")

    assert ran.err.count("  File ") == 2
    assert ran.err.count('  File "<code>"') == 2


def test_tasks_that_are_left_are_cancelled() -> None:
    ran = run_once(
        "import asyncio\nasync def f():\n    try: await asyncio.sleep(60)\n    finally: print('cancelled')\n"
        "task = asyncio.ensure_future(f()) if 0 else None\n"
        "await asyncio.sleep(0)\ntask = asyncio.get_running_loop().create_task(f())\nawait asyncio.sleep(0)"
    )

    assert (ran.status, ran.out, ran.err) == (0, "cancelled\n", "")


def test_asyncio_run_works_without_await_outside() -> None:
    assert run_once("import asyncio\nasync def f(): return 5\nasyncio.run(f())").result == "5"


# -- tracebacks -----------------------------------------------------------------------------------


def test_frames_of_libraries_are_left_out_also_of_linked_errors(tmp_path: Path) -> None:
    source = (
        "import json\n"
        "try:\n    json.loads('x')\n"
        "except ValueError:\n    sorted([1, 2], key=lambda x: json.loads('{', object_hook=x))"
    )
    ran = run_once(source)

    assert ran.err.count("  File ") == 3
    assert ran.err.count('  File "<code>"') == 3
    assert "During handling of the above exception" in ran.err
    assert ran.of("error") == [
        {
            "what": "error",
            "type": "json.decoder.JSONDecodeError",
            "message": "Expecting property name enclosed in double quotes: line 1 column 2 (char 1)",
            "line": 5,
        }
    ]


def test_frames_of_the_users_modules_are_kept_and_those_of_installed_ones_not(tmp_path: Path) -> None:
    installed = tmp_path / "site-packages"
    installed.mkdir()
    (tmp_path / "mine.py").write_text("def call(f):\n    return f()\n")
    (installed / "theirs.py").write_text("def call(f):\n    return f()\n")

    ran = run_once(
        "import mine, theirs\ntheirs.call(lambda: mine.call(lambda: 1 / 0))",
        env={"PYTHONPATH": f"{tmp_path}:{installed}"},
    )

    assert "mine.py" in ran.err
    assert "theirs.py" not in ran.err
    assert ran.err.count("  File ") == 4


def test_an_error_whose_frames_are_all_left_out_keeps_its_last_line() -> None:
    ran = run_once(
        "import json\ntry: json.loads('x')\nexcept ValueError as e: raise e.with_traceback(None) from e"
    )
    linked = run_once(
        "import threading, json\nerrors = []\nthreading.excepthook = lambda a: errors.append(a.exc_value)\n"
        "t = threading.Thread(target=json.loads, args='x'); t.start(); t.join()\n"
        "raise KeyError(1) from errors[0]"
    )

    assert ran.err.count("JSONDecodeError") == 1
    assert linked.err.startswith("json.decoder.JSONDecodeError: Expecting value")
    assert "direct cause" in linked.err


def test_a_hook_that_fails_does_not_hide_the_error() -> None:
    ran = run_once("import sys\nsys.excepthook = lambda *a: {}['no']\n1 / 0")

    assert ran.status == 1
    assert "Error in sys.excepthook:" in ran.err
    assert "ZeroDivisionError" in ran.err
    assert "KeyError: 'no'" in ran.err


def test_long_chains_and_messages_are_bounded() -> None:
    ran = run_once("e = None\nfor i in range(3000):\n    n = ValueError(i); n.__cause__ = e; e = n\nraise e")

    assert ran.status == 1
    assert "ValueError: 2999" in ran.err
    assert len(run_once("raise ValueError('x' * 5000)").of("error")[0]["message"]) == 500


def test_the_error_of_a_syntax_error_has_its_line() -> None:
    assert run_once("x = 1\ny = = 2").of("error")[0]["line"] == 2
    assert run_once("x = 1\nbreak").of("error")[0]["line"] == 2


def test_an_error_in_a_function_has_the_line_in_the_function() -> None:
    assert run_once("def f():\n    1 / 0\n\nf()").of("error")[0]["line"] == 2


# -- a program that is careless with what we need -------------------------------------------------


@pytest.mark.parametrize(
    "careless",
    [
        "import os; os.closerange(3, 1000)",
        "import sys; sys.modules.clear()",
        "del __builtins__",
        "import sys; sys.setrecursionlimit(60)",
        "import json; json.dumps = json.loads = None",
        "import gc; gc.freeze(); gc.disable()",
        "import builtins; builtins.print = builtins.open = None",
        "import linecache; linecache.clearcache()",
        "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (8, 8))",
        "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)",
        "import warnings; warnings.simplefilter('error')",
    ],
)
def test_its_result_is_reported_all_the_same(careless: str) -> None:
    ran = run_once(f"{careless}\n6 * 7")

    assert (ran.status, ran.result) == (0, "42")


def test_a_file_with_the_number_of_our_descriptor_is_not_written_to(tmp_path: Path) -> None:
    path = tmp_path / "theirs"

    ran = run_once(
        "import os\nos.closerange(3, 20000)\n"
        f"fds = [os.open({str(path)!r}, os.O_CREAT | os.O_RDWR)]\n"
        "import resource\nwhile fds[-1] < 1100: fds.append(os.dup(fds[0]))\n"
        "7"
    )

    assert (ran.status, ran.blocks, path.read_text()) == (0, [], "")


def test_a_forked_child_that_goes_on_reports_nothing() -> None:
    ran = run_once("import os\npid = os.fork()\nif pid: os.waitpid(pid, 0)\n'parent' if pid else 'child'")

    assert ran.result == "'parent'"


def test_what_is_executed_does_not_have_the_report() -> None:
    ran = run_once("import os, subprocess\nsubprocess.check_output(['ls', '/proc/self/fd'], close_fds=False)")

    assert max(map(int, eval(ran.result or "").split())) < 1000


def test_random_numbers_are_not_those_of_another_run(tmp_path: Path) -> None:
    (tmp_path / "numpy").mkdir()
    (tmp_path / "numpy" / "__init__.py").write_text("")
    (tmp_path / "numpy" / "random.py").write_text("def seed(words): print(len(words), len(set(words)) > 1)")
    (tmp_path / "sitecustomize.py").write_text("import random, numpy.random")
    env = {"PYTHONPATH": str(tmp_path)}

    one, other = (run_once("import random\nrandom.random()", env=env) for _ in range(2))

    assert one.result != other.result
    assert one.out == "8 True\n"
