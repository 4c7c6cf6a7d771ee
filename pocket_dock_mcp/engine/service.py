"""A Podman service of our own, for the machine that has a `podman` and no socket.

Podman needs no daemon, so we can be its service manager: a private socket in a private directory, and a
process that ends with ours whatever ours dies of. The means is a lease: a small shell holds the service and
reads from a pipe whose other end only we have. When we close it, or the kernel does because we were killed,
the shell ends the service and removes the directory. (A child forked without exec has that end, too.)
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import IO, cast

import anyio

from pocket_dock_mcp.engine.endpoint import runtime_dirs
from pocket_dock_mcp.errors import EngineTimeoutError, EngineUnavailableError

START_DEADLINE = 10.0
"""Seconds until the service has to answer. Usual is a tenth of a second; the first start ever is slower."""
STOP_DEADLINE = 2.0
"""Seconds to wait for its end, usually a fiftieth. It finishes requests first; after five it is killed."""
POLL_INTERVAL = 0.02
TAIL_BYTES = 4096
"""How much of the service's error output we keep: enough for one failure, whatever it writes in a year."""
TAIL_CHARACTERS = 600
"""How much of it goes into an error message."""

_MAX_SOCKET_PATH = 100
"""Bytes: the kernel takes 107 on Linux and 103 on macOS."""

_UNIFIED_CGROUPS = Path("/sys/fs/cgroup/cgroup.controllers")
"""Exists where cgroups are version 2 and nothing else."""

_SYSTEM_PROGRAMS = ("/usr/local/sbin", "/usr/sbin", "/sbin")
"""Where Podman, too, looks for runtimes; a user's PATH may lack them."""

_NOT_INHERITED = frozenset(
    {
        # Would make `podman` a remote client, which has no service.
        "CONTAINER_HOST",
        "CONTAINER_CONNECTION",
        # Are about our own process, if systemd started it; the service would take them for its own.
        "LISTEN_FDS",
        "LISTEN_FDNAMES",
        "LISTEN_PID",
        "NOTIFY_SOCKET",
    }
)

# Arguments: the directory to make, then the service's command line. Only the service's own process gets a
# signal: its children are the monitors of containers, which may be meant to live on. The guard cleans up by
# itself, so that nothing is left even if the first shell is killed.
_KEEPER = """
directory=$1
shift
mkdir -m 700 "$directory" || exit
exec 3<&0 </dev/null
"$@" 3<&- &
service=$!
{
    read -r _ <&3
    trap 'kill "$nap"; wait "$nap"; exit' TERM
    kill -TERM "$service"
    for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25; do
        kill -0 "$service" || break
        sleep 0.2 &
        nap=$!
        wait "$nap"
    done
    kill -KILL "$service"
    rm -rf "$directory"
} 2>/dev/null &
guard=$!
exec 3<&-
wait "$service"
status=$?
kill "$guard" 2>/dev/null
wait "$guard"
rm -rf "$directory"
exit "$status"
"""

_logger = logging.getLogger(__name__)


class PodmanService:
    """A running `podman system service` on a socket that only we know."""

    def __init__(self, process: subprocess.Popen[bytes], url: str) -> None:
        self.url = url
        self._process = process
        self._lease = cast("IO[bytes]", process.stdin)
        self._errors = cast("IO[bytes]", process.stderr)
        self._tail = b""
        self._loop = asyncio.get_running_loop()
        os.set_blocking(self._errors.fileno(), False)
        self._loop.add_reader(self._errors.fileno(), self._drain_errors)

    @classmethod
    async def start(
        cls, program: str, environ: Mapping[str, str], *, answers: Callable[[str], Awaitable[bool]]
    ) -> PodmanService:
        """Start one and wait until it answers.

        Args:
            program: the path of `podman`.
            environ: what the service gets as its environment, with what would mislead it left out.
            answers: tells whether an engine answers at a URL.

        Raises:
            EngineUnavailableError: it ended instead; the message has the end of its error output.
            EngineTimeoutError: it runs and does not answer.
        """
        directory = private_directory(environ, uid=os.getuid())
        url = f"unix://{directory}/podman.sock"
        service = cls(_spawn(directory, command(program, url, environ), environ), url)
        try:
            with anyio.fail_after(START_DEADLINE):
                await service._wait_for_answer(answers)
        except TimeoutError as error:
            await service.stop()
            message = f"`{program} system service` did not answer within {START_DEADLINE:g} s."
            raise EngineTimeoutError(f"{message} {service.tail}".strip()) from error
        except BaseException:
            await service.stop()
            raise
        _logger.info("Started a Podman service at %s", url)
        return service

    @property
    def tail(self) -> str:
        """The end of what the service wrote to its standard error."""
        return self._tail.decode(errors="replace").strip()[-TAIL_CHARACTERS:]

    async def stop(self) -> None:
        """End the service and wait until nothing of it is left. Idempotent."""
        self._lease.close()
        with anyio.move_on_after(STOP_DEADLINE, shield=True):
            while self._process.poll() is None:  # noqa: ASYNC110  # the event would cost a thread
                await anyio.sleep(POLL_INTERVAL)
        if self._process.returncode is None:
            _logger.warning("The Podman service at %s has not ended within %g s", self.url, STOP_DEADLINE)
        self._drain_errors()
        self._close_errors()

    async def _wait_for_answer(self, answers: Callable[[str], Awaitable[bool]]) -> None:
        while not await answers(self.url):
            if self._process.poll() is not None:
                self._drain_errors()
                raise EngineUnavailableError(
                    f"`podman system service` ended with status {self._process.returncode}: {self.tail}",
                    hint="Make `podman info` work, or set POCKET_DOCK_ENGINE to another engine.",
                )
            await anyio.sleep(POLL_INTERVAL)

    def _drain_errors(self) -> None:
        """Take what the service wrote off the pipe, lest it block, and remember the end of it."""
        if self._errors.closed:
            return
        try:
            data = os.read(self._errors.fileno(), 65536)
        except BlockingIOError:
            return
        self._tail = (self._tail + data)[-TAIL_BYTES:]
        if not data:
            self._close_errors()

    def _close_errors(self) -> None:
        if self._errors.closed:
            return
        if not self._loop.is_closed():
            self._loop.remove_reader(self._errors.fileno())
        self._errors.close()


def command(program: str, url: str, environ: Mapping[str, str]) -> list[str]:
    """Return the service's command line for this machine."""
    search = os.pathsep.join((environ.get("PATH", os.defpath), *_SYSTEM_PROGRAMS))
    # Podman prefers crun, and crun 1.8 (Debian 12) refuses cgroups of version 1 or hybrid ones.
    old_cgroups = not _UNIFIED_CGROUPS.exists() and shutil.which("runc", path=search) is not None
    runtime = ["--runtime", "runc"] if old_cgroups else []
    return [program, *runtime, "system", "service", "--time=0", url]


def private_directory(environ: Mapping[str, str], *, uid: int) -> Path:
    """Return the path of a directory to make that nobody can guess, short enough for a socket in it."""
    name = f"pocket-dock-{secrets.token_hex(8)}"
    # /tmp is safe, too: the name is random, and making the directory fails if it exists.
    places = [place for place in runtime_dirs(environ, uid=uid) if _is_ours(place, uid)]
    for place in (*places, Path(tempfile.gettempdir())):
        if len(os.fsencode(place / name / "podman.sock")) <= _MAX_SOCKET_PATH:
            return place / name
    return Path("/tmp") / name  # noqa: S108


def _is_ours(place: Path, uid: int) -> bool:
    try:
        return place.stat().st_uid == uid and os.access(place, os.W_OK | os.X_OK)
    except OSError:
        return False


def _spawn(directory: Path, argv: list[str], environ: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start the keeper. Its standard input is the lease."""
    return subprocess.Popen(  # noqa: S603  # our own script; the rest are its arguments
        ["/bin/sh", "-c", _KEEPER, "pocket-dock-engine", str(directory), *argv],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        cwd="/",
        env={name: value for name, value in environ.items() if name not in _NOT_INHERITED},
        # Of its own, so that a terminal's Ctrl-C reaches us and not the service under our feet.
        start_new_session=True,
    )
