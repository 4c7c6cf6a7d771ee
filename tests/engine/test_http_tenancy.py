"""Several principals over HTTP: what one has, another neither reaches nor can tell from what is not there."""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.engines import Target
from tests.foreign_ids import (
    HANG,
    NUMBER,
    SECRET,
    Ids,
    about_checkpoints,
    about_runs,
    about_sandboxes,
    about_what_is_kept,
    ask,
    result,
)
from tests.raw import KINDS, Kind, RawClient, raw_client
from tests.servers import HttpServer, call, environment, http_server

pytestmark = [pytest.mark.anyio, pytest.mark.fake_too, pytest.mark.front, pytest.mark.timeout(600)]

PRINCIPALS = ["alice", "bob"]
STRANGERS: list[tuple[str, Kind]] = [
    *(("bob", kind) for kind in KINDS),
    ("alice", "session"),
    ("alice", "sse"),
]
"""Who is not the owner: anybody of another principal, and other sessions of the same one."""


@pytest.fixture(scope="module")
def environ(target: Target, image: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return {
        **environment(target, tmp_path_factory.mktemp("server"), image),
        "POCKET_DOCK_MAX_SANDBOXES": "6",
        "POCKET_DOCK_MEMORY_MB": "64",
        "POCKET_DOCK_POOL_MB": "0",
    }


@pytest.fixture(scope="module")
async def server(target: Target, environ: dict[str, str], anyio_backend: str) -> AsyncIterator[HttpServer]:
    async with http_server(target, environ, principals=PRINCIPALS) as server:
        yield server


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
                states = list(hers) if (principal, kind) == ("bob", "modern") else ["live"]
                await _tries_all(stranger, principal, [hers[state] for state in states], target)

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
        if principal != "alice":
            # What is kept is the principal's.
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


async def test_more_sessions_and_ways_are_not_more_sandboxes(
    target: Target, environ: dict[str, str], tmp_path: Path
) -> None:
    quotas = json.dumps({"token:alice": {"sandboxes": 3}})
    environ = {**environ, "POCKET_DOCK_QUOTAS": quotas, "POCKET_DOCK_STATE_DIR": str(tmp_path)}
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
