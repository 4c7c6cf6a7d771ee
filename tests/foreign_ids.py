"""Calls of every tool with ids of somebody else, or of nothing, and their answers byte for byte."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from typing import Any

from tests.raw import RawClient

SECRET = "secret-canary"
HANG = "sleep 600"
NUMBER = 7
"""Of every request whose answers are compared."""


@dataclass(frozen=True)
class Ids:
    """Of one of everything."""

    sandbox: str
    run: str
    snapshot: str
    checkpoint: str

    @classmethod
    def random(cls) -> Ids:
        """Return ids of nothing."""
        some = (prefix + secrets.token_hex(16) for prefix in ("sb-", "run-", "snap-", "cp-"))
        return cls(*some)


def about_sandboxes(ids: Ids) -> list[tuple[str, dict[str, Any]]]:
    """Return calls of all tools that take a sandbox's id."""
    calls: list[tuple[str, dict[str, Any]]] = [
        ("run_code", {"code": SECRET, "language": "shell"}),
        ("run_code", {"code": SECRET, "language": "shell", "idempotency_key": "hers"}),
        ("run_code", {"code": SECRET, "session": "s", "checkpoint": ids.checkpoint}),
        ("run_command", {"command": SECRET}),
        ("run_command", {"command": SECRET, "background": True}),
        ("write_file", {"path": "here", "content": SECRET}),
        ("edit_file", {"path": "here", "edits": [{"old": "a", "new": SECRET}]}),
        ("read_file", {"path": "here"}),
        ("find_files", {"path": "."}),
        ("snapshot", {"name": "mine"}),
        ("fork_sandbox", {"count": 1}),
        ("diff", {}),
        ("diff", {"since": ids.snapshot}),
        ("kill", {"session": "s"}),
        ("kill", {}),
    ]
    return [(tool, {**arguments, "sandbox_id": ids.sandbox}) for tool, arguments in calls]


def about_runs(ids: Ids) -> list[tuple[str, dict[str, Any]]]:
    """Return calls of all tools that take a run's id."""
    return [
        ("wait_run", {"run_id": ids.run, "wait_s": 0}),
        ("wait_run", {"run_id": ids.run, "wait_s": 0, "until": "port", "port": 8000}),
        ("wait_run", {"run_id": ids.run, "stdin": SECRET, "signal": 9}),
        ("read_output", {"run_id": ids.run}),
        ("read_output", {"run_id": ids.run, "grep": "a"}),
        ("kill", {"run_id": ids.run}),
    ]


def about_what_is_kept(ids: Ids, own: str) -> list[tuple[str, dict[str, Any]]]:
    """Return calls of all tools that take the id of a snapshot, by somebody with a sandbox."""
    return [
        ("create_sandbox", {"snapshot": ids.snapshot}),
        ("diff", {"sandbox_id": own, "since": ids.snapshot}),
        ("kill", {"snapshot_id": ids.snapshot}),
        ("kill", {"snapshot_id": ids.checkpoint}),
    ]


def about_checkpoints(ids: Ids, own: str) -> list[tuple[str, dict[str, Any]]]:
    """Return the call that goes back to a checkpoint, in a session of one's own."""
    arguments = {"code": "1", "sandbox_id": own, "session": "mine", "checkpoint": ids.checkpoint}
    return [("run_code", arguments)]


async def ask(client: RawClient, tool: str, arguments: dict[str, Any]) -> bytes:
    """Return the very bytes of an answer."""
    return await client.request(NUMBER, "tools/call", {"name": tool, "arguments": arguments})


async def result(client: RawClient, tool: str, **arguments: Any) -> dict[str, Any]:
    """Call a tool that is to succeed."""
    found = json.loads(await client.call(tool, **arguments))["result"]
    assert not found.get("isError"), found
    return dict(found["structuredContent"])
