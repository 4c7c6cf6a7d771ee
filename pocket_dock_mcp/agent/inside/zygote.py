"""The process that all of the user's programs are forked from; also a warm Python interpreter.

Forked from the agent before it has served anything, and like it uid 0: code of the user's uid could forge
its answers. It imports from the image only. Its children become the user before they see user code, and
then execute a program, or run Python source as ``__main__``: for that a fork costs less than an interpreter's
start. How they end is told to the agent.

The agent itself never forks: each page that a process with a forked child writes to is copied, and for an
agent that is busy serving, that was most of what a run cost (measured: 250 pages each).
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # without the enums of `signal`, which touch a lot of memory
import array
import collections
import errno
import gc
import json
import os
import select
import signal
import socket
import struct
import sys
import types
from typing import TYPE_CHECKING, Deque, Dict, List, NoReturn, Optional

from . import children
from .identity import User
from .loop import READ

if TYPE_CHECKING:
    from .main import Agent
    from .runs import Run

_FDS = struct.Struct("5i")
_MESSAGE = 256
FIRST_UNUSED = 3
FILE_NAME = "<code>"
"""What tracebacks call the user's source."""


class Zygote:
    """The agent's side: starts the interpreter, hands it runs, and hears how they end."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._expecting: Deque[Run] = collections.deque()
        self._runs: Dict[int, Run] = {}
        mine, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.pid = os.fork()
        if self.pid == 0:
            mine.close()
            _serve(its, agent.user, agent.processes)
        its.close()
        mine.setblocking(False)
        self._socket = mine
        agent.loop.watch(mine.fileno(), READ, self._on_message)

    def start(self, run: Run, start: children.Start, script: Optional[bytes], ends: children.Ends) -> None:
        """Hand over one run. Raises OSError when that is not possible now."""
        fields = {"argv": start.argv, "env": start.env, "cwd": start.cwd, "marker": run.marker}
        header = json.dumps(fields).encode("ascii")
        fd = children.memfd(struct.pack(">I", len(header)), header, script or b"")
        try:
            fds = array.array("i", [*ends, fd])
            self._socket.sendmsg([b"run"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
        finally:
            os.close(fd)
        self._expecting.append(run)

    def _on_message(self) -> None:
        try:
            message = self._socket.recv(_MESSAGE)
        except BlockingIOError:
            return
        if not message:
            self._gone()
            return
        words = message.split()
        if words[0] == b"pid":
            run = self._expecting.popleft()
            self._runs[int(words[1])] = run
            run.has_started(int(words[1]))
        elif words[0] == b"failed":
            self._expecting.popleft().could_not_start(int(words[1]))
        else:
            pid, status, cpu, peak = int(words[1]), int(words[2]), float(words[3]), int(words[4])
            ended = self._runs.pop(pid, None)
            if ended is not None:
                ended.on_exit(status, (cpu, peak))

    def _gone(self) -> None:
        """The interpreter died. Its children fall to the agent, which learns of their end as their reaper."""
        self._agent.loop.unwatch(self._socket.fileno())
        self._socket.close()
        self._agent.zygote_gone()
        for run in self._expecting:
            run.could_not_start(errno.EAGAIN)


# -- in the zygote itself -----------------------------------------------------------------------------


def _serve(connection: socket.socket, user: User, processes: int) -> NoReturn:
    """Be the zygote. Its forked children leave from here too, as the user's program."""
    status = 1
    try:
        _warm_up(connection.fileno())
        wake, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        poll = select.poll()
        poll.register(connection, select.POLLIN)
        poll.register(wake, select.POLLIN)
        # What an interpreter has at its start, and its children inherit.
        for number in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        gc.collect()
        gc.freeze()
        while True:
            ready = [fd for fd, _ in poll.poll()]
            if wake in ready:
                os.read(wake, 4096)
                _report_ends(connection)
            if connection.fileno() in ready and not _start_one(connection, user, processes):
                break
        status = 0
    finally:
        os._exit(status)


def _warm_up(keep: int) -> None:
    """Make this process what a fresh interpreter is: the agent's files closed, the image's packages found."""
    null = os.open("/dev/null", os.O_RDWR)
    for fd in (0, 1):
        os.dup2(null, fd)
    os.closerange(FIRST_UNUSED, keep)
    os.closerange(keep + 1, max(keep, null) + 64)
    try:
        import site

        site.main()
    except Exception:
        # An image with a broken sitecustomize still has a standard library.
        pass
    # Programs look at these to start interpreters like themselves; the agent's own are not what they mean.
    names = [name for name in dir(sys.flags) if not name.startswith(("_", "n_"))]
    flags = {name: getattr(sys.flags, name) for name in names if isinstance(getattr(sys.flags, name), int)}
    for name in ("isolated", "no_site", "ignore_environment", "no_user_site", "safe_path"):
        if name in flags:
            flags[name] = type(flags[name])(0)
    sys.flags = types.SimpleNamespace(**flags)  # type: ignore[assignment]
    sys.orig_argv = [sys.executable]
    import linecache  # noqa: F401  # every traceback wants it
    import traceback  # noqa: F401


def _report_ends(connection: socket.socket) -> None:
    while True:
        try:
            pid, status, rusage = os.wait4(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        cpu, peak = children.usage_of(rusage)
        connection.send(b"exit %d %d %f %d" % (pid, status, cpu, peak))


def _start_one(connection: socket.socket, user: User, processes: int) -> bool:
    """Take one request and fork for it. Returns False at the end of the connection."""
    message, ancillary, _flags, _address = connection.recvmsg(
        16, socket.CMSG_SPACE(_FDS.size), socket.MSG_CMSG_CLOEXEC
    )
    if not message:
        return False
    fds: List[int] = list(_FDS.unpack(ancillary[0][2][: _FDS.size]))
    try:
        pid = os.fork()
    except OSError as error:
        connection.send(b"failed %d" % (error.errno or errno.EAGAIN))
    else:
        if pid == 0:
            _be_program(user, processes, fds)
        connection.send(b"pid %d" % pid)
    for fd in fds:
        os.close(fd)
    return True


def _be_program(user: User, processes: int, fds: List[int]) -> NoReturn:
    """In the zygote's child: become the user and the program. Never returns."""
    status = 1
    try:
        signal.set_wakeup_fd(-1)
        order = os.read(fds[4], os.fstat(fds[4]).st_size)
        (length,) = struct.unpack_from(">I", order)
        header = json.loads(order[4 : 4 + length])
        ends = (fds[0], fds[1], fds[2], fds[3])
        children.settle_in(user, header["marker"], processes, header["cwd"], ends)
        if header["argv"] is not None:
            for number in (_signal.SIGPIPE, _signal.SIGXFSZ):
                _signal.signal(number, _signal.SIG_DFL)
            children.become(header["argv"], header["env"], fds[3])
        _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)
        os.closerange(FIRST_UNUSED, max(fds) + 64)
        _dress(header["env"])
        status = _run_main(order[4 + length :])
    except SystemExit as stop:
        # Out of the user's own atexit functions.
        status = stop.code if isinstance(stop.code, int) else 1
    finally:
        os._exit(status & 0xFF)


def _dress(env: Dict[str, str]) -> None:
    """Give the interpreter what it would have read from its environment at the start."""
    os.environ.clear()
    os.environ.update(env)
    paths = [path for path in env.get("PYTHONPATH", "").split(":") if path]
    sys.path[:0] = ["", *paths]
    sys.argv[:] = [""]
    site = sys.modules.get("site")
    if site is not None:
        user_site = "%s/.local/lib/python%d.%d/site-packages" % (env.get("HOME", ""), *sys.version_info[:2])
        if os.path.isdir(user_site):
            site.addsitedir(user_site)
    for name in [name for name in sys.modules if name == "agent" or name.startswith("agent.")]:
        del sys.modules[name]


def _run_main(source: bytes) -> int:
    """Run the source in a fresh ``__main__`` and end as an interpreter does; return the exit status."""
    import linecache

    main = types.ModuleType("__main__")
    main.__dict__["__builtins__"] = sys.modules["builtins"]
    sys.modules["__main__"] = main
    status = 0
    try:
        text = source.decode("utf-8")
        linecache.cache[FILE_NAME] = (len(text), None, text.splitlines(True), FILE_NAME)
        exec(compile(text, FILE_NAME, "exec"), main.__dict__)
    except SystemExit as stop:
        status = _exit_status(stop)
    except KeyboardInterrupt as error:
        _show(error)
        _flush()
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    except BaseException as error:
        _show(error)
        status = 1
    _shut_down()
    return 120 if not _flush() and status == 0 else status


def _exit_status(stop: SystemExit) -> int:
    if stop.code is None:
        return 0
    if isinstance(stop.code, int):
        return stop.code & 0xFF
    sys.stderr.write("%s\n" % (stop.code,))
    return 1


def _show(error: BaseException) -> None:
    """Print the traceback from the user's first frame on, through the user's own hook if there is one."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename != FILE_NAME:
        trace = trace.tb_next
    error.__traceback__ = trace
    hook = sys.excepthook
    if hook is not sys.__excepthook__:
        hook(type(error), error, trace)
        return
    import traceback

    traceback.print_exception(type(error), error, trace)


def _shut_down() -> None:
    """What an interpreter does at its end: wait for threads, then call what was registered."""
    threading = sys.modules.get("threading")
    if threading is not None:
        threading._shutdown()
    import atexit

    atexit._run_exitfuncs()


def _flush() -> bool:
    """Flush standard output and error; False if output was lost."""
    whole = True
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:
            whole = False
    return whole
