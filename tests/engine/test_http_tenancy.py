"""Several principals over HTTP: what one has, another neither reaches nor can tell from what is not there."""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.engines import Target
from tests.raw import KINDS, Kind, RawClient, raw_client
from tests.servers import HttpServer, call, environment, http_server

pytestmark = [pytest.mark.anyio, pytest.mark.fake_too, pytest.mark.front]

PRINCIPALS = ["alice", "bob"]
STRANGERS: list[tuple[str, Kind]] = [
    *(("bob", kind) for kind in KINDS),
    ("alice", "session"),
    ("alice", "sse"),
]
"""Who is not the owner: anybody of another principal, and other sessions of the same one."""
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


@pytest.fixture
def environ(target: Target, tmp_path: Path, image: str) -> dict[str, str]:
    return {
        **environment(target, tmp_path, image),
        "POCKET_DOCK_MAX_SANDBOXES": "6",
        "POCKET_DOCK_MEMORY_MB": "64",
        "POCKET_DOCK_POOL_MB": "0",
    }


@pytest.fixture
async def server(target: Target, environ: dict[str, str]) -> AsyncIterator[HttpServer]:
    async with http_server(target, environ, principals=PRINCIPALS) as server:
        yield server


async def ask(client: RawClient, tool: str, arguments: dict[str, Any]) -> bytes:
    """Return the very bytes of an answer."""
    return await client.request(NUMBER, "tools/call", {"name": tool, "arguments": arguments})


async def result(client: RawClient, tool: str, **arguments: Any) -> dict[str, Any]:
    """Call a tool that is to succeed."""
    found = json.loads(await client.call(tool, **arguments))["result"]
    assert not found.get("isError"), found
    return dict(found["structuredContent"])


async def everything(alice: RawClient, target: Target) -> dict[str, Ids]:
    """Have of everything that there can be, in every state, and return the ids."""
    ids: dict[str, Ids] = {}
    for state in ("live", "kept", "ended"):
        box = (await result(alice, "create_sandbox", persist=state == "kept", name="hers"))["sandbox_id"]
        run = await result(alice, "run_command", sandbox_id=box, command=HANG, background=True)
        await result(alice, "run_command", sandbox_id=box, command="true", idempotency_key="hers")
        checkpoint = Ids.random().checkpoint
        if not target.is_fake:
            code = {"code": "x = 1", "session": "s", "checkpoint": "save"}
            await result(alice, "run_code", sandbox_id=box, code="1", session="s")
            checkpoint = (await result(alice, "run_code", sandbox_id=box, **code))["checkpoint_id"]
        snapshot = Ids.random().snapshot
        if state == "live":
            snapshot = (await result(alice, "snapshot", sandbox_id=box, name="hers"))["snapshot_id"]
        ids[state] = Ids(box, run["run_id"], snapshot, checkpoint)
    await result(alice, "kill", sandbox_id=ids["ended"].sandbox)
    return ids


async def test_on_every_tool_anothers_id_gets_byte_for_byte_what_a_random_one_gets(
    server: HttpServer, target: Target, environ: dict[str, str]
) -> None:
    async with raw_client(server, "alice") as alice:
        hers = await everything(alice, target)
        before = await result(alice, "list_sandboxes")
        for principal, kind in STRANGERS:
            async with raw_client(server, principal, kind) as stranger:
                await _tries_all(stranger, principal, list(hers.values()), target)

        await _is_as_it_was(alice, before, hers)
        noted = _denials(environ)
    assert noted >= {
        ("token:bob", tool)
        for tool, _ in [*about_sandboxes(hers["live"]), *about_runs(hers["live"]), ("create_sandbox", {})]
    }
    log = Path(environ["POCKET_DOCK_STATE_DIR"], "audit", "denied.jsonl").read_text()
    assert hers["live"].sandbox in log
    assert SECRET not in log
    assert not any(token in log for token in server.tokens.values())


async def _tries_all(stranger: RawClient, principal: str, hers: list[Ids], target: Target) -> None:
    own = (await result(stranger, "create_sandbox"))["sandbox_id"]
    if not target.is_fake:
        await result(stranger, "run_code", sandbox_id=own, code="1", session="mine")
    for ids in hers:
        random = Ids.random()
        pairs = [*zip(about_sandboxes(ids), about_sandboxes(random), strict=True)]
        pairs += zip(about_runs(ids), about_runs(random), strict=True)
        if principal == "alice":
            # What is kept is the principal's.
            pairs = [] if ids is hers[1] else pairs
        else:
            pairs += zip(about_what_is_kept(ids, own), about_what_is_kept(random, own), strict=True)
        if not target.is_fake:
            pairs += zip(about_checkpoints(ids, own), about_checkpoints(random, own), strict=True)
        for (tool, foreign), (_, unknown) in pairs:
            answer = await ask(stranger, tool, foreign)
            assert answer == await ask(stranger, tool, unknown), (stranger.kind, tool, foreign)
            assert json.loads(answer)["result"]["isError"], (tool, foreign)
            assert "not_found" in answer.decode(), (tool, answer)
    # The key that she has used is hers.
    anew = await result(stranger, "run_command", sandbox_id=own, command="echo mine", idempotency_key="hers")
    assert anew["stdout"] == "mine\n"
    await result(stranger, "kill", sandbox_id=own)


async def _is_as_it_was(alice: RawClient, before: dict[str, Any], hers: dict[str, Ids]) -> None:
    after = await result(alice, "list_sandboxes")
    for field in ("sandboxes", "snapshots"):
        names = [next(iter(one.values())) for one in before[field]]
        assert [next(iter(one.values())) for one in after[field]] == names
    for state in ("live", "kept"):
        assert (await result(alice, "wait_run", run_id=hers[state].run, wait_s=0))["status"] == "running"
        await result(alice, "kill", sandbox_id=hers[state].sandbox)
    await result(alice, "kill", snapshot_id=hers["live"].snapshot)


def _denials(environ: dict[str, str]) -> set[tuple[str, str]]:
    lines = Path(environ["POCKET_DOCK_STATE_DIR"], "audit", "denied.jsonl").read_text().splitlines()
    return {(line["principal"], line.get("tool")) for line in map(json.loads, lines)}


@pytest.mark.parametrize("kind", ["session", "sse"])
async def test_a_stolen_session_is_no_session_with_another_token(
    server: HttpServer, environ: dict[str, str], kind: Kind
) -> None:
    message = {"id": NUMBER, "method": "tools/call", "params": {"name": "list_sandboxes", "arguments": {}}}
    async with raw_client(server, "alice", kind) as alice, raw_client(server, "bob", kind) as bob:
        await result(alice, "create_sandbox")
        assert alice.session is not None
        answers = []
        for session in (alice.session, secrets.token_hex(16)):
            with bob.in_session(session):
                answer = await bob.post(message)
            answers.append((answer.status_code, answer.content))
        assert answers[0] == answers[1]
        assert answers[0][0] == 404
        # It is hers as before, and his is his.
        assert len((await result(alice, "list_sandboxes"))["sandboxes"]) == 1
        assert (await result(bob, "list_sandboxes"))["sandboxes"] == []
        assert alice.strays == bob.strays == []
    assert ("token:bob", "http") in _denials(environ)
    log = Path(environ["POCKET_DOCK_STATE_DIR"], "audit", "denied.jsonl").read_text()
    assert alice.session not in log


async def test_a_session_that_a_client_of_the_newest_revision_types_is_nothing(server: HttpServer) -> None:
    async with raw_client(server, "alice", "session") as alice, raw_client(server, "bob") as bob:
        box = (await result(alice, "create_sandbox"))["sandbox_id"]
        assert alice.session is not None
        with bob.in_session(alice.session):
            assert (await result(bob, "list_sandboxes"))["sandboxes"] == []
            foreign = await ask(bob, "kill", {"sandbox_id": box})
            assert foreign == await ask(bob, "kill", {"sandbox_id": Ids.random().sandbox})
        assert len((await result(alice, "list_sandboxes"))["sandboxes"]) == 1


async def test_more_sessions_and_ways_are_not_more_sandboxes(target: Target, environ: dict[str, str]) -> None:
    environ = {**environ, "POCKET_DOCK_QUOTAS": json.dumps({"token:alice": {"sandboxes": 3}})}
    async with (
        http_server(target, environ, principals=PRINCIPALS) as server,
        server.client("alice") as modern,
        server.client("alice", "legacy") as session,
        server.client("alice", transport="sse") as sse,
        server.client("bob") as bob,
    ):
        for client in (modern, session, sse):
            await call(client, "create_sandbox")
        for client in (modern, session, sse):
            refused = await client.call_tool("create_sandbox", {})
            assert refused.is_error
            assert "You have 3 sandboxes in use and want 1 more; 3 are allowed" in str(refused.content)
        for _ in range(4):
            await call(bob, "create_sandbox")


async def test_after_a_restart_what_is_kept_is_its_principals_again_and_nobody_elses(
    target: Target, environ: dict[str, str]
) -> None:
    if target.is_fake:
        return  # It ends with its process.
    async with http_server(target, environ, principals=PRINCIPALS) as first, first.client("alice") as alice:
        box = (await call(alice, "create_sandbox", persist=True))["sandbox_id"]
        await call(alice, "write_file", sandbox_id=box, path="note", content="hers\n")
        run = (await call(alice, "run_command", sandbox_id=box, command=HANG, background=True))["run_id"]
        snapshot = (await call(alice, "snapshot", sandbox_id=box))["snapshot_id"]
        first.process.kill()
    hers = Ids(box, run, snapshot, "cp-0")
    async with http_server(target, environ, principals=PRINCIPALS) as second:
        for kind in KINDS:
            async with raw_client(second, "bob", kind) as bob:
                assert await result(bob, "list_sandboxes") == {"sandboxes": [], "snapshots": []}
                await _finds_nothing(bob, hers)
        async with raw_client(second, "alice", "session") as alice_again:
            assert (await result(alice_again, "read_file", sandbox_id=box, path="note"))[
                "content"
            ] == "hers\n"
            await result(alice_again, "wait_run", run_id=run, wait_s=0)
            async with raw_client(second, "bob") as bob:
                await _finds_nothing(bob, hers)
            await result(alice_again, "kill", sandbox_id=box)
            await result(alice_again, "kill", snapshot_id=snapshot)


async def _finds_nothing(bob: RawClient, hers: Ids) -> None:
    random = Ids.random()
    foreign = [*about_sandboxes(hers), *about_runs(hers)]
    unknown = [*about_sandboxes(random), *about_runs(random)]
    for (tool, theirs), (_, nobodys) in zip(foreign, unknown, strict=True):
        assert await ask(bob, tool, theirs) == await ask(bob, tool, nobodys), tool
