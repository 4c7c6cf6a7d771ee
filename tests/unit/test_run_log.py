"""History and output of runs on disk: what is kept, for how long, how much, and what cannot disturb it."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import shutil
from pathlib import Path

import pytest

from pocket_dock_mcp.models import RunResult, RunUsage
from pocket_dock_mcp.projects.config import ProjectConfig
from pocket_dock_mcp.projects.history import DAY_S, MAX_LINE
from pocket_dock_mcp.projects.outputs import Kind, read_output
from pocket_dock_mcp.projects.runlog import LogPolicy, RunLog, policy_of

OK = RunResult("ok", exit_code=0, usage=RunUsage(wall_s=0.25))


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        self.now += 0.001
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    directory = tmp_path / "box"
    directory.mkdir()
    return directory


def run(log: RunLog, command: str = "true", output: bytes = b"out\n", kind: Kind = "run") -> str:
    """Log a run with its end."""
    record = log.begin(kind, command)
    record.write(1, output)
    record.end(OK)
    return record.id


def files(log: RunLog) -> list[str]:
    return sorted(path.name for path in (log.directory / "logs").glob("*.log*"))


def printed(log: RunLog, run_id: str) -> list[tuple[int, bytes]]:
    entry = next(entry for entry in log.entries() if entry["id"] == run_id)
    path = log.output_path(entry)
    return [] if path is None else list(read_output(path))


# -- history -----------------------------------------------------------------------------------------


def test_detached_runs_may_be_the_only_ones_whose_output_is_kept(directory: Path, clock: Clock) -> None:
    log = RunLog(directory, LogPolicy(auto_log=False, keeps_detached=True), clock=clock)
    kinds: tuple[Kind, ...] = ("run", "stream", "detach", "session")
    for kind in kinds:
        run(log, kind=kind)
    assert [name.partition("-")[0] for name in files(log)] == ["detach"]


def test_a_run_is_one_entry_from_its_beginning_to_its_end(directory: Path, clock: Clock) -> None:
    log = RunLog(directory, LogPolicy(), clock=clock)
    record = log.begin("detach", "make test", run_id="run-00ff", language="shell")
    (begun,) = log.entries()
    record.end(RunResult("timeout", signal=9, usage=RunUsage(wall_s=1.5)))
    (ended,) = log.entries()

    assert (begun["status"], begun["type"], begun["command"], begun["id"]) == (
        "running",
        "detach",
        "make test",
        "run-00ff",
    )
    assert (begun["pid"], begun["language"], begun["timestamp"][:20]) == (
        os.getpid(),
        "shell",
        "2027-01-15T08:00:00.",
    )
    assert (ended["status"], ended["exit_code"], ended["signal"], ended["timed_out"]) == (
        "timeout",
        None,
        9,
        True,
    )
    assert (ended["duration_ms"], ended["command"], ended["time"]) == (1500, "make test", begun["time"])


def test_a_run_ends_once(directory: Path) -> None:
    log = RunLog(directory, LogPolicy())
    record = log.begin("run", "true")
    record.end("killed")
    record.end(OK)
    record.write(1, b"late")

    assert [entry["status"] for entry in log.entries()] == ["killed"]
    assert files(log) == []


@pytest.mark.parametrize("command", ["a\nb", "\ud800", "\x00", "x" * 1_000_000, "ü" * 5000, '"}'])
def test_any_command_is_one_line(command: str, directory: Path) -> None:
    log = RunLog(directory, LogPolicy())
    run(log, command)
    lines = (directory / "logs" / "history.jsonl").read_bytes().splitlines()

    assert len(lines) == 2
    assert all(len(line) <= MAX_LINE for line in lines)
    assert log.entries()[0]["command"][:500] == command[:500]


def test_what_is_no_line_of_ours_is_passed_over(directory: Path) -> None:
    log = RunLog(directory, LogPolicy())
    run(log)
    good = (directory / "logs" / "history.jsonl").read_bytes()
    bad = (
        b'\xff\n[]\n{}\n{"time": "x", "id": "a", "type": "run"}\n{"time": 1e400, "id": "a", "type": "run"}\n'
    )
    bad += b'{"time": 1800000000, "id": 5, "type": "run"}\n{"time": 1800000000, "id": "a", "type": "../x"}\n'
    bad += b"[" * 200_000 + b"\n" + b"x" * 200_000
    (directory / "logs" / "history.jsonl").write_bytes(bad + b"\n" + good + b'{"torn')
    run(log)

    assert [entry["status"] for entry in log.entries()] == ["ok", "ok"]


def test_numbers_that_mean_nothing_are_not_believed(directory: Path) -> None:
    log = RunLog(directory, LogPolicy())
    run(log)
    line = '{{"time": {}, "id": "run-{}", "type": "run", "duration_ms": {}}}\n'
    durations = ["1" + "0" * 400, "1e400", "NaN", "-1", "true", '"long"', "2.5", "7"]
    lines = [line.format(1_800_000_000, number, said) for number, said in enumerate(durations)]
    # In some time zone it is in the year 10000.
    lines += [line.format(moment, "late", 1) for moment in ("253402300799", "253402300799.0")]
    (directory / "logs" / "history.jsonl").write_text("".join(lines))

    found = {entry["id"]: entry.get("duration_ms") for entry in log.entries()}
    assert found == {f"run-{number}": None for number in range(6)} | {"run-6": 2.5, "run-7": 7}


def test_old_entries_go_even_if_nothing_is_run(directory: Path, clock: Clock) -> None:
    log = RunLog(directory, LogPolicy(retention_days=2), clock=clock)
    run(log, "old")
    clock.now += 1.5 * DAY_S
    run(log, "new")
    clock.now += DAY_S

    assert [entry["command"] for entry in log.entries()] == ["new"]
    assert b"old" in (directory / "logs" / "history.jsonl").read_bytes()
    again = RunLog(directory, LogPolicy(retention_days=2), clock=clock)
    assert b"old" not in (directory / "logs" / "history.jsonl").read_bytes()
    assert [entry["command"] for entry in again.entries()] == ["new"]
    assert len(files(again)) == 1


def test_a_history_is_bounded(directory: Path) -> None:
    log = RunLog(directory, LogPolicy(max_log_size=4096))
    for number in range(200):
        log.begin("run", f"command {number}").end(OK)
    sizes = [path.stat().st_size for path in (directory / "logs").iterdir()]

    assert len(sizes) == 2
    assert max(sizes) < 4096 + 1024
    assert log.entries()[-1]["command"] == "command 199"
    assert 5 < len(log.entries()) < 40


def _many(directory: Path, number: int, count: int) -> None:
    log = RunLog(directory, LogPolicy(max_log_size=8 * 1024 * 1024))
    for index in range(count):
        log.begin("run", f"{number}.{index}").end(OK)


def test_several_processes_lose_nothing(directory: Path) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_many, args=(directory, number, 300)) for number in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    entries = RunLog(directory, LogPolicy()).entries()

    assert sorted(entry["command"] for entry in entries) == sorted(
        f"{n}.{i}" for n in range(3) for i in range(300)
    )
    assert {entry["status"] for entry in entries} == {"ok"}


# -- output ------------------------------------------------------------------------------------------


def test_output_is_kept_byte_by_byte_with_its_streams(directory: Path) -> None:
    log = RunLog(directory, LogPolicy())
    record = log.begin("stream", "x")
    pieces = [
        (1, b"a\nb"),
        (2, b"\x00\xff\r\n"),
        (1, b"--- 2026-01-31T12:00:00.000Z stderr 3\nxyz"),
        (1, b"\n"),
    ]
    for stream, data in pieces:
        record.write(stream, data)
    record.write(1, b"")
    record.end(OK)

    assert printed(log, record.id) == pieces
    (name,) = files(log)
    assert name.startswith("stream-20")
    assert (directory / "logs" / name).stat().st_mode & 0o777 == 0o600


def test_it_can_be_read_while_it_is_written(directory: Path) -> None:
    log = RunLog(directory, LogPolicy())
    record = log.begin("detach", "x")
    record.write(1, b"so far")

    assert printed(log, record.id) == [(1, b"so far")]


def test_a_run_that_prints_nothing_has_no_file(directory: Path) -> None:
    log = RunLog(directory, LogPolicy())
    run(log, output=b"")

    assert files(log) == []


@pytest.mark.parametrize(
    ("policy", "kept"),
    [
        (LogPolicy(), [1, 2]),
        (LogPolicy(auto_log=False), []),
        (LogPolicy(log_stdout=False), [2]),
        (LogPolicy(log_stderr=False), [1]),
    ],
)
def test_what_is_not_to_be_kept_is_not(policy: LogPolicy, kept: list[int], directory: Path) -> None:
    log = RunLog(directory, policy)
    record = log.begin("run", "x")
    record.write(1, b"out")
    record.write(2, b"err")
    record.end(OK)

    assert [stream for stream, _ in printed(log, record.id)] == kept
    assert len(log.entries()) == 1


def test_every_key_of_the_configuration_is_heeded() -> None:
    config = ProjectConfig(
        auto_log=False,
        log_stdout=False,
        log_stderr=False,
        max_log_size=5000,
        max_logs_per_instance=7,
        retention_days=3,
    )

    assert policy_of(config) == LogPolicy(False, False, False, 5000, 7, 3)
    assert policy_of(config, auto_log=True).auto_log


@pytest.mark.parametrize("size", [1, 100, 5000, 200_000])
def test_a_file_is_never_larger_than_it_may_be(size: int, directory: Path) -> None:
    log = RunLog(directory, LogPolicy(max_log_size=10_000))
    record = log.begin("run", "x")
    for number in range(max(3, 40_000 // size)):
        record.write(1, bytes([65 + number % 26]) * size)
    record.end(OK)
    sizes = [(directory / "logs" / name).stat().st_size for name in files(log)]
    text = b"".join(data for _, data in printed(log, record.id))

    assert len(sizes) == 2
    assert max(sizes) <= 10_000
    assert text[-1:] == bytes([65 + (max(3, 40_000 // size) - 1) % 26])
    assert log.entries()[0]["log_cut"] is True


def test_only_so_many_runs_have_output(directory: Path, clock: Clock) -> None:
    log = RunLog(directory, LogPolicy(max_logs=3), clock=clock)
    kinds: list[Kind] = ["run", "session", "detach", "stream", "run"]
    ids = [run(log, str(number), kind=kind) for number, kind in enumerate(kinds)]

    assert len(files(log)) == 3
    assert [bool(printed(log, run_id)) for run_id in ids] == [False, False, True, True, True]
    assert len(log.entries()) == 5


def test_fewer_may_stay_from_now_on(directory: Path, clock: Clock) -> None:
    log = RunLog(directory, LogPolicy(max_logs=5), clock=clock)
    for _ in range(5):
        run(log)
    (directory / "logs" / "notes.log").write_text("a user's own")
    lesser = RunLog(directory, LogPolicy(max_logs=2), clock=clock)

    assert len(files(lesser)) == 3
    assert (directory / "logs" / "notes.log").exists()


def test_what_is_being_written_stays(directory: Path, clock: Clock) -> None:
    log = RunLog(directory, LogPolicy(max_logs=1, retention_days=1), clock=clock)
    long = log.begin("detach", "long")
    long.write(1, b"begun")
    clock.now += 3 * DAY_S
    run(log)
    long.write(1, b" ended")
    long.end(OK)

    assert (
        b"".join(data for path in (directory / "logs").glob("detach*") for _, data in read_output(path))
        == b"begun ended"
    )
    RunLog(directory, LogPolicy(max_logs=1, retention_days=1), clock=clock)
    assert not list((directory / "logs").glob("detach*"))


def test_a_half_that_is_too_old_goes_with_the_other(directory: Path, clock: Clock) -> None:
    log = RunLog(directory, LogPolicy(max_log_size=4096), clock=clock)
    run(log, output=b"x" * 6000)
    assert len(files(log)) == 2
    clock.now += 31 * DAY_S
    RunLog(directory, LogPolicy(), clock=clock)

    assert files(log) == []


def test_a_torn_piece_is_given_as_far_as_it_goes(directory: Path) -> None:
    log = RunLog(directory, LogPolicy())
    record = log.begin("run", "x")
    record.write(1, b"whole")
    record.write(2, b"torn in the middle")
    path = directory / "logs" / files(log)[0]
    path.write_bytes(path.read_bytes()[:-8])

    assert list(read_output(path)) == [(1, b"whole"), (2, b"torn in the")]
    path.write_bytes(b"--- garbage\n" * 3)
    assert list(read_output(path)) == []


# -- joined again ------------------------------------------------------------------------------------


def test_output_that_is_told_again_replaces_what_was_there_at_the_end(directory: Path) -> None:
    first = RunLog(directory, LogPolicy())
    record = first.begin("detach", "x")
    record.write(1, b"half")
    record.leave()
    second = RunLog(directory, LogPolicy())
    again = second.rejoin(second.entries()[0])
    again.write(1, b"half and")
    assert printed(second, record.id) == [(1, b"half")]
    again.write(1, b" half")
    again.end(OK)

    assert printed(second, record.id) == [(1, b"half and"), (1, b" half")]
    assert len(files(second)) == 1
    assert [entry["status"] for entry in second.entries()] == ["ok"]


def test_who_leaves_again_leaves_nothing(directory: Path) -> None:
    log = RunLog(directory, LogPolicy(max_log_size=4096))
    log.begin("detach", "x").leave()
    again = log.rejoin(log.entries()[0])
    again.write(1, b"x" * 9000)
    again.leave()

    assert files(log) == []
    assert log.entries()[0]["status"] == "running"


# -- what goes wrong ---------------------------------------------------------------------------------


def test_logs_that_were_deleted_are_begun_again(directory: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = RunLog(directory, LogPolicy(max_log_size=4096))
    record = log.begin("run", "x")
    record.write(1, b"a" * 3000)
    shutil.rmtree(directory / "logs")
    record.write(1, b"b" * 3000)
    record.end(OK)
    run(log, "after")

    assert [entry.get("command") for entry in log.entries()][-1] == "after"
    assert printed(log, record.id)[-1][1].endswith(b"b")
    assert not caplog.records


@pytest.mark.parametrize("in_the_way", ["file", "link", "gone"])
def test_what_cannot_be_written_is_warned_of_once_unless_all_was_removed(
    in_the_way: str, directory: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    if in_the_way == "file":
        (directory / "logs").write_text("")
    elif in_the_way == "gone":
        shutil.rmtree(directory)
    else:
        (directory / "logs").mkdir()
        (directory / "logs" / "history.jsonl").symlink_to(outside / "target")
    log = RunLog(directory, LogPolicy())
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            run(log, output=b"")

    warned = ["cannot be written" in record.getMessage() for record in caplog.records]
    assert warned == ([] if in_the_way == "gone" else [True])
    assert not list(outside.iterdir())
    assert directory.exists() == (in_the_way != "gone")


def test_a_full_disk_fails_nothing(directory: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A file system of its own is not to be had everywhere; a limit on the size of files is as good."""
    context = multiprocessing.get_context("spawn")
    worker = context.Process(target=_on_a_full_disk, args=(directory,))
    worker.start()
    worker.join(60)

    assert worker.exitcode == 0
    log = RunLog(directory, LogPolicy())
    # What fitted is there, and what comes when there is room again is not torn.
    run(log, "afterwards")
    assert log.entries()[-1]["command"] == "afterwards"


def _on_a_full_disk(directory: Path) -> None:
    import resource
    import signal

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
    log = RunLog(directory, LogPolicy())
    for _ in range(10):
        run(log, output=b"x" * 5000)


def test_a_clock_that_goes_back_loses_nothing(directory: Path, clock: Clock) -> None:
    log = RunLog(directory, LogPolicy(), clock=clock)
    run(log, "before")
    clock.now -= 10 * DAY_S
    run(log, "after")

    assert {entry["command"] for entry in log.entries()} == {"before", "after"}


def test_a_history_says_nothing_of_an_environment(directory: Path) -> None:
    log = RunLog(directory, LogPolicy())
    run(log)
    lines = (directory / "logs" / "history.jsonl").read_text().splitlines()

    assert all("env" not in json.loads(line) for line in lines)
