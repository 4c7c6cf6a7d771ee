"""The helper that runs Python: a warm interpreter that forks a child for each run.

A fork costs less than an interpreter's start. It imports from the image only, never from what the user can
write. Its children become the user before they see user code, run it as ``__main__``, and end as an
interpreter ends.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # without the enums of `signal`, which touch a lot of memory
import gc
import importlib
import os
import signal
import socket
import sys
import types
from typing import Dict, List, NoReturn

from . import children, helpers, interpreter, wire
from .identity import User

LOADER = "AgentLoader"
"""What loads our own modules; see ``agent/bundle.py``."""
PRELOAD = "/usr/share/pocket-dock/preload"
"""Names of modules, one a line. Only root's word counts: what it names is imported with root's uid."""


def be_zygote(connection: socket.socket, user: User, ceilings: children.Ceilings) -> NoReturn:
    """Be the zygote. Its forked children leave from here too, as the user's programs."""
    _warm_up()

    def start(order: helpers.Order) -> int:
        try:
            pid = os.fork()
        except OSError as error:
            raise helpers.NotStartedError("fork", error) from None
        if pid == 0:
            _be_program(user, ceilings, order)
        return pid

    helpers.serve(connection, start)


def _warm_up() -> None:
    """Make this process what a fresh interpreter is: packages found, signals as they are there."""
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
    _preload()
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    gc.collect()
    gc.freeze()


def _preload() -> None:
    """Import what the image says that programs will want. A child then has it at no cost."""
    try:
        with open(PRELOAD, encoding="utf-8") as file:
            if os.fstat(file.fileno()).st_uid != 0:
                return
            names = [line.partition("#")[0].strip() for line in file]
    except OSError:
        return
    for name in filter(None, names):
        try:
            importlib.import_module(name)
        except Exception:
            # The program that wants it will be told why not.
            pass


def _be_program(user: User, ceilings: children.Ceilings, order: helpers.Order) -> NoReturn:
    """In the zygote's child: become the user and run the script as ``__main__``. Never returns.

    Up to there it is written to touch little memory: each page touched is a page copied.
    """
    status = 1
    try:
        signal.set_wakeup_fd(-1)
        _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)
        os.setsid()
        children.limit(ceilings, order.processes)
        children.Exposure().raise_it()
        user.become(order.marker)
        os.umask(0o022)
        for target in (0, 1, 2):
            os.dup2(order.ends[target], target)
        report = order.ends[3]
        _keep_only(order.ends[3:])
        _enter(order, report)
        _dress(order.env)
        if order.serve:
            status = interpreter.serve(socket.socket(fileno=order.ends[4]), report)
        else:
            status = interpreter.run_once(order.script, report)
    except SystemExit as stop:
        # Out of the user's own atexit functions.
        status = stop.code if isinstance(stop.code, int) else 1
    finally:
        os._exit(status & 0xFF)


def _keep_only(fds: List[int]) -> None:
    """Close all but the first three descriptors and these."""
    low = helpers.FIRST_UNUSED
    for fd in sorted(fds):
        os.closerange(low, fd)
        low = fd + 1
    os.closerange(low, low + 64)


def _enter(order: helpers.Order, report: int) -> None:
    """Go to the run's directory, or say why not and end."""
    try:
        os.chdir(order.cwd)
    except OSError as error:
        os.write(report, wire.encode({"what": "failed", "stage": "cwd", "errno": error.errno or 0}))
        os._exit(127)


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
    forget_agent()


def forget_agent() -> None:
    """Take our modules out of the program's sight."""
    for name in [name for name in sys.modules if name == "agent" or name.startswith("agent.")]:
        del sys.modules[name]
    sys.meta_path[:] = [finder for finder in sys.meta_path if getattr(finder, "__name__", "") != LOADER]
