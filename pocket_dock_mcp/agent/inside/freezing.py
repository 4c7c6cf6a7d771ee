"""A checkpoint, from within: a fork of a session's interpreter that waits, and forks again to be restored.

Nobody here is the parent of such a fork: the container's first process adopts it, so that a program that
waits for its children does not meet it, and the agent has its end from the kernel. User code has been at work
in this process, and may have replaced what is in `os`.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # without the enums of `signal`, which touch a lot of memory
import _thread
import array
import errno
import posix
import socket
import sys
from stat import S_ISCHR, S_ISDIR, S_ISREG
from time import monotonic, sleep
from typing import Any, Callable, List, Optional

from .wire import FAILED, FORKED, READY, THREADS

_GIVEN = 4
"""Descriptors that a restored session gets: standard output and error, its report, its control socket."""
_PATIENCE = 0.05
"""Seconds in which threads that were told to end before a fork are gone."""

Adopt = Callable[[List[int]], None]


def keep(channel: socket.socket, adopt: Adopt) -> None:
    """Leave a copy of this process at the other end of `channel`, and say there whether that went well.

    Returns in this process, and in every process that is restored: there, `adopt` has been called with the
    new descriptors.
    """
    # A handler of the user's could do anything here, and nobody is to wake the copy.
    mask = _signal.pthread_sigmask(_signal.SIG_BLOCK, _signal.valid_signals())
    try:
        said = _keep(channel, adopt)
        if said is not None:
            channel.send(said)
    except OSError:
        # The agent does not wait any longer.
        pass
    finally:
        channel.close()
        _unblock(mask)


def _keep(channel: socket.socket, adopt: Adopt) -> Optional[bytes]:
    """Return what is to be said of it; nothing in a process that is restored."""
    threads = _thread._count()
    if threads:
        return THREADS % threads
    numbers = _random_numbers()
    try:
        if not _fork_off():
            return _verdict()
    except OSError as error:
        return FAILED % (error.errno or errno.EAGAIN)
    _be_kept(channel, adopt)
    _restore_random_numbers(numbers)
    return None


def _unblock(mask: Any) -> None:
    try:
        _signal.pthread_sigmask(_signal.SIG_SETMASK, mask)
    except BaseException:
        # Out of a handler of the user's.
        pass


def _fork_off() -> bool:
    """Fork a process that is not this one's child; say whether this is it. Raises OSError."""
    pid = posix.fork()
    if pid == 0:
        status = errno.EAGAIN
        try:
            if posix.fork() == 0:
                return True
            status = 0
        except OSError as error:
            status = error.errno or status
        except BaseException:
            pass
        posix._exit(status & 0xFF)
    status = 0
    try:
        _, status = posix.waitpid(pid, 0)
    except ChildProcessError:
        # The program ignores SIGCHLD; the kernel has waited until the end all the same.
        pass
    if status:
        raise OSError(posix.WEXITSTATUS(status) if posix.WIFEXITED(status) else errno.ECHILD, "fork")
    return False


def _verdict() -> bytes:
    """Say whether the copy is whole: it has this thread and no other.

    Those of libraries that know of forks (OpenBLAS) have ended themselves for it, and begin again when they
    are needed. So they are counted after it.
    """
    deadline = monotonic() + _PATIENCE
    while True:
        others = len(posix.listdir("/proc/self/task")) - 1
        if not others or monotonic() > deadline:
            return THREADS % others if others else FORKED
        sleep(0.001)


# -- in the copy --------------------------------------------------------------------------------------


def _be_kept(channel: socket.socket, adopt: Adopt) -> None:
    """Wait, and fork for each order that comes. Returns in what was forked; the copy itself never does."""
    try:
        posix.setsid()
        _cut_off(channel.fileno())
        channel.send(READY)
        while True:
            fds: List[int] = []
            try:
                fds = _order(channel)
                if _fork_off():
                    break
                channel.send(FORKED)
            except OSError as error:
                channel.send(FAILED % (error.errno or errno.EAGAIN))
            for fd in fds:
                posix.close(fd)
        posix.setsid()
        adopt(fds)
        channel.send(READY)
    except BaseException:
        # Nothing that is left of it could be believed.
        posix._exit(1)


def _order(channel: socket.socket) -> List[int]:
    """Wait for an order and return its descriptors. Ends this process when nobody can give one any more."""
    fds = array.array("i")
    space = socket.CMSG_SPACE(_GIVEN * fds.itemsize)
    message, ancillary, _, _ = channel.recvmsg(64, space, socket.MSG_CMSG_CLOEXEC)
    if not message:
        posix._exit(0)
    for _, _, data in ancillary:
        fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    if len(fds) != _GIVEN:
        raise OSError(errno.EMFILE, "no descriptor left")
    return fds.tolist()


def _cut_off(channel: int) -> None:
    """Let go of what the live session speaks through, its own and the user's: pipes, sockets and their like.

    Whoever is at the other end would wait for an end that never comes. Files stay, and share their position.
    """
    null = posix.open("/dev/null", posix.O_RDWR | posix.O_CLOEXEC)
    for name in posix.listdir("/proc/self/fd"):
        fd = int(name)
        try:
            mode = posix.fstat(fd).st_mode
            if fd != channel and not (S_ISREG(mode) or S_ISDIR(mode) or S_ISCHR(mode)):
                posix.dup2(null, fd, posix.get_inheritable(fd))
        except OSError:
            # The one that the list was read through.
            pass
    posix.close(null)


# -- what a fork changes ------------------------------------------------------------------------------


def reseed() -> None:
    """Let this interpreter's random numbers be its own. `random` sees to that itself when it is forked."""
    random: Any = sys.modules.get("numpy.random")
    if random is not None:
        try:
            random.seed(memoryview(posix.urandom(32)).cast("I").tolist())
        except Exception:
            # Half imported.
            pass


def _random_numbers() -> Any:
    """Return the state of `random`, which begins anew in each fork."""
    module: Any = sys.modules.get("random")
    try:
        return None if module is None else module.getstate()
    except Exception:
        # Half imported, or replaced.
        return None


def _restore_random_numbers(state: Any) -> None:
    module: Any = sys.modules.get("random")
    try:
        if state is not None:
            module.setstate(state)
    except Exception:
        pass
