"""The agent's protocol, served from memory: the same frames, windows and error codes, and no kernel."""

from __future__ import annotations

import asyncio
import errno
import posixpath
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import anyio

from pocket_dock_mcp.agent.bundle import quick_argv
from pocket_dock_mcp.agent.inside import wire
from pocket_dock_mcp.engine.base import STDERR, STDOUT
from pocket_dock_mcp.models import MIB
from pocket_dock_mcp.testing.filetree import ProcfsError
from pocket_dock_mcp.testing.keeping import UNLIMITED, FakeClient, FakeKeep
from pocket_dock_mcp.testing.kernel import facts
from pocket_dock_mcp.testing.programs import Process, Programs
from pocket_dock_mcp.testing.relays import FakeDoor, FakeRelay, provided
from pocket_dock_mcp.testing.runs import FakeRun
from pocket_dock_mcp.testing.transfers import (
    Reader,
    RefusedError,
    Transfer,
    Writer,
    list_directory,
    stat_path,
)

PREFIX, COMPILED = 4, b"compiled"
"""How many bytes are before the user in what a quick agent reads first, and what is behind."""
_HARMLESS = frozenset({0, 17, 18, 23, 28})
"""Signals that do not end a program that does nothing about them: none, CHLD, CONT, URG, WINCH."""


@dataclass
class AgentFaults:
    """What is wrong with the agents of a fake engine. Nothing, unless a test says so."""

    facts: dict[str, Any] = field(default_factory=dict)
    """What ``init`` reports instead of the truth: ``{"memory_limit": None}`` for a limit that was dropped."""
    provided: dict[str, Any] = field(default_factory=dict)
    """What ``provide`` reports instead of the truth: ``{"volumes": {"/data": None}}`` for a silent engine."""
    silent: set[str] = field(default_factory=set)
    """Requests that are never answered, by ``op``."""
    deaf: bool = False
    """From now on nothing that is sent is read: a sender waits when what is under way is full."""
    greeting: bytes | None = None
    """Written instead of the first frame; empty for an agent that never says that it is ready."""


class FakeAgent:
    """One agent; `serve` is the program that runs as the container's first."""

    def __init__(self, process: Process, programs: Programs, faults: AgentFaults) -> None:
        self.container = process.container
        self.home = "/"
        self.uid = 0
        self._process = process
        self._programs = programs
        self._faults = faults
        self._env: dict[str, str] = {}
        self._door = FakeDoor(self)
        self._runs: dict[int, FakeRun] = {}
        self._transfers: dict[int, Transfer] = {}
        self._tasks = anyio.create_task_group()
        self._keep: FakeKeep | None = None
        self.emit: Callable[[bytes], None] = lambda data: self.container.emit(STDOUT, data)
        """Gives bytes to the host."""
        self._began = asyncio.get_running_loop().time()

    async def serve(self) -> int:
        """Answer requests until the input ends; then everything in the container ends, unless it is kept."""
        if self._process.argv[-1] == quick_argv()[-1]:
            await self._take_compiled()
        self._greet()
        async with self._tasks:
            exit_code = await self.read(self._process)
            if self._keep is not None and not self._keep.is_leased:
                self._keep.leave(self._keep.first)
                await self._keep.halted.wait()
                exit_code = 0
            self._tasks.cancel_scope.cancel()
        return exit_code

    async def _take_compiled(self) -> None:
        """Take the user, and what an agent in such an image was compiled to; see `quick_input`."""
        data = b""
        while len(data) < PREFIX or not data.endswith(COMPILED):
            if not (piece := await self._process.read()):
                return
            data += piece
        uid, _, home = data[PREFIX : -len(COMPILED)].decode().partition(" ")
        self._become(int(uid), home)

    async def read(self, process: Process, client: FakeClient | None = None) -> int:
        """Serve a client until its input ends."""
        decoder = wire.Decoder()
        while data := await process.read():
            try:
                frames = decoder.feed(data)
            except wire.FrameError as error:
                self.container.emit(STDERR, f"FrameError: {error}\n".encode())
                return 1
            for header, payload in frames:
                if header.get("op") not in self._faults.silent:
                    self._serve(header.get("id", 0), header, payload, client)
            if self._faults.deaf:
                await anyio.sleep_forever()
        return 0

    def _greet(self) -> None:
        if self._faults.greeting is None:
            told = {} if not self.uid else {"home": self.home, **self._facts()}
            self.send({**told, "kind": "ready", "id": 0, "protocol": wire.PROTOCOL})
        else:
            self.emit(self._faults.greeting)

    def send(self, header: wire.Header, payload: bytes = b"") -> None:
        """Send one frame."""
        if self._keep is None:
            self.emit(wire.encode(header, payload))
        else:
            self._keep.send(header, payload)

    def reply(self, request_id: int, payload: bytes = b"", **fields: Any) -> None:
        """Answer a request."""
        self.send({"kind": "reply", "id": request_id, **fields}, payload)

    def fail(self, request_id: int, stage: str, code: str) -> None:
        """Answer a request with an error."""
        self.send({"kind": "error", "id": request_id, "stage": stage, "code": code})

    def start_soon(self, work: Callable[[], Any]) -> None:
        """Run something beside the reading of requests."""
        self._tasks.start_soon(work)

    def _serve(self, request_id: int, header: wire.Header, payload: bytes, client: FakeClient | None) -> None:
        keep = self._keep
        handler = getattr(self, f"_on_{header.get('op')}", None)
        try:
            if keep is not None and keep.about(client or keep.first, request_id, header):
                pass
            elif handler is None:
                self.fail(request_id, "agent", "internal")
            else:
                handler(request_id, header, payload)
        except ProcfsError:
            self.fail(request_id, "file", "procfs")
        except RefusedError as refusal:
            self.fail(request_id, "file", refusal.code)
        except OSError as error:
            self.fail(request_id, "file", errno_name(error))
        except (KeyError, TypeError, ValueError):
            # Fields that are missing or no good: the real one trips over them too, and lives on.
            self.fail(request_id, "agent", "internal")

    # -- requests ---------------------------------------------------------------------------------

    def _on_init(self, request_id: int, header: wire.Header, _payload: bytes) -> None:
        if not self.uid:
            self._become(header["uid"], header["home"])
        self._env = {"HOME": self.home, "USER": "sandbox", "LANG": "C.UTF-8", **header["env"]}
        if header.get("way_out"):
            self.container.way_out = self._door
        if header.get("keep"):
            keep = self._keep = FakeKeep(self)
            self.container.listener = keep.welcome
        self._reply_facts(request_id)

    def _reply_facts(self, request_id: int) -> None:
        self.reply(request_id, home=self.home, **self._facts())

    def _facts(self) -> dict[str, Any]:
        return {**facts(self.container.spec), "uid": self.uid, **self._faults.facts}

    def _on_halt(self, request_id: int, header: wire.Header, _payload: bytes) -> None:
        self.reply(request_id)
        if self._keep is not None:
            self._keep.tell_others(request_id, header.get("why"))
            self._keep.halted.set()

    def _on_farewell(self, request_id: int, header: wire.Header, _payload: bytes) -> None:
        if self._keep is not None:
            self._keep.tell_others(request_id, header.get("why"))
        self.reply(request_id)

    def abandon(self, begun: range, ending: set[int]) -> None:
        """A client has gone: its transfers end, and of its runs those that are `ending`."""
        self._door.leave(begun.start // wire.IDS)
        for number in [number for number in self._transfers if number in begun]:
            self._transfers.pop(number).abort()
        for number, run in list(self._runs.items()):
            if number in begun and number in ending:
                run.kill()

    def _on_rejoin(self, request_id: int, _header: wire.Header, _payload: bytes) -> None:
        self._reply_facts(request_id)

    def _on_list_runs(self, request_id: int, header: wire.Header, _payload: bytes) -> None:
        self.reply(request_id, runs=self._keep.describe(header["after"]) if self._keep else [])

    def _become(self, uid: int, home: str) -> None:
        self.uid = uid
        self.home = self._settle(home)

    def _settle(self, home: str) -> str:
        """Return the home: the user's own, or a shared one where somebody else has it."""
        node = self.container.files.walk(home, 0).node
        if node is None or (node.uid == 0 and not node.entries):
            self.container.files.make(home, "directory", mode=0o755, uid=self.uid)
            return home
        return home if node.type == "directory" and node.allows(self.uid, 3) else "/tmp"  # noqa: S108

    def _on_compiled(self, request_id: int, _header: wire.Header, _payload: bytes) -> None:
        self.reply(request_id, COMPILED)

    def _on_adopt(self, request_id: int, header: wire.Header, _payload: bytes) -> None:
        self._env.update(header["env"])
        if self._keep is not None:
            self._keep.is_leased = False
        self.reply(request_id)

    def _on_ping(self, request_id: int, _header: wire.Header, _payload: bytes) -> None:
        self.reply(request_id)

    def _on_stats(self, request_id: int, _header: wire.Header, _payload: bytes) -> None:
        limits, loop = self.container.spec.limits, asyncio.get_running_loop()
        now = loop.time()
        self.reply(
            request_id,
            now=now,
            uptime=now - self._began,
            cpu_s=0.125,
            memory=8 * MIB,
            memory_peak=9 * MIB,
            memory_limit=limits.memory_bytes,
            pids=3 + len(self._runs),
            pids_limit=limits.pids,
            processes=len(self._runs),
            network=[],
            disk_free=1 << 30,
            runs=len(self._runs),
            sessions=0,
            clients=1 if self._keep is None else len(self._keep.clients),
        )

    def _on_watch_disk(self, request_id: int, header: wire.Header, payload: bytes) -> None:
        """Nothing written here takes room, so there is nothing to say."""

    def _on_disk_full(self, request_id: int, _header: wire.Header, _payload: bytes) -> None:
        self.reply(request_id)

    def _on_spawn(self, request_id: int, header: wire.Header, payload: bytes) -> None:
        run = self._runs[request_id] = FakeRun(self, request_id, header)
        if self._keep is not None:
            self._keep.add(request_id, header)
            run.credit.add(UNLIMITED)
        run.take_script(payload)

    def start(self, run: FakeRun) -> None:
        """Start a run that is complete."""
        try:
            cwd = self._enter(posixpath.join(self.home, run.header["cwd"] or self.home))
        except OSError as error:
            self.refuse(run, "cwd", errno_name(error))
            return
        argv = tuple(run.header.get("argv") or ("python3",))
        program = self._programs.find(argv, run.source())
        if program is None or not self.container.has_program(argv[0]):
            self.refuse(run, "exec", "ENOENT")
            return
        if any(len(arg.encode("utf-8", "surrogateescape")) > wire.MAX_COMMAND for arg in argv):
            self.refuse(run, "exec", "E2BIG")
            return
        env = {**self._door.env, **self._env, "PWD": cwd, **run.header["env"]}
        process = Process(argv, self.container, run.stdin, run.write, env, cwd, f"{self.uid}:{self.uid}")
        self.start_soon(lambda: run.play(program, process))

    def _enter(self, path: str) -> str:
        place = self.container.files.walk(path, self.uid)
        if place.existing().type != "directory":
            raise OSError(errno.ENOTDIR, "not a directory")
        place.existing().require(self.uid, 1)
        return place.path

    def refuse(self, run: FakeRun, stage: str, code: str) -> None:
        """Answer a run that did not start."""
        self.drop_run(run.id)
        self.fail(run.id, stage, code)

    def drop_run(self, request_id: int) -> None:
        """Forget a run."""
        self._runs.pop(request_id, None)

    def drop_transfer(self, request_id: int) -> None:
        """Forget a file operation."""
        self._transfers.pop(request_id, None)

    def _on_data(self, request_id: int, header: wire.Header, payload: bytes) -> None:
        work = self._runs.get(request_id) or self._transfers.get(request_id)
        if work is not None:
            work.feed(payload, end=bool(header.get("end")))

    def _on_credit(self, request_id: int, header: wire.Header, _payload: bytes) -> None:
        work = self._runs.get(request_id) or self._transfers.get(request_id)
        if work is not None:
            work.credit.add(header["n"])

    def _on_cancel(self, request_id: int, _header: wire.Header, _payload: bytes) -> None:
        transfer = self._transfers.pop(request_id, None)
        if transfer is not None:
            transfer.abort()
            self.fail(request_id, "file", "ECANCELED")

    def _on_signal(self, request_id: int, header: wire.Header, _payload: bytes) -> None:
        run = self._runs.get(header["run"])
        if run is not None and header["signal"] not in _HARMLESS:
            run.end_by(header["signal"])
        self.reply(request_id)

    def _on_kill(self, request_id: int, header: wire.Header, _payload: bytes) -> None:
        run = self._runs.get(header["run"])
        if run is not None:
            run.kill()
        self.reply(request_id)

    def _on_kill_all(self, request_id: int, _header: wire.Header, _payload: bytes) -> None:
        doomed = list(self._runs.values())
        for run in doomed:
            run.kill()

        async def answer() -> None:
            for run in doomed:
                await run.ended.wait()
            self.reply(request_id)

        self.start_soon(answer)

    def _on_read(self, request_id: int, header: wire.Header, _payload: bytes) -> None:
        reader = self._transfers[request_id] = Reader(self, request_id, header)
        self.start_soon(reader.run)

    def _on_write(self, request_id: int, header: wire.Header, payload: bytes) -> None:
        writer = self._transfers[request_id] = Writer(self, request_id, header)
        writer.feed(payload, end=bool(header.get("end")))

    def _on_connect(self, request_id: int, header: wire.Header, _payload: bytes) -> None:
        relay = self._transfers[request_id] = FakeRelay(
            self, request_id, header, self.container.listening.get(header["port"])
        )
        self.start_soon(relay.run)

    def _on_outfit(self, request_id: int, header: wire.Header, _payload: bytes) -> None:
        # The files come next, and there is nobody to read them.
        self._door.serve(request_id // wire.IDS, header["env"])
        self.reply(request_id)

    def _on_accept(self, request_id: int, header: wire.Header, _payload: bytes) -> None:
        self._transfers[request_id] = self._door.accept(request_id, header)

    def _on_provide(self, request_id: int, header: wire.Header, _payload: bytes) -> None:
        self.reply(request_id, **{**provided(self.container.spec, header), **self._faults.provided})

    def _on_stat(self, request_id: int, header: wire.Header, _payload: bytes) -> None:
        self.reply(request_id, **stat_path(self, header))

    def _on_list(self, request_id: int, header: wire.Header, _payload: bytes) -> None:
        pieces, truncated = list_directory(self, header)
        for piece in pieces:
            self.send({"kind": "data", "id": request_id, "s": STDOUT}, piece)
        self.reply(request_id, truncated=truncated)


def errno_name(error: OSError) -> str:
    """Return an error's code in the protocol."""
    return errno.errorcode.get(error.errno or 0, "EIO")
