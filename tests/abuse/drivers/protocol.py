"""Requests that do not mean what they say, and what becomes of it in logs, processes and files."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import anyio

from tests.abuse.over_http import ALICE, BOB, Caller, Served, request, told
from tests.abuse.runner import Attack
from tests.abuse.server import Server

WRONG_HEADERS: Mapping[str, Mapping[str, str | None]] = {
    "no version": {"MCP-Protocol-Version": None},
    "another version": {"MCP-Protocol-Version": "2025-11-25"},
    "a version that is none": {"MCP-Protocol-Version": "tomorrow"},
    "no method": {"Mcp-Method": None},
    "another method": {"Mcp-Method": "tools/list"},
    "no name": {"Mcp-Name": None},
    "another name": {"Mcp-Name": "kill"},
}
FORGED = "2026-01-01 ERROR forged"
EVIL = f"sb-1\r\n{FORGED}\n\x1b[2J\x1b]0;title\x07\x9b31m"
NOISE = """
import os, sys, threading, time, warnings

def noise():
    first = os.fstat(1)
    if {waits}:
        # Until the server has taken its standard output for itself.
        end = time.monotonic() + 30
        while os.path.samestat(first, os.fstat(1)) and time.monotonic() < end:
            time.sleep(0.01)
    for _ in range(200):
        print("noise of a library", flush=True)
        os.write(1, b"noise of a child\\n")
        warnings.warn("noise of a warning")
        time.sleep(0.01)

threading.Thread(target=noise, daemon=True).start()
"""

Trial = Callable[[Attack, bool], Awaitable[None]]


async def drive(attack: Attack) -> None:
    """Try; which case it is says what."""
    await TRIALS[attack.written.id](attack, False)


async def headers(attack: Attack, is_control: bool) -> None:
    """Say something else in the headers than in the message; in the control, the same."""
    served = await attack.ground.over_http()
    async with Caller(served.http, ALICE) as alice:
        for what, wrong in WRONG_HEADERS.items():
            answer = await alice.post(request("list_sandboxes", 1), {} if is_control else wrong)
            if answer.status_code != 400:
                attack.red(f"{what} is answered with {answer.status_code}: {answer.text[:200]}")


async def noise(attack: Attack, is_control: bool) -> None:
    """Have a library write to standard output while the server serves; in the control, before it does."""
    home = attack.ground.home / f"noise-{is_control}"
    home.mkdir(exist_ok=True)
    (home / "sitecustomize.py").write_text(NOISE.format(waits=not is_control))
    server = await Server.start({**attack.ground.environ(), "PYTHONPATH": str(home)})
    try:
        for _ in range(100):
            await server.call("list_sandboxes")
            await anyio.sleep(0.01)
        attack.verdict.violations += [f"O3: stdout of the server: {stray}" for stray in server.strays[:3]]
    finally:
        await server.close()


async def logs(attack: Attack, is_control: bool) -> None:
    """Say what would forge a line, or act on a terminal, where it could get into a log."""
    served = await attack.ground.over_http()
    async with Caller(served.http, ALICE) as alice:
        for tool, arguments in (
            ("run_command", {"command": EVIL, "sandbox_id": EVIL}),
            ("create_sandbox", {"name": EVIL}),
            ("create_sandbox", {"profile": EVIL}),
            ("kill", {"run_id": EVIL}),
            ("read_output", {"run_id": EVIL, "stream": EVIL}),
            (EVIL, {EVIL: EVIL}),
        ):
            answer = await alice.post(
                request(tool, 1, **arguments), {"Mcp-Name": "x"} if tool == EVIL else {}
            )
            attack.said.append(answer.text)
        text = told(await alice.call("kill", run_id=EVIL))
        if "\x1b" in text or "\x9b" in text:
            attack.red(f"an error has control characters: {text!r}")
    said = {"the log": served.http.log(), **_audit_logs(served)}
    if is_control:
        said["the log"] += f"WARNING There is no sandbox {EVIL}"
    for name, text in said.items():
        if any(character in text for character in "\x1b\x9b\r"):
            attack.red(f"{name} has control characters")
        if any(line.startswith(FORGED) for line in text.splitlines()):
            attack.red(f"{name} has a forged line")
    for name, text in _audit_logs(served).items():
        for line in text.splitlines():
            if not isinstance(json.loads(line), dict):
                attack.red(f"{name}: no record: {line[:200]}")


def _audit_logs(served: Served) -> dict[str, str]:
    folder = Path(served.environ["POCKET_DOCK_STATE_DIR"], "audit")
    return {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*")}


async def tokens(attack: Attack, is_control: bool) -> None:
    """Make errors with tokens in them, and look for a token everywhere; in the control, for its owner."""
    served = await attack.ground.over_http()
    http = served.http
    wanted = list(http.tokens) if is_control else list(http.tokens.values())
    said: dict[str, str] = {}
    async with Caller(http, ALICE) as alice, Caller(http, BOB) as bob:
        hers = http.tokens[ALICE]
        for name, headers, query in (
            ("in the URL", {"Authorization": None}, f"?access_token={hers}&token={hers}"),
            ("as Basic", {"Authorization": f"Basic {hers}"}, ""),
            ("with more", {"Authorization": f"Bearer {hers}x"}, ""),
            ("in other headers", {"Mcp-Method": hers, "MCP-Protocol-Version": hers, "X-Token": hers}, ""),
        ):
            said[name] = (await alice.post(request("list_sandboxes", 1), headers, query)).text
        # What he says himself may be told to him, so he does not say hers.
        said["a refusal"] = json.dumps(await bob.call("kill", sandbox_id="sb-0"))
        made = await alice.call("create_sandbox")
        look = "cat /proc/*/environ /proc/*/cmdline | tr '\\0' '\\n'"
        said["the sandbox"] = json.dumps(await alice.call("run_command", command=look)) + json.dumps(made)
    said["the log"] = http.log()
    said["arguments"] = Path("/proc", str(http.process.pid), "cmdline").read_text()
    said["environment"] = Path("/proc", str(http.process.pid), "environ").read_text()
    for path in Path(served.environ["POCKET_DOCK_STATE_DIR"]).rglob("*"):
        if path.is_file():
            said[str(path)] = path.read_text(errors="replace")
    for name, text in said.items():
        if any(some in text for some in wanted):
            attack.red(f"{name} has a token")
    async for wrong in served.clear():
        attack.red(wrong)


TRIALS: dict[str, Trial] = {"K11": headers, "K13": noise, "K14": logs, "K15": tokens}
