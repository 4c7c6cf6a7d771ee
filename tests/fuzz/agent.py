"""What a hostile container says: frames of its agent, and output of the programs that we run in it.

The server's tools, and what of a container has no tool, are used on an engine whose agents lie. Each use ends
with a result that can be sent, or with one of our errors; and then the sandbox can be ended.
"""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from importlib import resources
from pathlib import Path
from typing import Any

import anyio
from mcp.client import Client
from mcp.types import CallToolResult, TextContent

from pocket_dock_mcp.agent.inside import wire
from pocket_dock_mcp.archive.program import program as transfer_program
from pocket_dock_mcp.container.core import LiveContainer
from pocket_dock_mcp.container.launch import Launch
from pocket_dock_mcp.errors import PocketDockError
from pocket_dock_mcp.manager.core import Manager
from pocket_dock_mcp.manager.sweep import INSTANCE_LABEL
from pocket_dock_mcp.server.app import create_server
from pocket_dock_mcp.settings import Settings
from pocket_dock_mcp.testing import FakeEngine, Process
from tests.fuzz.archives import stream
from tests.fuzz.harness import FoundError, Surface
from tests.fuzz.tampering import Edit, TamperedEngine
from tests.fuzz.values import TEXTS, mutated, mutated_bytes, value
from tests.pictures import png

MOST_BYTES = 1024 * 1024
"""Of a reply: clients drop what is larger, and the session with it."""
_CODE = "print(6 * 7)"
_INSIDE = resources.files("pocket_dock_mcp.agent.inside")
_OURS = [
    _INSIDE.joinpath(name).read_text(encoding="utf-8") for name in ("find.py", "inventory.py", "scale.py")
]

# -- what a faithful agent would say -------------------------------------------------------------------

_PATHS = [["/home/sandbox/a", 3], ["/tmp/b", None]]
_FILES = {"created": _PATHS, "modified": _PATHS, "deleted": ["c"], "counts": [2, 2, 1], "incomplete": False}
_SESSION = {"name": "s", "new": True, "alive": True}
_ENTRY = {"name": "a", "type": "file", "size": 3, "mode": 0o644, "mtime": 1.5, "uid": 1000}
_MASKS = dict.fromkeys(("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"), "0" * 16)
_RUN = {"id": 7, "meta": {"run": "run-" + "0" * 16}, "ended": True, "heard": False, "missing": [0, 0, 0]}
_FACTS = {
    "protocol": 1, "next": 5, "uid": 20000, "home": "/home/sandbox", "python": "3.11.2", "caps": _MASKS,
    "no_new_privs": "1", "seccomp": "2", "memory_limit": 2**29, "pids_limit": 128, "cpus": 1.0, "interfaces": ["lo"],
    "home_bytes": None, "disk_free": 2**40, "parked": True,
}  # fmt: skip
_EXIT = {
    "code": 0, "signal": None, "ended_by": None, "oom": False, "full": None, "disk": 5, "left_behind": 1, "files": _FILES,
    "session": _SESSION, "missed": [0, 0], "wall": 0.1, "cpu": 0.1, "peak": 2**20,
}  # fmt: skip
_STATS = {
    "now": 1.0, "uptime": 1.0, "cpu_s": 0.5, "cpu_before": 0.1, "memory": 2**23, "memory_peak": 2**23, "memory_limit": 2**29,
    "pids": 3, "pids_limit": 128, "processes": 1, "network": [{"name": "eth0", "received": 1, "sent": 2, "address": "10.0.0.1"}],
    "disk_free": 2**30, "root_free": 2**30, "runs": 1, "sessions": 0, "clients": 1,
}  # fmt: skip
_ERROR = {
    "kind": "error",
    "stage": "spawn",
    "code": "ENOENT",
    "why": "x",
    "signal": 9,
    "code_of_exit": 1,
    "oom": True,
}
_SAID: dict[str, dict[str, Any]] = {
    "ready": _FACTS,
    "init": _FACTS,
    "spawn": _EXIT,
    "read": {"size": 5, "mode": 0o644, "mtime": 1.5, "version": "1-2"},
    "write": {"path": "/home/sandbox/f", "size": 5, "overwrote": True},
    "list": {"truncated": False},
    "stats": _STATS,
    "sessions": {"sessions": [{"name": "s", "kind": "python", "busy": False}]},
    "end_session": {"ended": 1},
    "wait_port": {"ports": [8000]},
    "watch_disk": {"free": 2**30},
    "list_runs": {"runs": [_RUN]},
    "checkpoint": {"checkpoints": [{"id": "cp-1", "session": "s"}], "dropped": True},
    "kill_all": {},
    "provide": {"volumes": {}, "devices": {}, "boot": "x"},
    "kill": {},
    "adopt": {},
    "connect": {},
}
_STAGES = ("cwd", "exec", "fork", "helper", "session", "run", "file", "agent", "")
_CODES = (
    "ENOENT", "EACCES", "procfs", "changed", "not_regular", "busy", "too_many", "cancelled", "died", "threads",
    "no_session", "unknown", "late", "EAGAIN", "ENAMETOOLONG", "__class__", "a b",
)  # fmt: skip
_KINDS = ("reply", "error", "exit", "ready", "data", "credit", "relay", "replaced", "halted", "", "x")

# -- what the programs say that we run inside ----------------------------------------------------------

_FOUND = {"found": [["a/b", "file", 3], ["c", "directory", 0]], "more": False, "stopped": False}
_LINES = {"found": [["a/b", 1, "text"], ["c", 2, "more"]], "more": False, "stopped": False}
_COUNTS = {"skipped": 0, "binary": 0, "unreadable": 0}
_ITEM = ["a", "f", 0o644, 20000, 3, 10**18, 7, 10**18]
_LINK = ["l", "l", 0o777, 20000, 3, 10**18, 8, 10**18, "a"]
_WALK = [
    ["in", "", [["home", "d", 0o755, 0, 0, 0, 1, 0]]],
    ["in", "/", [_ITEM, _LINK]],
    ["end", {"closed": ["/root"]}],
]
_HASHES = [["hash", "0" * 64], ["hash", None], ["end", {}]]
_LANDED = {"done": True, "path": "/home/sandbox/x", "untimed": ["a"], "untimed_count": 1}
_SCALED = {"width": 10, "height": 10}
_IMAGES = (
    png(8, 8), b"GIF89a\x08\0\x08\0" + bytes(20), b"\xff\xd8\xff\xe0\0\x10JFIF\0" + bytes(9) + b"\xff\xc0\0\x0b\x08\0\x08\0\x08\x01" + bytes(9),
    b"RIFF\x30\0\0\0WEBPVP8X\x0a\0\0\0" + bytes(30), b"RIFF\x30\0\0\0WEBPVP8L\x0a\0\0\0/" + bytes(30),
)  # fmt: skip


class Agents(Surface):
    """The tools and the containers of a server whose sandboxes lie."""

    name = "agent"

    def __init__(self) -> None:
        self._plan: dict[str, Any] = {}
        self._runs = 0

    def make(self, rng: random.Random) -> bytes:
        """Return what is done, and what becomes of the frames and the output that answer it."""
        do = rng.choice((*_TOOLS, *_METHODS))
        first = _FIRST.get(do, do)
        edits = [_edit(rng, first if rng.random() < 0.8 else rng.choice(tuple(_SAID)))]
        while rng.random() < 0.2:
            edits.append(_edit(rng, rng.choice(tuple(_SAID))))
        plan = {
            "do": do,
            "edits": edits if rng.random() < 0.85 else [],
            "said": [_output(rng, do).decode("latin-1") for _ in range(3)],
            "exit": rng.choice((0, 0, 0, 0, 1, 127)),
            "content": mutated_bytes(rng, rng.choice(_IMAGES)).decode("latin-1"),
        }
        return json.dumps(plan).encode()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Hold one server and its client."""
        engine = TamperedEngine(lambda: [Edit(**edit) for edit in self._plan.get("edits", ())])
        for source in (*_OURS, transfer_program()):
            engine.program(source, self._say)
        engine.script(_CODE, stdout="42\n")
        self._engine = engine
        with tempfile.TemporaryDirectory(prefix="pocket-dock-fuzz-") as folder:
            self._folder = Path(folder)
            settings = Settings(
                state_dir=self._folder, profile=FakeEngine.IMAGE, warm_python=False, pool_mb=0, min_free_mb=0
            )
            async with (
                Manager(settings, self._connect) as manager,
                Client(create_server(manager, settings)) as self._client,
            ):
                yield
        await engine.aclose()

    async def _connect(self) -> FakeEngine:
        return self._engine

    async def _say(self, process: Process) -> int:
        """Be a program of ours that somebody in the sandbox has replaced."""
        said = self._plan["said"]
        self._runs += 1
        await process.write(said[self._runs % len(said)].encode("latin-1"))
        return int(self._plan["exit"])

    async def attempt(self, data: bytes) -> str:
        """Make a sandbox, do something in it, end it."""
        try:
            plan = json.loads(data)
            do = plan["do"]
            [Edit(**edit) for edit in plan["edits"]]
        except (ValueError, TypeError, KeyError):
            # Made smaller until it is no plan any more.
            return "none"
        self._runs = 0
        try:
            if do in _TOOLS:
                return await self._use_tool(plan, *_TOOLS[do])
            return await self._use_method(plan, _METHODS[do])
        finally:
            self._plan = {}
            await self._end_all()

    async def _use_tool(self, plan: dict[str, Any], tool: str, arguments: dict[str, Any]) -> str:
        is_late = not any(edit["op"] in ("ready", "init") for edit in plan["edits"])
        self._plan = {} if is_late else plan
        made = await self._call("create_sandbox", {})
        if made.is_error:
            return "not made"
        self._plan = {}
        for path in ("f", "i.png"):
            content = "text\n" if path == "f" else plan["content"]
            await self._call("write_file", {"path": path, "content": content})
        self._plan = plan
        return "error" if (await self._call(tool, arguments)).is_error else "result"

    async def _end_all(self) -> None:
        listed = await self._call("list_sandboxes", {})
        assert listed.structured_content is not None
        for sandbox in listed.structured_content["sandboxes"]:
            await self._call("kill", {"sandbox_id": sandbox["sandbox_id"]})
        with anyio.fail_after(10):
            while await self._engine.containers(INSTANCE_LABEL):
                await anyio.sleep(0.001)

    async def _call(self, tool: str, arguments: dict[str, Any]) -> CallToolResult:
        result = await self._client.call_tool(tool, arguments)
        size = len(result.model_dump_json(by_alias=True))
        if size > MOST_BYTES:
            raise FoundError(f"A reply of {tool} has {size} bytes.")
        said = "\n".join(block.text for block in result.content if isinstance(block, TextContent))
        if result.is_error and said.strip() == f"Error executing tool {tool}":
            raise FoundError(f"{tool} failed with an error that is none of ours.")
        return result

    async def _use_method(self, plan: dict[str, Any], method: _Method) -> str:
        self._plan = plan
        launch = Launch("fuzz", FakeEngine.IMAGE, {INSTANCE_LABEL: "fuzz"}, warm_python=False)
        try:
            container = await LiveContainer.create(self._engine, launch)
        except PocketDockError:
            return "not made"
        try:
            with anyio.fail_after(30):
                await method(container, self._folder)
        except PocketDockError:
            return "error"
        finally:
            await container.aclose()
        return "result"


# -- what is done --------------------------------------------------------------------------------------

_TOOLS: dict[str, tuple[str, dict[str, Any]]] = {
    "create": ("list_sandboxes", {}),
    "run_code": ("run_code", {"code": _CODE}),
    "run_session": ("run_code", {"code": _CODE, "session": "s"}),
    "run_command": ("run_command", {"command": "echo hello", "max_output": 65536}),
    "read_file": ("read_file", {"path": "f"}),
    "read_base64": ("read_file", {"path": "i.png", "encoding": "base64"}),
    "read_image": ("read_file", {"path": "i.png"}),
    "write_file": ("write_file", {"path": "new", "content": "text"}),
    "edit_file": ("edit_file", {"path": "f", "edits": [{"old": "text", "new": "other"}]}),
    "find_files": ("find_files", {"glob": "**"}),
    "grep": ("find_files", {"grep": "t"}),
    "diff": ("diff", {}),
    "list_sandboxes": ("list_sandboxes", {}),
    "fork_sandbox": ("fork_sandbox", {"count": 2}),
    "snapshot_of_none": ("create_sandbox", {"snapshot": "snap-none"}),
    "end_session": ("kill", {"session": "s"}),
    "checkpoint": ("run_code", {"code": _CODE, "session": "s", "checkpoint": "save"}),
}
_Method = Callable[[LiveContainer, Path], Awaitable[object]]


async def _pull(container: LiveContainer, folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=folder) as place:
        try:
            await container.pull("x", Path(place, "copy"))
        finally:
            if left := [path.name for path in Path(place).iterdir() if path.name != "copy"]:
                raise FoundError(f"A pull has left {left}.")


async def _push(container: LiveContainer, folder: Path) -> None:
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        file.write(b"content")
        file.flush()
        await container.push(file.name, "x")


async def _connect_to_port(container: LiveContainer, _folder: Path) -> None:
    mapping = await container.open_port(8000)
    stream = await anyio.connect_tcp("127.0.0.1", mapping.host_port)
    async with stream:
        try:
            await stream.send(b"echo\n")
            await stream.receive()
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            pass


_METHODS: dict[str, _Method] = {
    "pull": _pull,
    "push": _push,
    "connect": _connect_to_port,
    "list": lambda container, _: container.list_files("."),
    "sessions": lambda container, _: container.list_sessions(),
    "wait_port": lambda container, _: container.wait_port(8000),
    "stats": lambda container, _: container.info(),
    "kill_all": lambda container, _: container.kill_all(),
    "checkpoints": lambda container, _: container.list_checkpoints(),
    "drop": lambda container, _: container.drop_checkpoint("cp-0000000000000000"),
}
# Which request answers what is done first, where it is not called so.
_FIRST = {
    "create": "init", "run_code": "spawn", "run_session": "spawn", "run_command": "spawn", "read_file": "read",
    "read_base64": "read", "read_image": "read", "write_file": "write", "edit_file": "read", "find_files": "spawn",
    "grep": "spawn", "diff": "spawn", "list_sandboxes": "stats", "fork_sandbox": "init", "snapshot_of_none": "init",
    "checkpoint": "checkpoint", "checkpoints": "checkpoint", "drop": "checkpoint", "pull": "spawn", "push": "spawn",
}  # fmt: skip


# -- what becomes of the answers -------------------------------------------------------------------------


def _edit(rng: random.Random, op: str) -> dict[str, Any]:
    said = _SAID.get(op, {})
    edit: dict[str, Any] = {"op": op}
    act = rng.randrange(10)
    if act < 5:
        changed = mutated(rng, said)
        if not isinstance(changed, dict):
            changed = {rng.choice(tuple(said) or ("kind",)): changed}
        edit["set"] = changed if rng.random() < 0.5 else _few(rng, changed)
    elif act == 5:
        changed = mutated(rng, {**_ERROR, "stage": rng.choice(_STAGES), "code": rng.choice(_CODES)})
        edit["set"] = changed if isinstance(changed, dict) else _ERROR
    elif act == 6:
        edit["raw"] = _raw(rng).decode("latin-1")
        edit["ends"] = True
    elif act == 7:
        edit["set"] = {rng.choice(("kind", "id")): rng.choice((*_KINDS, value(rng)))}
        edit["ends"] = True
    else:
        edit["set"] = said if rng.random() < 0.5 else {}
    if rng.random() < 0.3:
        edit[rng.choice(("before", "after"))] = [_extra(rng) for _ in range(rng.choice((1, 1, 3)))]
    if rng.random() < 0.1:
        edit["drop"] = [rng.choice((*said, "kind", "id"))]
        edit["ends"] = True
    if rng.random() < 0.1:
        edit["payload"] = rng.randbytes(rng.choice((1, 100, 5000))).decode("latin-1")
    return edit


def _few(rng: random.Random, fields: dict[str, Any]) -> dict[str, Any]:
    return {key: fields[key] for key in rng.sample(list(fields), min(len(fields), rng.choice((1, 1, 2))))}


def _extra(rng: random.Random) -> tuple[dict[str, Any], str]:
    kind = rng.choice(_KINDS)
    header: dict[str, Any] = {"kind": kind, "id": rng.choice(("@", "@", "@", 0, 3, 10**6))}
    payload = b""
    if kind == "data":
        header["s"] = rng.choice((1, 2, 3, 3, 3, 0, 4, "1", None))
        payload = rng.choice((_report(rng), _listing(rng), rng.randbytes(rng.choice((0, 100, 200_000)))))
    elif kind == "credit":
        header["n"] = rng.choice((0, 1, -1, 2**64, "1", 10**400))
    elif kind == "relay":
        header["end"] = rng.choice((True, False, 1, None))
        payload = rng.randbytes(rng.choice((0, 1, 200_000)))
    elif kind == "halted":
        header["why"] = rng.choice(("stopped", "rebooted", [], {}, None, 1))
    if rng.random() < 0.2:
        changed = mutated(rng, header)
        header = changed if isinstance(changed, dict) else {}
    return header, payload.decode("latin-1")


def _report(rng: random.Random) -> bytes:
    """Return what an interpreter says of its program."""
    blocks: list[tuple[dict[str, Any], bytes]] = [
        ({"what": "result", "text": rng.choice(TEXTS)}, b""),
        (
            {"what": "image", "mime": "image/png", "name": rng.choice(TEXTS), "drawn": True},
            rng.choice(_IMAGES),
        ),
        ({"what": "images_left", "count": 3}, b""),
        ({"what": "note", "text": rng.choice(TEXTS)}, b""),
        ({"what": "failed", "errno": 2}, b""),
    ]
    chosen = rng.choices(blocks, k=rng.randrange(1, 4))
    whole = []
    for header, payload in chosen:
        said = mutated(rng, header) if rng.random() < 0.5 else header
        whole.append(wire.encode(said if isinstance(said, dict) else {"what": said}, payload))
    data = b"".join(whole)
    return mutated_bytes(rng, data) if rng.random() < 0.1 else data


def _listing(rng: random.Random) -> bytes:
    """Return lines of a listing."""
    lines = [mutated(rng, _ENTRY) if rng.random() < 0.5 else _ENTRY for _ in range(rng.randrange(1, 4))]
    data = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    return mutated_bytes(rng, data) if rng.random() < 0.2 else data


def _raw(rng: random.Random) -> bytes:
    act = rng.randrange(5)
    if act == 0:
        return wire.PREFIX.pack(
            rng.choice((0, 1, 2**21, 2**21 + 1, 2**32 - 1)), rng.choice((0, 2**18 + 1, 2**32 - 1))
        )
    if act == 1:
        header = rng.choice(
            (
                b"[" * 100_000,
                b"9" * 5000,
                b'{"id":' + b"9" * 4000 + b"}",
                b"null",
                b"{}",
                b"\xff",
                b'{"kind":NaN}',
            )
        )
        return wire.PREFIX.pack(len(header), 0) + header
    if act == 2:
        return rng.randbytes(rng.choice((1, 8, 100)))
    return mutated_bytes(rng, wire.encode({"kind": "reply", "id": 3}, b"payload"))


def _output(rng: random.Random, do: str) -> bytes:
    """Return what a program of ours says, if it is still ours."""
    if do == "pull":
        return stream(rng)
    if do == "push":
        return b"\n" + _json_lines(
            rng, [_LANDED if rng.random() < 0.7 else {"errno": 13, "at": "a", "path": "b"}]
        )
    if do == "diff":
        return _json_lines(rng, _WALK if rng.random() < 0.7 else _HASHES)
    if do in ("find_files", "grep"):
        return _json_lines(rng, [{**(_FOUND if do == "find_files" else _LINES), **_COUNTS}])
    return _json_lines(rng, [_SCALED])


def _json_lines(rng: random.Random, lines: list[Any]) -> bytes:
    changed = mutated(rng, lines) if rng.random() < 0.8 else lines
    whole = changed if isinstance(changed, list) else [changed]
    data = b"".join(json.dumps(line).encode() + b"\n" for line in whole)
    return mutated_bytes(rng, data) if rng.random() < 0.2 else data
