"""A program inside, on the terminal that we run in: raw, of the same size, and as before when it is over."""

from __future__ import annotations

import asyncio
import os
import signal
import termios
import threading
import tty
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress

import anyio

from pocket_dock_mcp.async_.descriptors import Reader, Writer
from pocket_dock_mcp.async_.passing import Outlet, end, exit_status, feed
from pocket_dock_mcp.beside import beside
from pocket_dock_mcp.container.core import LiveContainer
from pocket_dock_mcp.container.run import AsyncRun
from pocket_dock_mcp.engine.base import STDERR, STDOUT
from pocket_dock_mcp.errors import InvalidArgumentError, PocketDockError
from pocket_dock_mcp.models import RunResult

DEFAULT_SIZE = (24, 80)
DEFAULT_TERM = "xterm-256color"
SHELL = "if command -v bash >/dev/null 2>&1; then exec bash; else exec sh; fi"
"""The best shell that an image has, which is interactive because it has a terminal."""
LOOK = 0.25
"""Seconds between two looks at the terminal's size, where no signal can tell of another one."""

_ALTERNATE, _NORMAL = b"\x1b[?1049h", b"\x1b[?1049l"
_TIDY = b"\x1b[0m\x1b[?25h\x1b[?1l\x1b>\x1b[?2004l\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1006l\r\n"
"""Undoes what full-screen programs do to a terminal, and do not undo when they are killed."""


async def shell(
    live: LiveContainer, code: str = SHELL, *, cwd: str | None = None, env: Mapping[str, str] | None = None
) -> int:
    """Run a shell command on our terminal, until it ends, and return its exit status as a shell counts it.

    A signal that ends us (SIGTERM, SIGHUP) ends the program and restores the terminal first.

    Raises:
        InvalidArgumentError: standard input and output are no terminal, or the image has no python3.
        FileError: `cwd` cannot be entered.
        ProcessLimitError: no process can be started.
        SandboxLostError: the container died.
    """
    require_terminal(0, 1)
    run = await live.start(
        code,
        cwd=cwd,
        env={**environment(os.environ), **(env or {})},
        tty=size_of(1),
        keep_stdin=True,
    )
    try:
        with _ended_by_signals(run):
            return exit_status(await interact(run, 0, 1))
    finally:
        run.close()


async def interact(run: AsyncRun, fd_in: int, fd_out: int) -> RunResult:
    """Pass keys to a run and its output to our terminal, until it is over; return what came of it.

    Args:
        run: just started, with a terminal and an input that stays open. It is killed when the caller is
            cancelled, or nobody can see it any more.
        fd_in: where keys come from. If it is a terminal, every key goes to the run, Ctrl-C too.
        fd_out: where it shows, and whose size it has.

    Raises:
        PocketDockError: the run could not be started.
    """
    with ExitStack() as stack:
        modes = stack.enter_context(Modes(fd_in, fd_out))
        writer, reader = Writer(fd_out), Reader(fd_in)
        stack.callback(reader.close)
        stack.callback(run.on_output(lambda _run, _stream, data: modes.note(data)))
        outlet = Outlet(run, {STDOUT: writer, STDERR: writer})
        stack.callback(outlet.close)
        try:
            async with (
                beside(_keep_size, run, fd_out, modes),
                beside(feed, run, reader),
                beside(_end_when_broken, run, outlet),
            ):
                outcome = await run.outcome()
            if outlet.error is None:
                await outlet.finish()
        finally:
            await end(run)
        if isinstance(outcome, PocketDockError):
            raise outcome
        modes.is_tidy = outcome.exit_code is not None
        return outcome


async def _end_when_broken(run: AsyncRun, outlet: Outlet) -> None:
    await outlet.broken.wait()
    await end(run)


# -- the terminal -----------------------------------------------------------------------------------


def size_of(fd: int) -> tuple[int, int]:
    """Return the rows and columns of a terminal; the usual ones where it is none, or does not say."""
    try:
        found = os.get_terminal_size(fd)
    except OSError:
        return DEFAULT_SIZE
    return (found.lines or DEFAULT_SIZE[0], found.columns or DEFAULT_SIZE[1])


def environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return what a program has to know of our terminal. Its size is not among it: that changes."""
    said = {name: environ[name] for name in ("COLORTERM",) if environ.get(name)}
    return {"TERM": environ.get("TERM") or DEFAULT_TERM, **said}


def require_terminal(*fds: int) -> None:
    """Refuse to go on without a terminal.

    Raises:
        InvalidArgumentError: one of these is none.
    """
    if not all(os.isatty(fd) for fd in fds):
        message = "A shell needs a terminal, and standard input and output are not one."
        raise InvalidArgumentError(message, hint="Without one, run a command.")


class Modes:
    """Has every key go to whoever reads the terminal, while the context lasts; restored in any case."""

    def __init__(self, fd_in: int, fd_out: int) -> None:
        self.is_tidy = False
        """Whether the program has ended by itself, and so has undone what it did to the screen."""
        self._in, self._out = fd_in, fd_out
        self._is_alternate = False
        self._before: list[object] | None = None

    def __enter__(self) -> Modes:
        if os.isatty(self._in):
            self._before = termios.tcgetattr(self._in)
            self.apply()
        return self

    def __exit__(self, *_error: object) -> None:
        if self._before is not None:
            with suppress(termios.error):
                termios.tcsetattr(self._in, termios.TCSADRAIN, self._before)  # type: ignore[arg-type]
        if not self.is_tidy and os.isatty(self._out):
            try:
                os.write(self._out, (_NORMAL if self._is_alternate else b"") + _TIDY)
            except OSError:
                # It has hung up.
                pass

    def apply(self) -> None:
        """Make it raw: at the beginning, and after we were stopped and go on."""
        if self._before is not None:
            # What was typed already is not thrown away.
            with suppress(termios.error):
                # Whoever hangs up has us go on, too, and it is not there any more.
                tty.setraw(self._in, termios.TCSADRAIN)

    def note(self, data: bytes) -> None:
        """Look whether the program takes the whole screen."""
        entered, left = data.rfind(_ALTERNATE), data.rfind(_NORMAL)
        if entered != left:
            self._is_alternate = entered > left


async def _keep_size(run: AsyncRun, fd: int, modes: Modes) -> None:
    """Have the run's terminal be as large as ours, whenever ours changes."""
    shown = size_of(fd)
    with _changes(modes) as changed:
        while True:
            if (size := size_of(fd)) != shown:
                shown = size
                try:
                    await run.resize(*size)
                except PocketDockError:
                    # Whoever waits for the run's end is told.
                    return
            with anyio.move_on_after(LOOK if changed is None else None):
                await (anyio.Event() if changed is None else changed).wait()
            if changed is not None:
                changed.clear()


@contextmanager
def _changes(modes: Modes) -> Iterator[asyncio.Event | None]:
    """An event that is set when the size may have changed; None where signals go to another thread."""
    if threading.current_thread() is not threading.main_thread():
        yield None
        return
    changed = asyncio.Event()

    def go_on() -> None:
        modes.apply()
        changed.set()

    with _handling(signal.SIGWINCH, changed.set), _handling(signal.SIGCONT, go_on):
        yield changed


# -- signals ----------------------------------------------------------------------------------------


@contextmanager
def _handling(number: int, handler: Callable[[], None]) -> Iterator[None]:
    """Have a signal handled on the running loop, which is the main thread's, and then as before."""
    loop, before = asyncio.get_running_loop(), signal.getsignal(number)
    loop.add_signal_handler(number, handler)
    try:
        yield
    finally:
        loop.remove_signal_handler(number)
        signal.signal(number, before)


@contextmanager
def _ended_by_signals(run: AsyncRun) -> Iterator[None]:
    """Have signals that are to end us end the run first; what they are for happens when the context ends."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    got: list[int] = []
    loop = asyncio.get_running_loop()
    tasks: list[asyncio.Task[None]] = []

    def end_it(number: int) -> None:
        got.append(number)
        tasks.append(loop.create_task(end(run), name="end-shell"))

    try:
        with ExitStack() as stack:
            for number in (signal.SIGTERM, signal.SIGHUP):
                stack.enter_context(_handling(number, lambda number=number: end_it(number)))  # type: ignore[misc]
            yield
    finally:
        if got:
            os.kill(os.getpid(), got[0])
