"""From a forked child of the agent to a program of the user."""

from __future__ import annotations

import fcntl
import os
import resource
from typing import Any, Dict, List, Optional, Tuple

from . import wire

Ends = Tuple[int, int, int, int]
"""A child's ends of its pipes: standard input, output, error, and the one for why it could not start."""

PIPE_SIZE = 256 * 1024
F_SETPIPE_SZ = 1031


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
        os.set_blocking(self.out_read, False)
        os.set_blocking(self.err_read, False)

    @property
    def child_ends(self) -> Ends:
        return self.in_read, self.out_write, self.err_write, self.failure_write

    def close_child_ends(self) -> None:
        for fd in self._owned:
            os.close(fd)

    def close_own_ends(self) -> None:
        for fd in (self.out_read, self.err_read, self.failure_read, self.in_write):
            if fd is not None:
                os.close(fd)


def enlarge(fd: int) -> None:
    """Give a pipe that has been seen full a larger buffer: fewer and larger reads."""
    try:
        fcntl.fcntl(fd, F_SETPIPE_SZ, PIPE_SIZE)
    except OSError:
        # Over the user's quota for pipe buffers: 64 KiB will do.
        pass


class Ceilings:
    """What a process of the user may have. Set here too: rootless Podman drops what it is asked for."""

    def __init__(self, header: wire.Header) -> None:
        self.processes: int = header["processes"]
        self.open_files: Optional[int] = header.get("open_files")
        self.file_bytes: Optional[int] = header.get("file_bytes")


def limit(ceilings: Ceilings, processes: int) -> None:
    """For this process and all that come from it, what the user's programs are to be limited to."""
    for resource_id, value in (
        (resource.RLIMIT_NOFILE, ceilings.open_files),
        (resource.RLIMIT_FSIZE, ceilings.file_bytes),
    ):
        if value is not None:
            hard = resource.getrlimit(resource_id)[1]
            most = value if hard == resource.RLIM_INFINITY else min(value, hard)
            resource.setrlimit(resource_id, (most, most))
    # The agent is to get the processor when it has to stop a crowd. Matters only among a sandbox's processes.
    os.nice(10)
    # Below the container's pids limit, so that the agent can always fork.
    resource.setrlimit(resource.RLIMIT_NPROC, (processes, processes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def expose_to_oom_killer(pid: int) -> None:
    """Let a program die before the agent when memory runs out. Raising needs no privilege but its uid."""
    try:
        fd = os.open("/proc/%d/oom_score_adj" % pid, os.O_WRONLY | os.O_CLOEXEC)
    except OSError:
        # It has ended already.
        return
    try:
        os.write(fd, b"1000")
    except OSError:
        pass
    finally:
        os.close(fd)


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
