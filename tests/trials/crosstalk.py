"""Many clients at once over HTTP, of all kinds, with the same numbers for requests: no reply goes astray.

    python -m tests.trials.crosstalk --engine unix:///run/podman/podman.sock --clients 200

Several clients are of one principal and share its sandbox. Each has a canary of its own in all that it sends,
and has several calls under way at once. A reply has to have the number and the canary of what was asked, and
no canary of another client; and no client may hear what answers nothing.
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
import secrets
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio

from pocket_dock_mcp.testing import FakeEngine
from tests.engines import Target
from tests.raw import KINDS, RawClient, raw_client
from tests.servers import HttpServer, environment, http_server

_Call = tuple[str, dict[str, Any], str]
"""A tool, its arguments, and what has to be in its reply."""
CLIENTS_EACH = 10
"""Of one principal."""
_CANARY = re.compile(r"canary-[0-9a-f]{32}")


def canary() -> str:
    """Return what nobody else sends."""
    return f"canary-{secrets.token_hex(16)}"


@dataclass
class Report:
    """What was seen."""

    clients: Counter[str] = field(default_factory=Counter)
    """By kind."""
    principals: int = 0
    replies: int = 0
    most_at_once: int = 0
    """Calls that were under way together."""
    violations: list[str] = field(default_factory=list)


class Checks:
    """Looks at the replies to one client."""

    def __init__(self, mine: set[str], report: Report) -> None:
        """Look for canaries that are not among `mine`: its own, and that of its principal."""
        self._mine = mine
        self._report = report

    def __call__(self, tool: str, number: int, expected: str, reply: str) -> None:
        """Look at one."""
        self._report.replies += 1
        foreign = set(_CANARY.findall(reply)) - self._mine
        said = json.loads(reply)
        if said.get("id") != number or expected not in reply or foreign or "result" not in said:
            self._report.violations.append(f"{tool} {number} got {reply[:500]}")


class _Client:
    def __init__(self, raw: RawClient, report: Report, common: str, box: str) -> None:
        self.raw = raw
        self.report = report
        self.canary, self.common = canary(), common
        # Those who share a sandbox may see each other's files, and are told of them.
        self.file = f"file-{secrets.token_hex(8)}"
        self.check = Checks({self.canary, common}, report)
        self.box = box

    async def rounds(self, count: int, at_once: int, under_way: Counter[str]) -> None:
        for number in range(count):
            groups = self._calls(number)
            async with anyio.create_task_group() as group:
                for first in range(at_once):
                    group.start_soon(self._in_turn, groups[first::at_once], under_way)
        self.report.violations += [f"{self.raw.kind}: {stray!r} answers nothing" for stray in self.raw.strays]

    def _calls(self, number: int) -> list[list[_Call]]:
        """Return the calls of a round, in groups in which one is made after the other."""
        mark = f"{self.canary} {number}"
        unknown = f"run-{secrets.token_hex(16)}"
        return [
            [
                ("run_command", {"command": f"echo {mark} a"}, f"{mark} a"),
                ("list_sandboxes", {}, self.common),
                ("kill", {"run_id": unknown}, "run_not_found"),
            ],
            [
                ("write_file", {"path": self.file, "content": f"{mark} b\n"}, self.file),
                ("read_file", {"path": self.file}, f"{mark} b"),
            ],
            [
                ("run_code", {"code": f"echo {mark} c", "language": "shell"}, f"{mark} c"),
                ("read_file", {"path": f"missing-{self.file}"}, "not_found"),
            ],
        ]

    async def _in_turn(self, groups: list[list[_Call]], under_way: Counter[str]) -> None:
        for tool, arguments, expected in itertools.chain.from_iterable(groups):
            if tool not in ("list_sandboxes", "kill"):
                arguments = {**arguments, "sandbox_id": self.box}
            under_way["calls"] += 1
            self.report.most_at_once = max(self.report.most_at_once, under_way["calls"])
            number, reply = await self.raw.numbered(tool, **arguments)
            under_way["calls"] -= 1
            self.check(tool, number, expected, reply.decode())


async def trial(
    target: Target, image: str, home: Path, clients: int, rounds: int, at_once: int = 3
) -> Report:
    """Have so many clients make so many rounds of calls against one server, all at once."""
    report, under_way = Report(), Counter[str]()
    principals = [f"p{number}" for number in range(-(-clients // CLIENTS_EACH))]
    environ = {
        **environment(target, home, image),
        "POCKET_DOCK_MAX_SANDBOXES": "8",
        "POCKET_DOCK_MEMORY_MB": "64",
        "POCKET_DOCK_POOL_MB": "0",
        "POCKET_DOCK_MAX_PERSISTENT": "1",
    }
    report.principals = len(principals)
    async with http_server(target, environ, principals=principals) as server:
        homes: dict[str, tuple[str, str]] = {}
        for principal in principals:
            homes[principal] = await _sandbox_of(server, principal)
        ready, start = [0], anyio.Event()

        async def one(number: int) -> None:
            principal, kind = principals[number // CLIENTS_EACH], KINDS[number % len(KINDS)]
            async with raw_client(server, principal, kind) as raw:
                client = _Client(raw, report, *homes[principal])
                report.clients[kind] += 1
                ready[0] += 1
                if ready[0] == clients:
                    start.set()
                await start.wait()
                await client.rounds(rounds, at_once, under_way)

        try:
            async with anyio.create_task_group() as group:
                for number in range(clients):
                    group.start_soon(one, number)
        finally:
            with anyio.CancelScope(shield=True):
                for principal, (_, box) in homes.items():
                    async with raw_client(server, principal) as raw:
                        await raw.call("kill", sandbox_id=box)
    return report


async def _sandbox_of(server: HttpServer, principal: str) -> tuple[str, str]:
    """Make what a principal's clients share: a canary, and a sandbox that outlives their sessions."""
    common = canary()
    async with raw_client(server, principal) as raw:
        reply = json.loads(await raw.call("create_sandbox", name=common, persist=True))
        return common, reply["result"]["structuredContent"]["sandbox_id"]


async def _main(target: Target, image: str, clients: int, rounds: int) -> int:
    with tempfile.TemporaryDirectory() as home:
        started = anyio.current_time()
        report = await trial(target, image, Path(home), clients, rounds)
        seconds = anyio.current_time() - started
    print(f"{clients} clients of {report.principals} principals: {dict(report.clients)}")
    print(f"{report.replies} replies, at most {report.most_at_once} calls at once, {seconds:.0f} s in all")
    print("\n".join(report.violations) or "each reply went to whoever had asked")
    return 1 if report.violations else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="tests.trials.crosstalk", description=__doc__)
    parser.add_argument("--engine", default="fake", metavar="URL", help="default: one in memory")
    parser.add_argument("--image", default="minimal", help="profile or image of the sandboxes")
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    is_fake = given.engine == "fake"
    chosen = Target("fake" if is_fake else "real", "" if is_fake else given.engine)
    wanted = FakeEngine.IMAGE if is_fake else given.image
    sys.exit(anyio.run(_main, chosen, wanted, given.clients, given.rounds))
