"""Several principals on one manager: nobody sees, reaches or starves another."""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from pocket_dock_mcp.errors import (
    ImageNotFoundError,
    InvalidArgumentError,
    PocketDockError,
    QuotaError,
    SandboxNotFoundError,
    SnapshotNotFoundError,
)
from pocket_dock_mcp.manager.core import Manager
from pocket_dock_mcp.manager.sandbox import Owner, Sandbox, SandboxRequest
from pocket_dock_mcp.manager.snapshots import SNAPSHOTS, Snapshot
from pocket_dock_mcp.models import MIB, Limits
from pocket_dock_mcp.quotas import Quota
from pocket_dock_mcp.settings import Settings
from pocket_dock_mcp.testing import FakeEngine
from tests.engines import Target, connect

pytestmark = [pytest.mark.anyio, pytest.mark.fake_too, pytest.mark.front]

ALICE = Owner(session="alice's session", principal="token:alice")
ALICE_AGAIN = Owner(session="another session", principal="token:alice")
BOB = Owner(session="bob's session", principal="token:bob")

Verb = Callable[[Manager, Owner, str], Awaitable[object]]

ABOUT_SANDBOXES: dict[str, Verb] = {
    "open": lambda manager, owner, some: manager.open(owner, some),
    "kill": lambda manager, owner, some: manager.kill(owner, some),
    "stop": lambda manager, owner, some: manager.stop(owner, some),
    "fork": lambda manager, owner, some: manager.fork(owner, some, 1),
    "snapshot": lambda manager, owner, some: manager.snapshot(owner, some, "mine"),
    "diff": lambda manager, owner, some: manager.diff(owner, some),
}


def silent(_line: str) -> None:
    """Hear progress and say nothing."""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(state_dir=tmp_path, max_sandboxes=4, pool_mb=0)


@pytest.fixture
async def manager(target: Target, settings: Settings) -> AsyncIterator[Manager]:
    async with Manager(settings, lambda: connect(target)) as manager:
        yield manager
        for owner in (ALICE, BOB):
            for kept in await manager.list_kept(owner):
                await manager.kill(owner, kept.kept.id)
            for sandbox in manager.list_sandboxes(owner):
                await manager.kill(owner, sandbox.id)
            for snapshot in await manager.list_snapshots(owner):
                await manager.delete_snapshot(owner, snapshot.id)


@pytest.fixture
def request_(image: str) -> SandboxRequest:
    return SandboxRequest(image=image, limits=Limits(memory_bytes=64 * MIB))


@pytest.fixture
async def everything(manager: Manager, request_: SandboxRequest) -> Everything:
    """Have of everything that Alice can have."""
    live = await manager.create(ALICE, request_, silent)
    held = await manager.create(ALICE, _kept(request_), silent)
    stopped = await manager.create(ALICE, _kept(request_), silent)
    ended = await manager.create(ALICE, request_, silent)
    runs = [
        (await one.runs.start("echo hi", key=None, background=True)).id
        for one in (live, held, stopped, ended)
    ]
    _, snapshot = await manager.snapshot(ALICE, live.id, "hers")
    await manager.stop(ALICE, stopped.id)
    await manager.kill(ALICE, ended.id)
    return Everything([live.id, held.id, stopped.id, ended.id], runs, snapshot)


class Everything:
    """The ids of what somebody has."""

    def __init__(self, sandboxes: list[str], runs: list[str], snapshot: Snapshot) -> None:
        self.sandboxes = sandboxes
        self.runs = runs
        self.snapshot = snapshot


def _kept(request: SandboxRequest) -> SandboxRequest:
    return SandboxRequest(image=request.image, limits=request.limits, persist=True)


async def told(manager: Manager, verb: Awaitable[object]) -> tuple[str, str, list[str]]:
    """Return what is told to whom a call is refused, and what the engine was asked meanwhile."""
    engine = (await manager._access.ready()).engine
    calls = engine.calls if isinstance(engine, FakeEngine) else []
    before = len(calls)
    with pytest.raises(PocketDockError) as caught:
        await verb
    return type(caught.value).__name__, str(caught.value), calls[before:]


@pytest.mark.parametrize("has_own", [False, True])
async def test_anothers_id_gets_the_answer_of_a_random_one(
    manager: Manager, everything: Everything, request_: SandboxRequest, has_own: bool
) -> None:
    own = [await manager.create(BOB, request_, silent) for _ in range(2)] if has_own else []
    alices = await _state_of(manager, ALICE)

    for name, verb in ABOUT_SANDBOXES.items():
        answers = [
            await told(manager, verb(manager, BOB, some))
            for some in (*everything.sandboxes, f"sb-{secrets.token_hex(16)}")
        ]
        assert answers == [answers[-1]] * len(answers), name
        assert answers[0][0] == "SandboxNotFoundError"

    for run_id in (*everything.runs, secrets.token_hex(16)):
        assert (await told(manager, manager.open_run(BOB, run_id)))[:2] == (
            await told(manager, manager.open_run(BOB, secrets.token_hex(16)))
        )[:2]

    random = f"snap-{secrets.token_hex(16)}"
    for snapshot_id in (everything.snapshot.id, random):
        for verb in _about_snapshots(request_, own):
            answer = await told(manager, verb(manager, BOB, snapshot_id))
            assert answer == await told(manager, verb(manager, BOB, random))
            assert answer[0] == "SnapshotNotFoundError"

    assert await _state_of(manager, ALICE) == alices
    assert manager.list_sandboxes(BOB) == own
    assert await manager.list_kept(BOB) == []
    assert await manager.list_snapshots(BOB) == []


def _about_snapshots(request: SandboxRequest, own: list[Sandbox]) -> list[Verb]:
    def create(manager: Manager, owner: Owner, some: str) -> Awaitable[object]:
        return manager.create(owner, SandboxRequest(image="", snapshot=some, limits=request.limits), silent)

    verbs: list[Verb] = [
        create,
        lambda manager, owner, some: manager.delete_snapshot(owner, some),
    ]
    if own:
        verbs.append(lambda manager, owner, some: manager.diff(owner, own[0].id, since=some))
    return verbs


async def _state_of(manager: Manager, owner: Owner) -> list[Any]:
    return [
        [sandbox.id for sandbox in manager.list_sandboxes(owner)],
        [(one.kept.id, one.status) for one in await manager.list_kept(owner)],
        await manager.list_snapshots(owner),
    ]


@pytest.mark.parametrize(
    "name",
    [
        "",
        "../images/json",
        "x?force=1",
        "a%2fb",
        "{id}",
        "sb-",
        f"sb-{'0' * 31}",
        f"sb-{'0' * 32}\n",
        f"sb-{'0' * 32}/../x",
        f"SB-{'0' * 32}",
        # Digits of another script, and a letter that looks like an s.
        "sb-" + "\u0660" * 32,
        f"\u0455b-{'0' * 32}",
        "\0",
        f"sb-{'0' * 32}\0.json",
        "\ud800",
        "x" * 10_000,
        "checkpoint-" + "x" * 10_000,
    ],
    ids=lambda name: repr(name[:20]),
)
async def test_what_is_no_id_is_no_different(manager: Manager, request_: SandboxRequest, name: str) -> None:
    for verb in ABOUT_SANDBOXES.values():
        kind, text, calls = await told(manager, verb(manager, BOB, name))
        assert (kind, text, calls) == ("SandboxNotFoundError", str(SandboxNotFoundError()), [])
    for verb in _about_snapshots(request_, []):
        kind, text, calls = await told(manager, verb(manager, BOB, name))
        assert (kind, text, calls) == ("SnapshotNotFoundError", str(SnapshotNotFoundError()), [])
    assert (await told(manager, manager.open_run(BOB, name)))[0] == "RunNotFoundError"


async def test_anothers_snapshot_is_no_image_by_any_name(
    manager: Manager, everything: Everything, request_: SandboxRequest
) -> None:
    snapshot = everything.snapshot
    random = f"snap-{secrets.token_hex(16)}"

    async def tried(owner: Owner, image: str) -> str:
        wanted = SandboxRequest(image=image, limits=request_.limits)
        with pytest.raises((InvalidArgumentError, ImageNotFoundError)) as caught:
            await manager.create(owner, wanted, silent)
        return f"{caught.value.code}: {caught.value}"

    for name in (f"{SNAPSHOTS}:%s", "pocket-dock/snapshot:%s", "snapshot:%s", "elsewhere/x:%s"):
        assert await tried(BOB, name % snapshot.id) == await tried(BOB, name % random), name
    digits = snapshot.image_id.removeprefix("sha256:")
    for form in ("sha256:{}", "{}", "{:.12}"):
        of_hers, of_nobody = (form.format(some) for some in (digits, secrets.token_hex(32)))
        assert await tried(BOB, of_hers) == (await tried(BOB, of_nobody)).replace(of_nobody, of_hers)
    # Its own principal may: the files are hers.
    hers = await manager.create(
        ALICE, SandboxRequest(image=snapshot.image_id, limits=request_.limits), silent
    )
    await manager.kill(ALICE, hers.id)


async def test_more_sessions_are_not_more_sandboxes(manager: Manager, request_: SandboxRequest) -> None:
    sessions = [Owner(session=f"s{number}", principal="token:alice") for number in range(6)]
    made: list[Sandbox] = []
    refused: list[QuotaError] = []

    async def create(owner: Owner) -> None:
        try:
            made.append(await manager.create(owner, request_, silent))
        except QuotaError as error:
            refused.append(error)

    async with anyio.create_task_group() as group:
        for owner in sessions:
            group.start_soon(create, owner)

    assert (len(made), len(refused)) == (4, 2)
    assert "4 sandboxes in use and want 1 more; 4 are allowed" in str(refused[0])
    # Each has what is its session's, and none the others'.
    assert [len(manager.list_sandboxes(one.owner)) for one in made] == [1] * 4
    for one in made:
        await manager.end_session(one.owner)
    again = await manager.create(sessions[-1], request_, silent)
    await manager.kill(sessions[-1], again.id)


async def test_a_principal_may_have_a_quota_of_its_own(
    target: Target, settings: Settings, request_: SandboxRequest
) -> None:
    own = Quota(principal="token:alice", sandboxes=1, snapshots=0, persistent=0)
    settings = settings.model_copy(update={"quotas": (own,)})
    async with Manager(settings, lambda: connect(target)) as manager:
        with pytest.raises(QuotaError, match="You keep 0 sandboxes, as many as allowed"):
            await manager.create(ALICE, _kept(request_), silent)
        one = await manager.create(ALICE, request_, silent)
        with pytest.raises(QuotaError, match="1 are allowed"):
            await manager.create(ALICE_AGAIN, request_, silent)
        with pytest.raises(QuotaError, match="There are 0 snapshots already, as many as allowed"):
            await manager.snapshot(ALICE, one.id, "")
        for _ in range(2):
            await manager.create(BOB, request_, silent)


async def test_what_is_refused_is_on_the_audit_log_with_who_and_what(
    manager: Manager, request_: SandboxRequest, settings: Settings
) -> None:
    sandbox = await manager.create(ALICE, request_, silent)
    error = SandboxNotFoundError()
    manager.failed(BOB, "run_code", error, {"sandbox_id": sandbox.id, "code": "print('secret')", "env": {}})
    manager.failed(BOB, "read_file", InvalidArgumentError("no"), {"sandbox_id": sandbox.id})

    text = (settings.state_dir / "audit" / "denied.jsonl").read_text()
    (line,) = map(json.loads, text.splitlines())
    assert line["event"] == "denied"
    assert (line["principal"], line["tool"], line["reason"], line["sandbox_id"]) == (
        "token:bob",
        "run_code",
        "sandbox_not_found",
        sandbox.id,
    )
    assert "secret" not in text
