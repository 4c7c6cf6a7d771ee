"""What the interpreter does that the zygote has forked for the user: one program, or the cells of a session.

User code shares the process and can do to it what it likes; the agent believes nothing that comes from here.
But what ordinary programs do to their own interpreter must not end a session: close descriptors, replace
standard streams, install signal handlers, fork.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # without the enums of `signal`, which touch a lot of memory
import array
import errno
import fcntl
import io
import json
import os
import resource
import socket
import sys
from types import FrameType
from typing import Any, Callable, Dict, List, NoReturn, Optional, Tuple

from . import freezing, program, wire

FILE_NAME = "<code>"
"""What tracebacks call the user's source."""

_OUTPUT_LOST = 120
_HIGH = 1040
"""Descriptors from here on are ours. Programs that close "all" descriptors seldom go on beyond 1024."""
_MAX_ORDER = 512 * 1024
_SPACE = socket.CMSG_SPACE(2 * array.array("i").itemsize)

# Programs replace what is in `json` and `os`.
_from_json = json.JSONDecoder().decode
_to_json = json.JSONEncoder(separators=(",", ":")).encode
_environ = os.environ


def run_once(source: bytes, report: int) -> int:
    """Run one program from start to end; return the exit status that an interpreter has then.

    Dies of SIGINT where an interpreter does. The descriptor is taken over.
    """
    freezing.reseed()
    ran = program.Program(Report(report), _directly, lasting=False)
    try:
        status, interrupted = ran.run(source, FILE_NAME)
    except KeyboardInterrupt:
        # A second one, while the first was shown.
        status, interrupted = program.INTERRUPTED, True
    try:
        whole = ran.end()
    except KeyboardInterrupt:
        whole, interrupted = True, True
    if interrupted:
        _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
        os.kill(os.getpid(), _signal.SIGINT)
    return status if whole else _OUTPUT_LOST


def serve(control: socket.socket, report: int) -> int:
    """Be a session: run the cells that arrive until the other end is closed; return the exit status.

    A cell arrives as one message, ``{"cell": number, "cwd": path or null, "env": {...} or null}``, with one
    or two descriptors: its source and, if it is to have one, its standard input. What comes of it goes to
    `report`. Then it is answered: ``{"done": number, "code": ..., "cpu": seconds, "peak": bytes}``, or, if it
    could not begin, ``{"done": number, "failed": stage, "errno": ...}``. A message ``{"keep": ...}`` with a
    socket asks for a checkpoint, and is answered there.

    SIGINT interrupts a cell that runs, and does nothing when none does. One that is sent before the cell has
    been received counts as that. Both descriptors are taken over.
    """
    freezing.reseed()
    session = _Session(control, report)
    session.serve()
    session.end()
    return 0


def _directly(function: Callable[..., Any], *arguments: Any) -> Any:
    return function(*arguments)


# -- what it speaks through ---------------------------------------------------------------------------


def _duplicate(fd: int) -> int:
    """Return a copy of the descriptor where programs do not close it by accident."""
    try:
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _HIGH)
    except OSError:
        # It may not have that many.
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, max(limit - 16, 3))


def _out_of_the_way(fd: int) -> int:
    """Move the descriptor there."""
    moved = _duplicate(fd)
    os.close(fd)
    return moved


class Report:
    """The pipe to the host. Only the process that made it writes to it."""

    def __init__(self, fd: int) -> None:
        self.take(fd)

    def take(self, fd: int) -> None:
        """Write to this from now on, from this process."""
        self.fd = _out_of_the_way(fd)
        self._pid = os.getpid()
        self._identity: Optional[Tuple[int, int]] = self._identify()

    def _identify(self) -> Tuple[int, int]:
        status = os.fstat(self.fd)
        return status.st_dev, status.st_ino

    @property
    def is_mine(self) -> bool:
        """Whether this is still the process that made it, and no fork of it."""
        return os.getpid() == self._pid

    def send(self, header: Dict[str, Any], payload: bytes = b"") -> None:
        head = _to_json(header).encode("ascii")
        data = memoryview(b"".join((wire.PREFIX.pack(len(head), len(payload)), head, payload)))
        try:
            # A program that closes all it has may have got a file of its own under this number.
            if not self.is_mine or self._identify() != self._identity:
                return
            # If an interrupt ends this half-way, nothing can come after it.
            identity, self._identity = self._identity, None
            while data:
                data = data[os.write(self.fd, data) :]
            self._identity = identity
        except OSError:
            # Nobody reads it any more.
            pass


# -- a session ----------------------------------------------------------------------------------------


class _Session:
    def __init__(self, control: socket.socket, report: int) -> None:
        self._control = socket.socket(fileno=_out_of_the_way(control.detach()))
        self._report = Report(report)
        self._buffer = bytearray(_MAX_ORDER)
        self._streams = _Streams()
        self._interrupts = _Interrupts()
        self._program = program.Program(self._report, self._interrupts.call, lasting=True)
        os.register_at_fork(after_in_child=self._be_forked)

    def _be_forked(self) -> None:
        """In a process that a cell has forked: neither listen nor speak, and keep nobody waiting."""
        try:
            os.close(self._control.detach())
            os.close(self._report.fd)
        except OSError:
            # It was closed before, by the same carelessness.
            pass

    def serve(self) -> None:
        while True:
            try:
                size, ancillary, _, _ = self._control.recvmsg_into(
                    [self._buffer], _SPACE, socket.MSG_CMSG_CLOEXEC
                )
                self._interrupts.begin()
                if not size:
                    return
                order = _from_json(self._buffer[:size].decode("utf-8"))
                if "keep" in order:
                    self._keep(_descriptors(ancillary))
                    self._interrupts.end()
                    continue
                answer = self._answer(order, _descriptors(ancillary))
                self._interrupts.end()
                self._control.send(_to_json({"done": order["cell"], **answer}).encode("ascii"))
            except OSError:
                # The other end is gone, or the user's code has closed ours.
                return

    def _keep(self, fds: List[int]) -> None:
        """Leave a checkpoint. Comes back here in what is restored from it, too."""
        for fd in fds[:1]:
            freezing.keep(socket.socket(fileno=_out_of_the_way(fd)), self._adopt)

    def _adopt(self, fds: List[int]) -> None:
        """Go on in another process, which speaks through these."""
        self._streams.connect(fds[0], fds[1])
        self._report.take(fds[2])
        self._control = socket.socket(fileno=_out_of_the_way(fds[3]))
        self._program.renew_loop()

    def end(self) -> None:
        """End as an interpreter does."""
        self._streams.give_input(None)
        self._program.end()

    def _answer(self, order: Dict[str, Any], fds: List[int]) -> Dict[str, Any]:
        stage = "source"
        try:
            source = _content(fds[0]) if fds else _no_descriptor()
            stage = "cwd"
            if order["cwd"] is not None:
                os.chdir(order["cwd"])
            stage = "stdin"
            self._streams.give_input(fds[1] if len(fds) > 1 else None)
        except OSError as error:
            return {"failed": stage, "errno": error.errno or 0}
        finally:
            for fd in fds:
                os.close(fd)
        _environ.update(order["env"] or {})
        _find_installed()
        return self._run(source, "<cell %d>" % order["cell"])

    def _run(self, source: bytes, name: str) -> Dict[str, Any]:
        cpu, _ = _usage()
        self._program.appear()
        code, _ = self._program.run(source, name)
        if not self._report.is_mine:
            _leave(code)
        self._streams.restore()
        cpu_after, peak = _usage()
        return {"code": code, "cpu": round(cpu_after - cpu, 6), "peak": peak}


def _descriptors(ancillary: List[Tuple[int, int, bytes]]) -> List[int]:
    fds = array.array("i")
    for _, _, data in ancillary:
        fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    return fds.tolist()


def _no_descriptor() -> NoReturn:
    """The kernel drops descriptors that there is no room for."""
    raise OSError(errno.EMFILE, "no descriptor left")


def _content(fd: int) -> bytes:
    parts: List[bytes] = []
    at = 0
    while True:
        part = os.pread(fd, 1 << 20, at)
        if not part:
            return b"".join(parts)
        parts.append(part)
        at += len(part)


def _find_installed() -> None:
    """See what an earlier cell may have installed: the user's packages get a directory with the first."""
    path = "%s/.local/lib/python%d.%d/site-packages" % (_environ.get("HOME", ""), *sys.version_info[:2])
    if path not in sys.path and os.path.isdir(path):
        site: Any = sys.modules.get("site")
        if site is not None:
            site.addsitedir(path)


def _usage() -> Tuple[float, int]:
    """Return CPU seconds and peak resident bytes of this process and those it has waited for."""
    own, others = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = own.ru_utime + own.ru_stime + others.ru_utime + others.ru_stime
    return cpu, max(own.ru_maxrss, others.ru_maxrss) * 1024


def _leave(code: int) -> NoReturn:
    """End a process that a cell has forked, and that has come to the end of the cell's code."""
    program.flush()
    os._exit(code & 0xFF)


class _Interrupts:
    """Makes SIGINT a KeyboardInterrupt in user code, and never in ours.

    The handler looks at the frame that it interrupts. In `call` itself, before and after what it calls, it
    raises nothing, so there is no moment in which an interrupt could miss both the code and its handlers.
    """

    _IDLE, _BUSY, _CALLING = 0, 1, 2

    def __init__(self) -> None:
        self._state = self._IDLE
        self._is_pending = False
        self._handler = self._on_signal
        _signal.signal(_signal.SIGINT, self._handler)

    def _on_signal(self, _number: int, frame: Optional[FrameType]) -> None:
        while frame is not None and frame.f_code is _Interrupts._on_signal.__code__:
            # The next one has come while the last one is handled.
            frame = frame.f_back
        if (
            self._state == self._CALLING
            and frame is not None
            and frame.f_code is not _Interrupts.call.__code__
        ):
            raise KeyboardInterrupt
        # For the next call, if the cell has one.
        self._is_pending = self._state != self._IDLE

    def begin(self) -> None:
        self._is_pending = False
        self._state = self._BUSY

    def end(self) -> None:
        self._state = self._IDLE

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call what may be interrupted."""
        self._state = self._CALLING
        try:
            if self._is_pending:
                self._is_pending = False
                raise KeyboardInterrupt
            return function(*arguments)
        finally:
            self._state = self._BUSY
            # A handler of the user's is for the cell that installed it: the next one is to be interruptible.
            if _signal.getsignal(_signal.SIGINT) is not self._handler:
                _signal.signal(_signal.SIGINT, self._handler)


class _Streams:
    """Standard input, output and error of a session: there for each cell, whatever the last one has done."""

    def __init__(self) -> None:
        self._kept = {"stdout": _duplicate(1), "stderr": _duplicate(2)}
        null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        self._null = _out_of_the_way(null)
        self._looks = {name: _look(getattr(sys, name)) for name in _FDS}
        self._own: Dict[str, Any] = {name: getattr(sys, name) for name in self._kept}

    def give_input(self, fd: Optional[int]) -> None:
        """Let a cell read from this, or from nothing. Nothing is left of what the last one had buffered."""
        os.dup2(self._null if fd is None else fd, 0)
        sys.stdin = self._opened("stdin")
        setattr(sys, "__stdin__", sys.stdin)  # noqa: B010  # it is declared final

    def connect(self, out: int, err: int) -> None:
        """Let standard output and error be these, which are taken over."""
        for name, fd in (("stdout", out), ("stderr", err)):
            os.dup2(fd, self._kept[name], inheritable=False)
            os.dup2(fd, _FDS[name])
            os.close(fd)

    def restore(self) -> None:
        """Flush, wherever that goes, and be connected as at the beginning."""
        program.flush()
        for name, kept in self._kept.items():
            lost = not program.flushed(self._own[name])
            try:
                os.dup2(kept, _FDS[name])
            except OSError:
                # All descriptors were closed, ours too. So be it.
                return
            if lost:
                program.flushed(self._own[name])
            # Letting go of the user's stream may close ours, if both are around the same buffer.
            setattr(sys, name, self._own[name])
            if not program.is_open(self._own[name]):
                self._own[name] = self._opened(name)
            setattr(sys, name, self._own[name])
            setattr(sys, "__%s__" % name, self._own[name])
        os.dup2(self._null, 0)

    def _opened(self, name: str) -> Any:
        is_raw, mode, options = self._looks[name]
        raw = io.FileIO(_FDS[name], mode, closefd=False)
        raw.name = "<%s>" % name
        buffer: Any = raw if is_raw else io.BufferedReader(raw) if mode == "r" else io.BufferedWriter(raw)
        text: Any = io.TextIOWrapper(buffer, **options)
        text.mode = mode
        return text


_FDS = {"stdin": 0, "stdout": 1, "stderr": 2}


def _look(stream: Any) -> Tuple[bool, str, Dict[str, Any]]:
    """Return whether a stream is unbuffered, its mode, and how it handles text."""
    names = ("encoding", "errors", "line_buffering", "write_through")
    options = {name: getattr(stream, name) for name in names if hasattr(stream, name)}
    mode = "r" if stream is None or stream.readable() else "w"
    if mode == "w":
        options["newline"] = "\n"
    return isinstance(getattr(stream, "buffer", None), io.RawIOBase), mode, options
