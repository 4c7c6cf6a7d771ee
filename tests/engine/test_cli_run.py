"""`pocket-dock run`: byte by byte, with exit statuses, signals and pipes as of a program that runs here."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.commands import COMMAND, TIMEOUT, Commands
from tests.engines import Target

pytestmark = pytest.mark.front

BOX = "box"


@pytest.fixture(scope="module")
def dock(target: Target, image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
    """Have a sandbox that all tests here use."""
    commands = Commands(target, image, tmp_path_factory.mktemp("home"))
    name = f"pd-test-{os.getpid()}-{target.name}"
    commands.out("create", "--name", name, "--env", "GIVEN=at creation")
    commands.environ["BOX"] = name
    yield commands
    commands.end()


@pytest.fixture(scope="module")
def box(dock: Commands) -> str:
    """Return its name."""
    return dock.environ["BOX"]


@pytest.mark.parametrize(
    "words",
    [
        [
            "--",
            "printf",
            "%s|",
            "a b",
            "",
            "-la",
            "--timeout",
            "$HOME",
            "`x`",
            "'",
            '"',
            "\\",
            "*",
            "\n",
            "ü",
        ],
        ["printf", "%s|", "--json", "-t", "--", "--help"],
    ],
)
def test_words_are_passed_exactly(dock: Commands, box: str, words: list[str]) -> None:
    done = dock("run", box, *words)

    expected = words[words.index("%s|") + 1 :]
    assert done.stdout.decode() == "".join(f"{word}|" for word in expected)
    assert done.stderr == b""


def test_bytes_that_are_no_text_are_passed_in_arguments(dock: Commands, box: str) -> None:
    command: list[str | bytes] = [*COMMAND, "run", box, "printf", "%s", b"\xff\xfe"]
    done = subprocess.run(command, env=dock.environ, stdin=subprocess.DEVNULL, capture_output=True)

    assert done.stdout == b"\xff\xfe"


def test_one_word_is_a_shell_command_and_options_come_before_it(dock: Commands, box: str) -> None:
    assert dock.out("run", box, "echo a && echo $GIVEN") == "a\nat creation\n"
    assert dock.out("run", box, "--stream", "echo hello") == "hello\n"
    assert dock.out("run", "-e", "X=1", box, "--env", "Y=two words", 'echo "$X $Y"') == "1 two words\n"
    assert dock.out("run", box, "--cwd", "/tmp", "pwd") == "/tmp\n"
    assert dock.out("run", box, "--lang", "python", "print(2 + 2)") == "4\n"
    assert dock.out("run", box, "--lang", "python", stdin=b"print(2 + 3)") == "5\n"
    assert dock.out("run", box, "--lang", "bash", "a=(1 2); echo ${#a[@]}") == "2\n"
    assert dock.out("run", box, "--lang", "sh", "echo ${BASH_VERSION:-none}") == "none\n"


def test_exit_statuses_are_the_programs(dock: Commands, box: str) -> None:
    """Several at once, which use the same sandbox."""
    done = dock.each(
        ["run", box, "exit 255"],
        ["run", box, "kill -9 $$"],
        ["run", box, "kill -TERM $$"],
        ["run", box, "/etc/passwd"],
        ["run", box, "no-such-program", "x"],
    )

    assert [one.returncode for one in done] == [255, 137, 143, 126, 127]


def test_our_own_failures_are_told_and_are_125(dock: Commands, box: str) -> None:
    for done in dock.each(
        ["run", "nobody", "true"],
        ["run", box],
        ["run", box, "--lang", "cobol", "x"],
        ["run", box, "--cwd", "/nowhere", "true"],
        ["run", box, "--no-such-option", "true"],
        ["run", box, "-d", "-i", "cat"],
    ):
        assert done.returncode == 125, done
        assert done.stdout == b"", done
        assert len(done.stderr.splitlines()) == 1, done
        assert done.stderr.startswith(b"pocket-dock"), done


def test_time_and_output_limits_are_124_and_keep_what_there_was(dock: Commands, box: str) -> None:
    done = dock("run", box, "--timeout", "0.5", "echo early; sleep 60")
    assert (done.returncode, done.stdout) == (124, b"early\n")
    assert b"--timeout" in done.stderr

    done = dock("run", box, "--max-output", "10", "yes")
    assert (done.returncode, done.stdout) == (124, b"y\n" * 5)
    assert b"--max-output" in done.stderr

    done = dock("run", box, "--max-output", "10", "printf 1234567890")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"1234567890", b"")


TEE = """
import os, sys
while data := os.read(0, 65536):
    for stream in (sys.stdout.buffer, sys.stderr.buffer):
        stream.write(data)
"""


def test_both_streams_are_byte_exact(dock: Commands, box: str, tmp_path: Path) -> None:
    data = os.urandom(3_000_000) + b"\r\n\0\x1b[0m no newline at the end"

    done = dock("run", box, "python3", "-c", TEE, stdin=data)

    assert done.returncode == 0
    assert hashlib.sha256(done.stdout).digest() == hashlib.sha256(data).digest()
    assert hashlib.sha256(done.stderr).digest() == hashlib.sha256(data).digest()
    assert dock("run", box, "cat", stdin=b"").stdout == b""
    file = tmp_path / "file"
    file.write_bytes(data)
    done = dock.shell('pd run "$BOX" cat <"$1" | cmp - "$1"', str(file))
    assert (done.returncode, done.stderr) == (0, b"")


def test_output_comes_as_it_is_written_and_input_as_it_is_given(dock: Commands, box: str) -> None:
    program = "while read -r line; do printf '<%s>' \"$line\"; done; printf end"
    with dock.started("run", box, program) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for word in (b"one", b"two"):
            process.stdin.write(word + b"\n")
            process.stdin.flush()
            assert os.read(process.stdout.fileno(), 100) == b"<" + word + b">"
        process.stdin.close()
        assert process.stdout.read() == b"end"
        assert process.wait(TIMEOUT) == 0


def test_a_slow_reader_loses_nothing_and_holds_the_program_back(dock: Commands, box: str) -> None:
    size = 30_000_000
    program = f"import sys; sys.stdout.buffer.write(bytes(range(250)) * {size // 250})"
    with dock.started("run", box, "python3", "-c", program, stdin=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        digest = hashlib.sha256()
        first = process.stdout.read(1000)
        resident = Path(f"/proc/{process.pid}/statm").read_text().split()[1]
        digest.update(first)
        while piece := process.stdout.read(1 << 20):
            digest.update(piece)
        assert process.wait(TIMEOUT) == 0
    assert digest.digest() == hashlib.sha256(bytes(range(250)) * (size // 250)).digest()
    assert int(resident) * 4096 < 300_000_000


def test_pipes_end_as_they_should(dock: Commands, box: str) -> None:
    done = dock.shell('yes | pd run "$BOX" head -1; echo "${PIPESTATUS[1]}"')
    assert (done.stdout, done.stderr) == (b"y\n0\n", b"")

    done = dock.shell('pd run "$BOX" yes cli-marker | head -1; echo "${PIPESTATUS[0]}"')
    assert (done.stdout, done.stderr) == (b"cli-marker\n141\n", b"")
    assert "cli-marker" not in json.dumps(dock.document("ps", box)["processes"])

    # A program that does not read, with an input that never ends.
    read, write = os.pipe()
    with dock.started("run", box, "echo done", stdin=read) as process:
        os.close(read)
        assert process.communicate(timeout=TIMEOUT)[0] == b"done\n"
    os.close(write)


@pytest.mark.parametrize("output", [">/dev/full", ">&-"])
def test_output_that_cannot_be_written_ends_the_run(dock: Commands, box: str, output: str) -> None:
    done = dock.shell(f'pd run "$BOX" yes full-marker {output}')

    assert done.returncode == 125
    assert len(done.stderr.splitlines()) == 1
    assert "full-marker" not in json.dumps(dock.document("ps", box)["processes"])


HEEDS = """
import signal, sys
def heed(number, _frame):
    print("got", number, flush=True)
    if sys.argv[1:]:
        sys.exit(number + 40)
for number in (1, 2, 15):
    signal.signal(number, heed)
print("ready", flush=True)
while True:
    signal.pause()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_go_to_the_program(dock: Commands, box: str, number: int) -> None:
    with dock.started("run", box, "python3", "-c", HEEDS, "exit", stdin=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(number)
        out, err = process.communicate(timeout=TIMEOUT)

    assert (out, err) == (f"got {number:d}\n".encode(), b"")
    assert process.returncode == number + 40


def test_a_second_interrupt_kills_what_does_not_heed_the_first(dock: Commands, box: str) -> None:
    with dock.started("run", box, "python3", "-c", HEEDS, stdin=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == b"got 2\n"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=TIMEOUT)

    assert err == b""
    assert process.returncode == 130
    assert not [one for one in dock.document("ps", box)["processes"] if "signal.pause" in one["command"]]


def test_a_signal_that_ends_it_is_told_as_shells_do(dock: Commands, box: str) -> None:
    with dock.started("run", box, "echo ready; exec sleep 60", stdin=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(TIMEOUT) == 130


def test_the_json_is_one_document_and_the_status_passes(dock: Commands, box: str) -> None:
    done = dock("run", box, "--json", "echo out; echo err >&2; exit 4")

    document = json.loads(done.stdout)
    assert done.returncode == 4
    assert done.stderr == b""
    assert (document["stdout"], document["stderr"]) == ("out\n", "err\n")
    assert (document["status"], document["exit_code"]) == ("nonzero", 4)


def test_what_is_left_running_can_be_seen_and_ended(dock: Commands, box: str) -> None:
    run_id = dock.out("run", "-d", box, "sleep 12345").strip()
    found = {one["run_id"]: one for one in dock.document("ps", box)["runs"]}
    assert found[run_id]["status"] == "running"
    assert found[run_id]["command"] == "sleep 12345"
    assert run_id in dock.out("ps", box)

    assert dock.out("kill", box, run_id) == f"killed {run_id}\n"
    found = {one["run_id"]: one for one in dock.document("ps", box)["runs"]}
    assert found[run_id]["status"] == "killed"
    assert dock("kill", box, "run-nonsense").returncode == 1
    assert dock("kill", box).returncode == 2


def test_what_is_left_running_has_its_output_on_the_log_outside_of_projects_too(
    dock: Commands, box: str
) -> None:
    run_id = dock.out(
        "run", "-d", box, "echo begun; touch has-begun; until [ -e go ]; do sleep 0.05; done; echo over"
    ).strip()
    dock.out("run", box, "until [ -e has-begun ]; do sleep 0.05; done")
    assert dock.out("logs", box, run_id) == "begun\n"
    dock.out("run", box, "touch go")
    assert dock.out("logs", box, run_id, "--follow") == "begun\nover\n"
    assert dock.out("logs", box, run_id) == "begun\nover\n"
    assert dock.document("logs", box, run_id)["stdout"] == "begun\nover\n"


def test_sessions_stay(dock: Commands, box: str) -> None:
    dock.out("run", box, "--session", "s", "x=41")
    assert dock.out("run", box, "--session", "s", "echo $((x + 1))") == "42\n"


def test_several_commands_in_a_row_find_no_leftovers(dock: Commands, box: str) -> None:
    before = len(dock.document("ps", box)["runs"])
    assert dock.out("run", box, "echo here") == "here\n"
    assert len(dock.document("ps", box)["runs"]) == before


def test_a_terminal_is_given_where_one_is_asked_for(dock: Commands, box: str) -> None:
    assert dock("run", box, "test -t 0 || test -t 1").returncode == 1
    done = dock("run", box, "-t", "test -t 0 && test -t 1 && stty size", stdin=b"")
    assert (done.returncode, done.stdout) == (0, b"24 80\r\n")
    with dock.in_terminal("run", box, "-t", "stty size; read line; echo got $line", rows=30) as terminal:
        terminal.shows("30 80")
        terminal.type("keys\r")
        terminal.shows("got keys")
        assert terminal.end() == 0


def test_a_terminal_is_not_read_unless_that_is_asked_for(dock: Commands, box: str) -> None:
    with dock.in_terminal("run", box, "cat; echo done") as terminal:
        terminal.shows("done")
        assert terminal.end() == 0
    with dock.in_terminal("run", "-i", box, "head -1; echo done") as terminal:
        terminal.type("typed\n")
        terminal.shows("done")
        assert terminal.text.count("typed") == 2
        assert terminal.end() == 0
