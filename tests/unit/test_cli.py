"""The command line as a shell sees it."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from pocket_dock_mcp.agent.remote_errors import file_error
from pocket_dock_mcp.cli import reaching
from pocket_dock_mcp.cli.console import Console, told
from pocket_dock_mcp.errors import (
    ConfigError,
    InvalidArgumentError,
    PocketDockError,
    SandboxBusyError,
    SandboxNotFoundError,
)
from pocket_dock_mcp.manager.persistence import KeptSandbox
from pocket_dock_mcp.manager.records import Kept
from pocket_dock_mcp.manager.sandbox import SandboxRequest, new_id

COMMAND = [sys.executable, "-m", "pocket_dock_mcp.cli.main"]
TIMEOUT = 60


def environ(home: Path, **more: str) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "POCKET_DOCK_STATE_DIR": str(home / "state"),
        "POCKET_DOCK_ENGINE": f"unix://{home}/nobody.sock",
        **more,
    }


def run(home: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments], env=environ(home, **more), capture_output=True, text=True, timeout=TIMEOUT
    )


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["doctor", "--help"]])
def test_help_and_version_import_nothing_heavy(arguments: list[str], tmp_path: Path) -> None:
    script = (
        "import sys\nfrom pocket_dock_mcp.cli.main import main\n"
        f"try: main({arguments!r})\nexcept SystemExit as end: assert not end.code, end.code\n"
        "heavy = {'anyio', 'asyncio', 'pydantic', 'mcp', 'aiodocker', 'opentelemetry'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env=environ(tmp_path), capture_output=True, text=True
    )

    assert done.returncode == 0, done.stderr
    assert "pocket-dock" in done.stdout


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("lst", "did you mean list?"), ("shutdwn", "did you mean shutdown?"), ("rm", "did you mean destroy?")],
)
def test_the_nearest_command_is_named_and_not_all(typed: str, meant: str, tmp_path: Path) -> None:
    done = run(tmp_path, typed)

    assert done.returncode == 2
    assert meant in done.stderr
    assert "quickstart" not in done.stderr


@pytest.mark.parametrize(
    "line",
    [
        "create --mem-limit 1k",
        "create --shm-size 0",
        "create -v /nowhere/at/all:/x",
        "create --profile nosuch",
        "shell box --profile nosuch",
        "quickstart --profile nosuch",
        "pool --profile minimla x.py",
        "kill box",
        "snapshot box Bad",
        "diff box --since yesterday",
        "logs --follow",
    ],
)
def test_what_can_never_work_is_wrong_usage_and_the_engine_is_not_asked(line: str, tmp_path: Path) -> None:
    done = run(tmp_path, *line.split())

    # Where a program's own status is passed on, 2 may be that.
    if line.startswith("quickstart"):
        assert done.returncode == 3, "it looks for the engine first"
        return
    if line.startswith("shell"):
        assert done.returncode == 125
        return
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_what_is_no_profile_is_told_with_those_that_are(tmp_path: Path) -> None:
    done = run(tmp_path, "create", "--profile", "nosuch")
    assert "There is no profile 'nosuch'. The profiles are: minimal, dev" in done.stderr
    assert "--image" in done.stderr
    assert "docker://" not in done.stderr
    assert "Did you mean 'minimal'?" in run(tmp_path, "create", "--profile", "minimla").stderr
    # References are for --image.
    assert run(tmp_path, "create", "--profile", "localhost/mine:1").returncode == 2


@pytest.mark.parametrize(
    "line",
    ["info {}", "run {} true", "ps {}", "fork {}", "snapshot {}", "diff {}", "push {} a b", "pull {} a b",
     "forward {} 80", "logs {}", "stop {}", "read {} x", "kill {} --all"],
)  # fmt: skip
def test_a_sandbox_that_is_not_there_is_named(line: str, tmp_path: Path) -> None:
    done = run(tmp_path, *line.format("nosuch[31m").split(" "))

    assert done.returncode == (125 if line.startswith("run") else 1)
    assert "nosuch" in done.stderr
    assert "There is no such sandbox" in done.stderr
    assert "" not in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("command", ["run", "shell"])
def test_a_program_without_a_name_is_refused_as_such(command: str, tmp_path: Path) -> None:
    for words in (
        [
            "",
        ],
        ["", "x"],
    ):
        done = run(tmp_path, command, "box", "--", *words)
        assert done.returncode == 125
        assert "The program has no name" in done.stderr


@pytest.mark.parametrize("arguments", [[], ["surgery"], ["doctor", "--cut"], ["doctor", "now"]])
def test_wrong_usage_is_told_in_one_line(arguments: list[str], tmp_path: Path) -> None:
    done = run(tmp_path, *arguments)

    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert "--help" in done.stderr


def test_without_an_engine_the_doctor_finds_a_problem(tmp_path: Path) -> None:
    done = run(tmp_path, "doctor")

    assert done.returncode == 1
    assert "PROBLEM No container engine answers" in done.stdout
    assert "nobody.sock" in done.stdout
    assert "\x1b" not in done.stdout + done.stderr, "no colours and no progress without a terminal"
    assert done.stderr == ""


def test_the_json_of_the_doctor_is_one_document(tmp_path: Path) -> None:
    done = run(tmp_path, "doctor", "--json")

    report = json.loads(done.stdout)
    assert report["healthy"] is False
    assert report["done"] == []
    finding = next(one for one in report["findings"] if one["id"] == "engine")
    assert finding.keys() == {"id", "severity", "title", "detail", "remedy"}
    assert finding["severity"] == "problem"


def test_ctrl_c_ends_it_quietly(tmp_path: Path) -> None:
    path = tmp_path / "silent.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        listener.settimeout(TIMEOUT)
        settings = environ(tmp_path, POCKET_DOCK_ENGINE=f"unix://{path}")
        pipe = subprocess.PIPE
        with subprocess.Popen([*COMMAND, "doctor"], env=settings, stdout=pipe, stderr=pipe) as process:
            listener.accept()[0].close()
            connection = listener.accept()[0]
            with connection:
                process.send_signal(signal.SIGINT)
                out, err = process.communicate(timeout=TIMEOUT)

    assert process.returncode == 130
    assert out == b""
    assert err == b""


def test_a_reader_that_has_seen_enough_is_no_crash(tmp_path: Path) -> None:
    command = f"{' '.join(COMMAND)} doctor | head -c 1"
    done = subprocess.run(
        ["/bin/sh", "-c", command], env=environ(tmp_path), capture_output=True, text=True, timeout=TIMEOUT
    )

    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_colours_are_for_terminals_that_want_them() -> None:
    def painted(out: io.StringIO, **variables: str) -> bool:
        return "\x1b" in Console(variables, out=out, err=io.StringIO()).paint("x", "red")

    assert painted(Terminal())
    assert painted(Terminal(), NO_COLOR="")
    assert not painted(Terminal(), NO_COLOR="1")
    assert not painted(Terminal(), TERM="dumb")
    assert not painted(io.StringIO())


def test_progress_is_for_terminals_and_is_wiped() -> None:
    err = Terminal()
    console = Console({}, out=io.StringIO(), err=err)
    console.progress("looking")
    console.say("found")
    assert err.getvalue() == "\r\x1b[Klooking\r\x1b[K"

    file = io.StringIO()
    Console({}, out=io.StringIO(), err=file).progress("looking")
    assert file.getvalue() == ""


@pytest.mark.parametrize("arguments", ["list", "list --json", "--help", "--version", "doctor --quick"])
@pytest.mark.parametrize("output", [">/dev/full", ">&-"])
def test_output_that_cannot_be_written_is_told_in_one_line(
    arguments: str, output: str, tmp_path: Path
) -> None:
    command = f"{' '.join(COMMAND)} {arguments} {output}"
    done = subprocess.run(
        ["/bin/sh", "-c", command], env=environ(tmp_path), capture_output=True, text=True, timeout=TIMEOUT
    )

    *_, last = done.stderr.splitlines()
    if output == ">&-" and arguments.startswith("--"):
        # The parser says it to standard error then, which is as good.
        assert "pocket-dock" in done.stderr
        return
    assert done.returncode == 1
    assert last.startswith("pocket-dock: standard output cannot be written: ")
    assert len(done.stderr.splitlines()) <= 2, "the other one is the result's remark"


def test_an_error_output_that_is_closed_keeps_nothing_from_its_work(tmp_path: Path) -> None:
    command = f"{' '.join(COMMAND)} list --json 2>&-"
    done = subprocess.run(["/bin/sh", "-c", command], env=environ(tmp_path), stdout=subprocess.PIPE)

    assert done.returncode == 0
    assert json.loads(done.stdout) == []


def test_an_empty_list_says_that_no_engine_was_asked_and_a_wrong_address_is_refused(tmp_path: Path) -> None:
    done = run(tmp_path, "list")
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == 1
    assert "no engine was asked" in done.stderr

    done = run(tmp_path, "list", POCKET_DOCK_ENGINE="nonsense")
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1


def test_a_record_that_cannot_be_read_is_warned_of(tmp_path: Path) -> None:
    path = tmp_path / "state" / "sandboxes" / f"sb-{'0' * 32}.json"
    path.parent.mkdir(parents=True)
    path.write_text("[]")

    done = run(tmp_path, "doctor", "--quick")

    assert f"PROBLEM 1 record of a kept sandbox cannot be read: {path}" in done.stdout
    assert done.stderr == ""


def test_advice_for_people_names_no_tools() -> None:
    assert told(SandboxNotFoundError()) == (
        "There is no such sandbox. It may have expired or been killed. To see what there is: pocket-dock list"
    )
    assert told(SandboxBusyError()) == str(SandboxBusyError())
    assert told(PocketDockError("It fails.")) == "It fails."
    said = {"message": "mem_limit is 'lots'.", "hint": "Give mem_limit=7."}
    assert told(InvalidArgumentError(**said)) == "--mem-limit is 'lots'. Give --mem-limit=7."
    assert told(ConfigError(**said)) == "mem_limit is 'lots'. Give mem_limit=7."
    for code in ("not_regular", "procfs", "EACCES"):
        assert "run_command" not in told(file_error(code, "/home/x", "/home"))
    assert "look at it with pocket-dock run." in told(file_error("not_regular", "/x"))
    # What a file is called is nobody's advice.
    assert "'run_command'" in told(file_error("ENOENT", "run_command"))


@pytest.mark.parametrize(
    "name",
    [
        "write_file", "write_file.py", "memory_mb.txt", "a/timeout_s", "timeout_s/a", "my-write_file",
        "it's write_file", "write_file it's", 'say "mem_limit"', "back\\slash' disk_mb",
    ],
)  # fmt: skip
def test_what_a_user_calls_something_is_not_changed_in_a_message(name: str) -> None:
    message = f"There is no {name!r}, and memory_mb is 1."
    assert told(InvalidArgumentError(message, hint=f"Write it with write_file, not {name!r}.")) == (
        f"There is no {name!r}, and --mem-limit is 1. Write it with pocket-dock write, not {name!r}."
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("read write_file.py", "read write_file.py"),
        ("/home/write_file, x/memory_mb and -timeout_s", "/home/write_file, x/memory_mb and -timeout_s"),
        ("my_timeout_s, timeout_so", "my_timeout_s, timeout_so"),
        (
            "the sandbox's memory_mb, and others' memory_mb",
            "the sandbox's --mem-limit, and others' --mem-limit",
        ),
        ("(timeout_s=5) or timeout=5; idle_timeout=5.", "(--timeout=5) or --timeout 5; --idle-timeout=5."),
        ("run(..., detach=True), background=true.", "run(..., --detach), --detach."),
    ],
)
def test_only_whole_words_are_said_otherwise(text: str, expected: str) -> None:
    assert told(InvalidArgumentError(text, hint="Stop.")) == f"{expected} Stop."


def test_a_name_is_also_known_as_it_is_shown_and_no_name_is_nobodys() -> None:
    def one(name: str) -> KeptSandbox:
        request = SandboxRequest(image="minimal", name=name, persist=True)
        record = Kept(new_id(), "alice", "e", "c", "n", "i", 1, request, 0.0)
        return KeptSandbox(record, "stopped", busy=False)

    bare, red, dull, same = one(""), one("\x1b[31mred"), one("dull"), one("du\x1b[0mll")

    assert reaching.id_of("red", [bare, red]) == red.kept.id
    assert reaching.id_of("\x1b[31mred", [bare, red]) == red.kept.id
    assert reaching.id_of(bare.kept.id, [bare, red]) == bare.kept.id
    with pytest.raises(InvalidArgumentError, match="2 sandboxes"):
        reaching.id_of("dull", [dull, same])
    for nothing in ("", " "):
        with pytest.raises(InvalidArgumentError):
            reaching.id_of(nothing, [bare])
