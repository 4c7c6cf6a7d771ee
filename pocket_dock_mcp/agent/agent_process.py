"""A program that the agent has started, seen from the host."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from dataclasses import dataclass
from typing import get_args

import anyio

from pocket_dock_mcp.agent.inside import wire
from pocket_dock_mcp.agent.link import AgentLink, RemoteError
from pocket_dock_mcp.agent.remote_errors import file_error, session_error, spawn_error
from pocket_dock_mcp.agent.report import MAX_REPORT, failed_directory, parse_report, split_report
from pocket_dock_mcp.agent.requests import Header
from pocket_dock_mcp.agent.transport import EndedBy, OnOutput, Program, Report, RunEnd
from pocket_dock_mcp.errors import AgentError, AgentProtocolError, RunNotFoundError
from pocket_dock_mcp.models import FilesChanged, RunUsage, SessionState

CALL_DEADLINE = 10.0
"""Seconds for a request that the agent serves without waiting for user code."""
KILL_GRACE = 8.0
"""Seconds after a run's time limit in which the agent must have killed it and said so."""

_REPORT = 3
"""The stream that an interpreter reports on."""
_SIGKILL = 9
_NOT_FOUND = 127
_SHELLS = {"shell": "/bin/sh", "javascript": "node"}
_MAX_PATHS = 200
_MOST = (1 << 63) - 1
"""Of a number: what a kernel counts with."""
REPORT_LOST = "Its value and images are not there any more: it wrote too much for all of it to be kept."


@dataclass(frozen=True, slots=True)
class KeptRun:
    """A run that the agent of a kept container knows of, from before this link."""

    id: int
    meta: object
    """What its `Program` had, if the container tells the truth."""
    ended: bool
    heard_of: bool
    """Whether an earlier client has said that it knows how it ended."""
    missing: tuple[int, int, int]
    """Bytes at the beginning of stdout, stderr and report that were not kept."""
    attended: bool = False
    """Whether the client that has begun it is connected."""


class AgentProcess:
    """One program under way. Made by `start`; see `Process` for the methods."""

    def __init__(
        self, link: AgentLink, program: Program, on_output: OnOutput, known: KeptRun | None = None
    ) -> None:
        self._link = link
        self._program = program
        self._on_output = on_output
        self._report = bytearray()
        self._end: RunEnd | None = None
        self._forgotten = program.meta is None
        self._loop = asyncio.get_running_loop()
        self._feeding = anyio.Lock()
        self._feeder: asyncio.Task[None] | None = None
        self._has_report = known is None or not known.missing[2]
        self._looked_at: KeptRun | None = None
        self.is_followed = True
        """Whether it is told of."""
        if known is None:
            self._id, self._request = link.open(self._on_data)
        else:
            self._id, self._request = known.id, link.reopen(known.id, self._on_data)

    @classmethod
    async def take_up(
        cls, link: AgentLink, program: Program, on_output: OnOutput, known: KeptRun
    ) -> AgentProcess:
        """Have told again what there is to tell of a run of an earlier link, and then what comes."""
        process = cls(link, program, on_output, known)
        await link.send(known.id, {"op": "replay"})
        return process

    @classmethod
    def look_at(cls, link: AgentLink, program: Program, on_output: OnOutput, known: KeptRun) -> AgentProcess:
        """Have nothing told of a run of another client, before it is followed."""
        process = cls(link, program, on_output, known)
        process._looked_at, process.is_followed = known, False
        return process

    def follow(self) -> None:
        """Have it told from the beginning, if it is not yet. Quiet when the link is dead."""
        if not self.is_followed:
            self.is_followed = True
            self._link.send_nowait(self._id, "replay")

    @classmethod
    async def start(cls, link: AgentLink, program: Program, on_output: OnOutput) -> AgentProcess:
        """Send what is to be run."""
        process = cls(link, program, on_output)
        try:
            await process._send()
        except anyio.get_cancelled_exc_class():
            with anyio.CancelScope(shield=True):
                await process._abandon()
            raise
        return process

    async def _send(self) -> None:
        program = self._program
        argv = _argv(program)
        script = b"" if argv is not None else program.code.encode("utf-8", "surrogateescape")
        limits = program.limits
        header: Header = {
            "op": "spawn",
            "argv": argv,
            "script": None if argv is not None else len(script),
            "env": dict(program.env),
            "cwd": program.cwd,
            "timeout": program.timeout_s,
            "stdin": program.has_stdin,
            "tty": program.tty,
            "session": program.session,
            "kind": program.language,
            "meta": program.meta,
            "stay": program.stays or None,
            "limits": {
                "cpu": limits.cpu_s,
                "memory": limits.memory_bytes,
                "processes": limits.processes,
                "output": limits.output_bytes,
            },
        }
        sent = {name: value for name, value in header.items() if value is not None or name == "argv"}
        sent.setdefault("cwd", None)
        await self._link.send(self._id, sent, script[: wire.MAX_PAYLOAD])
        for at in range(wire.MAX_PAYLOAD, len(script), wire.MAX_PAYLOAD):
            await self._link.send(self._id, {"op": "data"}, script[at : at + wire.MAX_PAYLOAD])
        if program.stdin is not None:
            await self._send_input(program.stdin, end=not program.keep_stdin)

    async def _send_input(self, data: bytes, *, end: bool) -> None:
        if len(data) <= wire.UPLOAD_WINDOW:
            await self.feed(data, end=end)
            return
        # It takes as long as the program takes to read it, and the caller has other things to wait for.
        self._feeder = asyncio.get_running_loop().create_task(self._feed_all(data, end), name="stdin")

    async def _feed_all(self, data: bytes, end: bool) -> None:
        try:
            await self.feed(data, end=end)
        except AgentError:
            # Whoever waits for the run's end is told the same.
            pass

    def _on_data(self, stream: int, data: bytes) -> None:
        if stream != _REPORT:
            self._on_output(stream, data)
        elif len(self._report) < MAX_REPORT:
            self._report += data

    async def wait(self) -> RunEnd:
        """Wait for its end."""
        if self._end is None:
            self._end = await self._wait()
            # It may be megabytes, and the handle may be kept for long.
            self._report = bytearray()
        return self._end

    async def _wait(self) -> RunEnd:
        program = self._program
        deadline = None if program.timeout_s is None else program.timeout_s + KILL_GRACE
        try:
            header, _ = await self._link.finish(self._id, self._request, deadline)
        except RemoteError as error:
            if error.stage == "session":
                return self._not_run(error)
            if error.stage == "run":
                raise RunNotFoundError from None
            raise spawn_error(
                error.stage, error.reason, _SHELLS.get(program.language, "python3"), program.cwd
            ) from None
        if not self._has_report:
            return _run_end(header, Report(notes=(REPORT_LOST,)))
        blocks = split_report(bytes(self._report))
        number = failed_directory(blocks) if header.get("code") == _NOT_FOUND else None
        if number is not None:
            raise file_error(errno.errorcode.get(number, "EIO"), program.cwd or "~")
        return _run_end(header, parse_report(blocks))

    def _not_run(self, error: RemoteError) -> RunEnd:
        """Say what became of code for a session that has not run it."""
        if error.reason != "cancelled":
            raise session_error(error, self._program.session or "")
        return RunEnd(exit_code=None, signal=_SIGKILL, usage=RunUsage(), ended_by="killed")

    @property
    def id(self) -> int:
        """The agent's number for it."""
        return self._id

    @property
    def is_over(self) -> bool:
        """Whether it has ended, or will never be heard of again."""
        is_known = not self.is_followed and self._looked_at is not None and self._looked_at.ended
        return is_known or self._request.answer.done()

    @property
    def is_cut_off(self) -> bool:
        """Whether it is over because nothing will ever be heard of it again."""
        answer = self._request.answer
        return answer.done() and (answer.cancelled() or answer.exception() is not None)

    def when_over(self, callback: Callable[[], None]) -> None:
        """Have `callback` called when it is over."""
        self._request.answer.add_done_callback(lambda _answer: callback())

    async def feed(self, data: bytes, *, end: bool = False) -> None:
        """Write to its standard input, as fast as it reads."""
        async with self._feeding:
            await self._link.upload(self._id, self._request, data, end=end)

    async def signal(self, number: int) -> None:
        """Send a signal."""
        await self._link.call("signal", deadline=CALL_DEADLINE, run=self._id, signal=number)

    async def resize(self, rows: int, columns: int) -> None:
        """Give its terminal another size."""
        await self._link.call("resize", deadline=CALL_DEADLINE, run=self._id, rows=rows, columns=columns)

    def hold(self, is_held: bool) -> None:
        """Have it wait with its output, or go on."""
        self._link.hold(self._request, is_held)

    async def kill(self) -> None:
        """Kill all its processes."""
        await self._link.call("kill", deadline=CALL_DEADLINE, run=self._id)

    def heard(self) -> None:
        """Tell an agent that keeps it that its end has arrived where it matters."""
        if not self._forgotten:
            self._link.send_nowait(self._id, "heard")

    def forget(self) -> None:
        """Let the agent forget it when it has ended. Where nothing is kept it has forgotten it already."""
        if not self._forgotten and self.is_followed:
            self._forgotten = True
            # What another client has begun is for that one to forget.
            op = "forget" if self._looked_at is None else "unfollow"
            try:
                # Whoever holds a handle may close it in any thread.
                self._loop.call_soon_threadsafe(self._link.send_nowait, self._id, op)
            except RuntimeError:
                # The loop is closed, and the link with it.
                pass

    async def _abandon(self) -> None:
        """End what was perhaps begun, for a caller who never gets to hold it."""
        try:
            await self._link.call("kill", deadline=KILL_GRACE, run=self._id)
        except Exception:  # noqa: BLE001, S110  # the link is dead, and the container with it
            pass


def _argv(program: Program) -> list[str] | None:
    """Return a command line; None for what the agent runs by its own means: its interpreter, sessions."""
    if program.language == "shell" and program.session is None:
        return ["/bin/sh", "-c", program.code]
    if program.tty is None:
        return None
    return ["python3", "-c", program.code] if program.language == "python" else ["node", "-e", program.code]


def _run_end(header: Header, report: Report) -> RunEnd:
    exit_code, signal = optional_int(header, "code"), optional_int(header, "signal")
    ended_by = header.get("ended_by")
    if header.get("kind") != "exit" or (exit_code is None) == (signal is None):
        message = "The program in the container sent an exit that is none."
        raise AgentProtocolError(message)
    if ended_by is not None and ended_by not in get_args(EndedBy):
        message = "The program in the container sent an unknown reason for an end."
        raise AgentProtocolError(message)
    full = header.get("full")
    return RunEnd(
        exit_code=exit_code,
        signal=signal,
        ended_by=ended_by,
        oom=bool(header.get("oom")),
        full_disk=full if isinstance(full, str) else None,
        disk_used=optional_int(header, "disk"),
        left_behind=optional_int(header, "left_behind") or 0,
        files_changed=_files_changed(header.get("files")),
        session=_session_state(header.get("session")),
        missed=_missed(header.get("missed")),
        report=report,
        usage=RunUsage(
            wall_s=number_of(header, "wall"),
            cpu_s=number_of(header, "cpu"),
            peak_memory_bytes=int_of(header, "peak"),
        ),
    )


def _files_changed(said: object) -> FilesChanged | None:
    if not isinstance(said, dict):
        return None
    try:
        created, modified, deleted = said["created"], said["modified"], said["deleted"]
        counts = [_size(count) for count in said["counts"]]
        return FilesChanged(
            # A size is null where the sandbox's user cannot look.
            created=tuple((str(path), _size(size or 0)) for path, size in created[:_MAX_PATHS]),
            modified=tuple((str(path), _size(size or 0)) for path, size in modified[:_MAX_PATHS]),
            deleted=tuple(str(path) for path in deleted[:_MAX_PATHS]),
            counts=(counts[0], counts[1], counts[2]),
            incomplete=bool(said.get("incomplete")),
        )
    except (KeyError, TypeError, ValueError, IndexError):
        message = "The program in the container sent a list of changed files that is none."
        raise AgentProtocolError(message) from None


def _size(value: object) -> int:
    if type(value) is not int or not 0 <= value <= _MOST:
        raise ValueError(value)
    return value


def _missed(said: object) -> tuple[int, int]:
    if not isinstance(said, list) or not all(type(count) is int and count >= 0 for count in said):
        return 0, 0
    return (said[0], said[1]) if len(said) >= 2 else (0, 0)  # the two streams


def _session_state(said: object) -> SessionState | None:
    if not isinstance(said, dict):
        return None
    return SessionState(str(said.get("name")), new=bool(said.get("new")), alive=bool(said.get("alive")))


def int_of(header: Header, name: str) -> int:
    """Return an integer of a frame. Raises `AgentProtocolError` if it is none."""
    value = header.get(name)
    if type(value) is not int or abs(value) > _MOST:
        message = f"The program in the container sent a {name} that is no integer."
        raise AgentProtocolError(message)
    return value


def optional_int(header: Header, name: str) -> int | None:
    """Return an integer of a frame, or None where it has none."""
    return None if header.get(name) is None else int_of(header, name)


def number_of(header: Header, name: str) -> float:
    """Return a number of a frame. Raises `AgentProtocolError` if it is none."""
    value = header.get(name)
    # False for "not a number" too; and no float is asked of an integer that is none.
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not abs(value) <= _MOST:
        message = f"The program in the container sent a {name} that is no number."
        raise AgentProtocolError(message)
    return float(value)
