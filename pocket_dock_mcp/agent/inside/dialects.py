"""How the agent speaks with the process of a session: with an interpreter of ours, or with a shell."""

from __future__ import annotations

import array
import errno
import json
import os
import shlex
import socket
from typing import TYPE_CHECKING, Dict, List, NamedTuple, Optional, Protocol, Type

from . import children
from .identity import User

if TYPE_CHECKING:
    from .cells import Cell


REPORT_FD, CONTROL_FD = 61, 99
"""Where programs of ours that are executed find what they report and speak through."""


class Done(NamedTuple):
    """What a session says of a cell that is over."""

    code: int
    cpu: float = 0.0
    peak: int = 0
    failure: Optional[int] = None
    """The errno with which its working directory could not be entered."""


class Dialect(Protocol):
    """One way of speaking. A session has one of its own."""

    socket_type: int
    argv: Optional[List[str]]
    """The program; None for the interpreter that the zygote forks."""
    targets: List[int]
    """Where the program finds its end of the control socket."""
    reports: bool
    """Whether it has a stream for what it says of its cells."""
    streams_input: bool
    """Whether a cell can begin before all its standard input is there."""
    interruptible: bool
    """Whether SIGINT ends a cell and not the session."""
    count: int
    """How many cells it has ordered, where they are counted."""

    def send(self, control: socket.socket, cell: Cell, user: User) -> None:
        """Order a cell. Raises OSError when the session does not listen."""

    def receive(self, control: socket.socket) -> Optional[Done]:
        """Return what has been said of a cell; None if it is not all there yet. Raises for nonsense."""


class PythonDialect:
    """One message per cell with its source as a descriptor; one message back. See `interpreter.serve`."""

    socket_type: int = socket.SOCK_SEQPACKET
    reports = True
    streams_input = True
    interruptible = True

    def __init__(self) -> None:
        self.argv: Optional[List[str]] = None
        self.targets: List[int] = []
        self.count = 0

    def send(self, control: socket.socket, cell: Cell, _user: User) -> None:
        self.count += 1
        order = {"cell": self.count, "cwd": cell.start.cwd or None, "env": cell.start.env or None}
        fds = [children.memfd(cell.script)]
        if cell.start.stdin:
            fds.append(cell.open_input())
        try:
            rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))
            control.sendmsg([json.dumps(order).encode("ascii")], [rights])
        finally:
            for fd in fds:
                os.close(fd)

    def receive(self, control: socket.socket) -> Optional[Done]:
        message = control.recv(4096)
        if not message:
            raise OSError("closed")
        said = json.loads(message)
        if "failed" in said:
            return Done(0, failure=int(said["errno"]))
        return Done(int(said["code"]) & 0xFF, float(said["cpu"]), int(said["peak"]))


_BASH = """
exec 97>&1 98>&2 2>/dev/null
while IFS= builtin read -r -d "" -u 99 __c && IFS= builtin read -r -d "" -u 99 __i \
  && IFS= builtin read -r -d "" -u 99 __d; do
  if [[ -n $__d ]] && ! builtin cd -- "$__d" 2>/dev/null; then builtin printf 'cwd\\0' >&99; continue; fi
  __s=0
  for __x in 1; do builtin eval "$__c" 0<"$__i" 1>&97 2>&98 97>&- 98>&- 99>&-; __s=$?; done
  builtin printf '%s\\0' "$__s" >&99
done
"""
_SH = """
exec 7>&1 8>&2
while read -r __n <&9; do
  __c=
  while [ "$__n" -gt 0 ]; do
    IFS= read -r __l <&9; __n=$((__n - 1)); __c="$__c$__l
"
  done
  IFS= read -r __i <&9; IFS= read -r __d <&9
  if [ -n "$__d" ] && ! cd -- "$__d" 2>/dev/null; then printf 'cwd\\0' >&9; continue; fi
  command eval "$__c" 0<"$__i" 1>&7 2>&8 7>&- 8>&- 9>&-
  printf '%s\\0' "$?" >&9
done
"""


class ShellDialect:
    """Command, input file and directory to a loop in the shell; the exit status back.

    The loop keeps its own copies of standard output and error, so that a command's ``exec >file`` ends with
    the command, and gives no command the descriptors that it speaks through. A command's ``break`` and
    ``continue`` end a loop of its own, and ``set -x`` shows nothing of ours.
    """

    socket_type: int = socket.SOCK_STREAM
    reports = False
    streams_input = False
    interruptible = False
    count = 0

    def __init__(self) -> None:
        self._is_bash = os.path.exists("/bin/bash")
        self.argv: Optional[List[str]] = (
            ["/bin/bash", "-c", _BASH, "bash"] if self._is_bash else ["/bin/sh", "-c", _SH, "sh"]
        )
        self.targets = [CONTROL_FD if self._is_bash else 9]
        self._answers = Answers()
        self._input: Optional[str] = None

    def send(self, control: socket.socket, cell: Cell, user: User) -> None:
        self._input = _input_file(user, cell.stdin) if cell.stdin else None
        command = _exports(cell.start.env) + cell.script
        source, directory = os.fsencode(self._input or "/dev/null"), os.fsencode(cell.start.cwd)
        if self._is_bash:
            message = b"%s\0%s\0%s\0" % (command, source, directory)
        else:
            message = b"%d\n%s\n%s\n%s\n" % (command.count(b"\n") + 1, command, source, directory)
        _send_whole(control, message)

    def receive(self, control: socket.socket) -> Optional[Done]:
        done = self._answers.receive(control)
        if done is not None:
            _remove(self._input)
        return done


class Answers:
    """What a loop answers to its cells: an exit status or ``cwd``, each with a NUL behind it."""

    def __init__(self) -> None:
        self._said = b""

    def receive(self, control: socket.socket) -> Optional[Done]:
        """Return the next one; None if it is not all there yet. Raises ValueError for nonsense."""
        data = control.recv(4096)
        if not data:
            raise OSError("closed")
        word, end, rest = (self._said + data).partition(b"\0")
        self._said = rest if end else word
        if not end:
            return None
        return Done(0, failure=errno.ENOENT) if word == b"cwd" else Done(int(word) & 0xFF)


_NODE_COMMON = """
const fs = require('fs'), vm = require('vm'), util = require('util');
const say = (text) => {
  const head = Buffer.from(JSON.stringify({what: 'result', kind: 'repr', text: text.slice(0, 8192)}));
  const sizes = Buffer.alloc(8); sizes.writeUInt32BE(head.length, 0);
  fs.writeSync(61, Buffer.concat([sizes, head]));
};
const show = async (run) => {
  try {
    const value = await run();
    if (value !== undefined) say(typeof value === 'string' ? JSON.stringify(value) : util.inspect(value));
    return 0;
  } catch (error) {
    let text = error instanceof Error && error.stack ? error.stack : 'Uncaught ' + util.inspect(error);
    fs.writeSync(2, text.replace(/\\n    at (Script|Object)\\.runInThisContext[^]*/, '') + '\\n');
    return 1;
  }
};
"""
_NODE_ONCE = (
    _NODE_COMMON
    + """
const source = process.argv[1]; process.argv.length = 1;
show(() => vm.runInThisContext(source, {filename: '<code>'})).then((code) => {
  if (code) process.exitCode = code;
});
"""
)
_NODE = (
    _NODE_COMMON
    + """
const control = new (require('net').Socket)({fd: 99, readable: true, writable: true});
let said = Buffer.alloc(0), busy = Promise.resolve(), count = 0;
const cell = async (source, input, directory) => {
  if (directory) {
    try { process.chdir(directory); } catch { return 'cwd'; }
  }
  fs.closeSync(0); fs.openSync(input);
  // A session declares the same names again and again.
  const text = source.replace(/(^|;[ \\t]*)(const|let)(?=\\s)/gm, '$1var');
  return String(await show(() => vm.runInThisContext(text, {filename: `<cell ${++count}>`})));
};
control.on('data', (data) => {
  said = Buffer.concat([said, data]);
  const parts = said.toString().split('\\0');
  if (parts.length < 4) return;
  said = Buffer.alloc(0);
  busy = busy.then(() => cell(...parts)).then((code) => control.write(code + '\\0'));
});
control.on('end', () => process.exit(0));
process.on('uncaughtException', (error) => fs.writeSync(2, util.inspect(error) + '\\n'));
process.argv.length = 1;
"""
)


def node_once(code: bytes) -> List[str]:
    """Return the command that runs JavaScript from start to end and reports its last value on `REPORT_FD`."""
    return ["node", "-e", _NODE_ONCE, "--", os.fsdecode(code)]


class NodeDialect:
    """Code, input file and directory to a loop in node; the exit status back, and values as reports."""

    socket_type: int = socket.SOCK_STREAM
    reports = True
    streams_input = False
    interruptible = False
    count = 0

    def __init__(self) -> None:
        self.argv: Optional[List[str]] = ["node", "-e", _NODE]
        self.targets = [REPORT_FD, CONTROL_FD]
        self._answers = Answers()
        self._input: Optional[str] = None

    def send(self, control: socket.socket, cell: Cell, user: User) -> None:
        self._input = _input_file(user, cell.stdin) if cell.stdin else None
        parts = (cell.script, os.fsencode(self._input or "/dev/null"), os.fsencode(cell.start.cwd), b"")
        _send_whole(control, b"\0".join(parts))

    def receive(self, control: socket.socket) -> Optional[Done]:
        done = self._answers.receive(control)
        if done is not None:
            _remove(self._input)
        return done


def _send_whole(control: socket.socket, message: bytes) -> None:
    """Send without waiting for a process that may be stopped: all of it fits, or the session is broken."""
    control.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * len(message))
    if control.send(message) < len(message):
        raise BlockingIOError


def _remove(path: Optional[str]) -> None:
    if path is not None:
        try:
            os.unlink(path)
        except OSError:
            # The user has removed it, or what it is in.
            pass


def _exports(env: Dict[str, str]) -> bytes:
    return b"".join(
        b"export %s\n" % shlex.quote("%s=%s" % (name, value)).encode("utf-8", "surrogateescape")
        for name, value in env.items()
    )


def _input_file(user: User, data: bytes) -> str:
    """Write a command's standard input where the shell can read it."""
    path = "/tmp/.pocket-dock-%s.tmp" % os.urandom(6).hex()
    with user:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with open(fd, "wb") as file:
        file.write(data)
    return path


DIALECTS: Dict[str, Type[Dialect]] = {
    "python": PythonDialect,
    "shell": ShellDialect,
    "javascript": NodeDialect,
}
