"""What one principal can do about another's, over HTTP. In the controls the attacker is the owner."""

from __future__ import annotations

import json
import secrets
import string
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import anyio

from tests.abuse.ground import MAX_SANDBOXES
from tests.abuse.over_http import ALICE, BOB, Caller, Served, fields, told
from tests.abuse.runner import Attack

GUESSES = 400
CLIENTS = 50
CREATES = 200
SECRET = "alices-secret-31415"

Trial = Callable[[Attack, Served, str], Awaitable[None]]


async def drive(attack: Attack) -> None:
    """Have Bob try."""
    await attempt(attack, BOB)


async def attempt(attack: Attack, attacker: str) -> None:
    """Have somebody try; which case it is says what."""
    served = await attack.ground.over_http()
    await TRIALS[attack.written.id](attack, served, attacker)
    async for wrong in served.clear():
        attack.red(wrong)


async def _belongings(alice: Caller) -> dict[str, str]:
    sandbox = fields(await alice.call("create_sandbox", name=SECRET))["sandbox_id"]
    ran = fields(
        await alice.call("run_command", sandbox_id=sandbox, command=f"echo {SECRET} > secret; sleep 0.1")
    )
    background = fields(
        await alice.call(
            "run_command", sandbox_id=sandbox, command=f"echo {SECRET}; sleep 300", background=True
        )
    )
    snapshot = fields(await alice.call("snapshot", sandbox_id=sandbox, name=SECRET))["snapshot_id"]
    return {"sandbox": sandbox, "run": ran["run_id"], "job": background["run_id"], "snapshot": snapshot}


def _every_call(ids: Mapping[str, str]) -> list[tuple[str, dict[str, Any]]]:
    about = {"sandbox_id": ids["sandbox"]}
    return [
        ("run_code", {**about, "code": "open('secret').read()"}),
        ("run_command", {**about, "command": "cat secret"}),
        ("write_file", {**about, "path": "secret", "content": "x"}),
        ("edit_file", {**about, "path": "secret", "edits": [{"old": SECRET, "new": "x"}]}),
        ("read_file", {**about, "path": "secret"}),
        ("find_files", {**about, "path": ".", "grep": SECRET}),
        ("snapshot", {**about, "name": "mine"}),
        ("fork_sandbox", {**about, "count": 1}),
        ("diff", {**about, "since": "start"}),
        ("wait_run", {"run_id": ids["job"], "wait_s": 0}),
        ("wait_run", {"run_id": ids["job"], "stdin": "x", "wait_s": 0}),
        ("read_output", {"run_id": ids["run"]}),
        ("create_sandbox", {"snapshot": ids["snapshot"]}),
        ("kill", {"run_id": ids["job"]}),
        ("kill", {"snapshot_id": ids["snapshot"]}),
        ("kill", {"sandbox_id": ids["sandbox"]}),
    ]


async def every_tool(attack: Attack, served: Served, attacker: str) -> None:
    """Call every tool with the ids of Alice's, and with random ids: there is no difference."""
    async with Caller(served.http, ALICE) as alice, Caller(served.http, attacker) as other:
        hers = await _belongings(alice)
        random = {name: _like(some) for name, some in hers.items()}
        for (tool, real), (_, guess) in zip(_every_call(hers), _every_call(random), strict=True):
            answer, of_nobody = await other.call(tool, **real), await other.call(tool, **guess)
            if answer != of_nobody:
                attack.red(f"{tool} of what is another's is told apart: {answer} and {of_nobody}")
            if SECRET in json.dumps(answer):
                attack.red(f"{tool} has told a secret")
        if attacker == BOB:
            kept = fields(await alice.call("run_command", sandbox_id=hers["sandbox"], command="cat secret"))
            if kept["stdout"] != f"{SECRET}\n":
                attack.red(f"the secret is {kept['stdout']!r} now")


def _like(some: str) -> str:
    """Return a random id of the same form."""
    prefix, dash, digits = some.rpartition("-")
    return f"{prefix}{dash}{secrets.token_hex(len(digits) // 2)}"


async def guesses(attack: Attack, served: Served, attacker: str) -> None:
    """Guess ids: random ones, parts of one, the container's id and name."""
    async with Caller(served.http, ALICE) as alice, Caller(served.http, attacker) as other:
        sandbox = fields(await alice.call("create_sandbox"))["sandbox_id"]
        digits = sandbox.rpartition("-")[2]
        if len(digits) < 32 or set(digits) - set(string.hexdigits):
            attack.red(f"{sandbox} has fewer than 128 bits")
        (container,) = await served.containers()
        known = [container["Id"], container["Id"][:12], *container["Names"]]
        parts = [
            sandbox[:-1],
            sandbox[:12],
            digits,
            sandbox.upper(),
            f"{sandbox}0",
            f" {sandbox}",
            f"{sandbox}\n",
        ]
        wanted = [*known, *parts, *(_like(sandbox) for _ in range(GUESSES))]
        # The right one is found by whoever is told it, and is no guess.
        wanted += [] if attacker == BOB else [sandbox]
        told_apart: set[str] = set()

        async def guess(name: str) -> None:
            answer = await other.call("read_file", sandbox_id=name, path="/etc/hostname")
            if not answer.get("isError"):
                attack.red(f"{name!r} is a hit")
            told_apart.add(told(answer))

        for at in range(0, len(wanted), 25):
            async with anyio.create_task_group() as group:
                for name in wanted[at : at + 25]:
                    group.start_soon(guess, name)
        if attacker == BOB and len(told_apart) != 1:
            attack.red(f"guesses are told apart: {sorted(told_apart)}")


async def what_others_have(attack: Attack, served: Served, attacker: str) -> None:
    """Look for another's in lists and in errors about limits."""
    async with Caller(served.http, ALICE) as alice, Caller(served.http, attacker) as other:
        hers = await _belongings(alice)
        said = [json.dumps(await other.call("list_sandboxes"))]
        said += [json.dumps(await other.call(tool, **given)) for tool, given in (
            ("run_command", {"command": "true"}),
            ("kill", {"sandbox_id": _like(hers["sandbox"])}),
            ("create_sandbox", {"memory_mb": 1 << 40}),
        )]  # fmt: skip
        for text in said:
            attack.said.append(text)
            for what, some in {**hers, "name": SECRET}.items():
                if some in text:
                    attack.red(f"the {what} of another is told: {text[:300]}")


async def same_numbers(attack: Attack, served: Served, attacker: str) -> None:
    """Have many clients at once send requests with one and the same id: each gets its own answer."""
    async with Caller(served.http, ALICE) as alice, Caller(served.http, BOB) as bob:
        people = [alice, bob]
        boxes = [fields(await one.call("create_sandbox"))["sandbox_id"] for one in people]

        async def ask(client: int) -> None:
            one, box = people[client % 2], boxes[client % 2]
            command = f"sleep 0.{client % 7}; echo canary-{client}"
            ran = fields(await one.call("run_command", number=1, sandbox_id=box, command=command))
            # In the control somebody takes another's answer for theirs.
            wanted = client if attacker == BOB else client + 1
            if ran["stdout"] != f"canary-{wanted}\n":
                attack.red(f"client {client} got {ran['stdout']!r}")

        async with anyio.create_task_group() as group:
            for client in range(CLIENTS):
                group.start_soon(ask, client)


async def many_creates(attack: Attack, served: Served, attacker: str) -> None:
    """Create more sandboxes at once than one may have; in the control another one does, too."""
    most = 0
    made: list[dict[str, Any]] = []
    refused: set[str] = set()

    async def create(caller: Caller) -> None:
        answer = await caller.call("create_sandbox")
        if answer.get("isError"):
            refused.add(told(answer))
        else:
            made.append(fields(answer))

    async def count() -> None:
        nonlocal most
        while True:
            most = max(most, len(await served.containers()))
            await anyio.sleep(0.02)

    async with (
        Caller(served.http, BOB) as bob,
        Caller(served.http, ALICE) as alice,
        anyio.create_task_group() as watching,
    ):
        watching.start_soon(count)
        async with anyio.create_task_group() as group:
            for _ in range(CREATES):
                group.start_soon(create, bob)
            if attacker == ALICE:
                group.start_soon(create, alice)
        watching.cancel_scope.cancel()
    if len(made) != MAX_SANDBOXES or most > MAX_SANDBOXES:
        attack.red(f"{len(made)} were made, {most} at once; {MAX_SANDBOXES} are allowed")
    if len(refused) != 1 or not any(f"{MAX_SANDBOXES} are allowed" in text for text in refused):
        attack.red(f"refused as {sorted(refused)}")


TRIALS: dict[str, Trial] = {
    "J1": every_tool,
    "J2": guesses,
    "J5": what_others_have,
    "J7": same_numbers,
    "J9": many_creates,
}
