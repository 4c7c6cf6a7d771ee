"""Programs of the user: start, pump their streams, know how they ended, leave nothing of them behind.

Each run has a *marker*: a supplementary group of its own, which every descendant inherits and none can
drop without CAP_SETGID. Whatever a program does (setsid, double fork, new names), its processes are found
by it in ``/proc/*/status``.
"""

from __future__ import annotations

import collections
import errno
import fcntl
import os
import resource
import signal
import struct
import termios
import time
from typing import TYPE_CHECKING, Deque, Dict, List, NoReturn, Optional, Set, Tuple

from . import wire
from .loop import READ, WRITE, Timer

if TYPE_CHECKING:
    from .main import Agent

MARKER_FIRST = 61000
MARKER_LAST = 64999
"""Group ids for markers: within the 65536 ids that a rootless user namespace maps."""

CHUNK = wire.MAX_PAYLOAD
PIPE_SIZE = 256 * 1024
F_SETPIPE_SZ = 1031

# Runs in the child to be: reads the script from descriptor 3 so that its length is not an argument's, gives
# tracebacks its source lines, and hides itself from them.
PYTHON_BOOT = """\
import sys, linecache
with open(3, encoding="utf-8", newline="") as _f: _s = _f.read()
linecache.cache["<code>"] = (len(_s), None, _s.splitlines(True), "<code>")
sys.argv[:] = [""]
sys.excepthook = lambda t, v, tb, _h=sys.__excepthook__: _h(t, v.with_traceback(tb and tb.tb_next), None)
_c = compile(_s, "<code>", "exec")
del sys, linecache, _f, _s
exec(_c)
"""


class Start:
    """What to run, as it arrived. Everything in it was checked by the caller's side."""

    def __init__(self, header: wire.Header) -> None:
        self.argv: List[str] = header["argv"]
        self.env: Dict[str, str] = header["env"]
        self.cwd: str = header["cwd"] or ""
        self.timeout: Optional[float] = header.get("timeout")
        self.stdin = bool(header.get("stdin"))
        self.script_bytes: Optional[int] = header.get("script")


class Run:
    """One program of the user, from fork to the last byte of its output."""

    def __init__(self, agent: Agent, run_id: int, start: Start, script: Optional[bytes]) -> None:
        self.agent = agent
        self.id = run_id
        self.marker = agent.markers.take()
        self.credit = wire.WINDOW
        self.timed_out = False
        self.killed = False
        self.status: Optional[int] = None
        self._usage: Optional[resource.struct_rusage] = None
        self._timer: Optional[Timer] = None
        self._killing = False
        self._ended = False
        self._outputs: Dict[int, int] = {}
        self._left: Dict[int, int] = {}
        self._stdin: Optional[int] = None
        self._pending: Deque[memoryview] = collections.deque()
        self._stdin_done = False
        self._oom_before = agent.cgroup.oom_kills()
        self._began = time.monotonic()
        self.pid = self._fork(start, script)
        if start.timeout is not None:
            self._timer = agent.loop.later(start.timeout, self._on_timeout)

    # -- starting ---------------------------------------------------------------------------------

    def _fork(self, start: Start, script: Optional[bytes]) -> int:
        out_read, out_write = os.pipe2(os.O_CLOEXEC)
        err_read, err_write = os.pipe2(os.O_CLOEXEC)
        self._error, error_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        in_read, in_write = os.pipe2(os.O_CLOEXEC) if start.stdin else (self.agent.devnull, None)
        script_fd = _memfd(script) if script is not None else None
        try:
            pid = os.fork()
            if pid == 0:
                self._child(start, (in_read, out_write, err_write), script_fd, error_write)
        except OSError:
            for fd in (out_read, err_read, self._error):
                os.close(fd)
            if in_write is not None:
                os.close(in_write)
            raise
        finally:
            for end in (out_write, err_write, error_write, script_fd):
                if end is not None:
                    os.close(end)
            if start.stdin:
                os.close(in_read)
        for stream, fd in ((1, out_read), (2, err_read)):
            os.set_blocking(fd, False)
            _enlarge(fd)
            self._outputs[stream] = fd
            self._watch_output(stream, fd)
        if in_write is not None:
            os.set_blocking(in_write, False)
            self._stdin = in_write
        return pid

    def _child(
        self, start: Start, stdio: Tuple[int, int, int], script_fd: Optional[int], error_fd: int
    ) -> NoReturn:
        """In the forked child: become the user's program. Never returns."""
        try:
            signal.set_wakeup_fd(-1)
            for default in (
                signal.SIGCHLD,
                signal.SIGPIPE,
                signal.SIGINT,
                signal.SIGTERM,
                signal.SIGHUP,
                signal.SIGXFSZ,
            ):
                signal.signal(default, signal.SIG_DFL)
            os.setsid()
            _expose_to_oom_killer()
            self.agent.limit_child()
            self.agent.user.become(self.marker)
            os.umask(0o022)
            os.chdir(start.cwd)
            # High numbers first: a source below 4 must not be overwritten before it is copied.
            sources = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10) for fd in stdio]
            if script_fd is not None:
                sources.append(fcntl.fcntl(script_fd, fcntl.F_DUPFD_CLOEXEC, 10))
            error_fd = fcntl.fcntl(error_fd, fcntl.F_DUPFD_CLOEXEC, 10)
            for target, source in enumerate(sources):
                os.dup2(source, target, inheritable=True)
            os.execvpe(start.argv[0], start.argv, start.env)
        except BaseException as error:
            number = getattr(error, "errno", None) or 0
            stage = "cwd" if isinstance(error, OSError) and error.filename == start.cwd else "exec"
            os.write(error_fd, ("%s %d" % (stage, number)).encode("ascii"))
        finally:
            os._exit(127)

    # -- output -----------------------------------------------------------------------------------

    def _watch_output(self, stream: int, fd: int) -> None:
        self.agent.loop.watch(fd, READ, lambda: self._on_output(stream))

    def _on_output(self, stream: int) -> bool:
        """Send one chunk; stop listening when the window is used up."""
        fd = self._outputs[stream]
        if self.credit <= 0:
            self.agent.loop.unwatch(fd)
            return False
        try:
            data = os.read(fd, min(CHUNK, self.credit, self._left.get(stream, CHUNK)))
        except BlockingIOError:
            return False
        if not data:
            self._close_output(stream)
            return False
        self.credit -= len(data)
        if stream in self._left:
            self._left[stream] -= len(data)
        self.agent.send({"kind": "data", "id": self.id, "s": stream}, data)
        return True

    def _close_output(self, stream: int) -> None:
        fd = self._outputs.pop(stream)
        self.agent.loop.unwatch(fd)
        os.close(fd)
        if self._ended and not self._outputs:
            self._finish()

    def add_credit(self, amount: int) -> None:
        self.credit += amount
        if self._ended:
            self._drain()
        else:
            for stream, fd in self._outputs.items():
                self._watch_output(stream, fd)

    def _drain(self) -> None:
        """All processes are gone: what the pipes held then is all there will ever be.

        Counted, because another run may hold a pipe's other end and keep writing.
        """
        for stream in list(self._outputs):
            while self._left[stream] and self._on_output(stream):
                pass
            if not self._left[stream] and stream in self._outputs:
                self._close_output(stream)

    # -- input ------------------------------------------------------------------------------------

    def feed(self, data: bytes, end: bool) -> None:
        if data and self._stdin is not None:
            self._pending.append(memoryview(data))
        elif data:
            # The program is gone or has no input: the bytes are spent all the same.
            self.agent.send({"kind": "credit", "id": self.id, "n": len(data)})
        self._stdin_done = self._stdin_done or end
        self._pump_input()

    def _pump_input(self) -> None:
        spent = 0
        try:
            while self._pending and self._stdin is not None:
                written = os.write(self._stdin, self._pending[0])
                spent += written
                rest = self._pending.popleft()[written:]
                if rest:
                    self._pending.appendleft(rest)
        except BlockingIOError:
            if self._stdin is not None:
                self.agent.loop.watch(self._stdin, WRITE, self._pump_input)
        except OSError:
            # The program closed its input; that is its good right.
            spent += self._drop_input()
        else:
            if self._stdin is not None:
                self.agent.loop.unwatch(self._stdin)
                if self._stdin_done:
                    self._drop_input()
        if spent:
            self.agent.send({"kind": "credit", "id": self.id, "n": spent})

    def _drop_input(self) -> int:
        dropped = sum(len(piece) for piece in self._pending)
        self._pending.clear()
        if self._stdin is not None:
            self.agent.loop.unwatch(self._stdin)
            os.close(self._stdin)
            self._stdin = None
        return dropped

    # -- ending -----------------------------------------------------------------------------------

    def signal(self, number: int) -> None:
        """Signal the program's process group."""
        with self.agent.user:
            try:
                os.killpg(self.pid, number)
            except ProcessLookupError:
                pass

    def kill(self) -> None:
        """End every process of the run, because somebody asked for it."""
        if self.status is None:
            self.killed = True
        self._kill()

    def _kill(self) -> None:
        if not self._killing:
            self._killing = True
            self.agent.kill_marked(self.marker, self._on_gone)

    def _on_timeout(self) -> None:
        if self.status is None:
            self.timed_out = True
        self._kill()

    def on_exit(self, status: int, usage: resource.struct_rusage) -> None:
        """The program itself has ended. Its descendants must not outlive it."""
        self.status = status
        self._usage = usage
        self._ended_at = time.monotonic()
        self._oom_after = self.agent.cgroup.oom_kills()
        if not self._killing:
            self._killing = True
            self.agent.kill_marked(self.marker, self._on_gone)

    def _on_gone(self) -> None:
        if self.status is None:
            # The kill saw no process, but the exit of the program has not been collected yet.
            self._killing = False
            return
        self._ended = True
        if self._timer is not None:
            self._timer.cancel()
        for stream, fd in self._outputs.items():
            self._left[stream] = _readable(fd)
        if self._outputs:
            self._drain()
        else:
            self._finish()

    def _finish(self) -> None:
        self._drop_input()
        failure = os.read(self._error, 64).decode("ascii", "replace") if self.status == 127 << 8 else ""
        os.close(self._error)
        self.agent.run_ended(self)
        if failure:
            stage, _, number = failure.partition(" ")
            self.agent.fail(self.id, stage, int(number or 0))
            return
        if self.status is not None and self._usage is not None:
            self.agent.send(self._exit_frame(self.status, self._usage))

    def _exit_frame(self, status: int, usage: resource.struct_rusage) -> wire.Header:
        signaled = os.WIFSIGNALED(status)
        return {
            "kind": "exit",
            "id": self.id,
            "code": None if signaled else os.WEXITSTATUS(status),
            "signal": os.WTERMSIG(status) if signaled else None,
            "timed_out": self.timed_out,
            "killed": self.killed,
            "oom": self._oom_after > self._oom_before,
            "wall": self._ended_at - self._began,
            "cpu": usage.ru_utime + usage.ru_stime,
            "peak": usage.ru_maxrss * 1024,
        }


class Markers:
    """Hands out marker groups; one is not reused while its run is alive."""

    def __init__(self) -> None:
        self._next = MARKER_FIRST
        self._used: Set[int] = set()

    def take(self) -> int:
        for _ in range(MARKER_LAST - MARKER_FIRST + 1):
            marker = self._next
            self._next = marker + 1 if marker < MARKER_LAST else MARKER_FIRST
            if marker not in self._used:
                self._used.add(marker)
                return marker
        raise OSError(errno.EAGAIN, "too many runs at once")

    def give_back(self, marker: int) -> None:
        self._used.discard(marker)


def marked(marker: Optional[int]) -> List[int]:
    """Return the pids of living processes that carry `marker`; any of the user's for None."""
    wanted = None if marker is None else str(marker).encode("ascii")
    names = [name for name in os.listdir(b"/proc") if name.isdigit() and name != b"1"]
    return [int(name) for name in names if _carries(name, wanted)]


def _carries(pid: bytes, wanted: Optional[bytes]) -> bool:
    try:
        fd = os.open(b"/proc/" + pid + b"/status", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        text = os.read(fd, 4096)
    except OSError:
        return False
    finally:
        os.close(fd)
    if b"\nState:\tZ" in text or b"\nState:\tX" in text:
        return False
    if wanted is None:
        return True
    start = text.find(b"\nGroups:")
    return wanted in text[start + 8 : text.find(b"\n", start + 1)].split()


def _readable(fd: int) -> int:
    """Return how many bytes a pipe holds."""
    return int(struct.unpack("i", fcntl.ioctl(fd, termios.FIONREAD, b"\0" * 4))[0])


def _memfd(data: bytes) -> int:
    fd = os.memfd_create("code", os.MFD_CLOEXEC)
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def _enlarge(fd: int) -> None:
    try:
        fcntl.fcntl(fd, F_SETPIPE_SZ, PIPE_SIZE)
    except OSError:
        # Over the user's quota for pipe buffers: 64 KiB will do.
        pass


def _expose_to_oom_killer() -> None:
    """The user's processes are to die before the agent when memory runs out. Raising needs no privilege."""
    with open("/proc/self/oom_score_adj", "wb", buffering=0) as file:
        file.write(b"1000")


def limit_processes(count: int) -> None:
    """Keep room below the container's pids limit, so that the agent can always fork."""
    resource.setrlimit(resource.RLIMIT_NPROC, (count, count))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
