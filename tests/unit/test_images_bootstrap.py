"""How mmdebstrap is called, and files that are made once."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from pocket_dock_mcp.errors import ImageBuildError
from pocket_dock_mcp.images.bootstrap import Plan, bootstrap, command, fetch_options
from pocket_dock_mcp.images.cache import MAX_AGE, cache_directory, keep

pytestmark = pytest.mark.anyio

PLAN = Plan(
    program="/usr/bin/mmdebstrap",
    codename="bookworm",
    architecture="amd64",
    sources=("deb http://mirror.example/debian bookworm main",),
    packages=("bash", "python3"),
    dpkg_options=("path-exclude=/usr/share/man/*",),
)


def test_the_command_names_packages_options_release_and_sources() -> None:
    argv = command(PLAN, ['Acquire::http::Proxy "http://proxy.example";'])

    assert argv[0] == "/usr/bin/mmdebstrap"
    assert "--include=bash,python3" in argv
    assert "--dpkgopt=path-exclude=/usr/share/man/*" in argv
    assert '--aptopt=Acquire::http::Proxy "http://proxy.example";' in argv
    assert argv[-3:] == ["bookworm", "-", "deb http://mirror.example/debian bookworm main"]


def test_another_plan_has_another_hash() -> None:
    others = [
        replace(PLAN, codename="trixie"),
        replace(PLAN, architecture="arm64"),
        replace(PLAN, packages=("bash",)),
        replace(PLAN, sources=("deb http://other.example/debian bookworm main",)),
        replace(PLAN, dpkg_options=()),
    ]

    assert len({plan.hash for plan in (PLAN, *others)}) == len(others) + 1
    assert replace(PLAN, program="/opt/mmdebstrap").hash == PLAN.hash


def test_only_settings_on_how_to_fetch_are_taken_from_the_host() -> None:
    dump = """APT "";
APT::Architecture "amd64";
Acquire "";
Acquire::http "";
Acquire::http::Proxy "http://proxy.example:3142";
Acquire::https::CaInfo "/etc/ssl/company.pem";
Acquire::Check-Valid-Until "false";
Acquire::Languages "none";
Acquire::AllowInsecureRepositories "1";
DPkg::Post-Invoke:: "rm -rf /var/cache";
"""

    assert fetch_options(dump) == [
        'Acquire::http::Proxy "http://proxy.example:3142";',
        'Acquire::https::CaInfo "/etc/ssl/company.pem";',
        'Acquire::Check-Valid-Until "false";',
    ]


async def run_fake(tmp_path: Path, body: str, lines: list[str], **options: float) -> None:
    """Run a script in place of mmdebstrap, and see that it has left nothing."""
    program = tmp_path / "mmdebstrap"
    _write(program, f'#!/bin/sh\ntouch "$TMPDIR/left"\n{body}\n')
    program.chmod(0o755)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    plan = replace(PLAN, program=str(program))
    environ = {**os.environ, "TMPDIR": str(scratch)}
    try:
        await bootstrap(plan, tmp_path / "base.tar", environ, lines.append, **options)
    finally:
        assert _contents(scratch) == {}


async def test_the_output_goes_to_the_file_and_the_news_to_the_user(tmp_path: Path) -> None:
    lines: list[str] = []

    await run_fake(tmp_path, "echo tar; echo 'I: extracting archives...' >&2; echo noise >&2", lines)

    assert (tmp_path / "base.tar").read_bytes() == b"tar\n"
    assert lines == ["extracting archives..."]


async def test_the_error_has_the_last_lines(tmp_path: Path) -> None:
    with pytest.raises(ImageBuildError, match=r"status 25.*E: no such suite"):
        await run_fake(tmp_path, "seq 1000 >&2; echo 'E: no such suite' >&2; exit 25", [])


async def test_a_line_that_does_not_end_is_not_kept(tmp_path: Path) -> None:
    with pytest.raises(ImageBuildError) as caught:
        await run_fake(tmp_path, "head -c 10000000 /dev/zero | tr '\\0' x >&2; exit 1", [])

    assert len(caught.value.message) < 2100


async def test_silence_ends_it_and_what_it_has_started(tmp_path: Path) -> None:
    """Also what runs in the background, and what does not heed a polite signal."""
    body = f"trap '' TERM\necho 'E: the last words' >&2\nsleep 1001 &\necho $! > {tmp_path}/pid\nsleep 1002"

    with anyio.fail_after(10), pytest.raises(ImageBuildError, match=r"said nothing.*the last words"):
        await run_fake(tmp_path, body, [], patience=0.5)

    state = Path(f"/proc/{_contents(tmp_path)['pid'].strip()}/stat")
    # Nobody may have asked yet how it ended.
    assert not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z"


@pytest.mark.parametrize(
    ("environ", "path"),
    [
        ({"XDG_CACHE_HOME": "/var/cache/me", "HOME": "/home/me"}, "/var/cache/me/pocket-dock"),
        ({"XDG_CACHE_HOME": "relative", "HOME": "/home/me"}, "/home/me/.cache/pocket-dock"),
        ({"HOME": "/home/me"}, "/home/me/.cache/pocket-dock"),
    ],
)
def test_the_cache_is_where_the_specification_says(environ: dict[str, str], path: str) -> None:
    assert cache_directory(environ) == Path(path)


async def test_a_file_is_made_once_and_reused(tmp_path: Path) -> None:
    made: list[Path] = []

    async def make(path: Path) -> None:
        made.append(path)
        _write(path, "content")

    first = await keep(tmp_path / "new" / "base-1.tar", make, print)
    second = await keep(tmp_path / "new" / "base-1.tar", make, print)

    assert first == second
    assert first.read_text() == "content"
    assert len(made) == 1


async def test_an_old_file_is_made_anew_and_old_ones_of_its_kind_go(tmp_path: Path) -> None:
    too_old = time.time() - MAX_AGE - 1
    for name in ("base-1.tar", "base-2.tar", "other-1.tar"):
        (tmp_path / name).write_text("old")
        os.utime(tmp_path / name, (too_old, too_old))
    (tmp_path / "base-3.tar").write_text("new")
    (tmp_path / "base-4.partial").write_text("of one that was killed")

    async def make(path: Path) -> None:
        _write(path, "made")

    await keep(tmp_path / "base-1.tar", make, print)

    assert _contents(tmp_path) == {
        "base-1.tar": "made",
        "base-3.tar": "new",
        "other-1.tar": "old",
        "base.lock": "",
    }


async def test_a_file_that_was_not_finished_is_not_seen(tmp_path: Path) -> None:
    async def fail(path: Path) -> None:
        _write(path, "half")
        raise ImageBuildError("no")

    with pytest.raises(ImageBuildError):
        await keep(tmp_path / "base-1.tar", fail, print)

    assert _contents(tmp_path) == {"base.lock": ""}


async def test_two_do_not_make_the_same_file(tmp_path: Path) -> None:
    """The lock is between open files, so it works between processes as between these two."""
    begun, go_on = anyio.Event(), anyio.Event()
    made: list[Path] = []
    said: list[str] = []

    async def make(path: Path) -> None:
        made.append(path)
        begun.set()
        await go_on.wait()
        _write(path, "content")

    def tell(line: str) -> None:
        said.append(line)
        go_on.set()

    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            group.start_soon(keep, tmp_path / "base-1.tar", make, said.append)
            await begun.wait()
            group.start_soon(keep, tmp_path / "base-1.tar", make, tell)

    assert len(made) == 1
    assert said == ["waiting for another process that makes a base image"]


async def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    async def make(path: Path) -> None:
        _write(path, "content")

    with pytest.raises(ImageBuildError, match=r"cannot be written.*XDG_CACHE_HOME"):
        await keep(tmp_path / "file" / "base-1.tar", make, print)


def _write(path: Path, text: str) -> None:
    path.write_text(text)


def _contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir() if path.is_file()}
