"""What principals keep over HTTP, and find again when the server was killed and started anew."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.engines import Target
from tests.foreign_ids import HANG, Ids, about_runs, about_sandboxes, ask, result
from tests.raw import RawClient, raw_client
from tests.servers import call, environment, http_server

pytestmark = [pytest.mark.anyio, pytest.mark.front, pytest.mark.timeout(600)]


async def test_after_a_restart_what_is_kept_is_its_principals_again_and_nobody_elses(
    target: Target, image: str, tmp_path: Path
) -> None:
    environ = environment(target, tmp_path, image)
    async with (
        http_server(target, environ, principals=["alice", "bob"]) as first,
        first.client("alice") as alice,
    ):
        box = (await call(alice, "create_sandbox", persist=True))["sandbox_id"]
        await call(alice, "write_file", sandbox_id=box, path="note", content="hers\n")
        run = (await call(alice, "run_command", sandbox_id=box, command=HANG, background=True))["run_id"]
        snapshot = (await call(alice, "snapshot", sandbox_id=box))["snapshot_id"]
        first.process.kill()
    hers = Ids(box, run, snapshot, "cp-0")
    async with http_server(target, environ, principals=["alice", "bob"]) as second:
        async with raw_client(second, "bob") as bob:
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
