"""The usual way: requests to the agent over its stream."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import anyio

from pocket_dock_mcp.agent.agent_checkpoints import AgentCheckpoints
from pocket_dock_mcp.agent.agent_facts import parse_facts
from pocket_dock_mcp.agent.agent_process import (
    CALL_DEADLINE,
    AgentProcess,
    KeptRun,
    int_of,
    number_of,
    optional_int,
)
from pocket_dock_mcp.agent.agent_relay import AgentRelay
from pocket_dock_mcp.agent.found import parse_found
from pocket_dock_mcp.agent.inside import wire
from pocket_dock_mcp.agent.kept_runs import earlier_runs, kept_runs
from pocket_dock_mcp.agent.link import AgentLink, RemoteError, parse_lines
from pocket_dock_mcp.agent.meter import Meter
from pocket_dock_mcp.agent.remote_errors import file_error
from pocket_dock_mcp.agent.requests import Header, OnBytes
from pocket_dock_mcp.agent.transport import Found, OnOutput, Process, Program
from pocket_dock_mcp.errors import AgentError, AgentProtocolError
from pocket_dock_mcp.models import (
    Facts,
    FileContent,
    FileEntry,
    FileType,
    FileWritten,
    Limits,
    SessionInfo,
)
from pocket_dock_mcp.readings import Readings

DATA_DEADLINE = 300.0
"""Seconds for moving one file."""
HALT_DEADLINE = 0.8
"""Seconds in which an agent that is well has said that it ends."""
TIDY_DEADLINE = 20.0
MAX_ENTRY = 6 * wire.MAX_PATH + 512
"""Bytes of one line of a listing: a name, whose every byte JSON escapes, and some numbers."""
_MAX_VERSION = 100
_MAX_PORT = 65_535
_FILE_TYPES: frozenset[FileType] = frozenset({"file", "directory", "symlink", "fifo", "socket", "device"})


@dataclass(frozen=True, slots=True)
class Keep:
    """That an agent is to outlive its link, and for how long with nothing that runs; None is for ever."""

    detached_ttl_s: float | None
    output_bytes: int
    """How much of one run's output it keeps."""


class AgentTransport:
    """A container with an agent. Made by `open`; see `Transport` for the methods."""

    kind: Literal["agent"] = "agent"

    def __init__(self, link: AgentLink, facts: Facts) -> None:
        self._link = link
        self._facts = facts
        self._meter = Meter()
        self.checkpoints = AgentCheckpoints(link)

    @classmethod
    async def open(
        cls,
        link: AgentLink,
        *,
        uid: int,
        home: str,
        processes: int,
        limits: Limits,
        env: Mapping[str, str],
        warm: bool = True,
        keep: Keep | None = None,
        way_out: int | None = None,
        begun: Header | None = None,
    ) -> AgentTransport:
        """Tell a fresh agent who the user is and learn what holds inside.

        `processes` is what the user may have at once; below the container's limit, so that the agent can
        always fork. With `keep` the agent outlives this link. `way_out` is a port
        for programs that want to connect to something outside; see `outfit`. `begun` is the first frame of
        an agent that knew the user from the beginning, and has told what holds: then nobody waits for the
        rest of it, which it loads at the first call or after `wake`.
        """
        fields = {
            "uid": uid,
            "home": home,
            "processes": processes,
            "open_files": limits.open_files,
            "file_bytes": limits.file_bytes,
            "env": dict(env),
            "warm": warm,
            "keep": keep is not None,
            "ttl": None if keep is None else keep.detached_ttl_s,
            "room": None if keep is None else keep.output_bytes,
            "way_out": way_out,
        }
        if begun is None:
            return cls(link, parse_facts(await link.call("init", deadline=CALL_DEADLINE, **fields)))
        link.tell("init", **fields)
        return cls(link, parse_facts(begun))

    @classmethod
    async def rejoin(cls, link: AgentLink) -> tuple[AgentTransport, list[KeptRun]]:
        """Learn from an agent that has outlived its link what holds inside, and which runs it knows of."""
        reply = await link.call("rejoin", deadline=CALL_DEADLINE)
        return cls(link, parse_facts(reply)), await earlier_runs(link)

    async def others_runs(self) -> list[KeptRun]:
        """Return the runs that the agent knows of and other links have begun."""
        return [run for run in await kept_runs(self._link) if not self._link.owns(run.id)]

    def look_at(self, run: KeptRun, program: Program, on_output: OnOutput) -> AgentProcess:
        """Take up a run of another link without being told of it before it is followed."""
        return AgentProcess.look_at(self._link, program, on_output, run)

    async def take_up(self, run: KeptRun, program: Program, on_output: OnOutput) -> AgentProcess:
        """Follow a run of an earlier link, from the beginning of its output on."""
        return await AgentProcess.take_up(self._link, program, on_output, run)

    @property
    def facts(self) -> Facts:
        """What was found inside."""
        return self._facts

    def wake(self) -> None:
        """Let it load what it has not yet loaded."""
        self._link.release()

    async def adopt(self, env: Mapping[str, str], deadline: float) -> None:
        """Add to the environment of programs."""
        await self._link.call("adopt", deadline=deadline, env=dict(env))

    async def start(self, program: Program, on_output: OnOutput) -> AgentProcess:
        """Start a program."""
        return await AgentProcess.start(self._link, program, on_output)

    async def wait_port(
        self, port: int | None, known: frozenset[int], process: Process | None = None
    ) -> frozenset[int]:
        """Wait until a port is listened on."""
        run = process.id if isinstance(process, AgentProcess) else None
        fields = {"op": "wait_port", "port": port, "known": sorted(known), "run": run}
        found = (await self._await(fields)).get("ports")
        if not isinstance(found, list) or not all(_is_port(port) for port in found):
            message = "The program in the container sent ports that are none."
            raise AgentProtocolError(message)
        return frozenset(found)

    async def connect(self, port: int, on_bytes: OnBytes) -> AgentRelay:
        """Connect to a port."""
        return await AgentRelay.open(self._link, port, on_bytes)

    async def outfit(self, env: Mapping[str, str], files: Mapping[str, bytes]) -> None:
        """Let programs connect to the way out."""
        sizes = [(path, len(data)) for path, data in files.items()]
        request_id, request = self._link.open(None)
        with self._link.within(CALL_DEADLINE, request_id):
            await self._link.send(request_id, {"op": "outfit", "env": dict(env), "files": sizes})
            await self._link.upload(request_id, request, b"".join(files.values()))
        await self._link.finish(request_id, request, CALL_DEADLINE)

    async def accept(self, on_bytes: OnBytes) -> AgentRelay:
        """Wait for the next program that connects."""
        return await AgentRelay.accept(self._link, on_bytes)

    async def provide(self, volumes: Collection[str], devices: Collection[str]) -> Found:
        """Say what is there of what was asked for."""
        paths = {"volumes": list(volumes), "devices": list(devices)}
        return parse_found(await self._link.call("provide", deadline=CALL_DEADLINE, **paths))

    async def _await(self, fields: Header) -> Header:
        """Make a request that is answered when something has happened, however long that takes."""
        request_id, request = self._link.open(None)
        await self._link.send(request_id, fields)
        try:
            header, _ = await self._link.finish(request_id, request, None)
        except anyio.get_cancelled_exc_class():
            with anyio.CancelScope(shield=True), anyio.move_on_after(CALL_DEADLINE):
                await self._cancel(request_id)
            raise
        return header

    async def sessions(self) -> list[SessionInfo]:
        """Return the sessions that are alive."""
        found = (await self._link.call("sessions", deadline=CALL_DEADLINE)).get("sessions")
        if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
            message = "The program in the container sent sessions that are none."
            raise AgentProtocolError(message)
        return [
            SessionInfo(str(one.get("name")), str(one.get("kind")), busy=one.get("busy") is True)
            for one in found
        ]

    async def end_session(self, name: str) -> bool:
        """Kill a session."""
        reply = await self._link.call("end_session", deadline=CALL_DEADLINE, name=name)
        return int_of(reply, "ended") > 0

    async def kill_all(self) -> None:
        """Kill every process of the user."""
        await self._link.call("kill_all", deadline=CALL_DEADLINE)

    async def read(self, path: str, *, offset: int, length: int) -> FileContent:
        """Read a regular file or a piece of it."""
        fields = {"op": "read", "path": path, "offset": offset, "length": length}
        header, data = await self._file_request(path, fields, length)
        return FileContent(
            data=data,
            size=int_of(header, "size"),
            mode=int_of(header, "mode"),
            mtime=number_of(header, "mtime"),
            version=str(header.get("version"))[:_MAX_VERSION],
        )

    async def write(
        self, path: str, data: bytes, *, mode: int | None, append: bool = False, expect: str | None = None
    ) -> FileWritten:
        """Create or replace a file, or add to its end."""
        fields: Header = {"op": "write", "path": path, "mode": mode, "append": append, "expect": expect}
        header, _ = await self._file_request(path, fields, 0, data)
        return FileWritten(
            path=str(header.get("path")), size=int_of(header, "size"), overwrote=bool(header.get("overwrote"))
        )

    async def list_directory(self, path: str, *, limit: int) -> tuple[list[FileEntry], bool]:
        """List a directory."""
        fields = {"op": "list", "path": path, "limit": limit}
        most = min(limit * MAX_ENTRY, wire.MAX_LISTING)
        header, listing = await self._file_request(path, fields, most)
        return [_entry(line) for line in parse_lines(listing)], bool(header.get("truncated"))

    async def _file_request(
        self, path: str, fields: Header, most: int, upload: bytes | None = None
    ) -> tuple[Header, bytes]:
        """Return the reply, and the data before and in it: `most` bytes, or it is an offence."""
        received = bytearray()
        request_id, request = self._link.open(lambda _stream, data: received.extend(data), most)
        try:
            if upload is not None and len(upload) <= wire.MAX_PAYLOAD:
                await self._link.send(request_id, {**fields, "end": True}, upload)
            else:
                await self._link.send(request_id, fields)
                if upload is not None:
                    await self._link.upload(request_id, request, upload)
            header, payload = await self._link.finish(request_id, request, DATA_DEADLINE)
        except RemoteError as error:
            raise file_error(error.reason, path, self._facts.home) from None
        except anyio.get_cancelled_exc_class():
            with anyio.CancelScope(shield=True), anyio.move_on_after(CALL_DEADLINE):
                await self._cancel(request_id)
            raise
        return header, bytes(received + payload)

    async def _cancel(self, request_id: int) -> None:
        try:
            await self._link.send(request_id, {"op": "cancel"})
        except AgentError:
            # The link is dead, and the temporary file with the container.
            pass

    async def stats(self) -> Readings:
        """Return what is used now."""
        return self._meter.read(await self._link.call("stats", deadline=CALL_DEADLINE))

    async def halt(self, why: str = "stopped") -> None:
        """Have the agent exit, and everything with it."""
        await self._last_words("halt", why)

    async def farewell(self, why: str) -> None:
        """Tell it, and its other clients, that the container is about to be ended."""
        try:
            await self._last_words("farewell", why)
        except (AgentError, RemoteError):
            # There may be nobody to tell it, as in an agent of an earlier release.
            pass

    async def _last_words(self, op: str, why: str) -> None:
        reply = await self._link.call(op, deadline=HALT_DEADLINE, why=why)
        if reply.get("tidies") is True:
            # It makes removable what the engine could not remove, and exits by itself.
            with anyio.move_on_after(TIDY_DEADLINE):
                await self._link.wait_broken()

    async def is_shared(self) -> bool:
        """Whether another client is there, or anything runs."""
        found = await self._link.call("stats", deadline=CALL_DEADLINE)
        return (optional_int(found, "clients") or 1) > 1 or bool(optional_int(found, "runs"))

    async def disk_free(self) -> int | None:
        """Return how many bytes the engine's disk has free, or has files left for, at 16 KiB each."""
        return optional_int(await self._link.call("stats", deadline=CALL_DEADLINE), "root_free")

    async def watch_disk(self, room: int, *, floor: int, grace: int) -> int:
        """Wait until the disk has lost more than `room` bytes while programs ran, to whomever.

        Or more than `grace`, where it has less than `floor` left. Returns how many bytes it has left.
        """
        reply = await self._await({"op": "watch_disk", "room": room, "floor": floor, "grace": grace})
        return int_of(reply, "free")

    async def stop_for_disk(self, used: int) -> None:
        """End all runs because the sandbox has written too much: `used` bytes."""
        await self._link.call("disk_full", deadline=CALL_DEADLINE, used=used)

    async def wait_broken(self) -> AgentError:
        """Wait until the link is dead and return why."""
        return await self._link.wait_broken()

    async def aclose(self) -> None:
        """End the lease."""
        await self._link.aclose()


def _is_port(value: object) -> bool:
    return type(value) is int and 0 < value <= _MAX_PORT


def _entry(line: Header) -> FileEntry:
    kind: Any = line.get("type")
    if kind not in _FILE_TYPES or not isinstance(line.get("name"), str):
        message = "The program in the container sent a directory entry that is none."
        raise AgentProtocolError(message)
    return FileEntry(
        name=line["name"],
        type=kind,
        size=int_of(line, "size"),
        mode=int_of(line, "mode"),
        mtime=number_of(line, "mtime"),
    )
