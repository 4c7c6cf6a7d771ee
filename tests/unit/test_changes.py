"""What a run has changed, found out from the kernel while real programs do real things."""

from __future__ import annotations

import contextlib
import json
import os
import random
import select
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pocket_dock_mcp.agent.inside import changes, identity

QUEUE = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())


class Tracked:
    """A tracker over one directory, and programs that run in it."""

    def __init__(self, root: Path, as_user: contextlib.AbstractContextManager[object] | None = None) -> None:
        self.root = root
        self.changes = changes.Changes([str(root)], as_user or contextlib.nullcontext())

    def during(self, work: str | Callable[[], object]) -> dict[str, Any]:
        """Say what a shell command or a function changes."""
        token = self.changes.begin()
        if callable(work):
            work()
        else:
            self.shell(work)
        return self.end(token)

    def shell(self, command: str) -> None:
        subprocess.run(["sh", "-ec", command], cwd=self.root, check=True, stdin=subprocess.DEVNULL)

    def end(self, token: changes.Token, limit: int = 1000, alive: bool = False) -> dict[str, Any]:
        """Report with paths below the root."""
        report = self.changes.end(token, limit, alive)
        json.dumps(report)
        skip = len(str(self.root)) + 1
        for kind in ("created", "modified"):
            report[kind] = {path[skip:]: size for path, size in report[kind]}
        report["deleted"] = {path[skip:] for path in report["deleted"]}
        return report


@pytest.fixture
def tracked(tmp_path: Path) -> Iterator[Tracked]:
    it = Tracked(tmp_path)
    yield it
    if it.changes.fileno() >= 0:
        it.changes.close()


def told(
    created: Any = (), modified: Any = (), deleted: Any = (), incomplete: bool = False
) -> dict[str, Any]:
    """Say what a report with only this in it is; sizes where there is a dict."""
    return {
        "created": created,
        "modified": modified,
        "deleted": deleted,
        "counts": [len(created), len(modified), len(deleted)],
        "incomplete": incomplete,
    }


NOTHING = told({}, {}, set())


# -- what is told -------------------------------------------------------------------------------------


def test_a_run_that_touches_nothing_changes_nothing(tracked: Tracked) -> None:
    assert tracked.during("true") == NOTHING


def test_files_are_created_modified_and_deleted(tracked: Tracked) -> None:
    tracked.shell("echo old > kept; echo old > changed; echo old > gone")

    report = tracked.during("printf 12345 > new; echo more >> changed; rm gone; cat kept; ln -s kept link")

    assert report == told({"new": 5, "link": 4}, {"changed": 9}, {"gone"})


def test_only_the_balance_counts(tracked: Tracked) -> None:
    tracked.shell("echo a > back; echo a > gone")

    report = tracked.during(
        "echo x > fleeting; rm fleeting; echo x > new; echo y >> new; rm back; echo bb > back;"
        "echo z >> gone; rm gone; echo x > once; rm once; echo y > once"
    )

    assert report == told({"new": 4, "once": 2}, {"back": 3}, {"gone"})


@pytest.mark.parametrize(
    "command",
    [
        "sed -i s/old/new/ file",
        "echo new > file.tmp; mv file.tmp file",
        "cp file .x; echo >> .x; mv -f .x file",
    ],
)
def test_a_file_that_is_replaced_is_modified(tracked: Tracked, command: str) -> None:
    tracked.shell("echo old > file")

    report = tracked.during(command)

    assert report == told({}, {"file": tracked.root.joinpath("file").stat().st_size}, set())


def test_a_file_that_is_only_opened_for_writing_is_not_modified(tracked: Tracked) -> None:
    tracked.shell("echo old > file; echo old > other")

    def open_and_close() -> None:
        tracked.root.joinpath("file").open("r+").close()
        tracked.root.joinpath("file").read_text()
        tracked.root.joinpath("other").open("a").close()
        tracked.root.joinpath("other").touch()

    _tick()
    assert tracked.during(open_and_close) == told({}, {"other": 4}, set())


def test_what_is_mapped_into_memory_and_written_is_modified(tracked: Tracked) -> None:
    tracked.shell("echo old > file")
    program = """
import mmap, os
fd = os.open("file", os.O_RDWR)
memory = mmap.mmap(fd, 4)
os.close(fd)
memory[:3] = b"new"
os._exit(0)
"""
    _tick()
    assert tracked.during(f"{sys.executable} -c {shlex.quote(program)}") == told({}, {"file": 4}, set())


def test_a_writer_that_is_killed_has_modified_its_file(tracked: Tracked) -> None:
    token = tracked.changes.begin()
    with subprocess.Popen(
        ["sh", "-c", "exec 3> file; echo a >&3; echo; read x"], cwd=tracked.root, stdin=-1, stdout=-1
    ) as writer:
        assert writer.stdout
        writer.stdout.readline()
        writer.kill()

    assert tracked.end(token) == told({"file": 2}, {}, set())


def test_what_is_written_and_still_open_is_told_if_it_is_asked_for(tracked: Tracked) -> None:
    """As sessions do it: the process lives on, with its database or its log open."""
    tracked.shell("echo > log; echo > other; mkdir d")
    _tick()
    program = "exec 3>> log 4> d/new; for i in 1 2; do read x; echo $x >&3; echo $x >&4; echo; done; read x"
    token = tracked.changes.begin()
    with subprocess.Popen(["sh", "-c", program], cwd=tracked.root, stdin=-1, stdout=-1, bufsize=0) as session:

        def say(text: bytes) -> None:
            assert session.stdin
            assert session.stdout
            session.stdin.write(text)
            session.stdout.readline()

        say(b"one\n")
        assert tracked.end(token, alive=True) == told({"d/new": 4}, {"log": 5}, set())
        _tick()
        token = tracked.changes.begin()
        assert tracked.end(token, alive=True) == NOTHING
        token = tracked.changes.begin()
        say(b"two\n")
        other = tracked.changes.begin()
        assert tracked.end(token, alive=True) == told({}, {"log": 9, "d/new": 8}, set())
        assert tracked.end(other) == NOTHING
        _tick()
        token = tracked.changes.begin()
    # It closes both, which it had written to before.
    assert tracked.end(token) == NOTHING


def test_too_much_that_may_be_open(tracked: Tracked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "MAX_LOOKS", 3)
    tracked.shell("touch 1 2 3 4")

    assert tracked.end(tracked.changes.begin(), alive=True)["incomplete"]


def test_mv_of_a_file_and_of_a_directory(tracked: Tracked) -> None:
    tracked.shell("mkdir -p one/in two; echo 1 > one/a; echo 1 > one/in/b; echo 1 > c")

    report = tracked.during("mv one two/three; mv c two/d")

    assert report == told({"two/three/a": 2, "two/three/in/b": 2, "two/d": 2}, {}, {"one/a", "one/in/b", "c"})
    assert tracked.during("echo 2 >> two/three/in/b") == told({}, {"two/three/in/b": 4}, set())


def test_directories_change_places(tracked: Tracked) -> None:
    tracked.shell(
        "mkdir -p live next; echo old > live/a; echo old > live/b; echo new > next/a; echo new > next/c"
    )

    report = tracked.during("mv live old; mv next live; rm -r old")

    assert report == told({"live/c": 4}, {"live/a": 4}, {"live/b", "next/a", "next/c"})


def test_what_comes_from_elsewhere_and_goes_there(
    tracked: Tracked, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    tracked.shell(
        f"mkdir {elsewhere}/in {elsewhere}/in/deep; echo 1 > {elsewhere}/in/deep/a; mkdir out; echo 1 > out/b"
    )

    report = tracked.during(f"mv {elsewhere}/in .; mv out {elsewhere}; echo 2 >> {elsewhere}/out/b")

    assert report == told({"in/deep/a": 2}, {}, {"out/b"})
    assert tracked.during(f"echo 3 >> {elsewhere}/out/b") == NOTHING


def test_a_tree_is_unpacked_and_removed(tracked: Tracked, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    paths = {f"d{i % 7}/e{i % 5}/f{i}" for i in range(500)}
    for path in paths:
        (elsewhere / path).parent.mkdir(parents=True, exist_ok=True)
        (elsewhere / path).write_text(path)
    subprocess.run(["tar", "cf", "../all.tar", "."], cwd=elsewhere, check=True)

    assert tracked.during(f"tar xf {elsewhere}/../all.tar") == told(
        {path: len(path) for path in paths}, {}, set()
    )
    assert tracked.during(f"tar xf {elsewhere}/../all.tar") == told(
        {}, {path: len(path) for path in paths}, set()
    )
    assert tracked.during("rm -r d*") == told({}, {}, paths)
    assert len(tracked.changes._watched) == 1
    assert tracked.changes._count == 0


def test_directories_are_told_when_empty(tracked: Tracked) -> None:
    tracked.shell("mkdir was")

    assert tracked.during("mkdir -p empty full/inner gone; echo 1 > full/a; rmdir gone was") == told(
        {"empty/": 0, "full/a": 2, "full/inner/": 0}, {}, {"was/"}
    )


def test_a_file_becomes_a_directory_and_back(tracked: Tracked) -> None:
    tracked.shell("mkdir d; echo 1 > d/a; echo 1 > f")

    assert tracked.during("rm -r d f; echo 2 > d; mkdir f; echo 2 > f/a") == told(
        {"d": 2, "f/a": 2}, {}, {"d/a", "f"}
    )


def test_noise_is_left_out(tracked: Tracked) -> None:
    report = tracked.during(
        "mkdir __pycache__ d d/__pycache__; echo 1 > d/__pycache__/x;"
        "echo 1 > .pocket-dock-1.tmp; mv .pocket-dock-1.tmp file"
    )

    assert report == told({"file": 2, "d/": 0}, {}, set())


def test_what_tools_keep_for_themselves_is_one_level(tracked: Tracked) -> None:
    tracked.shell(
        "mkdir -p site-packages/old-1.0 .git/objects; echo 1 > .git/HEAD; echo 1 > site-packages/old-1.0/x"
    )

    report = tracked.during(
        "mkdir -p site-packages/new/deep node_modules; echo 1 > site-packages/new/deep/a;"
        "echo 1 > site-packages/single.py; rm -r site-packages/old-1.0;"
        "echo 2 > .git/objects/aa; echo 2 > .git/lock; mv .git/lock .git/HEAD"
    )

    assert report == told(
        {"node_modules/": 0, "site-packages/new/": 0, "site-packages/single.py": 2},
        {".git/HEAD": 2},
        {"site-packages/old-1.0/"},
    )


def test_names_of_any_bytes(tracked: Tracked) -> None:
    names = ["new\nline", os.fsdecode(b"\xff\xfe"), "über 🐍", " ", "x" * 255]

    def write() -> None:
        for name in names:
            directory = tracked.root / "in" / name
            directory.mkdir(parents=True)
            (directory / name).write_text("1")

    assert tracked.during(write) == told({f"in/{name}/{name}": 1 for name in names}, {}, set())


def test_of_too_much_the_prominent_is_listed(tracked: Tracked) -> None:
    token = tracked.changes.begin()
    tracked.shell(
        "mkdir -p a/b/c .hidden; for i in $(seq 100); do echo > a/b/c/$i; echo > .hidden/$i; done;"
        "echo > z; echo > a/y; echo > .x"
    )

    report = tracked.changes.end(token, 4)

    prefix = len(str(tracked.root)) + 1
    assert [path[prefix:] for path, _size in report["created"]] == [".x", "a/b/c/1", "a/y", "z"]
    assert report["counts"] == [203, 0, 0]
    assert not report["incomplete"]


def test_overlapping_runs_each_get_what_happened_in_their_time(tracked: Tracked) -> None:
    first = tracked.changes.begin()
    tracked.shell("echo > a")
    second = tracked.changes.begin()
    tracked.shell("echo > b; echo >> a")

    assert tracked.end(first) == told({"a": 2, "b": 1}, {}, set())

    tracked.shell("rm a")

    assert tracked.end(second) == told({"b": 1}, {}, {"a"})
    assert tracked.during("true") == NOTHING


def test_roots_may_overlap_be_links_or_be_absent(tmp_path: Path) -> None:
    inner = tmp_path / "a" / "inner"
    inner.mkdir(parents=True)
    (tmp_path / "link").symlink_to("target")
    (tmp_path / "target").mkdir()
    roots = [
        inner,
        tmp_path / "a",
        tmp_path / "link",
        tmp_path / "target",
        tmp_path / "absent",
        inner,
        Path("/"),
    ]
    tracker = changes.Changes([str(root) for root in roots], contextlib.nullcontext())
    token = tracker.begin()

    for directory in ("a", "a/inner", "target"):
        (tmp_path / directory / "file").write_text("1")

    assert [path for path, _ in tracker.end(token, 10)["created"]] == [
        str(tmp_path / path) for path in ("a/file", "a/inner/file", "link/file")
    ]
    tracker.close()


def test_the_fd_is_readable_when_there_is_something(tracked: Tracked) -> None:
    poll = select.poll()
    poll.register(tracked.changes, select.POLLIN)
    assert not poll.poll(0)

    tracked.shell("mkdir a; echo > a/b")

    assert poll.poll(0)
    tracked.changes.on_readable()
    tracked.changes.on_readable()
    assert not poll.poll(0)


# -- against the truth --------------------------------------------------------------------------------

MESS = """
import os, random, shutil, sys
random.seed(int(sys.argv[1]))
os.chdir(sys.argv[2])
def place():
    return os.path.join(*random.choices("abc", k=random.randint(1, 4)))
def write(path, mode):
    with open(path, mode) as file:
        file.write(str(random.random()))
def step():
    what = random.randrange(10)
    if what < 3: write(place(), random.choice(["w", "a", "r+"]))
    elif what < 5: os.makedirs(os.path.dirname(place()) or "a", exist_ok=True)
    elif what < 8: os.rename(place(), place())
    elif what < 9: os.unlink(place())
    elif random.random() < 0.3: shutil.rmtree(place())
    else: os.makedirs("a/b/c"); write("a/b/c/b", "w")
def mess(count):
    for _ in range(count):
        try: step()
        except OSError: pass
"""


def _truth(root: Path) -> dict[str, tuple[str, int]]:
    return {
        str(path.relative_to(root)): (path.read_text(), path.stat().st_size)
        for path in root.rglob("*")
        if path.is_file()
    }


def _matches(
    report: dict[str, Any], before: dict[str, tuple[str, int]], after: dict[str, tuple[str, int]]
) -> None:
    for kind in ("created", "modified"):
        report[kind] = {path: size for path, size in report[kind].items() if not path.endswith("/")}
    assert report["created"] == {path: after[path][1] for path in after.keys() - before.keys()}
    assert {path for path in report["deleted"] if not path.endswith("/")} == before.keys() - after.keys()
    assert report["modified"].keys() <= after.keys() & before.keys()
    changed = {path for path in after.keys() & before.keys() if after[path] != before[path]}
    assert report["incomplete"] or changed <= report["modified"].keys()


@pytest.mark.parametrize("seed", range(4))
def test_any_mess_read_now_and_then(tracked: Tracked, seed: int) -> None:
    space: dict[str, Any] = {}
    argv, sys.argv = sys.argv, ["", str(seed), str(tracked.root)]
    here = Path.cwd()
    try:
        exec(MESS, space)
        for _ in range(100):
            before = _truth(tracked.root)
            token = tracked.changes.begin()
            for _ in range(random.randrange(5)):
                space["mess"](random.randrange(30))
                tracked.changes.on_readable()
            report = tracked.end(token)
            assert not report["incomplete"]
            _matches(report, before, _truth(tracked.root))
    finally:
        sys.argv = argv
        os.chdir(here)
    _tree_is_sound(tracked.changes)


@pytest.mark.parametrize("seed", range(4))
def test_any_mess_while_it_happens(tracked: Tracked, seed: int) -> None:
    """Programs race with the reader, which reads as fast as it can."""
    for turn in range(4):
        before = _truth(tracked.root)
        token = tracked.changes.begin()
        command = [sys.executable, "-c", MESS + "mess(2000)", str(seed * 10 + turn), str(tracked.root)]
        poll = select.poll()
        poll.register(tracked.changes, select.POLLIN)
        with (
            subprocess.Popen(command) as one,
            subprocess.Popen([*command[:3], str(turn), command[4]]) as other,
        ):
            while one.poll() is None or other.poll() is None:
                if poll.poll(10):
                    tracked.changes.on_readable()
        _matches(tracked.end(token), before, _truth(tracked.root))
    _tree_is_sound(tracked.changes)


# -- too much, and hostile ----------------------------------------------------------------------------


def test_twenty_thousand_files(tracked: Tracked) -> None:
    token = tracked.changes.begin()
    for number in range(20_000):
        path = tracked.root / f"{number % 20}" / f"{number}"
        if number < 20:
            path.parent.mkdir()
        path.touch()
        if not number % 1000:
            tracked.changes.on_readable()
            tracked.changes.on_readable()

    report = tracked.end(token, 100)

    assert report["counts"] == [20_000, 0, 0]
    assert len(report["created"]) == 100
    assert not report["incomplete"]


def test_an_overflow_is_admitted_and_overcome(tracked: Tracked) -> None:
    tracked.shell("mkdir d gone; echo 1 > gone/x")
    waiting = tracked.changes.begin()
    token = tracked.changes.begin()
    for number in range(QUEUE // 2 + 100):
        os.close(os.open(f"{tracked.root}/d/{number}", os.O_CREAT | os.O_WRONLY))
    tracked.shell("mkdir late; echo 1 > late/y; rm -r gone")

    report = tracked.end(token, 10)

    assert report["counts"] == [QUEUE // 2 + 101, 0, 1]
    assert report["incomplete"]
    assert tracked.end(waiting, 0)["incomplete"]
    assert tracked.during("echo 2 >> late/y; echo 1 > late/z") == told({"late/z": 2}, {"late/y": 4}, set())
    _tree_is_sound(tracked.changes)


def test_an_overflow_between_runs_is_none_of_the_next_ones_business(tracked: Tracked) -> None:
    tracked.shell("mkdir d")
    for number in range(QUEUE // 2 + 100):
        os.close(os.open(f"{tracked.root}/d/{number}", os.O_CREAT | os.O_WRONLY))
    tracked.shell("echo > file; mkdir new")

    assert tracked.during("echo > new/file; rm file") == told({"new/file": 1}, {}, {"file"})


def test_more_directories_than_there_are_watches_for(
    tracked: Tracked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes, "MAX_DIRECTORIES", 10)

    report = tracked.during(
        "for i in $(seq 20); do mkdir -p a/$i/deep; echo > a/$i/deep/file; done; echo > shallow"
    )

    assert report["incomplete"]
    assert "shallow" in report["created"]
    assert len(tracked.changes._watched) == 10
    assert tracked.during("true")["incomplete"]
    # It becomes less: then all is well again.
    assert tracked.during("rm -r a")["incomplete"]
    tracked.changes._rescan_after = 0
    assert tracked.during("mkdir b; echo > b/x") == told({"b/x": 1}, {}, set())
    _tree_is_sound(tracked.changes)


def test_more_names_than_are_remembered(tracked: Tracked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "MAX_NAMES", 50)

    def write() -> None:
        for number in range(100):
            (tracked.root / f"{number:02}").touch()
        (tracked.root / "d").mkdir()
        for number in range(100):
            (tracked.root / "d" / f"{number:02}").touch()

    report = tracked.during(write)

    assert report["incomplete"]
    assert report["counts"] == [50, 0, 0]
    assert tracked.changes._count <= 51
    assert tracked.during("true")["incomplete"]
    tracked.shell("rm -r d ??; echo > file")
    tracked.changes._rescan_after = 0
    assert tracked.during("echo 1 > file") == told({}, {"file": 2}, set())
    _tree_is_sound(tracked.changes)


def test_a_call_reads_only_so_much(tracked: Tracked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "MAX_SCAN", 200)
    monkeypatch.setattr(changes, "MAX_DIRECTORIES", 100)
    token = tracked.changes.begin()
    tracked.shell("for i in $(seq 20); do mkdir -p a/$i; echo > a/$i/file; done")

    tracked.changes.on_readable()

    assert len(tracked.changes._watched) <= 12
    # Who asks for the result pays for the rest.
    report = tracked.end(token)
    assert report["incomplete"]
    assert report["counts"] == [20, 0, 0]
    assert not tracked.during("true")["incomplete"]


def test_more_events_than_a_call_takes(tracked: Tracked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "READ_SIZE", 512)
    monkeypatch.setattr(changes, "MAX_FLUSH", 1000)

    assert tracked.during("for i in $(seq 100); do echo > $i; done")["incomplete"]


def test_a_tree_deeper_than_any_path(tracked: Tracked) -> None:
    here = Path.cwd()

    def dig() -> None:
        os.chdir(tracked.root)
        for _ in range(60):
            Path("x" * 100).mkdir()
            os.chdir("x" * 100)
        Path("file").touch()

    token = tracked.changes.begin()
    try:
        dig()
    finally:
        os.chdir(here)

    report = tracked.end(token)
    assert report["incomplete"]
    # What is at its end was not looked into, and nothing is said of it.
    assert list(report["created"].values()) == [None]
    shutil.rmtree(tracked.root / ("x" * 100))
    tracked.changes._rescan_after = 0
    assert tracked.during("true") == NOTHING


def test_links_are_not_followed(tracked: Tracked) -> None:
    tracked.shell("ln -s / all; mkdir d")

    report = tracked.during("ln -s /usr usr; ln -s /proc/self/fd fds; rmdir d; ln -s /etc d")

    assert report == told({"usr": 4, "fds": 13, "d": 4}, {}, {"d/"})
    assert len(tracked.changes._watched) == 1


def test_links_swapped_with_directories_while_they_are_read(tracked: Tracked) -> None:
    swap = (
        "while [ ! -e stop ]; do mkdir -p a/b/c; echo > a/b/c/f; mv a z;"
        "ln -s .. a; rm a; ln -s /proc/self a; rm a; rm -r z; done; rm stop"
    )
    token = tracked.changes.begin()
    with subprocess.Popen(["sh", "-c", swap], cwd=tracked.root):
        for _ in range(2000):
            tracked.changes.on_readable()
        tracked.root.joinpath("stop").touch()
    report = tracked.end(token)

    assert report["created"] == {}
    assert report["deleted"] == set()
    tracked.shell("echo > x")
    tracked.changes._rescan_after = 0
    assert tracked.during("rm x; echo > y") == told({"y": 1}, {}, {"x"})
    _tree_is_sound(tracked.changes)


def test_nothing_is_raised_once_it_is_broken(tracked: Tracked, capfd: pytest.CaptureFixture[str]) -> None:
    token = tracked.changes.begin()
    tracked.changes.close()

    tracked.changes.on_readable()
    assert tracked.changes.begin().incomplete
    assert tracked.changes.end(token, 1)["incomplete"]
    assert tracked.changes.end(token, 1)["incomplete"]
    assert "Traceback" in capfd.readouterr().err


def test_a_run_that_touches_nothing_costs_next_to_nothing(tracked: Tracked) -> None:
    """A hundred times what it takes here, so that nobody's machine is too slow."""
    began = time.process_time()
    for _ in range(1000):
        tracked.during(lambda: None)
    assert time.process_time() - began < 1


# -- as another user ----------------------------------------------------------------------------------

UID = 54321


@pytest.fixture
def user() -> Iterator[identity.User]:
    """A user with a home, and this process with the groups that the agent has."""
    if os.geteuid():
        pytest.skip("only root can be another user")
    home = tempfile.mkdtemp(dir="/tmp")
    os.chown(home, UID, UID)
    groups = os.getgroups()
    os.setgroups([])
    yield identity.User(UID, home)
    os.setgroups(groups)
    shutil.rmtree(home)


def _as(user: identity.User, command: str) -> Callable[[], object]:
    return lambda: subprocess.run(["sh", "-ec", command], cwd=user.home, check=True, user=UID, group=UID)


def test_the_user_pays_for_the_instances(user: identity.User) -> None:
    most = int(Path("/proc/sys/fs/inotify/max_user_instances").read_text())
    opened: list[changes.Changes] = []
    while len(opened) <= most:
        tracker = changes.Changes.open([user.home], user)
        if tracker is None:
            break
        opened.append(tracker)

    assert len(opened) == most
    roots = changes.Changes.open([user.home], contextlib.nullcontext())
    assert roots is not None
    for tracker in [roots, *opened]:
        tracker.close()


def test_directories_are_read_with_the_users_rights(user: identity.User) -> None:
    secret = Path(user.home, "secret")
    secret.mkdir(mode=0o700)
    (secret / "file").touch()
    tracked = Tracked(Path(user.home), user)

    # Nothing can happen in there, so nothing is missed.
    assert tracked.during(_as(user, "echo > file; ln -s /root root")) == told(
        {"file": 1, "root": 5}, {}, set()
    )
    assert len(tracked.changes._watched) == 1
    (secret / "other").touch()
    assert tracked.during("true") == NOTHING
    assert (os.geteuid(), os.getegid()) == (0, 0)
    tracked.changes.close()


def test_directories_without_permissions(user: identity.User) -> None:
    tracked = Tracked(Path(user.home), user)

    # Known before it is closed: the watch stays.
    assert tracked.during(_as(user, "mkdir d")) == told({"d/": 0}, {}, set())
    report = tracked.during(_as(user, "echo > d/a; chmod 0 d"))
    assert report == told({"d/a": None}, {}, set())
    # Never seen open: who knows what is in there.
    assert tracked.during(_as(user, "mkdir -m 0 e; mkdir d/e || :"))["incomplete"]
    tracked.changes._rescan_after = 0
    assert tracked.during(_as(user, "chmod 700 d e; echo > e/b"))["incomplete"]
    tracked.changes._rescan_after = 0
    assert tracked.during(_as(user, "echo >> d/a; echo > e/c")) == told({"e/c": 1}, {"d/a": 2}, set())
    tracked.changes.close()


def _tree_is_sound(tracker: changes.Changes) -> None:
    """What is remembered agrees with itself and with the kernel."""
    seen, queue = {}, list(tracker._top.children.values())
    while queue:
        directory = queue.pop()
        seen[directory.wd] = directory
        queue += directory.children.values()
    assert seen == tracker._watched
    assert tracker._count == sum(len(directory.names) for directory in seen.values())
    info = Path(f"/proc/self/fdinfo/{tracker.fileno()}").read_text()
    assert info.count("inotify wd:") == len(seen)


def _tick() -> None:
    """Let the coarse clock of file times pass by now."""
    now = time.time_ns()
    while time.clock_gettime_ns(5) <= now:
        pass
