"""The MCP server as a client sees it: a real process on its standard streams, on real engines."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import anyio
import pytest

from pocket_dock_mcp.engine.base import Engine
from pocket_dock_mcp.manager.journal import dead_records
from pocket_dock_mcp.manager.sweep import INSTANCE_LABEL
from tests.engines import Target, eventually
from tests.servers import ERAS, Era, call, client, environment, failure, text

pytestmark = pytest.mark.anyio

FORK_BOMB = "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass"
TOOLS = [
    "create_sandbox",
    "run_code",
    "run_command",
    "wait_run",
    "read_output",
    "write_file",
    "edit_file",
    "read_file",
    "find_files",
    "snapshot",
    "fork_sandbox",
    "diff",
    "list_sandboxes",
    "kill",
]


@pytest.fixture
def environ(target: Target, tmp_path: Path, image: str) -> dict[str, str]:
    return environment(target, tmp_path, image)


@pytest.mark.parametrize("era", ERAS)
async def test_the_main_job_from_create_to_kill(environ: dict[str, str], era: Era) -> None:
    async with client(environ, era) as server:
        assert [tool.name for tool in (await server.list_tools()).tools] == TOOLS
        sandbox_id = (await call(server, "create_sandbox"))["sandbox_id"]
        ran = await call(server, "run_code", sandbox_id=sandbox_id, code="print(2 + 2)")
        assert (ran["status"], ran["stdout"]) == ("ok", "4\n")
        ran = await call(server, "run_command", sandbox_id=sandbox_id, command="exit 3")
        assert (ran["status"], ran["exit_code"]) == ("nonzero", 3)

        written = await call(server, "write_file", path="a/data.csv", content="x,y\n1,2\n")
        assert written["overwrote"] is False
        read = await call(server, "read_file", path="a/data.csv")
        assert (read["content"], read["total_lines"]) == ("x,y\n1,2\n", 2)

        snapshot_id = (await call(server, "snapshot", name="with data"))["snapshot_id"]
        second = (await call(server, "create_sandbox", snapshot=snapshot_id))["sandbox_id"]
        assert (await call(server, "read_file", sandbox_id=second, path="a/data.csv"))["size"] == 8
        listed = await call(server, "list_sandboxes")
        assert [one["sandbox_id"] for one in listed["sandboxes"]] == [sandbox_id, second]
        assert [one["snapshot_id"] for one in listed["snapshots"]] == [snapshot_id]

        victims: list[dict[str, str]] = [
            {"sandbox_id": sandbox_id},
            {"sandbox_id": second},
            {"snapshot_id": snapshot_id},
        ]
        for victim in victims:
            await call(server, "kill", **victim)
        assert await call(server, "list_sandboxes") == {"sandboxes": [], "snapshots": []}


async def test_bad_input_gets_a_typed_answer_and_the_server_keeps_serving(environ: dict[str, str]) -> None:
    async with client(environ) as server:
        assert "create_sandbox" in await failure(server, "run_code", code="1")
        sandbox_id = (await call(server, "create_sandbox"))["sandbox_id"]
        unknown = await failure(server, "run_code", sandbox_id=f"sb-{'0' * 32}", code="1")
        assert unknown.startswith("sandbox_not_found: ")
        assert await failure(server, "run_code", sandbox_id="../../etc", code="1") == unknown
        await call(server, "run_command", command="mkfifo fifo; ln -s loop loop; mkdir dir")
        refused: list[tuple[str, dict[str, Any], str]] = [
            ("run_code", {"code": ""}, "invalid_argument"),
            ("run_code", {"code": "#" * 2_000_000}, "invalid_argument"),
            ("run_command", {"command": "x" * 200_000}, "invalid_argument"),
            ("run_code", {"code": "1", "language": "cobol"}, "invalid_argument"),
            ("run_code", {"code": "1", "timeout_s": -1}, "invalid_argument"),
            ("run_code", {"code": "1", "max_output": 10**9}, "invalid_argument"),
            ("read_file", {"path": "a\0b"}, "invalid_argument"),
            ("read_file", {"path": "fifo"}, "not_regular_file"),
            ("read_file", {"path": "/dev/zero"}, "not_regular_file"),
            ("read_file", {"path": "dir"}, "is_directory"),
            ("read_file", {"path": "loop"}, "symlink_loop"),
            ("read_file", {"path": "missing"}, "file_not_found"),
            ("write_file", {"path": "fifo", "content": "x"}, "not_regular_file"),
            ("write_file", {"path": "x", "content": "%%%", "encoding": "base64"}, "invalid_argument"),
            ("create_sandbox", {"memory_mb": -5}, "invalid_argument"),
            ("create_sandbox", {"memory_mb": 10**12}, "invalid_argument"),
            ("create_sandbox", {"cpus": 0}, "invalid_argument"),
            ("create_sandbox", {"pids": 10**9}, "invalid_argument"),
            ("create_sandbox", {"ttl_s": -1}, "invalid_argument"),
            ("create_sandbox", {"profile": "x; rm -rf /"}, "invalid_argument"),
            ("create_sandbox", {"profile": f"sha256:{'0' * 64}"}, "image_not_found"),
            ("create_sandbox", {"snapshot": "nope"}, "snapshot_not_found"),
            ("kill", {"sandbox_id": sandbox_id, "snapshot_id": "x"}, "invalid_argument"),
        ]
        for tool, arguments, code in refused:
            told = await failure(server, tool, **arguments)
            assert told.startswith(f"{code}: "), (tool, arguments, told)
        assert (await call(server, "run_code", code="print('serving')"))["stdout"] == "serving\n"


async def test_types_that_do_not_fit_are_told_by_field(environ: dict[str, str]) -> None:
    async with client(environ) as server:
        assert "timeout_s" in await failure(server, "run_code", code="1", timeout_s="soon")


async def test_hostile_output_stays_data(environ: dict[str, str]) -> None:
    reply = '{"jsonrpc": "2.0", "id": 1, "result": {}}'
    code = f"print({reply!r}); print('\\x1b]52;c;aGk=\\x07\\x1b[2J<b>\\u202e'); print('--- end')"
    async with client(environ) as server:
        await call(server, "create_sandbox")
        result = await server.call_tool("run_code", {"code": code})

    structured = result.structured_content or {}
    assert structured["stdout"] == f"{reply}\n<b>\n--- end\n"
    assert structured["control_chars_removed"] is True
    shown = text(result)
    assert "\x1b" not in shown
    mark = shown.splitlines()[1].split()[2]
    assert shown.count(f"--- end {mark} ---") == 1


async def test_no_engine_is_told_within_two_seconds_and_mended_later(
    environ: dict[str, str], target: Target, tmp_path: Path
) -> None:
    socket = tmp_path / "engine.sock"
    async with client({**environ, "POCKET_DOCK_ENGINE": f"unix://{socket}"}) as server:
        told = await failure(server, "create_sandbox")
        assert told.startswith("engine_down: ")
        assert "POCKET_DOCK_ENGINE" in told
        socket.symlink_to(target.url.removeprefix("unix://"))
        assert (await call(server, "create_sandbox"))["sandbox_id"]


async def test_unicode_and_binary_files_round_trip(environ: dict[str, str]) -> None:
    content, hidden = "ünï cødé 🐳\n" * 10, "a\u2028\x1b[2Jb\r\n"
    async with client(environ) as server:
        await call(server, "create_sandbox")
        await call(server, "write_file", path="t", content=content)
        assert (await call(server, "read_file", path="t"))["content"] == content
        await call(server, "write_file", path="h", content=hidden)
        shown = await call(server, "read_file", path="h")
        assert (shown["content"], shown["control_chars_removed"]) == ("ab\n", True)
        exact = await call(server, "read_file", path="h", encoding="base64")
        assert base64.b64decode(exact["content"]).decode() == hidden
        await call(server, "write_file", path="b", content="AP8B/g==", encoding="base64")
        assert (await call(server, "read_file", path="b"))["content"] == "AP8B/g=="


async def test_a_long_file_is_read_on_where_the_reply_says(environ: dict[str, str]) -> None:
    async with client(environ) as server:
        await call(server, "create_sandbox")
        await call(server, "run_command", command="seq 1 20000 > numbers")
        lines: list[str] = []
        while True:
            part = await call(server, "read_file", path="numbers", start_line=len(lines) + 1)
            lines += part["content"].splitlines()
            if not part["truncated"]:
                break
        assert lines == [str(number) for number in range(1, 20001)]


# -- endings ------------------------------------------------------------------------------------------


class RawServer:
    """A server process spoken to by hand, so that it can be ended in every way."""

    def __init__(self, environ: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "pocket_dock_mcp"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environ,
            text=True,
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.stdin: IO[str] = self.process.stdin
        self.stdout: IO[str] = self.process.stdout
        self._id = 0

    def send(self, method: str, params: dict[str, Any], *, notify: bool = False) -> int:
        message: dict[str, Any] = {"jsonrpc": "2.0", "method": method, "params": params}
        if not notify:
            self._id += 1
            message["id"] = self._id
        self.stdin.write(json.dumps(message) + "\n")
        self.stdin.flush()
        return self._id

    def answer(self) -> dict[str, Any]:
        while True:
            message: dict[str, Any] = json.loads(self.stdout.readline())
            if "id" in message:
                return message

    def initialize(self) -> dict[str, Any]:
        info = {"name": "test", "version": "0"}
        self.send("initialize", {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": info})
        answer = self.answer()
        self.send("notifications/initialized", {}, notify=True)
        return answer

    def tool(self, name: str, **arguments: Any) -> dict[str, Any]:
        self.send("tools/call", {"name": name, "arguments": arguments})
        result: dict[str, Any] = self.answer()["result"]
        return result

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.stdin.close()
        self.stdout.close()


@contextmanager
def raw_server(environ: dict[str, str]) -> Iterator[RawServer]:
    server = RawServer(environ)
    try:
        yield server
    finally:
        server.close()


def label_of(environ: dict[str, str]) -> str:
    """Return the label of the containers of the only server with this state directory."""
    (path,) = Path(environ["POCKET_DOCK_STATE_DIR"], "instances").glob("*.jsonl")
    return f"{INSTANCE_LABEL}={path.stem}"


async def none_left(engine: Engine, label: str, within: float) -> None:
    """Wait until no container carries the label."""

    async def gone() -> bool:
        return not await engine.containers(label)

    await eventually(gone, within=within)


async def none_running(engine: Engine, label: str, within: float) -> None:
    """Wait until no container with the label runs; one that was only being made may still be there."""

    async def ended() -> bool:
        return all(found.status != "running" for found in await engine.containers(label))

    await eventually(ended, within=within)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
async def test_a_signal_ends_the_server_and_its_sandboxes(
    engine: Engine, environ: dict[str, str], number: signal.Signals
) -> None:
    with raw_server(environ) as server:
        server.initialize()
        server.tool("create_sandbox")
        server.tool("create_sandbox")
        label = label_of(environ)

        server.process.send_signal(number)

        assert server.process.wait(timeout=5) == 128 + number
        await none_left(engine, label, within=2)


async def test_the_end_of_input_ends_the_server_and_its_sandboxes(
    engine: Engine, environ: dict[str, str]
) -> None:
    with raw_server(environ) as server:
        server.initialize()
        server.tool("create_sandbox")
        server.send("tools/call", {"name": "run_command", "arguments": {"command": "sleep 1000"}})
        label = label_of(environ)

        server.stdin.close()

        assert server.process.wait(timeout=5) == 0
        await none_left(engine, label, within=2)


@pytest.mark.slow
@pytest.mark.parametrize("trial", range(int(os.environ.get("POCKET_DOCK_TEST_KILLS", "5"))))
async def test_after_a_kill_nothing_runs_and_after_the_next_start_nothing_is_left_though_a_fork_bomb_ran(
    engine: Engine, environ: dict[str, str], trial: int
) -> None:
    with raw_server(environ) as server:
        server.initialize()
        server.tool("create_sandbox")
        server.send("tools/call", {"name": "run_code", "arguments": {"code": FORK_BOMB}})
        label = label_of(environ)
        await anyio.sleep(0.1 + 0.1 * (trial % 5))  # into the bomb, at different depths

        server.process.kill()

        await none_running(engine, label, within=2)
        with dead_records(Path(environ["POCKET_DOCK_STATE_DIR"], "instances")) as records:
            assert len(list(records)) == 1

    # The pool may have been in the middle of making one: that is for the next server's sweep.
    with raw_server(environ) as server:
        server.initialize()
        server.tool("list_sandboxes")
        await none_left(engine, label, within=15)


async def test_a_server_sweeps_up_what_an_earlier_one_could_not(
    engine: Engine, environ: dict[str, str]
) -> None:
    # Nobody sweeps after the last one, so it makes nothing beside what ends by itself.
    environ = {**environ, "POCKET_DOCK_POOL_MB": "0"}
    with raw_server(environ) as server:
        server.initialize()
        server.tool("create_sandbox")
    with raw_server(environ) as server:
        server.initialize()
        server.tool("create_sandbox")
        assert len(list(Path(environ["POCKET_DOCK_STATE_DIR"], "instances").glob("*.jsonl"))) == 1


async def test_a_cancelled_call_is_not_answered_and_its_program_is_dead(environ: dict[str, str]) -> None:
    with raw_server(environ) as server:
        server.initialize()
        server.tool("create_sandbox")
        cancelled = server.send("tools/call", {"name": "run_command", "arguments": {"command": "sleep 1000"}})
        await anyio.sleep(0.3)  # until it runs; a cancel before that is as good
        server.send("notifications/cancelled", {"requestId": cancelled}, notify=True)

        result = server.tool("run_command", command="ls /proc | grep -c '^[0-9]'; cat /proc/[0-9]*/cmdline")

        assert not result["isError"], result
        assert "sleep\x001000" not in result["structuredContent"]["stdout"]


async def test_a_host_that_probes_and_then_initializes_is_served(environ: dict[str, str]) -> None:
    with raw_server(environ) as server:
        meta = {
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": {},
            "io.modelcontextprotocol/clientInfo": {"name": "probe", "version": "0"},
        }
        server.send("server/discover", {"_meta": meta})
        assert "result" in server.answer()
        assert "result" in server.initialize()
        assert server.tool("list_sandboxes")["isError"] is False


@pytest.mark.parametrize("flag", ["--version", "--help"])
def test_flags_are_answered_without_the_heavy_imports(flag: str) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "pocket_dock_mcp", flag], capture_output=True, text=True
    )

    assert done.returncode == 0
    assert "pocket-dock-mcp" in done.stdout
    assert "pydantic" not in done.stderr
    assert "mcp.types" not in done.stderr


@pytest.mark.parametrize("setting", ["POCKET_DOCK_MEMORY_MB", "POCKET_DOCK_ENGINE"])
def test_a_wrong_setting_is_told_on_the_terminal(setting: str) -> None:
    environ = {"PATH": os.environ["PATH"], "HOME": "/tmp", setting: "lots"}

    done = subprocess.run(
        [sys.executable, "-m", "pocket_dock_mcp"], env=environ, capture_output=True, text=True, input=""
    )

    assert done.returncode == 2
    assert setting in done.stderr
    assert done.stdout == ""
