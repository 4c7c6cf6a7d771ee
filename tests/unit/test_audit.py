"""The audit log as a file: whole lines, bounds, secrets, and disks that fail."""

from __future__ import annotations

import json
import logging
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pocket_dock_mcp.manager import audit
from pocket_dock_mcp.manager.audit import AuditLog, code_facts, read_log, redacted, too_much


def test_a_line_says_who_what_and_when_and_only_we_may_read_it(tmp_path: Path) -> None:
    directory = tmp_path / "audit"
    log = AuditLog(directory).open("sb-1", "alice", "her session")
    log.write("run", run_id="run-1", status="ok")

    [line] = read_log(directory / "sb-1.jsonl")
    assert (
        line.items()
        >= {
            "event": "run",
            "sandbox_id": "sb-1",
            "principal": "alice",
            "run_id": "run-1",
        }.items()
    )
    assert line["time"].endswith("Z")
    assert line["session"] not in ("her session", "")
    assert isinstance(line["mono"], float)
    assert stat.S_IMODE((directory / "sb-1.jsonl").stat().st_mode) == 0o600
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700


def test_without_a_directory_nothing_is_written(tmp_path: Path) -> None:
    AuditLog(None).open("sb-1", "alice", "s").write("run")

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["../../escape", "a/b", "", "x" * 500, "sb-\n"])
def test_no_id_leads_out_of_the_directory(tmp_path: Path, name: str) -> None:
    AuditLog(tmp_path / "audit").open(name, "alice", "s").write("run")

    assert len(list((tmp_path / "audit").iterdir())) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["audit"]


def test_texts_cannot_break_a_line_and_long_ones_are_cut(tmp_path: Path) -> None:
    log = AuditLog(tmp_path).open("sb-1", "alice", "s")
    log.write("file", path='a"\n{"event": "forged"}\x1b[2J' + "é" * 5000)
    log.write("odd", names=["x" * 20_000])

    first, second = read_log(tmp_path / "sb-1.jsonl")
    assert first["event"] == "file"
    assert "\x1b" not in first["path"]
    assert len(first["path"]) < 300
    assert second["left_out"] == ["names"]
    assert len((tmp_path / "sb-1.jsonl").read_bytes().splitlines()) == 2


def test_a_file_that_grows_is_halved_and_never_exceeds_its_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "MAX_FILE_BYTES", 2000)
    log = AuditLog(tmp_path).open("sb-1", "alice", "s")
    for number in range(200):
        log.write("run", number=number)

    sizes = [path.stat().st_size for path in tmp_path.iterdir()]
    assert len(sizes) == 2
    assert max(sizes) <= 2000
    assert [line["number"] for line in read_log(tmp_path / "sb-1.jsonl")][-1] == 199


def test_old_and_many_files_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "MAX_FILES", 3)
    monkeypatch.setattr(audit, "MAX_TOTAL_BYTES", 250)
    now = time.time()
    for name, size, age_s in (
        ("new", 100, 10),
        ("mid", 100, 20),
        ("big", 100, 30),
        ("many", 1, 40),
        ("old", 1, 1e7),
    ):
        path = tmp_path / f"{name}.jsonl"
        path.write_bytes(b"x" * size)
        os.utime(path, (now - age_s, now - age_s))
    (tmp_path / "foreign.txt").write_text("stays")

    assert {path.stem for path in too_much(tmp_path)} == {"big", "many", "old"}

    AuditLog(tmp_path).open("sb-1", "alice", "s").write("run")
    assert {path.name for path in tmp_path.iterdir()} == {
        "new.jsonl",
        "mid.jsonl",
        "sb-1.jsonl",
        "foreign.txt",
    }


def test_a_torn_line_spoils_no_other(tmp_path: Path) -> None:
    path = tmp_path / "sb-1.jsonl"
    path.write_bytes(b'{"event": "whole"}\n{"event": "to')

    AuditLog(tmp_path).open("sb-1", "alice", "s").write("after")

    assert [line["event"] for line in read_log(path)] == ["whole", "after"]


def test_a_kill_leaves_whole_lines(tmp_path: Path) -> None:
    script = (
        "import itertools; from pathlib import Path; from pocket_dock_mcp.manager.audit import AuditLog\n"
        f"log = AuditLog(Path({str(tmp_path)!r})).open('sb-1', 'a', 's')\n"
        "for n in itertools.count():\n"
        "    log.write('run', number=n)\n"
        "    if n == 50: print('going', flush=True)"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"going\n"
        process.send_signal(signal.SIGKILL)

    *lines, last = (tmp_path / "sb-1.jsonl").read_bytes().split(b"\n")
    assert [json.loads(line)["number"] for line in lines] == list(range(len(lines)))
    assert last == b"" or len(list(read_log(tmp_path / "sb-1.jsonl"))) == len(lines)


def test_a_disk_that_fails_is_warned_of_once_and_fails_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "audit").write_text("a file is in the way")
    log = AuditLog(tmp_path / "audit")
    with caplog.at_level(logging.WARNING):
        for number in range(3):
            log.open(f"sb-{number}", "alice", "s").write("run")

    assert len(caplog.records) == 1
    assert "audit log" in caplog.text


def test_a_full_disk_tears_one_line_and_is_recovered_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = AuditLog(tmp_path).open("sb-1", "alice", "s")
    log.write("first")
    real = os.write
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", lambda fd, data: real(fd, data[:10]))
        log.write("torn")
    log.write("later")

    assert [line["event"] for line in read_log(tmp_path / "sb-1.jsonl")] == ["first", "later"]


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "precious"
    target.write_text("as it was")
    (tmp_path / "audit").mkdir()
    (tmp_path / "audit" / "sb-1.jsonl").symlink_to(target)

    AuditLog(tmp_path / "audit").open("sb-1", "alice", "s").write("run")

    assert target.read_text() == "as it was"


@pytest.mark.parametrize(
    "text",
    [
        "export API_KEY=hunter2hunter2",
        "curl -H 'Authorization: Bearer hunter2hunter2' example.org",
        "git clone https://me:hunter2hunter2@example.org/x",
        "mysql --password hunter2hunter2",
        'client = Client(api_key="hunter2hunter2")',
        "DATABASE=hunter2hunter2 make",
        "login sk-hunter2hunter2",
        '{"token": "hunter2hunter2"}',
        "mysql -phunter2secret shop",
        "mysqldump --host=db -u root -phunter2secret shop > out",
        "sshpass -p'hunter2secret' ssh host",
        "password = 'a hunter2secret b'",
        'password = "a \\" hunter2secret"',
        "run --token 'a hunter2secret'",
        "password = 'a hunter2secret",
        "PASSWORD='a hunter2secret'\"b hunter2secret\" make",
    ],
)
def test_what_looks_like_a_secret_is_masked(text: str) -> None:
    assert "hunter2" not in redacted(text)


@pytest.mark.parametrize(
    "text",
    [
        "print('hello')",
        "for token in words:",
        "x = 1",
        "ls -la --color auto /tmp",
        "mysql -p shop",
        "mkdir -pv a/b",
    ],
)
def test_ordinary_code_stays_as_it_is(text: str) -> None:
    assert redacted(text) == text


@pytest.mark.parametrize(
    "piece",
    ["A", "token-", "a=", "-", "--a ", " ", "://a", "eyJ", "mysql ", "mysql -", "password='", "a='\\"],
)
def test_no_text_is_slow_to_look_through(piece: str) -> None:
    began = time.perf_counter()
    code_facts(piece * 100_000)

    assert time.perf_counter() - began < 2


def test_a_program_is_known_by_hash_length_and_first_line() -> None:
    facts = code_facts("\n\n  import os\nsecret = 1\n")

    assert facts["code_bytes"] == len("\n\n  import os\nsecret = 1\n")
    assert facts["first_line"] == "import os"
    assert len(str(facts["code_sha256"])) == 64
