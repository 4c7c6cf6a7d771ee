"""The lives of sandboxes from the command line, and the files in them, as a user goes about it."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from pocket_dock_mcp.engine.base import Engine
from tests.commands import TIMEOUT, Commands
from tests.engines import Target, remove_image, unique

pytestmark = pytest.mark.front

SNAPSHOT = "pocket-dock.snapshot"
"""The label of their images."""


@pytest.fixture
def dock(target: Target, image: str, tmp_path: Path) -> Iterator[Commands]:
    commands = Commands(target, image, tmp_path)
    yield commands
    commands.end()


@pytest.fixture
def prefix() -> str:
    """Return what begins names that nobody else has on this engine."""
    return unique("pd")


def test_the_life_of_a_sandbox(dock: Commands, prefix: str, image: str) -> None:
    name = f"{prefix}-life"
    made = dock(
        "create", "--name", name, "--mem-limit", "200m", "--cpu-percent", "50", "--pids-limit", "64",
        "-e", "A=1", "--workdir", "work", "--label", "who=me", "--project", "p", "--timeout", "7",
        "--network", "none",
    )  # fmt: skip
    assert made.stdout.decode() == f"{name}\n"
    assert b"pocket-dock shell" in made.stderr

    (listed,) = dock.document("list", "--project", "p")
    assert (listed["name"], listed["status"], listed["persist"]) == (name, "running", False)
    assert listed["limits"]["memory_bytes"] == 200 * 1024 * 1024
    told = dock.document("info", name)
    assert told["limits"]["cpus"] == 0.5
    assert told["limits"]["pids"] == 64
    assert told["workdir"] == "work"
    assert told["memory_bytes"] > 0
    assert dock.out("run", name, "pwd; echo $A") == "/home/sandbox/work\n1\n"
    taken = dock("create", "--name", name)
    assert taken.returncode == 1
    assert len(taken.stderr.splitlines()) == 1

    dock.out("write", name, "kept", "--content", "yes")
    assert dock.out("reboot", name) == f"rebooted {name}\n"
    assert dock.out("read", name, "kept") == "yes"
    assert dock.out("stop", name) == f"stopped {name}\n"
    # Nothing starts it but its user's word.
    assert dock.document("info", name)["status"] == "stopped"
    refused = dock.each(["run", name, "true"], ["read", name, "kept"], ["ps", name])
    assert [one.returncode for one in refused] == [125, 1, 1]
    for one in refused:
        assert f"pocket-dock resume {name}" in one.stderr.decode()
    assert dock.document("info", name)["status"] == "stopped"
    assert dock.out("resume", name) == f"resumed {name}\n"
    assert dock.out("read", name, "kept") == "yes"
    assert dock.out("reboot", "--fresh", name) == f"rebooted {name}\n"
    assert dock("read", name, "kept").returncode == 1
    assert dock.out("shutdown", name) == f"removed {name}\n"
    assert dock.document("list", "--project", "p") == []


def test_what_persists_outlives_shutdown_and_prune(dock: Commands, prefix: str) -> None:
    kept, other = f"{prefix}-kept", f"{prefix}-other"
    dock.out("create", "--name", kept, "--persist")
    dock.out("create", "--name", other)

    assert dock.out("shutdown", kept) == f"stopped {kept}\n"
    assert dock.out("stop", other) == f"stopped {other}\n"
    assert dock.out("prune", "--yes") == f"destroyed {other}\n"
    assert [one["name"] for one in dock.document("list")] == [kept]
    assert dock.out("prune", "--all", "--yes") == f"destroyed {kept}\n"


@pytest.mark.parametrize(
    "line", ["--name a/b", "--name ../x", "--user 0", "--label pocket-dock.x=1", "--shm-size 0", "-v /:/x"]
)
def test_what_no_sandbox_may_have_is_wrong_usage(dock: Commands, line: str) -> None:
    done = dock("create", *line.split())

    assert (done.returncode, done.stdout) == (2, b""), done
    assert len(done.stderr.splitlines()) == 1


def test_forks_snapshots_and_differences(dock: Commands, prefix: str) -> None:
    name = f"{prefix}-source"
    dock.out("create", "--name", name)
    dock.out("write", name, "notes.txt", "--content", "one\n")

    changes = dock.document("diff", name)
    assert {"path": "/home/sandbox/notes.txt", "change": "created"}.items() <= changes["changes"][0].items()
    assert "+one" in dock.out("diff", name)

    forks = dock.out("fork", name, "--count", "2").split()
    assert forks == [f"{name}-1", f"{name}-2"]
    dock.out("write", forks[0], "notes.txt", "--content", "two\n")
    assert dock.out("read", name, "notes.txt") == "one\n"
    assert dock.out("read", forks[1], "notes.txt") == "one\n"

    snapshot = dock.out("snapshot", name).strip()
    assert snapshot.startswith("snap-")
    assert dock.document("diff", name, "--since", snapshot)["changes"] == []
    again = dock.out("create", "--name", f"{prefix}-again", "--snapshot", snapshot).strip()
    assert dock.out("read", again, "notes.txt") == "one\n"
    for failed in dock.each(
        ["diff", name, "--since", "yesterday"], ["snapshot", name, "Not A Name"],
        ["fork", name, "--count", "999"], ["forward", name],
    ):  # fmt: skip
        assert failed.returncode == 2, failed
    for unknown in dock.each(["diff", name, "--since", "snap-0"], ["create", "--snapshot", "snap-0"]):
        assert unknown.returncode == 1
        assert b"no such snapshot: snap-0." in unknown.stderr
        assert snapshot.encode() in unknown.stderr
    idle = dock("ps", forks[0])
    assert (idle.returncode, idle.stdout) == (0, b"")
    assert idle.stderr.decode() == f"pocket-dock: nothing runs in {forks[0]}\n"
    assert dock.out("destroy", name, *forks, again).count("destroyed") == 4
    assert dock.out("snapshots", "--delete", snapshot) == f"deleted {snapshot}\n"


async def test_snapshots_are_listed_and_deleted(dock: Commands, prefix: str, engine: Engine) -> None:
    name = f"{prefix}-kept"
    none = dock("snapshots")
    assert (none.returncode, none.stdout) == (0, b"SNAPSHOT  AGE  SIZE  NAME\n")
    assert b"pocket-dock snapshot SANDBOX" in none.stderr
    assert dock.document("snapshots") == []
    dock.out("create", "--name", name)
    first, second = (dock.out("snapshot", name).strip() for _ in range(2))
    made = dock.out("create", "--name", f"{prefix}-of-first", "--snapshot", first).strip()

    listed = dock.document("snapshots")
    assert [one["snapshot_id"] for one in listed] == [first, second]
    assert all(one["size_bytes"] > 1_000_000 for one in listed)
    rows = [line.split()[0] for line in dock.out("snapshots").splitlines()]
    assert rows == ["SNAPSHOT", first, second]
    done = dock("snapshots", "--delete", first, "snap-0", second)

    assert done.returncode == 1
    assert done.stdout.decode() == f"deleted {first}\ndeleted {second}\n"
    (said,) = done.stderr.decode().splitlines()
    assert "There is no such snapshot: snap-0." in said
    assert "pocket-dock snapshots" in said
    assert dock.document("snapshots") == []
    assert dock.out("run", made, "echo it lives on") == "it lives on\n"
    assert dock.out("destroy", name, made).count("destroyed") == 2
    # It went with the last one that lived on it.
    assert not {first, second} & {one.labels[SNAPSHOT] for one in await engine.images(SNAPSHOT)}


async def test_an_image_of_a_short_name_is_found_by_it(dock: Commands, prefix: str, engine: Engine) -> None:
    name = f"{prefix}-short"
    dock.out("create", "--name", name)
    dock.out("write", name, "notes.txt", "--content", "mine\n")

    kept = dock.out("snapshot", name, f"{name}-image").strip()
    try:
        made = dock.out("create", "--image", f"{name}-image").strip()
        assert dock.out("read", made, "notes.txt") == "mine\n"
        dock.out("destroy", name, made)
    finally:
        await remove_image(engine, kept)
    assert kept == ("localhost/" if engine.info.kind == "podman" else "") + f"{name}-image:latest"


def test_files_are_read_written_and_listed_byte_by_byte(dock: Commands, prefix: str) -> None:
    name, data = f"{prefix}-files", os.urandom(9_000_000) + b"\0\r\n"
    dock.out("create", "--name", name)

    dock.out("write", name, "deep/er/data.bin", "--mode", "640", stdin=data)
    assert dock("read", name, "deep/er/data.bin").stdout == data
    dock.out("write", name, "log", stdin=b"a\n")
    dock.out("write", name, "log", "--append", "--content", "b\n")
    assert dock.out("read", name, "log") == "a\nb\n"
    (listed,) = dock.document("ls", name, "deep/er")
    assert (listed["name"], listed["size"], listed["mode"]) == ("data.bin", len(data), "0640")
    assert dock.out("ls", "-l", name, "deep/er").startswith("-rw-r-----      9000003 ")

    dock.out("run", name, "touch 'with\nnewline' \"$(printf 'esc\\033[31m')\" \"$(printf 'bad\\377')\"")
    names = dock("ls", name).stdout
    assert b"bad\xff\n" in names
    assert b"with\\nnewline\n" in names
    with dock.in_terminal("ls", name) as terminal:
        assert terminal.end() == 0
        assert b"\x1b[31m" not in terminal.raw

    for failed in dock.each(["read", name, "nothing"], ["read", name, "deep"], ["ls", name, "log"]):
        assert failed.returncode == 1
        assert len(failed.stderr.splitlines()) == 1
    assert (
        dock.shell('pd read "$1" deep/er/data.bin | head -c 1 >/dev/null; echo "$PIPESTATUS"', name).stderr
        == b""
    )
    assert dock.shell('pd read "$1" deep/er/data.bin >/dev/full', name).returncode == 1
    dock.out("shutdown", name)


def test_a_pool_runs_each_in_a_fresh_sandbox_and_tells_in_order(dock: Commands, tmp_path: Path) -> None:
    good, bad, slow = tmp_path / "good.py", tmp_path / "bad.py", tmp_path / "slow.sh"
    good.write_text("open('mark', 'x'); print(6 * 7)")
    bad.write_text("open('mark', 'x'); raise SystemExit(3)")
    slow.write_text("sleep 60")

    done = dock("pool", "--size", "2", "--timeout", "2", "--json", *map(str, (slow, good, bad, good)))

    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 1
    assert [one["name"] for one in results] == [str(one) for one in (slow, good, bad, good)]
    assert [one["status"] for one in results] == ["timeout", "ok", "nonzero", "ok"]
    assert results[1]["stdout"] == "42\n"
    done = dock("pool", "--size", "2", stdin=b"echo one\n\necho two")
    assert done.returncode == 0
    assert [line.split()[:3] for line in done.stdout.decode().splitlines()[::2]] == [
        ["ok", "line", "1"],
        ["ok", "line", "3"],
    ]
    done = dock("pool", str(tmp_path / "nothing.py"))
    assert done.returncode == 1
    assert b"cannot be read" in done.stdout


def test_a_pool_that_is_interrupted_ends_quietly_and_leaves_nothing(dock: Commands) -> None:
    with dock.started("pool", "--size", "1") as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"echo one\nsleep 600\n")
        process.stdin.flush()
        assert process.stdout.readline().startswith(b"ok")
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=TIMEOUT)

    assert process.returncode == 130
    assert b"Unclosed" not in err
    assert len(err.splitlines()) <= 1


def test_the_quickstart_leaves_nothing(dock: Commands) -> None:
    before = dock.document("list")

    text = dock.out("quickstart")

    assert "Hello from Python" in text
    assert "mcpServers" in text
    assert dock.document("list") == before
    assert dock.document("quickstart")["status"] == "ok"


def test_names_are_completed_from_records(dock: Commands, prefix: str) -> None:
    name = f"{prefix}-completed"
    dock.out("create", "--name", name)
    line = f"pocket-dock run {prefix}-c"

    done = dock.shell(
        "export POCKET_DOCK_ENGINE=unix:///nobody.sock _ARGCOMPLETE=1 _ARGCOMPLETE_IFS=$'\\n' "
        'COMP_LINE="$1" COMP_POINT="${#1}"; pd 8>&1 9>/dev/null >/dev/null',
        line,
    )

    assert done.stdout.decode().split() == [name]
    dock.out("shutdown", name)
