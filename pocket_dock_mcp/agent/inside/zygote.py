"""The helper that runs Python: a warm interpreter that forks a child for each run.

A fork costs less than an interpreter's start. It imports from the image only, never from what the user can
write. Its children become the user before they see user code, run it as ``__main__``, and end as an
interpreter ends.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # without the enums of `signal`, which touch a lot of memory
import gc
import os
import signal
import socket
import sys
import types
from typing import Dict, NoReturn

from . import children, helpers
from .identity import User

FILE_NAME = "<code>"
"""What tracebacks call the user's source."""


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
    import linecache  # noqa: F401  # every traceback wants it
    import traceback  # noqa: F401

    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    gc.collect()
    gc.freeze()


def _be_program(user: User, ceilings: children.Ceilings, order: helpers.Order) -> NoReturn:
    """In the zygote's child: become the user and run the script as ``__main__``. Never returns.

    Up to there it is written to touch little memory: each page touched is a page copied.
    """
    status = 1
    try:
        signal.set_wakeup_fd(-1)
        _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)
        os.setsid()
        children.limit(ceilings, ceilings.processes)
        children.expose_to_oom_killer(os.getpid())
        user.become(order.marker)
        os.umask(0o022)
        for target in (0, 1, 2):
            os.dup2(order.ends[target], target)
        _enter(order)
        os.closerange(helpers.FIRST_UNUSED, max(order.ends) + 64)
        _dress(order.env)
        status = _run_main(order.script)
    except SystemExit as stop:
        # Out of the user's own atexit functions.
        status = stop.code if isinstance(stop.code, int) else 1
    finally:
        os._exit(status & 0xFF)


def _enter(order: helpers.Order) -> None:
    """Go to the run's directory, or say why not and end."""
    try:
        os.chdir(order.cwd)
    except OSError as error:
        os.write(order.ends[3], b"cwd %d" % (error.errno or 0))
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
