"""`pocket-dock init`, `status` and `logs`, as far as they need no engine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pocket_dock_mcp.models import RunResult, RunUsage
from pocket_dock_mcp.projects import init_project
from pocket_dock_mcp.projects.instances import InstanceMetadata, ensure_instance_dir, write_instance_metadata
from pocket_dock_mcp.projects.runlog import LogPolicy, RunLog

Done = subprocess.CompletedProcess[bytes]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return init_project(tmp_path / "demo")


def dock(where: Path, *argv: str, **more: str) -> Done:
    base = where if (where / "home").exists() else where.parent
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": str(base / "home"),
        "POCKET_DOCK_STATE_DIR": str(base / "state"),
        "POCKET_DOCK_ENGINE": f"unix://{base}/nobody.sock",
        **more,
    }
    command = [sys.executable, "-m", "pocket_dock_mcp.cli.main", *argv]
    return subprocess.run(
        command,
        cwd=where,
        env=environ,
        capture_output=True,
        stdin=subprocess.DEVNULL,
        timeout=60,
        check=False,
    )


def document(done: Done) -> Any:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def logged(root: Path, name: str = "box") -> RunLog:
    """Return the log of a container with three runs."""
    directory = ensure_instance_dir(root, name)
    write_instance_metadata(directory, InstanceMetadata(name, "demo", "minimal", persist=True))
    log = RunLog(directory, LogPolicy())
    for number, kind in enumerate(("run", "session", "detach")):
        record = log.begin(kind, f"command {number}", run_id=f"run-{number}0ff")  # type: ignore[arg-type]
        record.write(1, b"out\x1b[2J%d\n" % number)
        record.write(2, b"err%d\n" % number)
        record.end(RunResult("ok", exit_code=0, usage=RunUsage(0.5)) if number else "killed")
    return log


def test_init_makes_a_project_once(root: Path, tmp_path: Path) -> None:
    first = document(dock(tmp_path, "init", "new", "--name", "other", "--json"))
    again = document(dock(tmp_path / "new", "init", "--json"))

    assert (first["project"], first["new"]) == ("other", True)
    assert (again["project"], again["new"], again["root"]) == ("other", False, str(tmp_path / "new"))
    assert dock(tmp_path, "init", "new", "--name", "a/b").returncode == 2


def test_status_says_what_is_in_force_and_from_where(root: Path, tmp_path: Path) -> None:
    logged(root)
    (root / ".pocket-dock" / "pocket-dock.yaml").write_text(
        "containers: {env: {TOKEN: hunter2}, mem_limit: 64m}\n"
    )
    done = dock(root, "status", "--json", POCKET_DOCK_CPUS="2")
    found = document(done)

    assert (found["project"], found["root"]) == ("demo", str(root))
    assert found["configuration"]["containers.mem_limit"]["value"] == 64 * 1024 * 1024
    assert found["configuration"]["containers.mem_limit"]["from"] == "project"
    assert found["configuration"]["containers.cpu_percent"] == {
        "value": 200,
        "from": "environment",
        "place": "POCKET_DOCK_CPUS",
    }
    assert found["configuration"]["containers.env"]["value"] == ["TOKEN"]
    assert found["configuration"]["logging.retention_days"]["from"] == "default"
    (instance,) = found["instances"]
    assert (instance["name"], instance["image"], instance["runs"]) == ("box", "minimal", 3)
    assert instance["log_bytes"] > 300
    assert "nobody.sock" in found["engine_error"]
    shown = dock(root, "status").stdout.decode()
    assert "64 MB" in shown
    assert "hunter2" not in shown
    assert b"hunter2" not in done.stdout


@pytest.mark.parametrize("command", ["status", "logs"])
def test_a_mistake_in_the_configuration_is_told_in_one_line(command: str, root: Path) -> None:
    (root / ".pocket-dock" / "pocket-dock.yaml").write_text("a: &b c\n")
    done = dock(root, command)

    assert done.returncode == 2
    assert done.stderr.count(b"\n") == 1
    assert b"pocket-dock.yaml, line 1, column 4" in done.stderr


def test_there_is_no_status_without_a_project(root: Path, tmp_path: Path) -> None:
    done = dock(tmp_path, "status")

    assert done.returncode == 1
    assert b"pocket-dock init" in done.stderr


def test_logs_list_what_was_run(root: Path) -> None:
    logged(root)
    entries = document(dock(root, "logs", "--json"))
    lines = dock(root, "logs", "box").stdout.decode().splitlines()

    assert [(one["sandbox"], one["type"], one["status"]) for one in entries] == [
        ("box", "run", "killed"),
        ("box", "session", "ok"),
        ("box", "detach", "ok"),
    ]
    assert lines[0].split() == ["TIME", "RUN", "TYPE", "STATUS", "EXIT", "DURATION", "COMMAND"]
    assert "10ff" in lines[2]
    assert lines[2].endswith("500 ms    command 1")


def test_logs_can_be_narrowed(root: Path) -> None:
    logged(root)
    logged(root, "other")

    assert len(document(dock(root, "logs", "--json", "--last", "4"))) == 4
    assert len(document(dock(root, "logs", "--json", "--last", "0"))) == 6
    assert [one["type"] for one in document(dock(root, "logs", "box", "--json", "--last", "1"))] == ["detach"]
    assert [one["sandbox"] for one in document(dock(root, "logs", "--json", "--type", "session"))] == [
        "box",
        "other",
    ]
    assert dock(root, "logs", "--last", "-1").returncode == 2
    assert dock(root, "logs", "--type", "x").returncode == 2


def test_the_output_of_one_run_is_printed_as_it_was(root: Path) -> None:
    logged(root)
    done = dock(root, "logs", "box", "run-10ff")

    assert (done.stdout, done.stderr) == (b"out\x1b[2J1\n", b"err1\n")
    assert dock(root, "logs", "box", "10", "--stdout").stderr == b""
    assert dock(root, "logs", "box", "10", "--stderr").stdout == b""
    assert document(dock(root, "logs", "box", "10", "--json"))["stdout"] == "out\x1b[2J1\n"


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("box", "77"), b"no such run"),
        (("box", ""), b"no such run"),
        (("nobody",), b"no such sandbox"),
        (("../../etc",), b"no such sandbox"),
        (("box", "--follow"), b"No run of this sandbox goes on"),
        (("--follow",), b"needs the name"),
    ],
)
def test_what_is_not_there_is_said_in_one_line(argv: tuple[str, ...], words: bytes, root: Path) -> None:
    logged(root)
    done = dock(root, "logs", *argv)

    assert done.returncode == (2 if argv == ("--follow",) else 1)
    assert words in done.stderr
    assert done.stderr.count(b"\n") == 1


def test_a_run_whose_process_died_is_not_said_to_go_on(root: Path) -> None:
    log = logged(root)
    script = (
        "import sys; from pathlib import Path; from pocket_dock_mcp.projects.runlog import *\n"
        "RunLog(Path(sys.argv[1]), LogPolicy()).begin('run', 'killed with its process')\n"
    )
    subprocess.run([sys.executable, "-c", script, str(log.directory)], check=True, timeout=60)

    assert document(dock(root, "logs", "box", "--json"))[-1]["status"] == "unknown"


def test_a_run_of_another_process_is_followed_by_its_log(root: Path) -> None:
    log = logged(root)
    record = log.begin("run", "long", run_id="run-abcd")
    record.write(1, b"begun ")
    environ = os.environ | {
        "HOME": str(root.parent / "home"),
        "POCKET_DOCK_ENGINE": f"unix://{root}/nobody.sock",
    }
    command = [sys.executable, "-m", "pocket_dock_mcp.cli.main", "logs", "box", "--follow"]
    with subprocess.Popen(command, cwd=root, env=environ, stdout=subprocess.PIPE) as follower:
        assert follower.stdout is not None
        assert follower.stdout.read(6) == b"begun "
        record.write(1, b"and ended")
        record.end(RunResult("ok", exit_code=0))
        assert follower.stdout.read() == b"and ended"
        assert follower.wait(30) == 0


def test_outside_of_projects_the_logs_of_all_others_are_shown(root: Path, tmp_path: Path) -> None:
    directory = tmp_path / "state" / "history" / "loose"
    directory.mkdir(parents=True)
    RunLog(directory, LogPolicy()).begin("run", "loose").end("killed")

    assert [one["sandbox"] for one in document(dock(tmp_path, "logs", "--json"))] == ["loose"]
    assert [one["sandbox"] for one in document(dock(root, "logs", "loose", "--json"))] == ["loose"]


def test_a_hostile_history_cannot_act_on_a_terminal(root: Path) -> None:
    log = logged(root)
    line = {
        "time": 1,
        "id": "run-\x1b[2J/../..",
        "type": "run",
        "status": "\x1b[31m\nok",
        "command": "\x1b]0;x\x07\n\u202e",
    }
    line |= {"exit_code": "x", "duration_ms": "y", "pid": 10**30, "time": 1_800_000_000}
    with (log.directory / "logs" / "history.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")
    done = dock(root, "logs", "box")

    assert done.returncode == 0
    assert b"\x1b" not in done.stdout
    assert len(done.stdout.splitlines()) == 5


@pytest.mark.parametrize(
    "change",
    [
        {"duration_ms": 10**400},
        {"time": 253_402_300_799.0},
        {"command": "\ud800\udcff"},
        {"id": "run-\ud800", "status": "\udfff"},
        {"exit_code": 10**400, "pid": 10**400},
    ],
)
def test_no_line_of_a_history_keeps_the_others_from_being_shown(change: dict[str, Any], root: Path) -> None:
    log = logged(root)
    line = {"time": 1_800_000_000, "id": "run-ab", "type": "run", "status": "ok", "command": "x"} | change
    with (log.directory / "logs" / "history.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")

    for argv in (["logs"], ["logs", "box"], ["logs", "box", "00ff"], ["logs", "--json"], ["status"]):
        done = dock(root, *argv, TZ="Asia/Tokyo")
        assert b"Traceback" not in done.stderr, argv
        assert done.returncode == 0, (argv, done.stderr)
    assert b"command 2" in dock(root, "logs", "box", TZ="Asia/Tokyo").stdout


def test_the_log_level_is_heeded(root: Path) -> None:
    script = (
        "import logging; from pocket_dock_mcp.cli.surroundings import heed_log_level\n"
        "heed_log_level(); logging.getLogger('pocket_dock_mcp.x').info('whispered')\n"
    )
    environ = os.environ | {"HOME": str(root.parent / "home")}

    def said() -> str:
        return subprocess.run(
            [sys.executable, "-c", script], cwd=root, env=environ, capture_output=True, text=True, check=True
        ).stderr

    assert "whispered" not in said()
    (root / ".pocket-dock" / "pocket-dock.yaml").write_text("log_level: info\n")
    assert "whispered" in said()
