"""The way for images without python3: one engine exec per request, with nothing but a POSIX shell inside.

Slower (an exec costs tens of milliseconds) and weaker: what a command left in the background lives on, a
time limit kills everything of the user, and an exit code of 137 is all that is known of a kill.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Literal

import anyio

from pocket_dock_mcp.agent.exec_answers import (
    MAX_ANSWER,
    MAX_HEAD,
    longest_listing,
    parse_content,
    parse_listing,
    parse_written,
)
from pocket_dock_mcp.agent.exec_facts import FACTS, MOUNTS, parse_facts, parse_mounts
from pocket_dock_mcp.agent.exec_mark import RELEASE, Marked
from pocket_dock_mcp.agent.exec_pipe import Take, piped
from pocket_dock_mcp.agent.exec_process import SIGKILL, ExecProcess, no_agent, refuse_what_needs_an_agent
from pocket_dock_mcp.agent.exec_scripts import APPEND, CODES, LIST, READ, WRITE
from pocket_dock_mcp.agent.meter import METER, Meter, parse_meter
from pocket_dock_mcp.agent.remote_errors import file_error
from pocket_dock_mcp.agent.transport import EndedBy, Found, OnOutput, Process, Program, Relayed, RunEnd
from pocket_dock_mcp.beside import beside
from pocket_dock_mcp.engine.base import STDOUT, Engine, ExecStream, Stream
from pocket_dock_mcp.errors import (
    AgentError,
    AgentProtocolError,
    AgentTimeoutError,
    EngineError,
    InvalidArgumentError,
    StreamLostError,
)
from pocket_dock_mcp.models import Facts, FileContent, FileEntry, FileWritten, RunUsage, SessionInfo
from pocket_dock_mcp.readings import Readings

CALL_DEADLINE = 30.0
DATA_DEADLINE = 300.0

_SHELL = "/bin/sh"
_MAKE_HOME = '[ -d "$1" ] || mkdir -p "$1"; chmod 1777 "$1"'
_KILL_ALL = 'i=0; while [ "$i" -lt 200 ] && kill -9 -1 2>/dev/null; do i=$((i+1)); done'
_WITH_INPUT = f'head -c "$2" | {_SHELL} -c "$1"'


@dataclass(frozen=True, slots=True)
class _Output:
    exit_code: int
    stdout: bytes


class ExecTransport:
    """A container reached by execs. Made by `open`; see `Transport` for the methods."""

    kind: Literal["exec"] = "exec"
    checkpoints = None

    def __init__(
        self, engine: Engine, container_id: str, lease: Stream, facts: Facts, env: Mapping[str, str]
    ) -> None:
        self._engine = engine
        self._container_id = container_id
        self._lease = lease
        self._facts = facts
        self._env = env
        self._meter = Meter()
        self._halted = False

    @classmethod
    async def open(
        cls, engine: Engine, container_id: str, lease: Stream, *, uid: int, home: str, env: Mapping[str, str]
    ) -> ExecTransport:
        """Make a home for the user and learn what holds inside."""
        base = {"HOME": home, "USER": "sandbox", "LOGNAME": "sandbox", "LANG": "C.UTF-8", **env}
        transport = cls(engine, container_id, lease, Facts(uid=uid, home=home), base)
        await transport._script(_MAKE_HOME, home, user="0:0")
        found = await transport._script(FACTS, home)
        transport._facts = parse_facts(found.stdout.decode("utf-8", "replace"), uid)
        transport._env = {**base, "HOME": transport._facts.home}
        return transport

    @property
    def facts(self) -> Facts:
        """What was found inside."""
        return self._facts

    def wake(self) -> None:
        """Do nothing: there is nothing to load."""

    async def adopt(self, env: Mapping[str, str], deadline: float) -> None:
        """Add to the environment of programs."""
        await self._script("exit 0", deadline=deadline)
        self._env = {**self._env, **env}

    async def start(self, program: Program, on_output: OnOutput) -> ExecProcess:
        """Start a shell command."""
        refuse_what_needs_an_agent(program)
        cwd = self._absolute(program.cwd)
        if program.cwd is not None and (await self._script('[ -d "$1" ]', cwd)).exit_code != 0:
            raise file_error("ENOENT", program.cwd)
        return ExecProcess(lambda: self._run(program, on_output, cwd), self.kill_all)

    async def _run(self, program: Program, on_output: OnOutput, cwd: str) -> RunEnd:
        argv = [_SHELL, "-c", program.code]
        if program.stdin is not None:
            argv = [_SHELL, "-c", _WITH_INPUT, "sh", program.code, str(len(program.stdin))]
        began = time.monotonic()
        code = SIGKILL
        with anyio.move_on_after(program.timeout_s) as limit:
            code = await self._exec(argv, on_output, program.stdin or b"", {**self._env, **program.env}, cwd)
        timed_out = limit.cancelled_caught
        if timed_out:
            await self.kill_all()
        # What the engine says of a program that went with its container is not the program's.
        ended_by: EndedBy | None = "timeout" if timed_out else "killed" if self._halted else None
        return RunEnd(
            exit_code=None if ended_by else code,
            signal=SIGKILL if ended_by else None,
            ended_by=ended_by,
            usage=RunUsage(wall_s=time.monotonic() - began),
        )

    async def wait_port(
        self, _port: int | None, _known: frozenset[int], _process: Process | None = None
    ) -> frozenset[int]:
        """Not known this way."""
        raise no_agent("ports cannot be waited for")

    async def connect(self, _port: int, _on_bytes: Callable[[bytes, bool], None]) -> Relayed:
        """Not possible this way."""
        raise no_agent("ports cannot be reached")

    async def outfit(self, _env: Mapping[str, str], _files: Mapping[str, bytes]) -> None:
        """Not possible this way."""
        raise no_agent("there is no way out but the engine's own network")

    async def accept(self, _on_bytes: Callable[[bytes, bool], None]) -> Relayed:
        """Not possible this way."""
        raise no_agent("there is no way out but the engine's own network")

    async def provide(self, volumes: Collection[str], devices: Collection[str]) -> Found:
        """Say what is mounted at these paths."""
        if devices:
            raise no_agent("devices cannot be given to its user")
        said = await self._script(MOUNTS, *volumes)
        return parse_mounts(said.stdout.decode("utf-8", "surrogateescape"), list(volumes))

    async def sessions(self) -> list[SessionInfo]:
        """There are none."""
        return []

    async def end_session(self, _name: str) -> bool:
        """Do nothing: there are no sessions."""
        return False

    async def kill_all(self) -> None:
        """Kill every process of the user."""
        await self._script(_KILL_ALL)

    async def read(self, path: str, *, offset: int, length: int) -> FileContent:
        """Read a regular file or a piece of it."""
        args = (path, str(offset + 1), str(length))
        done = await self._file_script(READ, *args, most=MAX_HEAD + length)
        return parse_content(done.stdout, length)

    async def write(
        self, path: str, data: bytes, *, mode: int | None, append: bool = False, expect: str | None = None
    ) -> FileWritten:
        """Create or replace a file, or add to its end."""
        octal = "" if mode is None else f"{mode:o}"
        script = APPEND if append else WRITE
        done = await self._file_script(script, path, str(len(data)), octal, expect or "", stdin=data)
        return parse_written(done.stdout)

    async def list_directory(self, path: str, *, limit: int) -> tuple[list[FileEntry], bool]:
        """List a directory."""
        done = await self._file_script(LIST, path, str(limit + 1), most=longest_listing(limit + 1))
        entries = parse_listing(done.stdout)
        return entries[:limit], len(entries) > limit

    async def stats(self) -> Readings:
        """Return what a shell finds out."""
        done = await self._script(METER)
        return self._meter.read(parse_meter(done.stdout))

    async def is_shared(self) -> bool:
        """Nobody can be there but us."""
        return False

    async def farewell(self, _why: str) -> None:
        """Nobody is there to be told."""

    async def halt(self, _why: str = "stopped") -> None:
        """End the lease: the first program ends with its input."""
        self._halted = True
        await self._lease.aclose()

    async def wait_broken(self) -> AgentError:
        """Wait until the lease is gone."""
        try:
            while await self._lease.receive() is not None:
                pass
        except StreamLostError as error:
            return error
        return StreamLostError("The stream to the sandbox ended.")

    async def aclose(self) -> None:
        """End the lease."""
        await self._lease.aclose()

    async def pipe(self, script: str, *args: str, source: AsyncIterator[bytes] | None, take: Take) -> int:
        """Run a shell script as the user and return its exit code; see `exec_pipe.piped`."""
        argv = [_SHELL, "-c", script, "sh", *args]
        user = f"{self._facts.uid}:{self._facts.uid}"
        return await piped(
            self._engine, self._container_id, argv, user=user, env=self._env, source=source, take=take
        )

    # -- execs ------------------------------------------------------------------------------------

    async def _file_script(
        self, script: str, path: str, *args: str, stdin: bytes = b"", most: int = MAX_ANSWER
    ) -> _Output:
        try:
            path.encode("utf-8")
        except UnicodeEncodeError:
            message = "In this sandbox paths must be valid UTF-8."
            raise InvalidArgumentError(message) from None
        done = await self._script(
            script, self._absolute(path), *args, stdin=stdin, deadline=DATA_DEADLINE, most=most
        )
        if done.exit_code != 0:
            raise file_error(CODES.get(done.exit_code, "EIO"), path, self._facts.home)
        return done

    async def _script(
        self,
        script: str,
        *args: str,
        user: str | None = None,
        stdin: bytes = b"",
        deadline: float = CALL_DEADLINE,
        most: int = MAX_ANSWER,
    ) -> _Output:
        """Return what it says, `most` bytes, within so many seconds.

        Raises:
            AgentProtocolError: it says more: somebody else answers in its place.
            AgentTimeoutError, StreamLostError: how it has ended is not known.
        """
        received = bytearray()

        def keep(stream: int, data: bytes) -> None:
            if stream != STDOUT:
                return
            if len(received) + len(data) > most:
                message = "A script in the container answered with more than was asked for."
                raise AgentProtocolError(message)
            received.extend(data)

        try:
            with anyio.fail_after(deadline):
                argv = [_SHELL, "-c", script, "sh", *args]
                code = await self._exec(argv, keep, stdin, self._env, "/", user=user)
        except TimeoutError as error:
            message = f"The sandbox did not answer within {deadline:g} s."
            raise AgentTimeoutError(message) from error
        return _Output(code, bytes(received))

    async def _exec(
        self,
        argv: list[str],
        on_output: OnOutput,
        stdin: bytes,
        env: Mapping[str, str],
        cwd: str,
        *,
        user: str | None = None,
    ) -> int:
        """Run one program and return the exit code that the engine reports; never one that was guessed."""
        identity = user or f"{self._facts.uid}:{self._facts.uid}"
        marked = Marked(on_output)
        # What kills everything would kill the shell that writes the mark.
        command = argv if _KILL_ALL in argv else marked.command(argv, has_input=bool(stdin))
        try:
            stream = await self._engine.exec(self._container_id, command, user=identity, env=env, cwd=cwd)
            try:
                async with beside(_send, stream, stdin):
                    was_complete = False
                    while (received := await stream.receive()) is not None:
                        marked.take(*received)
                        if marked.is_complete and not was_complete:
                            was_complete = True
                            stream.send_nowait(RELEASE)
                state = await stream.state()
            finally:
                with anyio.CancelScope(shield=True):
                    await stream.aclose()
        except EngineError as error:
            raise StreamLostError(f"The engine lost the sandbox: {error.message}") from error
        if state.running or state.exit_code is None:
            message = "The stream of a program ended and the program did not."
            raise StreamLostError(message)
        if not marked.has_all(state.exit_code) and command is not argv:
            message = "The stream of a program ended before all of its output had come."
            raise StreamLostError(message)
        return state.exit_code

    def _absolute(self, path: str | None) -> str:
        if path is None:
            return self._facts.home
        return path if path.startswith("/") else f"{self._facts.home}/{path}"


async def _send(stream: ExecStream, data: bytes) -> None:
    try:
        if data:
            await stream.send(data)
    except StreamLostError:
        # The program ended without reading it all. The reading side tells how.
        pass
