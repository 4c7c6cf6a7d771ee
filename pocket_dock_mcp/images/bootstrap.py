"""A root filesystem made by mmdebstrap from this machine's own package sources: no registry is needed."""

from __future__ import annotations

import os
import platform
import re
import shutil
import signal
import tempfile
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import DEVNULL

import anyio
from anyio.abc import Process

from pocket_dock_mcp.errors import ImageBuildError
from pocket_dock_mcp.host.apt import read_sources
from pocket_dock_mcp.host.network import proxies
from pocket_dock_mcp.images.guard import guarded
from pocket_dock_mcp.images.recipe import Recipe, hash_of
from pocket_dock_mcp.images.sources import ARCHITECTURES, own_sources, release_of

STALL = 180.0
"""Seconds without a line, after which no more is expected. Unpacking is the longest silence."""
DEADLINE = 1800.0
"""Seconds for all of it. What is usual is 40, most of it spent unpacking."""
_CLEAN_UP = 20.0
"""Seconds that mmdebstrap may take to remove its temporary files. What is usual is half of one."""
_LAST_LINES = 30
_LAST_WORDS = 1000
"""Characters of the last lines in an error: more would crowd out the rest of its message."""
_MAX_LINE = 300

_ETC_APT = Path("/etc/apt")
_SYSTEM_PROGRAMS = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""A host may start us with a PATH that lacks most of them."""
# Makes /bin a link before the first package comes, where a release would else pull in a full Perl to do it
# afterwards: 45 MB.
_MERGED_USR = Path("/usr/share/mmdebstrap/hooks/maybe-merged-usr")
_FILE_MIRRORS = Path("/usr/share/mmdebstrap/hooks/file-mirror-automount")
# The host's mirrors and proxies are nobody's business in a sandbox. The rest is of no use there: old copies,
# logs, and what only those need who link against a package.
_CLEAN = (
    'rm -rf "$1"/etc/apt/apt.conf.d/99mmdebstrap "$1"/etc/apt/sources.list "$1"/etc/apt/sources.list.d/*'
    ' "$1"/var/cache/debconf/*-old "$1"/var/log/* "$1"/var/lib/dpkg/info/*.symbols'
)
_FETCH_OPTION = re.compile(r'Acquire::(?:https?::|Check-|Retries)[^"]*"[^"]+";')
# Lines that tell somebody who waits how far it is.
_TELLING = re.compile(r"(?:I: )?((?:downloading packages|extracting|installing|creating|Setting up) .*)")


@dataclass(frozen=True, slots=True)
class Plan:
    """One root filesystem: of what and from where."""

    program: str
    codename: str
    architecture: str
    sources: tuple[str, ...]
    packages: tuple[str, ...]
    dpkg_options: tuple[str, ...]

    @property
    def hash(self) -> str:
        """Return what tells its result from others."""
        parts = (self.codename, self.architecture, *self.sources, *self.packages, *self.dpkg_options, _CLEAN)
        return hash_of(*(part.encode() for part in parts))


def make_plan(recipe: Recipe, environ: Mapping[str, str]) -> Plan:
    """Look at this machine and say how it would make the base of a recipe.

    Raises:
        ImageBuildError: it cannot; the message says what it lacks.
    """
    distribution, codename = _release()
    program = shutil.which("mmdebstrap", path=_search_path(environ))
    if program is None:
        raise ImageBuildError(
            "This machine cannot make a base image itself: there is no mmdebstrap.",
            hint="Install it (apt-get install mmdebstrap uidmap), or let the engine reach a registry.",
        )
    architecture = ARCHITECTURES.get(platform.machine(), platform.machine())
    sources = own_sources(
        read_sources(_ETC_APT), distribution=distribution, codename=codename, architecture=architecture
    )
    if not sources:
        raise ImageBuildError(
            f"This machine cannot make a base image itself: apt has no source of {distribution} {codename}.",
            hint=f"Add the suite {codename!r} to /etc/apt/sources.list, or let the engine reach a registry.",
        )
    lines = tuple(dict.fromkeys(source.line for source in sources))
    return Plan(program, codename, architecture, lines, recipe.packages, recipe.dpkg_options)


def command(plan: Plan, fetch_options: Sequence[str]) -> list[str]:
    """Return the command that writes the root filesystem's tar to its standard output."""
    options = [f"--dpkgopt={option}" for option in (*plan.dpkg_options, "force-unsafe-io")]
    options += [f"--aptopt={option}" for option in ('Acquire::Languages "none";', *fetch_options)]
    hooks = [_MERGED_USR, *([_FILE_MIRRORS] if any(" file:" in line for line in plan.sources) else [])]
    options += [f"--hook-dir={hook}" for hook in hooks if hook.is_dir()]
    return [
        plan.program,
        # For root as well: what it mounts is then in a namespace that dies with it.
        "--mode=unshare",
        "--format=tar",
        "--variant=essential",
        "--verbose",
        # A container has its own devices, and without root nobody could unpack these.
        "--skip=output/dev",
        f"--include={','.join(plan.packages)}",
        *options,
        f"--customize-hook={_CLEAN}",
        plan.codename,
        "-",
        *plan.sources,
    ]


def fetch_options(apt_config: str) -> list[str]:
    """Return the settings on how to fetch, such as a proxy, from what ``apt-config dump`` prints."""
    return [line for line in apt_config.splitlines() if _FETCH_OPTION.fullmatch(line)]


async def bootstrap(
    plan: Plan,
    target: Path,
    environ: Mapping[str, str],
    progress: Callable[[str], None],
    *,
    patience: float = STALL,
) -> None:
    """Write the tar of the root filesystem to `target`.

    Args:
        plan: what it is made of.
        target: the file to write.
        environ: of the host.
        progress: gets lines for the user.
        patience: seconds to wait for a line of it.

    Raises:
        ImageBuildError: it failed or stalled; the message has its last lines.
    """
    environ = {**environ, **proxies(environ), "PATH": _search_path(environ), "LC_ALL": "C.UTF-8"}
    options = fetch_options(await _apt_config(environ))
    last: deque[str] = deque(maxlen=_LAST_LINES)
    with anyio.move_on_after(DEADLINE) as overall, anyio.move_on_after(patience) as stall:
        async with _running(command(plan, options), target, environ) as process:
            async for line in _lines(process):
                stall.deadline = anyio.current_time() + patience
                last.append(line)
                if (telling := _TELLING.fullmatch(line)) is not None:
                    progress(telling[1])
            code = await process.wait()
        if code == 0:
            return
        raise _failure(f"mmdebstrap ended with status {code}", last)
    what = f"was not done in {DEADLINE:g}" if overall.cancelled_caught else f"said nothing for {patience:g}"
    raise _failure(f"mmdebstrap {what} s", last)


def _failure(what: str, last: Sequence[str]) -> ImageBuildError:
    return ImageBuildError(
        f"The base image could not be made: {what}. Its last lines: {' | '.join(last)[-_LAST_WORDS:]}",
        hint="Check that this machine can install packages (apt-get update), and try again.",
    )


@asynccontextmanager
async def _running(argv: Sequence[str], target: Path, environ: Mapping[str, str]) -> AsyncIterator[Process]:
    """Run mmdebstrap with its output in a file; at the end nothing of it is left, whatever the end was."""
    scratch = await anyio.to_thread.run_sync(_make_scratch, environ.get("TMPDIR"))
    process = None
    try:
        with target.open("wb") as output:
            process = await anyio.open_process(
                argv,
                stdin=DEVNULL,
                stdout=output,
                env={**environ, "TMPDIR": str(scratch)},
                start_new_session=True,
            )
        async with guarded(process.pid, folder=scratch, file=target):
            try:
                yield process
            finally:
                with anyio.CancelScope(shield=True):
                    await _end(process)
    finally:
        with anyio.CancelScope(shield=True):
            if process is not None:
                await _end(process)
            await anyio.to_thread.run_sync(lambda: shutil.rmtree(scratch, ignore_errors=True))


def _make_scratch(parent: str | None) -> Path:
    scratch = Path(tempfile.mkdtemp(prefix="pocket-dock-", dir=parent))
    # The user that mmdebstrap becomes must be able to pass.
    scratch.chmod(0o755)
    return scratch


async def _end(process: Process) -> None:
    """End the process and all that it started.

    Those are killed, among them the first process of the namespace that it unpacks in, which heeds no other
    signal. It then removes its files itself: without root nobody else could, for they have other owners.
    """
    if process.returncode is None:
        for member in _group(process.pid):
            if member != process.pid:
                _signal(member, signal.SIGKILL)
        # It does not heed this one either, unless it has not begun.
        _signal(process.pid, signal.SIGTERM)
        with anyio.move_on_after(_CLEAN_UP):
            await process.wait()
    for member in _group(process.pid):
        _signal(member, signal.SIGKILL)
    await process.aclose()


def _group(leader: int) -> list[int]:
    """Return the processes of a group."""
    members = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            # After the name, which may have anything in it: state, parent, group.
            group = int(path.read_text().rpartition(")")[2].split()[2])
        except OSError:
            continue
        if group == leader:
            members.append(int(path.parent.name))
    return members


def _signal(process: int, number: int) -> None:
    try:
        os.kill(process, number)
    except ProcessLookupError:
        pass


async def _lines(process: Process) -> AsyncIterator[str]:
    """Yield what it prints to standard error, line by line; of long lines, the start."""
    if process.stderr is None:
        return
    text = ""
    async for chunk in process.stderr:
        *lines, text = re.split(r"[\r\n]", text + chunk.decode("utf-8", "replace"))
        if len(text) > _MAX_LINE:
            lines, text = [*lines, text], ""
        for line in lines:
            if line.strip():
                yield line.strip()[:_MAX_LINE]


async def _apt_config(environ: Mapping[str, str]) -> str:
    try:
        done = await anyio.run_process(["apt-config", "dump"], env=environ, check=False)
    except FileNotFoundError:
        return ""
    return done.stdout.decode("utf-8", "replace")


def _release() -> tuple[str, str]:
    try:
        release = release_of(platform.freedesktop_os_release())
    except OSError:
        release = None
    if release is None:
        raise ImageBuildError(
            "This machine cannot make a base image itself: it is no release of Debian or Ubuntu.",
            hint="Let the engine reach a container registry, or load an image into it yourself.",
        )
    return release


def _search_path(environ: Mapping[str, str]) -> str:
    return os.pathsep.join(part for part in (environ.get("PATH", ""), _SYSTEM_PROGRAMS) if part)
