"""From a forked child of the agent to a program of the user."""

from __future__ import annotations

import fcntl
import os
import resource
import signal
from typing import Any, Dict, List, NoReturn, Optional, Tuple

from . import wire
from .identity import User

PIPE_SIZE = 256 * 1024
F_SETPIPE_SZ = 1031
FIRST_FREE_FD = 10


class Start:
    """What to run, as it arrived. Everything in it was checked by the host's side."""

    def __init__(self, header: wire.Header) -> None:
        self.argv: Optional[List[str]] = header.get("argv")
        """None for Python source, which comes as `script_bytes` bytes of payload."""
        self.env: Dict[str, str] = header["env"]
        self.cwd: str = header["cwd"] or ""
        self.timeout: Optional[float] = header.get("timeout")
        self.stdin = bool(header.get("stdin"))
        self.script_bytes = int(header.get("script", 0))


class Pipes:
    """The four pipes of a run: standard input, output and error, and one for why it could not start."""

    def __init__(self, devnull: int, with_input: bool) -> None:
        self.out_read, self.out_write = os.pipe2(os.O_CLOEXEC)
        self.err_read, self.err_write = os.pipe2(os.O_CLOEXEC)
        self.failure_read, self.failure_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self.in_write: Optional[int] = None
        self._owned = [self.out_write, self.err_write, self.failure_write]
        if with_input:
            self.in_read, self.in_write = os.pipe2(os.O_CLOEXEC)
            self._owned.append(self.in_read)
            os.set_blocking(self.in_write, False)
        else:
            self.in_read = devnull
        for fd in (self.out_read, self.err_read):
            os.set_blocking(fd, False)
            _enlarge(fd)

    @property
    def child_ends(self) -> Tuple[int, int, int, int]:
        return self.in_read, self.out_write, self.err_write, self.failure_write

    def close_child_ends(self) -> None:
        for fd in self._owned:
            os.close(fd)

    def close_own_ends(self) -> None:
        for fd in (self.out_read, self.err_read, self.failure_read, self.in_write):
            if fd is not None:
                os.close(fd)


def _enlarge(fd: int) -> None:
    try:
        fcntl.fcntl(fd, F_SETPIPE_SZ, PIPE_SIZE)
    except OSError:
        # Over the user's quota for pipe buffers: 64 KiB will do.
        pass


def settle_in(user: User, marker: int, processes: int, cwd: str, ends: Tuple[int, int, int, int]) -> int:
    """In a forked child: become the user, in the run's directory, on the run's pipes.

    Returns the descriptor to report a failure on. A failure of `chdir` is reported and ends the child.
    """
    os.setsid()
    # The agent is to get the processor when it has to stop a crowd. Matters only among a sandbox's processes.
    os.nice(10)
    # The user's processes are to die before the agent when memory runs out. Raising needs no privilege.
    with open("/proc/self/oom_score_adj", "wb", buffering=0) as file:
        file.write(b"1000")
    # Below the container's pids limit, so that the agent can always fork.
    resource.setrlimit(resource.RLIMIT_NPROC, (processes, processes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    user.become(marker)
    os.umask(0o022)
    # High numbers first: a source below 3 must not be overwritten before it is copied.
    copies = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, FIRST_FREE_FD) for fd in ends]
    for target, copy in enumerate(copies[:3]):
        os.dup2(copy, target, inheritable=True)
        os.close(copy)
    try:
        os.chdir(cwd)
    except OSError as error:
        give_up(copies[3], "cwd", error)
    return copies[3]


def give_up(failure_fd: int, stage: str, error: OSError) -> NoReturn:
    """Say why the program could not be started, and end."""
    os.write(failure_fd, ("%s %d" % (stage, error.errno or 0)).encode("ascii"))
    os._exit(127)


def default_signals() -> None:
    """Undo what the agent has set, before a program is executed."""
    signal.set_wakeup_fd(-1)
    for number in (
        signal.SIGCHLD,
        signal.SIGPIPE,
        signal.SIGINT,
        signal.SIGTERM,
        signal.SIGHUP,
        signal.SIGXFSZ,
    ):
        signal.signal(number, signal.SIG_DFL)


def exec_program(
    user: User, marker: int, processes: int, start: Start, ends: Tuple[int, int, int, int]
) -> NoReturn:
    """In a forked child: become the user's program. Never returns."""
    try:
        default_signals()
        failure_fd = settle_in(user, marker, processes, start.cwd, ends)
        argv = start.argv or []
        try:
            os.execvpe(argv[0], argv, start.env)
        except OSError as error:
            give_up(failure_fd, "exec", error)
    finally:
        os._exit(127)


def memfd(*pieces: bytes) -> int:
    """Return a descriptor to an anonymous file with this content, at its start."""
    fd: int = os.memfd_create("run", os.MFD_CLOEXEC)
    for piece in pieces:
        view = memoryview(piece)
        while view:
            view = view[os.write(fd, view) :]
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


Usage = Tuple[float, int]
"""CPU seconds and peak resident bytes."""


def usage_of(rusage: Any) -> Usage:
    return rusage.ru_utime + rusage.ru_stime, rusage.ru_maxrss * 1024
