"""The helper that executes programs, by ``posix_spawn``: that shares memory until the program is executed,
and so costs half of what a fork costs.

Nothing can be done in the child, so the spawner puts on what the program is to have (uid, group, marker,
directory), spawns, and takes it off again; its saved uid stays 0 for that. For this moment a process of the
user may signal it, as it may any other run's processes. The agent wakes it if it was stopped, and starts
another if it was killed; nothing else can be done to it, because its saved uid is not the user's.
"""

from __future__ import annotations

import errno
import os
import resource
import signal
import socket
import time
from typing import Any, List, NoReturn, Tuple

from . import children, helpers
from .identity import User

LIMIT_TRIES = 100
LIMIT_PAUSE = 0.0005


def be_spawner(connection: socket.socket, user: User, ceilings: children.Ceilings) -> NoReturn:
    """Be the spawner. What is set here for good is inherited by every program."""
    # One more: while it spawns, the kernel counts the spawner itself among the user's processes.
    children.limit(ceilings, ceilings.processes + 1)
    os.umask(0o022)

    exposure = children.Exposure()

    def start(order: helpers.Order) -> int:
        exposure.raise_it()
        try:
            return _spawn(user, order)
        finally:
            exposure.take_back()

    helpers.serve(connection, start)


def _spawn(user: User, order: helpers.Order) -> int:
    os.setgroups([order.marker])
    os.setresgid(user.uid, user.uid, 0)
    os.setresuid(user.uid, user.uid, 0)
    try:
        _enter(order.cwd)
        return _execute(order)
    finally:
        os.setresuid(0, 0, 0)
        os.setresgid(0, 0, 0)
        os.setgroups([])


def _enter(directory: str) -> None:
    try:
        os.chdir(directory)
    except OSError as error:
        raise helpers.NotStartedError("cwd", error) from None


def _execute(order: helpers.Order) -> int:
    try:
        pid = os.posix_spawnp(
            order.argv[0],
            order.argv,
            order.env,
            file_actions=_actions(order),
            setsid=True,
            setsigdef=[signal.SIGPIPE, signal.SIGXFSZ],
        )
    except ValueError:
        # A NUL or an equals sign where there can be none.
        raise helpers.NotStartedError("exec", OSError(errno.EINVAL, "argument")) from None
    except OSError as error:
        # The error of a fork that failed and of a program that is not there look alike, but for this one.
        stage = "fork" if isinstance(error, BlockingIOError) else "exec"
        raise helpers.NotStartedError(stage, error) from None
    if order.processes < children.processes_limit() - 1:
        _limit_processes(pid, order.processes)
    return pid


def _limit_processes(pid: int, most: int) -> None:
    """Limit a program that has just begun; while we wear its uid, else the kernel would not let us.

    It has its final identity a moment after posix_spawn returns, and is not ours to limit before.
    """
    for _ in range(LIMIT_TRIES):
        try:
            resource.prlimit(pid, resource.RLIMIT_NPROC, (most, most))
        except PermissionError:
            time.sleep(LIMIT_PAUSE)
        except ProcessLookupError:
            return
        else:
            return
    os.kill(pid, signal.SIGKILL)


def _actions(order: helpers.Order) -> List[Tuple[Any, ...]]:
    """Return what the program's descriptors are made of."""
    actions: List[Tuple[Any, ...]]
    if order.tty is None:
        actions = [(os.POSIX_SPAWN_DUP2, order.ends[target], target) for target in (0, 1, 2)]
    else:
        # The first terminal that a new session opens becomes the one that controls it.
        actions = [(os.POSIX_SPAWN_OPEN, 0, order.tty, os.O_RDWR, 0)]
        actions += [(os.POSIX_SPAWN_DUP2, 0, target) for target in (1, 2)]
    return actions + [(os.POSIX_SPAWN_DUP2, fd, target) for fd, target in zip(order.ends[3:], order.targets)]
