"""From a forked child of the agent to a program of the user."""

from __future__ import annotations

import fcntl
import os
import resource
import struct
import termios
from typing import Any, Dict, List, Optional, Tuple

from . import wire
from .identity import User

PIPE_SIZE = 256 * 1024
F_SETPIPE_SZ = 1031
TIOCGPTN = 0x80045430
TIOCSPTLCK = 0x40045431


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
        self.limits = RunLimits(header.get("limits"))
        self.tty: Optional[Tuple[int, int]] = header.get("tty")
        """Rows and columns of a terminal, for a program that wants one."""
        self.session: Optional[str] = header.get("session")
        """The name of the session that is to run it."""
        self.kind: str = header.get("kind", "python")
        """What that session speaks."""


class RunLimits:
    """Limits of one run. None is no limit but the sandbox's own."""

    def __init__(self, fields: Optional[wire.Header]) -> None:
        fields = fields or {}
        self.cpu_s: Optional[float] = fields.get("cpu")
        self.memory: Optional[int] = fields.get("memory")
        self.processes: Optional[int] = fields.get("processes")
        self.output: Optional[int] = fields.get("output")


class Ends:
    """The two sides of a program's streams: what it gets, and what the agent keeps."""

    def __init__(self) -> None:
        self.outputs: Dict[int, int] = {}
        """Our reading ends, by stream."""
        self.input: Optional[int] = None
        """Our writing end of its standard input."""
        self.child: List[int] = []
        """Its standard input, output and error, and what else it is to have."""
        self.tty: Optional[str] = None
        """The terminal that it has instead of the first three."""
        self._owned: List[int] = []

    def give_output(self, stream: int) -> None:
        """Add a pipe from the program."""
        read, write = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(read, False)
        self.outputs[stream] = read
        self.give(write)

    def give_input(self, devnull: int, wanted: bool) -> None:
        """Add its standard input: a pipe, or nothing to read."""
        if not wanted:
            self.child.append(devnull)
            return
        read, self.input = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self.input, False)
        self.give(read)

    def give(self, fd: int) -> None:
        """Add a descriptor that is closed here when the program has it."""
        self.child.append(fd)
        self._owned.append(fd)

    def give_terminal(self, user: User, devnull: int, rows: int, columns: int) -> None:
        """Add a terminal of the user's as standard input, output and error."""
        flags = os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC
        with user:
            master = os.open("/dev/ptmx", flags)
        self.outputs[1] = master
        self.input = fcntl.fcntl(master, fcntl.F_DUPFD_CLOEXEC, 3)
        fcntl.ioctl(master, TIOCSPTLCK, struct.pack("i", 0))
        number = struct.unpack("i", fcntl.ioctl(master, TIOCGPTN, b"\0" * 4))[0]
        resize(master, rows, columns)
        self.tty = "/dev/pts/%d" % number
        self.child = [devnull] * 3

    def close_child_ends(self) -> None:
        for fd in self._owned:
            os.close(fd)

    def close_own_ends(self) -> None:
        for fd in (*self.outputs.values(), self.input):
            if fd is not None:
                os.close(fd)


def resize(terminal: int, rows: int, columns: int) -> None:
    """Tell a terminal its size; the program in front of it gets SIGWINCH."""
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def enlarge(fd: int) -> None:
    """Give a pipe that has been seen full a larger buffer: fewer and larger reads."""
    try:
        fcntl.fcntl(fd, F_SETPIPE_SZ, PIPE_SIZE)
    except OSError:
        # Over the user's quota for pipe buffers: 64 KiB will do.
        pass


MEMLOCK = 65536
"""Bytes; as the container itself is asked for."""


class Ceilings:
    """What a process of the user may have. Set here too: rootless Podman drops what it is asked for."""

    def __init__(self, header: wire.Header) -> None:
        self.processes: int = header["processes"]
        self.open_files: Optional[int] = header.get("open_files")
        self.file_bytes: Optional[int] = header.get("file_bytes")


def limit(ceilings: Ceilings, processes: int) -> None:
    """For this process and all that come from it, what the user's programs are to be limited to."""
    if ceilings.open_files is not None:
        _lower(resource.RLIMIT_NOFILE, ceilings.open_files)
    if ceilings.file_bytes is not None:
        _lower(resource.RLIMIT_FSIZE, ceilings.file_bytes)
    # The agent is to get the processor when it has to stop a crowd. Matters only among a sandbox's processes.
    os.nice(10)
    # Below the container's pids limit, so that the agent can always fork.
    resource.setrlimit(resource.RLIMIT_NPROC, (processes, processes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _lower(resource.RLIMIT_MEMLOCK, MEMLOCK)
    try:
        _lower(resource.RLIMIT_MSGQUEUE, 0)
    except ValueError:
        # Linux lowers any limit. gVisor has none on message queues; they are those of its own kernel.
        pass


def _lower(resource_id: int, value: int) -> None:
    """Set a limit for good, to no more than it may be."""
    hard = resource.getrlimit(resource_id)[1]
    most = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(resource_id, (most, most))


def processes_limit() -> int:
    """Return how many processes this process's user may have."""
    return resource.getrlimit(resource.RLIMIT_NPROC)[0]


class Exposure:
    """How readily the kernel kills this process when memory runs out.

    Programs are to die before the agent and its helpers. They inherit it, so a helper has it raised while it
    starts one; taking it back to what the engine has given needs no privilege.
    """

    def __init__(self) -> None:
        self._fd, self._usual = -1, b""
        try:
            self._fd = os.open("/proc/self/oom_score_adj", os.O_RDWR | os.O_CLOEXEC)
            self._usual = os.pread(self._fd, 32, 0).strip()
        except OSError:
            # A kernel of another make, such as gVisor's, lets nobody choose.
            pass

    def raise_it(self) -> None:
        self._write(b"1000")

    def take_back(self) -> None:
        self._write(self._usual)

    def _write(self, value: bytes) -> None:
        try:
            os.pwrite(self._fd, value, 0)
        except OSError:
            # Where the engine's own setting forbids it, all are alike.
            pass


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


class Environment:
    """What programs have in their environment.

    The image's, who the user is, how the network is reached, and above all what was asked for. Of the third a
    variable is left out when the user has one of that name in capital or small letters: programs differ in
    which of ``HTTP_PROXY`` and ``http_proxy`` they prefer.
    """

    def __init__(self, image: Dict[str, str]) -> None:
        # Without what Python sets for itself where no locale is given.
        self._usual = {name: value for name, value in image.items() if name != "LC_CTYPE"}
        self._wanted: Dict[str, str] = {}
        self.network: Dict[str, str] = {}

    def settle(self, home: str, wanted: Dict[str, str]) -> None:
        """Take what is known from the beginning."""
        self._usual = {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "LANG": "C.UTF-8",
            **self._usual,
            "HOME": home,
            "USER": "sandbox",
            "LOGNAME": "sandbox",
        }
        self.add(wanted)

    def add(self, wanted: Dict[str, str]) -> None:
        """Take what was asked for."""
        self._wanted.update(wanted)

    def including(self, extra: Dict[str, str]) -> Dict[str, str]:
        """Return all of it, and what one program is to have on top."""
        wanted = {**self._wanted, **extra}
        taken = {name.lower() for name in wanted} if self.network else ()
        network = {name: value for name, value in self.network.items() if name.lower() not in taken}
        return {**self._usual, **network, **wanted}
