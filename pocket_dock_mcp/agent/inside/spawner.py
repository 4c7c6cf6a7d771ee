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
import signal
import socket
from typing import NoReturn

from . import children, helpers
from .identity import User


def be_spawner(connection: socket.socket, user: User, ceilings: children.Ceilings) -> NoReturn:
    """Be the spawner. What is set here for good is inherited by every program."""
    # One more: while it spawns, the kernel counts the spawner itself among the user's processes.
    children.limit(ceilings, ceilings.processes + 1)
    os.umask(0o022)

    def start(order: helpers.Order) -> int:
        return _spawn(user, order)

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
    actions = [(os.POSIX_SPAWN_DUP2, order.ends[target], target) for target in (0, 1, 2)]
    try:
        pid = os.posix_spawnp(
            order.argv[0],
            order.argv,
            order.env,
            file_actions=actions,
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
    children.expose_to_oom_killer(pid)
    return pid
