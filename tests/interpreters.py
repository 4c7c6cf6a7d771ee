"""Interpreters for tests: processes that run `inside.interpreter` as the zygote's children do.

The modules are executed as they are in a container, in a process without the rest of the agent, and spoken
to over real pipes and sockets.
"""

from __future__ import annotations

import array
import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pocket_dock_mcp.agent.inside import wire

INSIDE = Path(wire.__file__).parent
MODULES = ("wire", "tracebacks", "values", "pictures", "program", "freezing", "interpreter")
PYTHON = sys.executable
PATIENCE = 30.0

_CHILD = """
import gc, os, signal, socket, sys, types
inside, names, mode, report, other = sys.argv[1:]
package = types.ModuleType("agent"); package.__path__ = []; sys.modules["agent"] = package
for name in names.split():
    module = types.ModuleType("agent." + name); module.__package__ = "agent"
    sys.modules[module.__name__] = module; setattr(package, name, module)
    with open(os.path.join(inside, name + ".py")) as file:
        exec(compile(file.read(), "agent/" + name + ".py", "exec"), module.__dict__)
run = package.interpreter
for name in [name for name in sys.modules if name.startswith("agent")]:
    del sys.modules[name]
sys.argv[:] = [""]
gc.collect(); gc.freeze()
report, other = int(report), int(other)
pid = os.fork()
if pid == 0:
    del file, package, module
    status = 1
    try:
        if mode == "once":
            status = run.run_once(os.pread(other, 1 << 22, 0), report)
        else:
            status = run.serve(socket.socket(fileno=other), report)
    finally:
        os._exit(status)
signal.signal(signal.SIGINT, signal.SIG_IGN)
os.close(report); os.close(other)
status = os.waitpid(pid, 0)[1]
if os.WIFSIGNALED(status):
    signal.signal(os.WTERMSIG(status), signal.SIG_DFL) if os.WTERMSIG(status) != 9 else None
    os.kill(os.getpid(), os.WTERMSIG(status))
os._exit(os.WEXITSTATUS(status))
"""

Blocks = list[tuple[dict[str, Any], bytes]]


class Ran(NamedTuple):
    """What came of a program, or of a cell."""

    status: int
    """The exit status, negative for a signal; of a cell, its code."""
    out: str
    err: str
    blocks: Blocks
    done: dict[str, Any]
    """A cell's answer."""

    def of(self, what: str) -> list[dict[str, Any]]:
        """Return the headers of one kind of blocks."""
        return [header for header, _ in self.blocks if header["what"] == what]

    @property
    def result(self) -> str | None:
        """Return the text of the one result, if there is one."""
        results = self.of("result")
        assert len(results) <= 1
        return results[0]["text"] if results else None


class _Text:
    """An anonymous file that a process writes to and that is read as it grows."""

    def __init__(self) -> None:
        self.fd = os.memfd_create("output")
        self._at = 0

    def read(self) -> str:
        data = os.pread(self.fd, 1 << 26, self._at)
        self._at += len(data)
        return data.decode("utf-8", "replace")

    def close(self) -> None:
        os.close(self.fd)


def _memfd(data: bytes) -> int:
    fd = os.memfd_create("data")
    os.write(fd, data)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def _start(mode: str, other: int, report: int, **options: Any) -> subprocess.Popen[bytes]:
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "LC_ALL": "C.UTF-8"}
    environment.update(options.pop("env", None) or {})
    return subprocess.Popen(
        [PYTHON, "-u", "-c", _CHILD, str(INSIDE), " ".join(MODULES), mode, str(report), str(other)],
        pass_fds=(other, report),
        env=environment,
        **options,
    )


def run_once(
    source: str | bytes, *, stdin: bytes = b"", env: dict[str, str] | None = None, stdout: int | None = None
) -> Ran:
    """Run one program from start to end. `stdout` is a descriptor that gets its output instead."""
    with contextlib.closing(_Text()) as out, contextlib.closing(_Text()) as err:
        return _run_once(source, _memfd(stdin), env, out, err, stdout)


def _run_once(
    source: str | bytes, stdin: int, env: dict[str, str] | None, out: _Text, err: _Text, stdout: int | None
) -> Ran:
    code = _memfd(source.encode() if isinstance(source, str) else source)
    read, write = os.pipe()
    process = _start("once", code, write, env=env, stdin=stdin, stdout=stdout or out.fd, stderr=err.fd)
    for fd in (write, code, stdin):
        os.close(fd)
    decoder, blocks = wire.Decoder(), Blocks()
    while data := os.read(read, 1 << 16):
        blocks += decoder.feed(data)
    os.close(read)
    return Ran(process.wait(PATIENCE), out.read(), err.read(), blocks, {})


class Session:
    """An interpreter that runs cells."""

    def __init__(self, env: dict[str, str] | None = None) -> None:
        self._out, self._err = _Text(), _Text()
        self.control, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.control.settimeout(PATIENCE)
        self._report, write = os.pipe()
        os.set_blocking(self._report, False)
        options: dict[str, Any] = {
            "stdin": subprocess.DEVNULL,
            "stdout": self._out.fd,
            "stderr": self._err.fd,
        }
        self.process = _start("serve", its.fileno(), write, env=env, **options)
        its.close()
        os.close(write)
        self._decoder = wire.Decoder()
        self._count = 0

    def send(
        self,
        source: str | bytes,
        *,
        stdin: bytes | None = None,
        cwd: str | None = None,
        env: dict[str, str] | None = None,
    ) -> int:
        """Order a cell; return its number."""
        self._count += 1
        fds = [_memfd(source.encode() if isinstance(source, str) else source)]
        if stdin is not None:
            fds.append(_memfd(stdin))
        order = json.dumps({"cell": self._count, "cwd": cwd, "env": env}).encode()
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))
        self.control.sendmsg([order], [rights])
        for fd in fds:
            os.close(fd)
        return self._count

    def receive(self) -> Ran:
        """Wait until a cell is over."""
        blocks: Blocks = []
        poll = select.poll()
        for fd in (self.control.fileno(), self._report):
            poll.register(fd, select.POLLIN)
        while self.control.fileno() not in [fd for fd, _ in self._events(poll)]:
            blocks += self._read_report()
        message = self.control.recv(4096)
        if not message:
            raise EOFError
        blocks += self._read_report()
        done = json.loads(message)
        assert done.pop("done") == self._count
        return Ran(done.get("code", -1), self._out.read(), self._err.read(), blocks, done)

    def _events(self, poll: select.poll) -> list[tuple[int, int]]:
        events = poll.poll(PATIENCE * 1000)
        assert events, "neither a report nor an answer"
        return events

    def _read_report(self) -> Blocks:
        blocks = Blocks()
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self._report, 1 << 20):
                blocks += self._decoder.feed(data)
        return blocks

    def interrupt(self, pid: int) -> Ran:
        """Send SIGINT until the present cell is over: once may be in the moment before it begins to wait."""
        while not is_readable(self.control.fileno(), 0.02):
            os.kill(pid, signal.SIGINT)
        return self.receive()

    def cell(self, source: str | bytes, **options: Any) -> Ran:
        """Run a cell."""
        self.send(source, **options)
        return self.receive()

    def close(self) -> int:
        """Close our end; return the exit status."""
        self.control.close()
        return self.process.wait(PATIENCE)

    def let_go(self) -> None:
        """Close everything, when nobody looks at it any more."""
        self.close()
        os.close(self._report)
        self._out.close()
        self._err.close()

    def output(self) -> tuple[str, str]:
        """Return what it has written since the last cell."""
        return self._out.read(), self._err.read()


def is_readable(fd: int, seconds: float) -> bool:
    """Return whether there is something to read, whatever its number: `select` knows none above 1023."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


@contextlib.contextmanager
def session(**options: Any) -> Iterator[Session]:
    """Start a session and see that it ends."""
    made = Session(**options)
    try:
        yield made
    finally:
        made.let_go()
