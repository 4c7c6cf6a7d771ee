"""What the programs of the contract tests do: told to the fake here, and proved by the real engines there.

Each constant is a shell command or a Python source that means something in a real container. `teach` lets
a `FakeEngine` do the same, so that one body of tests runs over both.
"""

from __future__ import annotations

import hashlib

import anyio

from pocket_dock_mcp.models import FileType
from pocket_dock_mcp.outside import PROXY_PORT
from pocket_dock_mcp.testing import FakeEngine, FakeSocket, Process, Program

BOTH_STREAMS = "echo out; echo err >&2"
EARLY_THEN_HANG = "echo early; sleep 600"
SHOW_GREETING = 'echo "$GREETING"'
SHOW_INIT = 'echo "$FROM_INIT"'
SHOW_HOME = 'echo "$HOME"'
SHOW_USER = "id -u"
SHOW_DIRECTORY = "pwd"
DRAIN_THEN_SPEAK = "cat >/dev/null; echo done"

DIE_OF_KILL = "kill -9 $$"
DIE_OF_TERM = "kill -15 $$"
EXIT_AS_IF_MISSING = "exit 127"
DAEMONS_THEN_HANG = "setsid sh -c 'sleep 601 & exec sleep 602' & echo started; sleep 600"

FLOOD_BYTES = 8_000_000
FLOOD = f"head -c {FLOOD_BYTES} /dev/zero"
DELUGE = "cat /dev/zero"

STEP = "echo step-$((40 + 2))"
FAILING_STEP = "echo reason-$((40 + 2)); exit 3"

SOURCE = "print(6 * 7)"
FAILING_SOURCE = "import sys; sys.exit('no')"
HANGING_SOURCE = "import time; time.sleep(600)"
LONG_SOURCE = f"x = '''{'.' * 700_000}'''\nprint(len(x))"

ODD_FILES = """
mkdir odd odd/empty odd/full && cd odd && echo content > file && touch full/a full/b full/c &&
ln -s loop loop && ln -s file link && ln -s missing dangling && ln -s /proc/self trap && mkfifo fifo &&
touch secret && chmod 000 secret && echo ok
"""
ODD_NAMES = (" ", "a\nb", "\udcff\udcfe", "é", '"', "\\", "-n")
MAKE_ODD_NAMES = """
mkdir names && cd names && touch ' ' 'a
b' "$(printf '\\377\\376')" 'é' '"' '\\' ./-n && echo ok
"""
SEAL = "chmod 555 sealed"
MANY = 4000
MAKE_MANY = f"import os; os.mkdir('many'); [open(f'many/{{n:0200}}', 'x').close() for n in range({MANY})]"

PORT = 8000
SERVER = f"""
import socket, struct, sys, threading

def serve(client):
    lines = client.makefile('rb')
    word, _, rest = lines.readline().decode().strip().partition(' ')
    if word == 'echo':
        while data := lines.read1(65536):
            client.sendall(data)
    elif word == 'give':
        left = int(rest)
        while left:
            left -= client.send(b'x' * min(left, 65536))
    elif word == 'count':
        total = 0
        while data := lines.read1(65536):
            total += len(data)
        client.sendall(b'%d' % total)
    elif word == 'break':
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
    elif word == 'stop':
        client.shutdown(socket.SHUT_WR)
        print('heard', len(lines.read()), flush=True)
    elif word == 'hang':
        print('hanging', flush=True)
        threading.Event().wait(600)
    lines.close()
    client.close()

server = socket.create_server(('127.0.0.1', {PORT}), backlog=256)
print('listening', flush=True)
while True:
    client, _ = server.accept()
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    threading.Thread(target=serve, args=(client,), daemon=True).start()
"""

CALLER = f"""
import hashlib, os, socket
with socket.socket() as out:
    try:
        out.connect(('127.0.0.1', {PROXY_PORT}))
        out.sendall(os.environ['CALL'].encode() + b'\\n')
        left = int(os.environ.get('MORE', '0'))
        while left:
            left -= out.send(b'x' * min(left, 65536))
        if os.environ['CALL'] != 'hang':
            out.shutdown(socket.SHUT_WR)
        total, digest = 0, hashlib.sha256()
        while data := out.recv(65536):
            if not total:
                print(data[:100].decode(), flush=True)
            total += len(data)
            digest.update(data)
        print('in all', total, digest.hexdigest())
    except OSError as error:
        print('cut off', flush=True)
"""


def teach(fake: FakeEngine) -> None:
    """Let a fake do all of the above."""
    fake.script(BOTH_STREAMS, stdout="out\n", stderr="err\n")
    fake.script(EARLY_THEN_HANG, stdout="early\n", hang=True)
    fake.program(SHOW_GREETING, _show("GREETING"))
    fake.program(SHOW_INIT, _show("FROM_INIT"))
    fake.program(SHOW_HOME, _show("HOME"))
    fake.program(SHOW_USER, _show_user)
    fake.program(SHOW_DIRECTORY, _show_directory)
    fake.program(DRAIN_THEN_SPEAK, _drain_then_speak)
    fake.script(DIE_OF_KILL, signal=9)
    fake.script(DIE_OF_TERM, signal=15)
    fake.script(DAEMONS_THEN_HANG, stdout="started\n", hang=True)
    for number in range(10):
        fake.script(f"echo {number}; exit {number}", stdout=f"{number}\n", exit_code=number)
    fake.script(FLOOD, stdout=bytes(FLOOD_BYTES))
    fake.script(DELUGE, stdout=bytes(8 * FLOOD_BYTES), hang=True)
    fake.script(STEP, stdout="step-42\n")
    fake.script(FAILING_STEP, stdout="reason-42\n", exit_code=3)
    fake.script(SOURCE, stdout="42\n")
    fake.script(FAILING_SOURCE, stderr="no\n", exit_code=1)
    fake.script(HANGING_SOURCE, hang=True)
    fake.script(LONG_SOURCE, stdout="700000\n")
    fake.script(ODD_FILES, stdout="ok\n", effect=_make_odd_files)
    fake.script(MAKE_ODD_NAMES, stdout="ok\n", effect=_make_odd_names)
    fake.script(SEAL, effect=_seal)
    fake.script(MAKE_MANY, effect=_make_many)
    fake.program(SERVER, _serve)
    fake.program(CALLER, _call)


async def _serve(process: Process) -> int:
    async def talk(client: FakeSocket) -> None:
        data = b""
        while b"\n" not in data:
            data += await client.receive()
        line, _, data = data.partition(b"\n")
        await _TALKS[line.split()[0]](process, client, line, data)

    process.container.listen(PORT, talk)
    await process.write(b"listening\n")
    await anyio.sleep_forever()
    return 0


async def _call(process: Process) -> int:
    assert process.container.way_out is not None
    total, digest = 0, hashlib.sha256()

    async def talk(out: FakeSocket) -> None:
        nonlocal total
        await out.send(process.env["CALL"].encode() + b"\n")
        await out.send(b"x" * int(process.env.get("MORE", "0")))
        if process.env["CALL"] != "hang":
            await out.end()
        while data := await out.receive():
            if not total:
                await process.write(data[:100] + b"\n")
            total += len(data)
            digest.update(data)

    try:
        await process.container.way_out.connect(talk)
    except ConnectionResetError:
        await process.write(b"cut off\n")
    else:
        await process.write(f"in all {total} {digest.hexdigest()}\n".encode())
    return 0


async def _echo(_process: Process, client: FakeSocket, _line: bytes, data: bytes) -> None:
    await client.send(data)
    while data := await client.receive():
        await client.send(data)


async def _give(_process: Process, client: FakeSocket, line: bytes, _data: bytes) -> None:
    await client.send(bytes(int(line.split()[1])))


async def _count(_process: Process, client: FakeSocket, _line: bytes, data: bytes) -> None:
    total = len(data)
    while data := await client.receive():
        total += len(data)
    await client.send(b"%d" % total)


async def _break(_process: Process, _client: FakeSocket, _line: bytes, _data: bytes) -> None:
    raise ConnectionResetError


async def _stop(process: Process, client: FakeSocket, _line: bytes, data: bytes) -> None:
    await client.end()
    total = len(data)
    while data := await client.receive():
        total += len(data)
    await process.write(b"heard %d\n" % total)


async def _hang(process: Process, _client: FakeSocket, _line: bytes, _data: bytes) -> None:
    await process.write(b"hanging\n")
    await anyio.sleep_forever()


_TALKS = {b"echo": _echo, b"give": _give, b"count": _count, b"break": _break, b"stop": _stop, b"hang": _hang}


def _show(variable: str) -> Program:
    async def show(process: Process) -> int:
        await process.write(f"{process.env.get(variable, '')}\n".encode())
        return 0

    return show


async def _show_user(process: Process) -> int:
    await process.write(f"{_uid(process)}\n".encode())
    return 0


async def _show_directory(process: Process) -> int:
    await process.write(f"{process.cwd}\n".encode())
    return 0


async def _drain_then_speak(process: Process) -> int:
    while await process.read():
        pass
    await process.write(b"done\n")
    return 0


def _uid(process: Process) -> int:
    return int(process.user.partition(":")[0])


def _make_odd_files(process: Process) -> None:
    def make(name: str, kind: FileType, data: bytes = b"", mode: int = 0o644) -> None:
        path = f"{process.cwd}/odd/{name}"
        process.container.files.make(path, kind, data=data, mode=mode, uid=_uid(process))

    make("empty", "directory", mode=0o755)
    make("file", "file", b"content\n")
    for name in ("a", "b", "c"):
        make(f"full/{name}", "file")
    for name, target in (
        ("loop", b"loop"),
        ("link", b"file"),
        ("dangling", b"missing"),
        ("trap", b"/proc/self"),
    ):
        make(name, "symlink", target, 0o777)
    make("fifo", "fifo")
    make("secret", "file", mode=0)


def _make_odd_names(process: Process) -> None:
    for name in ODD_NAMES:
        process.container.files.write(f"{process.cwd}/names/{name}", b"", uid=_uid(process))


def _seal(process: Process) -> None:
    process.container.files.walk(f"{process.cwd}/sealed", _uid(process)).existing().mode = 0o555


def _make_many(process: Process) -> None:
    for number in range(MANY):
        process.container.files.write(f"{process.cwd}/many/{number:0200}", b"", uid=_uid(process))
