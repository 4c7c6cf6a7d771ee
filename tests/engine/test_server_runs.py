"""Runs as an MCP client sees them: following, feeding, repeating and reading them, on real engines."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
from mcp.client import Client

from tests.engines import Target, eventually
from tests.servers import call, client, environment, failure, text

pytestmark = [pytest.mark.anyio, pytest.mark.front]


@pytest.fixture(scope="module")
async def connected(
    target: Target, tmp_path_factory: pytest.TempPathFactory, image: str
) -> AsyncIterator[Client]:
    """Return a client of a server that the tests share: to start one takes longer than a test."""
    async with client(environment(target, tmp_path_factory.mktemp("home"), image)) as connected:
        yield connected


@pytest.fixture
async def server(connected: Client) -> AsyncIterator[Client]:
    """Return a client that has one sandbox of the test's own."""
    await call(connected, "create_sandbox")
    yield connected
    for sandbox in (await call(connected, "list_sandboxes"))["sandboxes"]:
        await call(connected, "kill", sandbox_id=sandbox["sandbox_id"])


async def told(client: Client, tool: str, **arguments: Any) -> str:
    """Call a tool and return what the model reads."""
    return text(await client.call_tool(tool, arguments))


async def test_a_run_that_outlasts_the_wait_is_followed_to_its_end(server: Client) -> None:
    script = "for i in $(seq 1 30); do echo line $i; sleep 0.05; done; echo error >&2; exit 3"
    reply = await call(server, "run_command", command=script, wait_s=0.15)
    assert reply["status"] == "running"
    assert reply["exit_code"] is None
    parts, replies = reply["stdout"], 0
    while reply["status"] == "running":
        reply = await call(server, "wait_run", run_id=reply["run_id"], wait_s=0.15)
        parts += reply["stdout"]
        replies += 1

    assert replies > 3
    assert (reply["status"], reply["exit_code"], reply["stderr"]) == ("nonzero", 3, "error\n")
    expected = "".join(f"line {number}\n" for number in range(1, 31))
    assert parts == expected
    assert (await call(server, "read_output", run_id=reply["run_id"]))["content"] == expected


async def test_the_text_of_a_running_run_names_the_way_on(server: Client) -> None:
    shown = await told(server, "run_command", command="echo early; sleep 60", wait_s=0.3)

    assert shown.startswith("running, ")
    assert "early" in shown
    assert "wait_run" in shown


async def test_a_timeout_ends_a_run_though_nobody_waits(server: Client) -> None:
    reply = await call(server, "run_command", command="sleep 600", wait_s=0, timeout_s=0.4)
    assert reply["status"] == "running"

    reply = await call(server, "wait_run", run_id=reply["run_id"], wait_s=20)

    assert reply["status"] == "timeout"
    assert "0.4 s" in reply["hint"]


async def test_a_background_run_is_waited_for_by_port_and_by_output(server: Client) -> None:
    serve = "python3 -u -m http.server 8123 --bind 127.0.0.1"
    run_id = (await call(server, "run_command", command=serve, background=True))["run_id"]
    reply = await call(server, "wait_run", run_id=run_id, until="port", port=8123)
    assert reply["status"] == "running"

    fetch = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:8123/').status)"
    assert (await call(server, "run_code", code=fetch))["stdout"] == "200\n"
    matched = await told(server, "wait_run", run_id=run_id, until="output", pattern='"GET / HTTP/1.1" 200')
    assert re.search(r"\n--- matched line (\w+) ---\n.*GET / HTTP/1.1.*\n--- end \1 ---\n", matched)

    await call(server, "kill", run_id=run_id)
    assert (await call(server, "wait_run", run_id=run_id))["status"] == "killed"


async def test_a_port_that_another_run_listens_on_is_not_the_runs(server: Client) -> None:
    serve = "python3 -u -m http.server 8124 --bind 127.0.0.1"
    first = (await call(server, "run_command", command=serve, background=True))["run_id"]
    await call(server, "wait_run", run_id=first, until="port", port=8124)
    second = (await call(server, "run_command", command=serve, background=True))["run_id"]

    shown = await told(server, "wait_run", run_id=second, until="port", port=8124)
    assert "No such port" in shown
    assert "nonzero" in shown
    assert "Listening on port 8124" in await told(server, "wait_run", run_id=first, until="port", port=8124)


async def test_the_end_of_a_run_ends_every_wait(server: Client) -> None:
    run_id = (await call(server, "run_command", command="exit 5", background=True))["run_id"]

    for until in ("output", "port", "exit"):
        reply = await call(server, "wait_run", run_id=run_id, until=until, wait_s=20)
        assert (reply["status"], reply["exit_code"]) == ("nonzero", 5)


async def test_a_background_run_is_fed_and_signalled(server: Client) -> None:
    script = (
        "trap 'echo interrupted' INT; echo name?; read -r name; echo hello $name; cat >/dev/null; echo over"
    )
    run_id = (await call(server, "run_command", command=script, background=True))["run_id"]
    await call(server, "wait_run", run_id=run_id, until="output", pattern=r"name\?$")
    reply = await call(server, "wait_run", run_id=run_id, stdin="you\n", until="output", pattern="hello")
    assert "hello you" in reply["stdout"]
    reply = await call(server, "wait_run", run_id=run_id, signal=2, until="output", pattern="interrupted")
    reply = await call(server, "wait_run", run_id=run_id, close_stdin=True)

    assert (reply["status"], reply["exit_code"]) == ("ok", 0)
    assert "background=true" in await failure(
        server, "wait_run", run_id=(await call(server, "run_command", command="true"))["run_id"], stdin="x"
    )


async def test_what_is_waited_for_after_an_input_is_its_answer_and_no_older_output(server: Client) -> None:
    script = "printf '>>> '; while read -r line; do echo; sleep 0.3; echo answer $line; printf '>>> '; done"
    run_id = (await call(server, "run_command", command=script, background=True))["run_id"]
    await call(server, "wait_run", run_id=run_id, until="output", pattern=">>> ")
    for number in ("one", "two"):
        reply = await call(
            server, "wait_run", run_id=run_id, stdin=f"{number}\n", until="output", pattern=">>> "
        )
        assert f"answer {number}" in reply["stdout"]
    await call(server, "kill", run_id=run_id)


async def test_the_same_key_runs_once(server: Client) -> None:
    """Also while the first is still running, and whatever the second wants to run."""
    replies: list[dict[str, Any]] = []

    async def run() -> None:
        script = "echo x >> count; sleep 0.5; wc -l < count"
        replies.append(await call(server, "run_command", command=script, idempotency_key="key"))

    async with anyio.create_task_group() as group:
        for _ in range(20):
            group.start_soon(run)
    assert len({reply["run_id"] for reply in replies}) == 1
    assert {reply["stdout"] for reply in replies} == {"1\n"}

    again = await call(server, "run_command", command="echo other", idempotency_key="key")
    assert again["stdout"] == "1\n"
    assert (await call(server, "run_command", command="wc -l < count"))["stdout"] == "1\n"


async def test_a_key_is_free_when_nothing_was_run_under_it(server: Client) -> None:
    assert "empty" in await failure(server, "run_command", command=" ", idempotency_key="key")

    assert (await call(server, "run_command", command="echo ran", idempotency_key="key"))["stdout"] == "ran\n"


async def test_a_client_that_gives_up_kills_its_run_but_not_a_background_run(server: Client) -> None:
    background = await call(server, "run_command", command="sleep 5151", background=True)
    with anyio.move_on_after(0.5):
        await server.call_tool("run_command", {"command": "sleep 5252"})
    look = "cat /proc/[0-9]*/cmdline | tr '\\0' ' ' | grep -o 'sleep 5[12]5[12]' | sort | uniq"

    async def is_killed() -> bool:
        shown: str = (await call(server, "run_command", command=look))["stdout"]
        return shown == "sleep 5151\n"

    await eventually(is_killed, within=10)
    assert (await call(server, "wait_run", run_id=background["run_id"], wait_s=0))["status"] == "running"


async def test_a_wait_that_is_given_up_leaves_the_run(server: Client) -> None:
    reply = await call(server, "run_command", command="sleep 0.8; echo done", wait_s=0.1)
    with anyio.move_on_after(0.2):
        await server.call_tool("wait_run", {"run_id": reply["run_id"]})

    reply = await call(server, "wait_run", run_id=reply["run_id"])
    assert (reply["status"], reply["stdout"]) == ("ok", "done\n")


async def test_progress_has_the_newest_line(server: Client) -> None:
    seen: list[str | None] = []

    async def note(progress: float, total: float | None, message: str | None) -> None:
        seen.append(message)

    script = "for i in 1 2 3 4 5 6; do echo step $i; sleep 0.5; done"
    await server.call_tool("run_command", {"command": script}, progress_callback=note)

    assert any(message is not None and message.startswith("step ") for message in seen)


ODD = r"""
import sys
out = sys.stdout.buffer
out.write(bytes(range(256)) * 100 + b"\n")
out.write(b"\x1b[31mred\x1b[0m \x1b]0;title\x07 \x1b]52;c;aGk=\x07\n")
out.write(b'{"jsonrpc":"2.0","id":1,"result":{}}\n')
out.write("é".encode()[:1])
out.flush()
out.write("é".encode()[1:] + b"\n" + b"x" * 3_000_000)
"""


async def test_hostile_output_is_a_valid_reply_and_its_bytes_can_be_had(server: Client) -> None:
    reply = await call(server, "run_code", code=ODD, max_output=60_000)
    assert reply["control_chars_removed"]
    assert reply["truncated"]
    assert not any(character in reply["stdout"] for character in "\x1b\x07\x00\x9b")
    assert '{"jsonrpc":"2.0","id":1,"result":{}}' in reply["stdout"]

    whole = b""
    at: int | None = 0
    while at is not None:
        part = await call(
            server, "read_output", run_id=reply["run_id"], start_byte=at, max_bytes=262_144, encoding="base64"
        )
        whole += base64.b64decode(part["content"])
        at = part["next_byte"]
    expected = bytes(range(256)) * 100 + b"\n"
    expected += (
        b'\x1b[31mred\x1b[0m \x1b]0;title\x07 \x1b]52;c;aGk=\x07\n{"jsonrpc":"2.0","id":1,"result":{}}\n'
    )
    expected += "é\n".encode() + b"x" * 3_000_000
    assert len(whole) == reply["stdout_bytes"]
    assert hashlib.sha256(whole).digest() == hashlib.sha256(expected).digest()


async def test_output_is_read_by_line_tail_and_search(server: Client) -> None:
    run_id = (await call(server, "run_command", command="seq 1 50000; echo last >&2"))["run_id"]

    async def read(**arguments: Any) -> dict[str, Any]:
        return await call(server, "read_output", run_id=run_id, **arguments)

    lines = await read(start_line=40_000, lines=2)
    assert (lines["content"], lines["first_line"], lines["last_line"]) == ("40000\n40001\n", 40_000, 40_001)
    assert (await read(tail=2))["content"] == "49999\n50000\n"
    found = await read(grep="^1234.$", context=1)
    assert found["matches"] == 10
    assert "12339-12339" in found["content"]
    assert "12345:12345" in found["content"]
    assert (await read(stream="stderr"))["content"] == "last\n"
    assert (await read(start_line=99_999))["content"] == ""


@pytest.mark.parametrize(
    "arguments",
    [
        {"grep": "("},
        {"start_line": 0},
        {"tail": -1},
        {"tail": 1, "start_line": 1},
        {"max_bytes": 0},
        {"max_bytes": 10**9},
        {"context": -1, "grep": "x"},
        {"start_byte": -1},
    ],
)
async def test_a_read_that_makes_no_sense_is_refused(server: Client, arguments: dict[str, Any]) -> None:
    run_id = (await call(server, "run_command", command="seq 1 10"))["run_id"]

    assert "invalid_argument" in await failure(server, "read_output", run_id=run_id, **arguments)


async def test_a_run_of_a_sandbox_that_ended_is_told_why(server: Client) -> None:
    run_id = (await call(server, "run_command", command="true"))["run_id"]
    assert "run_not_found" in await failure(server, "read_output", run_id="run-0123456789abcdef")
    await call(server, "kill")

    for tool in ("read_output", "wait_run"):
        assert "it was killed" in await failure(server, tool, run_id=run_id)


async def test_a_key_is_free_again_when_the_run_could_not_begin(server: Client) -> None:
    arguments = {"command": "pwd", "cwd": "later", "idempotency_key": "key"}
    assert "file_not_found" in await failure(server, "run_command", **arguments)
    await call(server, "run_command", command="mkdir later")

    assert (await call(server, "run_command", **arguments))["stdout"] == "/home/sandbox/later\n"


async def test_what_a_tool_does_not_take_is_refused_with_what_it_does(server: Client) -> None:
    assert "timeout_s" in await failure(server, "run_command", command="true", timeout=1)
    assert (await failure(server, "run_command", command=1)).startswith("invalid_argument: command: ")
    assert (await failure(server, "wait_run", run_id="x", until="never")).startswith(
        "invalid_argument: until: "
    )
    assert "run_code" in await failure(server, "run_cod", code="1")


@pytest.mark.parametrize(
    "arguments",
    [
        {"wait_s": -1},
        {"wait_s": 301},
        {"until": "output", "pattern": "("},
        {"pattern": "x"},
        {"port": 80},
        {"until": "port", "port": 0},
        {"signal": 65},
    ],
)
async def test_a_wait_that_makes_no_sense_is_refused(server: Client, arguments: dict[str, Any]) -> None:
    run_id = (await call(server, "run_command", command="sleep 60", background=True))["run_id"]

    assert "invalid_argument" in await failure(server, "wait_run", run_id=run_id, **arguments)


async def test_sessions_over_the_server(server: Client) -> None:
    await call(server, "run_command", command="v=1; cd /tmp", session="a")
    await call(server, "run_command", command="v=2", session="b")
    assert (await call(server, "run_command", command="echo $v; pwd", session="a"))["stdout"] == "1\n/tmp\n"

    await call(server, "kill", session="b")
    assert (await call(server, "run_command", command="echo $v", session="a"))["session"]["new"] is False
    ended = await call(server, "run_command", command="exit 4", session="a")
    assert ended["exit_code"] == 4
    assert ended["session"] == {"name": "a", "new": False, "alive": False}
    assert "no session" in await failure(server, "kill", session="zzz")


async def test_changed_files_are_told_in_one_line(server: Client) -> None:
    shown = await told(server, "run_command", command="echo 1 > new; echo 2 > other; rm other")

    assert "Files: +/home/sandbox/new (2)" in shown
    assert "other" not in shown


async def test_two_hundred_megabytes_in_one_line_can_be_read_anywhere(server: Client) -> None:
    made = "bytes(range(256)).replace(b'\\n', b' ') * 4096"
    code = f"import os\nblock = {made}\nfor _ in range(200): os.write(1, block)\nNone"
    run_id = (await call(server, "run_code", code=code, timeout_s=100, wait_s=100))["run_id"]
    block = bytes(range(256)).replace(b"\n", b" ") * 4096

    for start in (0, 100_000_000, 209_715_200 - 1000):
        part = await call(
            server, "read_output", run_id=run_id, start_byte=start, max_bytes=50_000, encoding="base64"
        )
        found = base64.b64decode(part["content"])
        at = start % len(block)
        assert found == (block + block)[at : at + len(found)]
        assert len(found) in (50_000, 49_997, 49_998, 49_999, 1000)
        assert part["total_bytes"] == 209_715_200


async def test_a_session_goes_back_to_a_copy_before_a_run(server: Client) -> None:
    await call(server, "run_code", code="x = [1]", session="s")
    saved = await call(server, "run_code", code="x.append(2); x", session="s", checkpoint="save")
    copy = saved["checkpoint_id"]
    assert (saved["result"], copy[:3]) == ("[1, 2]", "cp-")
    back = [
        await call(server, "run_code", code="x.append(3); x", session="s", checkpoint=copy) for _ in range(2)
    ]
    once = [
        await call(server, "run_code", code="x", session="s", checkpoint=copy, idempotency_key="k")
        for _ in range(2)
    ]
    await call(server, "run_code", code="x.append(4)", session="s")
    await call(server, "run_code", code="x", session="s", checkpoint=copy, idempotency_key="k")

    assert [reply["result"] for reply in back] == ["[1, 3]", "[1, 3]"]
    assert [reply["checkpoint_id"] for reply in back] == [copy, copy]
    assert len({reply["run_id"] for reply in once}) == 1
    assert (await call(server, "run_code", code="x", session="s"))["result"] == "[1, 4]"
    assert copy in await told(server, "run_code", code="x", session="s", checkpoint=copy)
    assert (await call(server, "kill", snapshot_id=copy))["killed"] == copy
    assert "no such checkpoint" in await failure(server, "run_code", code="x", session="s", checkpoint=copy)
    assert "no such checkpoint" in await failure(server, "kill", snapshot_id=copy)
    for bad in ("Save", "latest", ""):
        said = await failure(server, "run_code", code="x", session="s", checkpoint=bad)
        assert "'save', or a checkpoint_id (cp-...)" in said
    assert "Name the session" in await failure(server, "run_code", code="x", checkpoint="save")
    assert "Name the session" in await failure(
        server, "run_code", code="x", language="shell", session="s", checkpoint="save"
    )
