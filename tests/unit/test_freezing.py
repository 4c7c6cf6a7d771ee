"""Copies of a session's interpreter, without an agent: what is said over their sockets, and what they are."""

from __future__ import annotations

import array
import contextlib
import errno
import os
import socket
from collections.abc import Iterator

import pytest

from tests.interpreters import PATIENCE, Session, is_readable, session


class Copy:
    """A copy of a session, and what it can be told."""

    def __init__(self, cells: Session) -> None:
        self.channel, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.channel.settimeout(PATIENCE)
        give(cells.control, b'{"keep": true}', [its.fileno()])
        its.close()

    def said(self, count: int = 2) -> set[bytes]:
        """Return what is said next."""
        return {self.channel.recv(64) for _ in range(count)}

    def restore(self) -> Restored:
        """Have it fork."""
        control, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        control.settimeout(PATIENCE)
        read, write = os.pipe()
        give(self.channel, b"fork", [write, write, write, its.fileno()])
        os.close(write)
        its.close()
        return Restored(read, control)


class Restored:
    """What was forked from a copy: where its output comes from, and what it is given cells through."""

    def __init__(self, output: int, control: socket.socket) -> None:
        self.output = output
        self.control = control

    def prints(self, source: str) -> str:
        """Run a cell and return what it has printed."""
        code = os.memfd_create("code")
        os.write(code, source.encode())
        give(self.control, b'{"cell": 1, "cwd": null, "env": null}', [code])
        os.close(code)
        assert self.control.recv(4096).startswith(b'{"done":1,"code":0,')
        return os.read(self.output, 4096).decode() if is_readable(self.output, 0) else ""

    def close(self) -> None:
        """End it, and see that nobody holds its output any more."""
        self.control.close()
        while os.read(self.output, 4096):
            pass
        os.close(self.output)


@pytest.fixture
def cells() -> Iterator[Session]:
    with session() as made:
        yield made


@contextlib.contextmanager
def copied(cells: Session) -> Iterator[Copy]:
    """Have a session copied, and the copy end."""
    copy = Copy(cells)
    try:
        yield copy
    finally:
        copy.channel.close()


def give(through: socket.socket, message: bytes, fds: list[int]) -> None:
    through.sendmsg([message], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))])


def test_a_copy_forks_as_often_as_it_is_asked_and_each_goes_on_alone(cells: Session) -> None:
    cells.cell("x = ['old']")
    with copied(cells) as copy:
        assert copy.said() == {b"ready", b"forked"}
        assert cells.cell("x.append('new'); x").result == "['old', 'new']"
        for _ in range(2):
            restored = copy.restore()
            assert copy.said() == {b"ready", b"forked"}
            assert restored.prints("x.append('mine'); print(x)") == "['old', 'mine']\n"
            assert restored.prints("print(x)") == "['old', 'mine']\n"
            restored.close()
        assert cells.cell("x").result == "['old', 'new']"


@pytest.mark.parametrize("fds", [0, 3])
def test_a_copy_that_gets_too_few_descriptors_says_so_and_lives(cells: Session, fds: int) -> None:
    with copied(cells) as copy:
        copy.said()
        give(copy.channel, b"fork", [0] * fds)

        assert copy.said(1) == {b"failed %d" % errno.EMFILE}
        restored = copy.restore()
        assert copy.said() == {b"ready", b"forked"}
        assert restored.prints("print('well')") == "well\n"
        restored.close()


def test_a_restored_one_does_not_need_its_copy(cells: Session) -> None:
    with copied(cells) as copy:
        copy.said()
        restored = copy.restore()
        copy.said()

    assert restored.prints("print('well')") == "well\n"
    restored.close()
    assert cells.cell("1 + 1").result == "2"


def test_nothing_of_the_live_session_is_held_open_by_a_copy(cells: Session) -> None:
    cells.cell("import os; r, w = os.pipe()")
    with copied(cells) as copy:
        copy.said()

        assert cells.cell("os.close(w); os.read(r, 1)").result == "b''"
        restored = copy.restore()
        assert copy.said() == {b"ready", b"forked"}
        assert restored.prints("print(os.read(r, 1))") == "b''\n"
        restored.close()


def test_a_session_with_threads_says_how_many_and_leaves_no_copy(cells: Session) -> None:
    cells.cell("import threading\nhold = threading.Event()\nthreading.Thread(target=hold.wait).start()")
    with copied(cells) as copy:
        assert copy.said() == {b"threads 1", b""}
    cells.cell("hold.set()")


def test_a_handler_that_raises_is_no_obstacle(cells: Session) -> None:
    cells.cell("import signal\ndef no(*a): raise RuntimeError\nsignal.signal(signal.SIGCHLD, no)")
    with copied(cells) as copy:
        assert copy.said() == {b"ready", b"forked"}
    assert cells.cell("1 + 1").result == "2"


def test_an_event_loop_and_random_numbers_go_on_in_a_copy(cells: Session) -> None:
    cells.cell("import asyncio, random\nrandom.seed(3)\nawait asyncio.sleep(0)")
    with copied(cells) as copy:
        copy.said()
        drawn = cells.cell("await asyncio.sleep(0, random.random())").result
        restored = copy.restore()
        copy.said()
        assert restored.prints("print(await asyncio.sleep(0, random.random()))") == f"{drawn}\n"
        restored.close()
