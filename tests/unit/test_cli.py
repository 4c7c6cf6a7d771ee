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

from pocket_dock_mcp.cli.console import Console

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
