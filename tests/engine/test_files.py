"""Edits, appends, searches and ranges of lines in containers, on real engines."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator

import anyio
import pytest

from pocket_dock_mcp.agent.inside import wire
from pocket_dock_mcp.container.core import LiveContainer
from pocket_dock_mcp.container.launch import Launch
from pocket_dock_mcp.container.lines import read_lines
from pocket_dock_mcp.engine.base import Engine
from pocket_dock_mcp.errors import (
    DiskFullError,
    EditAmbiguousError,
    EditNotFoundError,
    FileChangedError,
    FileDeniedError,
    FileError,
    FileIsDirectoryError,
    FileNotRegularError,
    FileNotTextError,
    FileTooLargeError,
    InvalidArgumentError,
    SandboxFileNotFoundError,
    SearchError,
    SearchTimeoutError,
)
from pocket_dock_mcp.models import MIB, Edit, FileContent, FileLines, Limits
from tests.engines import LABELS, unique

pytestmark = [pytest.mark.anyio, pytest.mark.front]


@pytest.fixture(scope="module")
async def container(engine: Engine, image: str) -> AsyncIterator[LiveContainer]:
    async with await LiveContainer.create(engine, Launch(unique("files"), image, LABELS)) as made:
        yield made


# -- writing ------------------------------------------------------------------------------------------


async def test_an_append_adds_and_a_write_replaces(container: LiveContainer) -> None:
    made = await container.write_file("log/a", "one\n", append=True, mode=0o640)
    added = await container.write_file("log/a", b"two\n", append=True)

    assert (made.overwrote, made.size) == (False, 4)
    assert (added.overwrote, added.size, added.path) == (True, 8, "/home/sandbox/log/a")
    found = await container.read_file("log/a")
    assert (found.data, found.mode) == (b"one\ntwo\n", 0o640)


async def test_appends_from_all_sides_lose_nothing(container: LiveContainer) -> None:
    program = "for i in range(2000):\n    with open('shared', 'a') as f: f.write('program\\n')"

    async with anyio.create_task_group() as group:
        group.start_soon(lambda: container.run(program, language="python"))
        for _ in range(100):
            group.start_soon(lambda: container.write_file("shared", "host" * 1000 + "\n", append=True))

    lines = (await container.read_file("shared")).data.decode().splitlines()
    assert sorted(set(lines)) == ["host" * 1000, "program"]
    assert (lines.count("program"), len(lines)) == (2000, 2100)


async def test_an_append_that_does_not_fit_leaves_what_was_there(engine: Engine, image: str) -> None:
    limits = Limits(file_bytes=1 * MIB)
    async with await LiveContainer.create(
        engine, Launch(unique("append"), image, LABELS, limits)
    ) as container:
        await container.write_file("f", "old")
        for path in ("f", "new"):
            with pytest.raises(DiskFullError, match="larger than one file"):
                await container.write_file(path, b"x" * (2 * MIB), append=True)

        assert (await container.read_file("f")).data == b"old"
        assert [entry.name for entry in (await container.list_files())[0]] == ["f"]


async def test_an_append_to_a_full_disk_leaves_what_was_there(container: LiveContainer) -> None:
    await container.run("head -c 15M /dev/zero > /dev/shm/full; printf old > /dev/shm/f")

    for path in ("/dev/shm/f", "/dev/shm/new"):
        with pytest.raises(DiskFullError, match="no space"):
            await container.write_file(path, b"x" * (5 * MIB), append=True)

    assert (await container.read_file("/dev/shm/f")).data == b"old"
    assert [entry.name for entry in (await container.list_files("/dev/shm"))[0]] == ["f", "full"]
    await container.run("rm /dev/shm/*")


async def test_an_append_has_a_limit(container: LiveContainer) -> None:
    await container.write_file("large", os.urandom(wire.MAX_APPEND), append=True)

    with pytest.raises(FileTooLargeError, match="in parts"):
        await container.write_file("large", bytes(wire.MAX_APPEND + 1), append=True)

    assert (await container.read_file("large", max_bytes=1)).size == wire.MAX_APPEND


@pytest.mark.parametrize("path", ["newdir/", "newdir/.", "newdir/..", "~/", "~", "/", "."])
async def test_a_path_of_a_directory_is_no_file_to_write(container: LiveContainer, path: str) -> None:
    for append in (False, True):
        with pytest.raises(FileIsDirectoryError, match="directory"):
            await container.write_file(path, "x", append=append)
    assert "newdir" not in [entry.name for entry in (await container.list_files())[0]]


async def test_a_tilde_is_the_home_and_a_variable_is_refused(container: LiveContainer) -> None:
    written = await container.write_file("~/in/home", "x")

    assert written.path == "/home/sandbox/in/home"
    assert (await container.read_file("~/in/home")).data == b"x"
    assert [entry.name for entry in (await container.list_files("~/in"))[0]] == ["home"]
    assert (await container.write_file("./~/x", "x")).path == "/home/sandbox/~/x"
    assert (await container.run("pwd -P", cwd="~/in")).stdout == "/home/sandbox/in\n"
    assert (await container.run("pwd -P", cwd="~")).stdout == "/home/sandbox\n"
    for path in ("$HOME/x", "${HOME}/x"):
        with pytest.raises(InvalidArgumentError, match="~/"):
            await container.write_file(path, "x")


async def test_what_is_denied_says_what_helps_there(container: LiveContainer) -> None:
    await container.run("mkdir sealed; touch sealed/f; chmod 000 sealed/f; chmod 555 sealed")

    with pytest.raises(FileDeniedError, match="chmod"):
        await container.read_file("sealed/f")
    with pytest.raises(FileDeniedError, match="chmod"):
        await container.write_file("sealed/f", "x")
    with pytest.raises(FileDeniedError, match="home directory"):
        await container.write_file("/etc/x", "x")


# -- edits --------------------------------------------------------------------------------------------


async def test_edits_replace_exactly_and_keep_the_mode(container: LiveContainer) -> None:
    await container.write_file("script", "#!/bin/sh\r\necho one\r\necho two\r\n", mode=0o750)

    done = await container.edit_file(
        "script", [Edit("one\necho", "1\necho"), Edit("echo", "printf", all=True)]
    )

    assert (done.path, done.replacements) == ("/home/sandbox/script", (1, 2))
    found = await container.read_file("script")
    assert (found.data, found.mode) == (b"#!/bin/sh\r\nprintf 1\r\nprintf two\r\n", 0o750)
    assert done.size == found.size
    assert done.diff == "@@ -1,3 +1,3 @@\n #!/bin/sh\n-echo one\n-echo two\n+printf 1\n+printf two\n"


async def test_edits_that_do_not_all_fit_change_nothing(container: LiveContainer) -> None:
    await container.write_file("poem", "roses\nviolets\nroses\n")

    with pytest.raises(EditNotFoundError) as caught:
        await container.edit_file("poem", [Edit("violets", "blue"), Edit("rozes", "red")])
    with pytest.raises(EditAmbiguousError, match="lines 1, 3"):
        await container.edit_file("poem", [Edit("violets", "blue"), Edit("roses", "red")])

    assert "of edit 2 (of 2)" in str(caught.value)
    assert (await container.read_file("poem")).data == b"roses\nviolets\nroses\n"


async def test_an_edit_goes_through_a_link(container: LiveContainer) -> None:
    await container.run("mkdir -p to && echo text > to/file && ln -s to/file link")

    done = await container.edit_file("link", [Edit("text", "new")])

    assert done.path == "/home/sandbox/to/file"
    assert (await container.run("readlink link; cat to/file")).stdout == "to/file\nnew\n"


async def test_what_somebody_else_writes_meanwhile_is_not_lost(container: LiveContainer) -> None:
    program = (
        "import os, time\nend = time.time() + 3\nn = 0\n"
        # For a moment there may be an edit that is then taken back.
        "def there():\n"
        "    found = (open('counter').read() for _ in range(100) if not time.sleep(0.01))\n"
        "    return any(text.endswith(' 0 %d' % n) for text in found)\n"
        "while time.time() < end:\n"
        "    n += 1\n"
        "    with open('counter.new', 'w') as f: f.write('mark 0 %d' % n)\n"
        "    os.rename('counter.new', 'counter')\n"
        "    if not there(): print('lost')\n"
    )
    await container.write_file("counter", "mark 0 0")
    outcomes = {"edited": 0, "changed": 0, "lost": 0}

    async def count() -> None:
        outcomes["lost"] = (await container.run(program, language="python")).stdout.count("lost")

    async def edit() -> None:
        for number in range(300):
            try:
                await container.edit_file("counter", [Edit("mark", f"mark {number}")])
                outcomes["edited"] += 1
            except FileChangedError:
                outcomes["changed"] += 1

    async with anyio.create_task_group() as group:
        group.start_soon(count)
        group.start_soon(edit)

    assert outcomes["changed"] > 0
    assert outcomes["edited"] + outcomes["changed"] == 300
    assert outcomes["lost"] == 0
    assert not [entry.name for entry in (await container.list_files())[0] if "pocket-dock" in entry.name]


@pytest.mark.parametrize(
    ("make", "path", "error"),
    [
        ("true", "nothing", SandboxFileNotFoundError),
        ("true", "/nowhere/nothing", SandboxFileNotFoundError),
        ("mkdir -p dir", "dir", FileIsDirectoryError),
        ("true", "dir/", FileIsDirectoryError),
        ("mkfifo pipe", "pipe", FileNotRegularError),
        ("printf 'a\\377' > binary", "binary", FileNotTextError),
        ("head -c 16M /dev/zero | tr '\\0' a > huge; echo >> huge", "huge", FileTooLargeError),
        ("true", "/etc/passwd", FileDeniedError),
    ],
)
async def test_what_cannot_be_edited_is_refused(
    container: LiveContainer, make: str, path: str, error: type[FileError]
) -> None:
    await container.run(make)

    with pytest.raises(error):
        await container.edit_file(path, [Edit("root", "toor", all=True)])


# -- searches -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
async def project(container: LiveContainer) -> str:
    await container.run(
        "mkdir -p project/src/deep project/node_modules/x project/.git && cd project && "
        "echo 'import os' > src/a.py && echo 'import sys' > src/deep/b.py && echo data > data.csv && "
        "echo x > node_modules/x/x.js && "
        "touch .git/HEAD 'new\nline' \"$(printf 'bytes\\377')\" && mkfifo fifo && ln -s / root"
    )
    return "project"


async def test_a_tree_is_listed(container: LiveContainer, project: str) -> None:
    found = await container.find_files(project)

    assert [file.path.removeprefix("project/") for file in found.files] == [
        "bytes\udcff", "data.csv", "fifo", "new\nline", "root",
        "src", "src/a.py", "src/deep", "src/deep/b.py",
    ]  # fmt: skip
    assert {file.path: (file.type, file.size) for file in found.files}["project/data.csv"] == ("file", 5)
    assert (found.more, found.timed_out, found.skipped, found.lines) == (False, False, 2, ())


async def test_files_are_found_by_name_and_lines_by_pattern(container: LiveContainer, project: str) -> None:
    by_name = await container.find_files(project, glob="src/**/*.py")
    by_line = await container.find_files("~/project", grep="^import (os|sys)$", max_results=1)

    assert [file.path for file in by_name.files] == ["project/src/a.py", "project/src/deep/b.py"]
    (line,) = by_line.lines
    assert (line.path, line.line, line.text, by_line.more) == ("~/project/src/a.py", 1, "import os", True)
    assert (await container.read_file(line.path)).data == b"import os\n"
    assert [file.path for file in (await container.find_files(glob="./project")).files] == ["project"]
    assert [file.path for file in (await container.find_files("/", glob="./etc")).files] == ["/etc"]
    (one,) = (await container.find_files("project/data.csv", grep="dat")).lines
    assert one.path == "project/data.csv"


async def test_modules_of_the_user_do_not_get_in_the_way(container: LiveContainer) -> None:
    for name in ("json", "re", "os", "stat", "signal", "collections"):
        await container.write_file(f"{name}.py", "raise SystemExit('not me')")

    found = await container.find_files(glob="json.py")
    await container.run("rm *.py")

    assert [file.path for file in found.files] == ["json.py"]


async def test_the_whole_file_system_is_searched_in_time(container: LiveContainer) -> None:
    began = time.monotonic()

    found = await container.find_files("/", grep="no such line anywhere", timeout_s=4)

    assert found.lines == ()
    assert time.monotonic() - began < 10


async def test_a_pattern_that_backtracks_is_told(container: LiveContainer) -> None:
    await container.write_file("evil", "a" * 200 + "!")
    began = time.monotonic()

    with pytest.raises(SearchTimeoutError, match="backtracks"):
        await container.find_files("evil", grep="(a+)+$")

    assert time.monotonic() - began < 8


@pytest.mark.parametrize(
    ("path", "options", "error"),
    [
        ("nowhere", {}, SandboxFileNotFoundError),
        ("/root", {"glob": "*"}, FileDeniedError),
        (".", {"glob": "[a"}, InvalidArgumentError),
        (".", {"glob": "/etc/*"}, InvalidArgumentError),
        (".", {"glob": "../*"}, InvalidArgumentError),
        (".", {"glob": ""}, InvalidArgumentError),
        (".", {"grep": "(a"}, InvalidArgumentError),
        (".", {"grep": "a" * 5000}, InvalidArgumentError),
        (".", {"max_results": 0}, InvalidArgumentError),
        (".", {"timeout_s": -1}, InvalidArgumentError),
        ("a\0b", {}, InvalidArgumentError),
    ],
)
async def test_a_search_that_cannot_be_is_refused(
    container: LiveContainer, path: str, options: dict[str, str], error: type[Exception]
) -> None:
    with pytest.raises(error):
        await container.find_files(path, **options)  # type: ignore[arg-type]


FORGED = {
    "silence": "raise SystemExit",
    "no JSON": "print('{', flush=True); os._exit(0)",
    "no object": "print('[]', flush=True); os._exit(0)",
    "deep": "print('[' * 100000, flush=True); os._exit(0)",
    "flood": "os.write(1, b'x' * 50_000_000); os._exit(0)",
    "way out": "print(json.dumps(dict(answer, found=[['../../etc', 'file', 1]])), flush=True); os._exit(0)",
    "absolute": "print(json.dumps(dict(answer, found=[['/etc', 'file', 1]])), flush=True); os._exit(0)",
    "type": "print(json.dumps(dict(answer, found=[['a', 'truck', 1]])), flush=True); os._exit(0)",
    "number": "print(json.dumps(dict(answer, found=[['a', 'file', True]])), flush=True); os._exit(0)",
    "too many": "print(json.dumps(dict(answer, found=[['a', 'file', 1]] * 200)), flush=True); os._exit(0)",
    "counts": "print(json.dumps(dict(answer, skipped=-1)), flush=True); os._exit(0)",
}


@pytest.mark.parametrize("name", FORGED)
async def test_an_answer_that_was_tampered_with_is_not_believed(
    engine: Engine, image: str, name: str
) -> None:
    answer = "dict(found=[], more=False, stopped=False, skipped=0, binary=0, unreadable=0)"
    forgery = f"import json, os\nanswer = {answer}\n{FORGED[name]}\n"
    async with await LiveContainer.create(engine, Launch(unique("forged"), image, LABELS)) as container:
        major, minor, *_ = ((await container.info()).python or "").split(".")
        site = f".local/lib/python{major}.{minor}/site-packages"
        # What the user's own site says runs in every Python of theirs, this one too.
        await container.write_file(f"{site}/forge.pth", "import forge\n")
        await container.write_file(f"{site}/forge.py", forgery)

        with pytest.raises(SearchError):
            await container.find_files()


# -- lines --------------------------------------------------------------------------------------------


async def _lines(container: LiveContainer, path: str, start_line: int, lines: int | None) -> FileLines:
    async def read(offset: int, length: int) -> FileContent:
        return await container.read_file(path, offset=offset, max_bytes=length)

    first = await read(0, 65_536)
    return await read_lines(read, first, start_line=start_line, lines=lines, max_bytes=32_768)


@pytest.mark.slow
async def test_the_ends_of_a_file_of_two_hundred_megabytes_are_read_in_time(
    container: LiveContainer,
) -> None:
    await container.run("seq 1 24000000 > numbers", timeout_s=60)
    times = []
    for start, lines, expected in ((1, 50, range(1, 51)), (23_999_999, None, (23_999_999, 24_000_000)),
                                   (-2, None, (23_999_999, 24_000_000))):  # fmt: skip
        began = time.monotonic()
        found = await _lines(container, "numbers", start, lines)
        times.append(time.monotonic() - began)
        assert found.size > 200_000_000
        assert [int(line) for line in found.data.split()] == list(expected)
    await container.run("rm numbers")

    assert times[0] < 0.5
    assert max(times) < 20
