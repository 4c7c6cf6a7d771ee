"""PID 1 of a sandbox: reads requests from standard input, serves them, and ends when the input ends.

The end of the input is the end of the lease: whoever held the stream is gone, so this process exits, the
kernel kills everything in its PID namespace with it, and the engine removes the container. Unless it is to
keep the sandbox; see `keeping`.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from types import CodeType
from typing import Callable, Dict, Optional, Set, Union

from . import (
    cells,
    checkpoints,
    children,
    cold,
    dialling,
    disk,
    early,
    facts,
    files,
    helpers,
    identity,
    keeping,
    killing,
    leaving,
    ports,
    provisions,
    runs,
    sessions,
    way_out,
    wire,
    writing,
)
from .cgroup import Cgroup
from .changes import Changes
from .clients import Client
from .loop import READ, Loop
from .shelf import Kept
from .spawner import be_spawner

HELPERS_AFTER = 0.2
"""Seconds after the start, if no run wants them before: warming an interpreter costs as much as the rest."""

Modules = Callable[[], Dict[str, CodeType]]  # gives all modules of this program, compiled


class Agent:
    """All state of the program: who the user is, what is under way, what is still to be sent."""

    user: identity.User
    ceilings: children.Ceilings
    changes: Optional[Changes] = None  # where the kernel does not tell
    keep: Optional[keeping.Keep] = None
    way_out: Optional[way_out.Door] = None
    is_warm = True  # whether Python runs in children of an interpreter that is there already

    def __init__(self, modules: Modules, begun: Optional[early.Early], bounding: int) -> None:
        self._modules: Optional[Modules] = modules
        self._begun = begun
        self.bounding = bounding
        self.loop = Loop(self.reap)
        self.cgroup = Cgroup() if begun is None else begun.cgroup
        self.markers = runs.Markers()
        self.devnull = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        self.procfs = os.stat("/proc").st_dev
        self.environment = children.Environment(dict(os.environ))
        self._helpers: Dict[helpers.Helper, helpers.Nursery] = {}
        self.work: Dict[int, Work] = {}
        self._programs: Dict[int, Program] = {}
        self.sessions = sessions.Sessions(self)
        self.checkpoints = checkpoints.Checkpoints(self)
        self._ports = ports.Waiters(self)
        self.names = leaving.Names()
        self.first = Client(self, 0, [0, 1], is_visitor=False)

    # -- the stream -------------------------------------------------------------------------------

    def send(self, header: wire.Header, payload: bytes = b"") -> None:
        """Send a frame, soon."""
        if self.keep is None:
            self.first.sender.send(header, payload)
        else:
            self.keep.pass_on(header, payload)

    def kept(self, request_id: int) -> Optional[Kept]:
        """Return where a run's output is kept; None where it is not."""
        return None if self.keep is None else self.keep.shelf.runs.get(request_id)

    def fail(
        self,
        request_id: int,
        stage: str,
        number: Optional[int],
        code: Optional[str] = None,
        **more: object,
    ) -> None:
        """Answer a request with an error: an errno by name, or a code of our own."""
        name = code or errno.errorcode.get(number or errno.EIO, "EIO")
        self.send({"kind": "error", "id": request_id, "stage": stage, "code": name, **more})

    # -- requests ---------------------------------------------------------------------------------

    def serve(self, request_id: int, header: wire.Header, payload: bytes) -> None:
        """Serve a client's request."""
        try:
            handler = _HANDLERS[header["op"]]
            handler(self, request_id, header, payload)
        except files.RefusedError as refusal:
            self.fail(request_id, "file", 0, refusal.code)
        except OSError as error:
            self.fail(request_id, "file", error.errno)
        except Exception:
            # A fault of ours must not end the sandbox; what it was goes to the engine's stderr stream.
            sys.excepthook(*sys.exc_info())
            self.fail(request_id, "agent", 0, "internal")

    def _compiled(self, request_id: int, _header: wire.Header, _payload: bytes) -> None:
        """Give the host what was compiled here, for the next agent in a container of the very same image.

        Only before the user is known: so no program of the user has run yet.
        """
        self.send({"kind": "reply", "id": request_id}, early.packed(self._modules))

    def _init(self, request_id: int, header: wire.Header, _payload: bytes) -> None:
        self._modules = None
        if self._begun is None:
            self.user = identity.settle(facts.pick_uid(header["uid"]), header["home"])
        else:
            self.user = self._begun.user
        self.ceilings = children.Ceilings(header)
        self.environment.settle(self.user.home, header["env"])
        if header.get("way_out"):
            self.way_out = way_out.Door(self, header["way_out"])
        self.is_warm = header.get("warm", True)
        if header.get("keep"):
            self.keep = keeping.Keep(self, self.first, header)
        self.changes = Changes.open([self.user.home, "/tmp", "/var/tmp"], self.user)
        if self.changes is not None:
            self.loop.watch(self.changes.fileno(), READ, self.changes.on_readable)
        self.send(
            {
                "kind": "reply",
                "id": request_id,
                "protocol": wire.PROTOCOL,
                "home": self.user.home,
                **facts.collect(self),
            }
        )
        self.loop.later(HELPERS_AFTER, self._start_helpers)

    def _start_helpers(self) -> None:
        for script in (None, b"") if self.is_warm else (None,):
            self.helper_for(script)

    def _adopt(self, request_id: int, header: wire.Header, _payload: bytes) -> None:
        """It is known now whom this container was launched for, and what its programs have around them."""
        self.environment.add(header["env"])
        if self.keep is not None:
            self.keep.is_leased = False
        self.send({"kind": "reply", "id": request_id})

    def _ping(self, request_id: int, _header: wire.Header, _payload: bytes) -> None:
        self.send({"kind": "reply", "id": request_id})

    def _stats(self, request_id: int, _header: wire.Header, _payload: bytes) -> None:
        from . import readings

        self.send({"kind": "reply", "id": request_id, **readings.collect(self)})

    def _halt(self, request_id: int, header: wire.Header, _payload: bytes) -> None:
        """End everything, as the end of the input does where nothing is kept."""
        self.send({"kind": "reply", "id": request_id, "tidies": leaving.is_suspicious(self)})
        self.first.sender.flush()
        if self.keep is None or not self.keep.tell_others(request_id, header.get("why")):
            leaving.end(self)
        self.loop.later(keeping.LAST_WORDS, lambda: leaving.end(self))

    def _on_kept(self, request_id: int, header: wire.Header, _payload: bytes) -> None:
        if self.keep is None:
            raise OSError(errno.EOPNOTSUPP, "nothing is kept")
        getattr(self.keep, header["op"])(request_id, header)

    def _spawn(self, request_id: int, header: wire.Header, payload: bytes) -> None:
        # What nobody wants to be told of later goes with its client.
        is_kept = self.keep is not None and header.get("meta") is not None
        if self.keep is not None and is_kept and not self.keep.add(request_id, header):
            self.fail(request_id, "fork", errno.EAGAIN)
            return
        start = children.Start(header)
        if start.cwd or start.session is None:
            start.cwd = os.path.join(self.user.home, start.cwd) if start.cwd else self.user.home
        if start.session is None:
            start.env = self.environment.including({"PWD": start.cwd, **start.env})
        if start.argv is not None:
            self.start_run(request_id, start, None)
        elif len(payload) == start.script_bytes:
            self.start_run(request_id, start, payload)
        else:
            self.work[request_id] = runs.PartialScript(self, request_id, start, payload)

    def start_run(self, request_id: int, start: children.Start, script: Optional[bytes]) -> None:
        if start.session is not None:
            cell = cells.Cell(self, request_id, start, script or b"")
            self.work[request_id] = cell
            self.sessions.run(cell)
            return
        try:
            run = runs.Run(self, request_id, start, script)
        except OSError as error:
            self.work.pop(request_id, None)
            # A broken pipe: the helper was killed just now.
            self.fail(request_id, "helper" if error.errno == errno.EPIPE else "fork", error.errno)
            return
        self.work[request_id] = run

    def helper_for(self, script: Optional[bytes]) -> helpers.Nursery:
        """Return the helper that starts such a run, starting it first where it is not there."""
        helper = be_spawner if script is None else helpers.be_zygote
        if helper not in self._helpers:
            self._helpers[helper] = helpers.Nursery(self, helper)
        return self._helpers[helper]

    def helper_gone(self, gone: helpers.Nursery) -> None:
        """A helper died; the next run starts another. Its runs have become our children."""
        self._helpers = {helper: nursery for helper, nursery in self._helpers.items() if nursery is not gone}
        self.reap()

    def helper_pids(self) -> Set[int]:
        return {nursery.pid for nursery in self._helpers.values()}

    def _data(self, request_id: int, header: wire.Header, payload: bytes) -> None:
        work = self.work.get(request_id)
        if isinstance(work, _FED):
            work.feed(payload, bool(header.get("end")))

    def _credit(self, request_id: int, header: wire.Header, _payload: bytes) -> None:
        work = self.work.get(request_id)
        if isinstance(work, (runs.Run, cells.Cell, files.Reader, dialling.Relay)):
            work.add_credit(header["n"])

    def _cancel(self, request_id: int, _header: wire.Header, _payload: bytes) -> None:
        """The host has lost interest in a file operation."""
        work = self.work.get(request_id)
        if work is not None and not isinstance(work, keeping.RUNS):
            work.abort()
            self.fail(request_id, "file", errno.ECANCELED)

    def _signal(self, request_id: int, header: wire.Header, _payload: bytes) -> None:
        work = self.work.get(header["run"])
        if isinstance(work, (runs.Run, cells.Cell)):
            work.signal(header["signal"])
        self.send({"kind": "reply", "id": request_id})

    def _resize(self, request_id: int, header: wire.Header, _payload: bytes) -> None:
        work = self.work.get(header["run"])
        if isinstance(work, (runs.Run, cells.Cell)):
            work.resize(header["rows"], header["columns"])
        self.send({"kind": "reply", "id": request_id})

    def _kill(self, request_id: int, header: wire.Header, _payload: bytes) -> None:
        """End one run; its own exit frame is the answer to whoever waits for it."""
        work = self.work.get(header["run"])
        if isinstance(work, (runs.Run, cells.Cell)):
            work.kill()
        elif isinstance(work, runs.PartialScript):
            work.abort()
            self.fail(header["run"], "fork", errno.ECANCELED)
        self.send({"kind": "reply", "id": request_id})

    def _kill_all(self, request_id: int, _header: wire.Header, _payload: bytes) -> None:
        for work in list(self.work.values()):
            if isinstance(work, (runs.Run, cells.Cell)):
                work.kill()
        self.sessions.end(None)
        self.kill_marked(None, lambda _found: self.send({"kind": "reply", "id": request_id}))

    def _end_session(self, request_id: int, header: wire.Header, _payload: bytes) -> None:
        self.send({"kind": "reply", "id": request_id, "ended": self.sessions.end(header["name"])})

    def _sessions(self, request_id: int, _header: wire.Header, _payload: bytes) -> None:
        self.send({"kind": "reply", "id": request_id, "sessions": self.sessions.describe()})

    def _checkpoint(self, request_id: int, header: wire.Header, _payload: bytes) -> None:
        self.checkpoints.serve(request_id, header)

    def _wait_port(self, request_id: int, header: wire.Header, _payload: bytes) -> None:
        waiter = ports.Waiter(self, request_id, header)
        self.work[request_id] = waiter
        self._ports.add(waiter)

    def _read(self, request_id: int, header: wire.Header, _payload: bytes) -> None:
        reader = files.Reader(self, request_id, header)
        self.work[request_id] = reader
        reader.start()

    def _write(self, request_id: int, header: wire.Header, payload: bytes) -> None:
        writer = writing.writer(self, request_id, header)
        self.work[request_id] = writer
        writer.feed(payload, bool(header.get("end")))

    def _stat(self, request_id: int, header: wire.Header, _payload: bytes) -> None:
        self.send({"kind": "reply", "id": request_id, **files.stat_path(self, header)})

    def _list(self, request_id: int, header: wire.Header, _payload: bytes) -> None:
        fields, pieces = files.list_directory(self, header)
        for piece in pieces:
            self.send({"kind": "data", "id": request_id, "s": 1}, piece)
        self.send({"kind": "reply", "id": request_id, **fields})

    def drop(self, request_id: int) -> None:
        self.work.pop(request_id, None)

    # -- processes --------------------------------------------------------------------------------

    def marker_of(self, run_id: int) -> Optional[int]:
        """Return the marker of a run that goes on."""
        work = self.work.get(run_id)
        return work.marker if isinstance(work, runs.Run) else None

    def process_started(self, pid: int, program: Program) -> None:
        self._programs[pid] = program

    def process_ended(self, pid: Optional[int]) -> None:
        if pid is not None:
            self._programs.pop(pid, None)

    def run_ended(self, run: runs.Run) -> None:
        self.work.pop(run.id, None)
        self.process_ended(run.pid)
        self.markers.give_back(run.marker)

    def reap(self) -> None:
        """Collect every child that has ended: programs, and orphans that fell to PID 1."""
        ended = []
        try:
            while True:
                pid, status, rusage = os.wait4(-1, os.WNOHANG)
                if pid == 0:
                    break
                ended.append((pid, status, rusage))
        except ChildProcessError:
            pass
        for pid, status, rusage in ended:
            run = self._programs.pop(pid, None)
            if run is not None:
                run.on_exit(status, children.usage_of(rusage))

    def kill_marked(self, marker: Optional[int], done: Callable[[int], object]) -> None:
        """Kill all processes with this marker (None: all of the user's); tell `done` how many there were."""
        killing.Kill(self, marker, done).step()

    def kill_descendants(self, marker: int, done: Callable[[int], object]) -> None:
        """Like `kill_marked`, for a run whose program has ended: mostly there is nobody to look for."""
        known = self.helper_pids() | set(self._programs)
        if killing.adopted(known) is False:
            done(0)
        else:
            self.kill_marked(marker, done)


Running = Union[runs.Run, cells.Cell, runs.PartialScript]
Work = Union[Running, ports.Waiter, files.Reader, writing.Writer, disk.Watch, dialling.Relay, way_out.Outfit]
_FED = (runs.Run, cells.Cell, runs.PartialScript, writing.Writer, dialling.Relay, way_out.Outfit)
Program = Union[runs.Run, sessions.Session, checkpoints.Checkpoint]

# Closed: what a host may ask for is a method of the same name, and nothing else is.
_OPERATIONS = (
    "init compiled adopt ping halt stats spawn data credit cancel signal resize sessions end_session "
    "checkpoint wait_port kill kill_all read write stat list"
)
_HANDLERS: Dict[str, Callable[[Agent, int, wire.Header, bytes], None]] = {
    **{name: getattr(Agent, "_" + name) for name in _OPERATIONS.split()},
    **disk.HANDLERS,
    **leaving.HANDLERS,
    **provisions.HANDLERS,
    **way_out.HANDLERS,
    "connect": dialling.connect,
    **dict.fromkeys(("rejoin", "list_runs"), Agent._on_kept),
}


def main(modules: Modules, begun: Optional[early.Early] = None) -> None:
    if len(sys.argv) > 1:
        # Not the agent, but a program that it started this way; see `cold`.
        cold.main(sys.argv[1])
    # The kernel delivers to PID 1 only what it handles, from inside its namespace. So the defaults protect it
    # as well as ignoring would, and its children need not undo anything.
    for number in (signal.SIGINT, signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    agent = Agent(modules, begun, identity.shed_privileges() if begun is None else begun.bounding)
    if begun is None:
        agent.send({"kind": "ready", "id": 0, "protocol": wire.PROTOCOL})
    agent.loop.run()
