"""The usual way: requests to the agent over its stream."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import anyio

from pocket_dock_mcp.agent.inside import wire
from pocket_dock_mcp.agent.link import AgentLink, Header, OnData, RemoteError, Request, parse_lines
from pocket_dock_mcp.agent.remote_errors import file_error, spawn_error
from pocket_dock_mcp.agent.transport import OnOutput, Program, RunEnd
from pocket_dock_mcp.beside import beside
from pocket_dock_mcp.errors import AgentError, AgentProtocolError
from pocket_dock_mcp.models import Facts, FileContent, FileEntry, FileType, FileWritten, Limits, RunUsage

CALL_DEADLINE = 10.0
"""Seconds for a request that the agent serves without waiting for user code."""
DATA_DEADLINE = 300.0
"""Seconds for moving one file."""
KILL_GRACE = 8.0
"""Seconds after a run's time limit in which the agent must have killed it and said so."""

_FILE_TYPES: frozenset[FileType] = frozenset({"file", "directory", "symlink", "fifo", "socket", "device"})


class AgentTransport:
    """A container with an agent. Made by `open`; see `Transport` for the methods."""

    kind: Literal["agent"] = "agent"

    def __init__(self, link: AgentLink, facts: Facts) -> None:
        self._link = link
        self._facts = facts

    @classmethod
    async def open(
        cls, link: AgentLink, *, uid: int, home: str, processes: int, limits: Limits, env: Mapping[str, str]
    ) -> AgentTransport:
        """Tell a fresh agent who the user is and learn what holds inside.

        `processes` is what the user may have at once; below the container's limit, so that the agent can
        always fork.
        """
        reply = await link.call(
            "init",
            deadline=CALL_DEADLINE,
            uid=uid,
            home=home,
            processes=processes,
            open_files=limits.open_files,
            file_bytes=limits.file_bytes,
            env=dict(env),
        )
        return cls(link, _facts(reply))

    @property
    def facts(self) -> Facts:
        """What was found inside."""
        return self._facts

    async def run(self, program: Program, on_output: OnOutput) -> RunEnd:
        """Run a program to its end."""
        request_id, request = self._link.open(on_output)
        try:
            await self._spawn(request_id, program)
            deadline = None if program.timeout_s is None else program.timeout_s + KILL_GRACE
            header = await self._attend(request_id, request, program.stdin, deadline)
        except RemoteError as error:
            raise spawn_error(error.stage, error.code, "/bin/sh", program.cwd) from None
        except anyio.get_cancelled_exc_class():
            with anyio.CancelScope(shield=True):
                await self._abandon(request_id, request)
            raise
        return _run_end(header)

    async def _spawn(self, request_id: int, program: Program) -> None:
        script = program.code.encode("utf-8", "surrogateescape") if program.language == "python" else None
        header: Header = {
            "op": "spawn",
            "argv": _argv(program),
            "env": dict(program.env),
            "cwd": program.cwd,
            "timeout": program.timeout_s,
            "stdin": program.stdin is not None,
        }
        if script is None:
            await self._link.send(request_id, header)
            return
        header["script"] = len(script)
        await self._link.send(request_id, header, script[: wire.MAX_PAYLOAD])
        for at in range(wire.MAX_PAYLOAD, len(script), wire.MAX_PAYLOAD):
            await self._link.send(request_id, {"op": "data"}, script[at : at + wire.MAX_PAYLOAD])

    async def _attend(
        self, request_id: int, request: Request, stdin: bytes | None, deadline: float | None
    ) -> Header:
        if stdin is None:
            return (await self._link.finish(request_id, request, deadline))[0]
        async with beside(self._feed, request_id, request, stdin):
            return (await self._link.finish(request_id, request, deadline))[0]

    async def _feed(self, request_id: int, request: Request, stdin: bytes) -> None:
        try:
            await self._link.upload(request_id, request, stdin)
        except AgentError:
            # Whoever waits for the run's end is told the same.
            pass

    async def _abandon(self, request_id: int, request: Request) -> None:
        """Kill a run that nobody waits for any more, and see it end."""
        try:
            await self._link.call("kill", deadline=KILL_GRACE, run=request_id)
            await self._link.finish(request_id, request, KILL_GRACE)
        except (AgentError, RemoteError):
            # Then the link is dead and the container with it, or the run had ended with an error.
            pass

    async def kill_all(self) -> None:
        """Kill every process of the user."""
        await self._link.call("kill_all", deadline=CALL_DEADLINE)

    async def read(self, path: str, *, offset: int, length: int) -> FileContent:
        """Read a regular file or a piece of it."""
        received = bytearray()
        fields = {"op": "read", "path": path, "offset": offset, "length": length}
        header, payload = await self._file_request(path, fields, lambda _stream, data: received.extend(data))
        return FileContent(
            data=bytes(received + payload),
            size=_int(header, "size"),
            mode=_int(header, "mode"),
            mtime=_float(header, "mtime"),
        )

    async def write(self, path: str, data: bytes, *, mode: int | None) -> FileWritten:
        """Create or replace a file."""
        fields: Header = {"op": "write", "path": path, "mode": mode}
        header, _ = await self._file_request(path, fields, None, data)
        return FileWritten(
            path=str(header.get("path")), size=_int(header, "size"), overwrote=bool(header.get("overwrote"))
        )

    async def list_directory(self, path: str, *, limit: int) -> tuple[list[FileEntry], bool]:
        """List a directory."""
        received = bytearray()
        fields = {"op": "list", "path": path, "limit": limit}
        header, _ = await self._file_request(path, fields, lambda _stream, data: received.extend(data))
        return [_entry(line) for line in parse_lines(bytes(received))], bool(header.get("truncated"))

    async def _file_request(
        self, path: str, fields: Header, on_data: OnData | None, upload: bytes | None = None
    ) -> tuple[Header, bytes]:
        request_id, request = self._link.open(on_data)
        try:
            if upload is not None and len(upload) <= wire.MAX_PAYLOAD:
                await self._link.send(request_id, {**fields, "end": True}, upload)
            else:
                await self._link.send(request_id, fields)
                if upload is not None:
                    await self._link.upload(request_id, request, upload)
            return await self._link.finish(request_id, request, DATA_DEADLINE)
        except RemoteError as error:
            raise file_error(error.code, path) from None
        except anyio.get_cancelled_exc_class():
            with anyio.CancelScope(shield=True), anyio.move_on_after(CALL_DEADLINE):
                await self._cancel(request_id)
            raise

    async def _cancel(self, request_id: int) -> None:
        try:
            await self._link.send(request_id, {"op": "cancel"})
        except AgentError:
            # The link is dead, and the temporary file with the container.
            pass

    async def stats(self) -> tuple[int | None, int | None]:
        """Return memory in use and the number of user processes."""
        reply = await self._link.call("stats", deadline=CALL_DEADLINE)
        return _optional_int(reply, "memory"), _optional_int(reply, "processes")

    async def wait_broken(self) -> AgentError:
        """Wait until the link is dead and return why."""
        return await self._link.wait_broken()

    async def aclose(self) -> None:
        """End the lease."""
        await self._link.aclose()


def _argv(program: Program) -> list[str] | None:
    """Return a shell command's argument vector; Python source goes to the agent's warm interpreter."""
    return ["/bin/sh", "-c", program.code] if program.language == "shell" else None


def _run_end(header: Header) -> RunEnd:
    exit_code, signal = _optional_int(header, "code"), _optional_int(header, "signal")
    if header.get("kind") != "exit" or (exit_code is None) == (signal is None):
        message = "The program in the container sent an exit that is none."
        raise AgentProtocolError(message)
    return RunEnd(
        exit_code=exit_code,
        signal=signal,
        timed_out=bool(header.get("timed_out")),
        killed=bool(header.get("killed")),
        oom=bool(header.get("oom")),
        usage=RunUsage(
            wall_s=_float(header, "wall"), cpu_s=_float(header, "cpu"), peak_memory_bytes=_int(header, "peak")
        ),
    )


def _facts(reply: Header) -> Facts:
    interfaces = reply.get("interfaces")
    capabilities = reply.get("caps")
    return Facts(
        uid=_int(reply, "uid"),
        home=str(reply.get("home")),
        python=str(reply.get("python")),
        capabilities={str(k): str(v) for k, v in capabilities.items()}
        if isinstance(capabilities, dict)
        else None,
        no_new_privs=reply.get("no_new_privs") == "1",
        seccomp=reply.get("seccomp") == "2",
        memory_limit=_optional_int(reply, "memory_limit"),
        pids_limit=_optional_int(reply, "pids_limit"),
        cpus=None if reply.get("cpus") is None else _float(reply, "cpus"),
        interfaces=tuple(str(name) for name in interfaces) if isinstance(interfaces, list) else None,
    )


def _entry(line: Header) -> FileEntry:
    kind: Any = line.get("type")
    if kind not in _FILE_TYPES or not isinstance(line.get("name"), str):
        message = "The program in the container sent a directory entry that is none."
        raise AgentProtocolError(message)
    return FileEntry(
        name=line["name"],
        type=kind,
        size=_int(line, "size"),
        mode=_int(line, "mode"),
        mtime=_float(line, "mtime"),
    )


def _int(header: Header, name: str) -> int:
    value = header.get(name)
    if type(value) is not int:
        message = f"The program in the container sent a {name} that is no integer."
        raise AgentProtocolError(message)
    return value


def _optional_int(header: Header, name: str) -> int | None:
    return None if header.get(name) is None else _int(header, name)


def _float(header: Header, name: str) -> float:
    value = header.get(name)
    if type(value) not in (int, float) or value is None or not math.isfinite(value):
        message = f"The program in the container sent a {name} that is no number."
        raise AgentProtocolError(message)
    return float(value)
