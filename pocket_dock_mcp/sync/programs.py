# Written by scripts/mirror.py from async_/programs.py; change that, and run scripts/mirror.py again.
"""`Programs`: what can be run in a container, and how its output is had: at the end, as it comes, beside."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, cast, overload

from pocket_dock_mcp.async_.callbacks import Remove
from pocket_dock_mcp.async_.programs import MAX_OUTPUT
from pocket_dock_mcp.models import RunResult as ExecResult
from pocket_dock_mcp.sync.facade import Facade
from pocket_dock_mcp.sync.process import Process
from pocket_dock_mcp.sync.session import Session
from pocket_dock_mcp.sync.stream import ExecStream

if TYPE_CHECKING:
    from pocket_dock_mcp.sync.container import Container


class Programs(Facade[Any]):
    """The part of `Container` that runs programs."""

    @overload
    def run(
        self,
        command: str | Sequence[str],
        *,
        stream: Literal[False] = False,
        detach: Literal[False] = False,
        timeout: float | None = None,
        max_output: int = MAX_OUTPUT,
        lang: str | None = None,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        stdin: str | bytes | None = None,
        tty: tuple[int, int] | None = None,
    ) -> ExecResult: ...

    @overload
    def run(
        self,
        command: str | Sequence[str],
        *,
        stream: Literal[True],
        detach: Literal[False] = False,
        timeout: float | None = None,
        max_output: int = MAX_OUTPUT,
        lang: str | None = None,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        stdin: str | bytes | None = None,
        tty: tuple[int, int] | None = None,
    ) -> ExecStream: ...

    @overload
    def run(
        self,
        command: str | Sequence[str],
        *,
        stream: Literal[False] = False,
        detach: Literal[True],
        timeout: float | None = None,
        max_output: int = MAX_OUTPUT,
        lang: str | None = None,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        stdin: str | bytes | None = None,
        tty: tuple[int, int] | None = None,
    ) -> Process: ...

    def run(
        self,
        command: str | Sequence[str],
        *,
        stream: bool = False,
        detach: bool = False,
        timeout: float | None = None,
        max_output: int = MAX_OUTPUT,
        lang: str | None = None,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        stdin: str | bytes | None = None,
        tty: tuple[int, int] | None = None,
    ) -> ExecResult | ExecStream | Process:
        """Run a program and return what came of it. One that fails is a result, not an error.

        When its time is over, everything that it has started is killed, and the result has the output up to
        then. The same happens when the caller is cancelled.

        Args:
            command: a shell command or source, or a sequence: a program and its arguments, each as it is.
            stream: return the output as it comes instead; leaving the loop over it kills the program.
            detach: return a handle at once instead; the program goes on in the background.
            timeout: seconds that it may take, ``math.inf`` for any. None is the container's default, and with
                `stream` or `detach` any.
            max_output: bytes of each of stdout and stderr that a result has, head and tail of what is longer;
                it is ``truncated`` then. The program is not disturbed by it.
            lang: ``shell`` (the default, or ``sh``: the image's ``/bin/sh``), ``bash`` (exit code 127 if the
                image has none), ``python`` or ``javascript`` (``node``).
            cwd: where; relative to the container's working directory. None is that itself.
            env: variables on top of the container's.
            stdin: what it reads; None is nothing, and with `detach` what is written to the handle.
            tty: rows and columns of a terminal for it, on which stdout and stderr are one.

        Raises:
            InvalidArgumentError: an argument that can never work.
            FileError: `cwd` cannot be entered.
            ProcessLimitError: no process can be started.
            ContainerGone: the container died.
        """
        return cast(
            "ExecResult | ExecStream | Process",
            self._mirrored(
                self._call(
                    self._async.run,
                    command,
                    stream=stream,
                    detach=detach,
                    timeout=timeout,
                    max_output=max_output,
                    lang=lang,
                    cwd=cwd,
                    env=env,
                    stdin=stdin,
                    tty=tty,
                )
            ),
        )

    def detached(self) -> list[Process]:
        """Return handles to the detached programs that it knows of, whoever has begun them; the oldest first.

        Those that go on, and the latest of those that have ended: `wait` has all of their output that was
        kept. `read` has it from the beginning on, but for what was read already by way of this object.
        So they are found again after `resume_container`, in another process, too. Callbacks of this object
        hear of those that were begun by way of it, and of no others.

        Raises:
            ContainerGone: the container died.
        """
        return cast("list[Process]", self._mirrored(self._call(self._async.detached)))

    def session(self, *, lang: str = "shell") -> Session:
        """Begin a shell, or an interpreter, that goes on from one command to the next.

        Args:
            lang: as for `run`; a shell is bash, if the image has it.

        Raises:
            InvalidArgumentError: there is no such language, or the image has no python3.
            ContainerGone: the container died.
        """
        return cast("Session", self._mirrored(self._call(self._async.session, lang=lang)))

    def on_stdout(self, fn: Callable[[Container, str], object]) -> Remove:
        """Have ``fn(container, data)`` called for what detached programs print from now on, as it comes.

        It is not called for other runs. `data` has whole characters, not lines. What `fn` raises is logged,
        and disturbs nobody; what it takes long for, others wait for.

        Returns:
            A function that undoes it.

        Raises:
            InvalidArgumentError: it cannot be called, or only be awaited.
        """
        return cast("Remove", self._here(self._async.on_stdout, self._with_me(fn)))

    def on_stderr(self, fn: Callable[[Container, str], object]) -> Remove:
        """Have ``fn(container, data)`` called for what detached programs print to stderr; see `on_stdout`."""
        return cast("Remove", self._here(self._async.on_stderr, self._with_me(fn)))

    def on_exit(self, fn: Callable[[Container, int | None], object]) -> Remove:
        """Have ``fn(container, exit_code)`` called when a detached program has ended; see `on_stdout`.

        All of its output has been told by then. The code is None if it did not exit by itself: it was killed,
        or its container died.
        """
        return cast("Remove", self._here(self._async.on_exit, self._with_me(fn)))
