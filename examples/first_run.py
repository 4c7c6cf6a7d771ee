"""The main job, end to end, as an MCP client does it.

Starts the server over stdio, puts a real file into a sandbox, has code there analyse it, reads the result
back, takes a snapshot, starts a second sandbox from it, sees that the file is there, and cleans up.

    python examples/first_run.py
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import anyio
from mcp import Client, StdioServerParameters

DATA = Path(__file__).parent / "data" / "tzdata.zi"

ANALYSIS = r"""
import collections, json, pathlib

def seconds(offset):
    sign = -1 if offset.startswith("-") else 1
    parts = [int(part) for part in offset.lstrip("-").split(":")]
    return sign * sum(part * unit for part, unit in zip(parts, (3600, 60, 1)))

eras, alive, links, rules, zone = collections.defaultdict(list), set(), 0, 0, None
for line in pathlib.Path("tzdata.zi").read_text().splitlines():
    words = line.split()
    if line.startswith("#"):
        continue
    if words[0] == "R":
        rules += 1
        if words[3] == "ma":  # this rule has no end
            alive.add(words[1])
    elif words[0] == "L":
        links += 1
    else:
        if words[0] == "Z":
            zone, words = words[1], words[2:]
        eras[zone].append((seconds(words[0]), words[1], words[3] if len(words) > 3 else None))

jumps = [
    (abs(after[0] - before[0]) / 3600, name, before[2])
    for name, found in eras.items()
    for before, after in zip(found, found[1:])
]
report = {
    "zones": len(eras),
    "links": links,
    "rules": rules,
    "eras": sum(map(len, eras.values())),
    "still_change_clocks": sum(found[-1][1] in alive for found in eras.values()),
    "most_eras": sorted(((len(found), name) for name, found in eras.items()), reverse=True)[:5],
    "largest_jumps": sorted(jumps, reverse=True)[:5],
}
pathlib.Path("report.json").write_text(json.dumps(report))
print(f"{report['eras']} eras of {report['zones']} zones analysed")
"""


class StepError(Exception):
    """A step of the example did not do what it is there to show."""


class Steps:
    """Calls tools, and prints what was called, how long it took and what came of it."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def call(self, tool: str, **arguments: Any) -> Any:
        """Call a tool and return its structured result."""
        began = time.perf_counter()
        result = await self._client.call_tool(tool, arguments, progress_callback=_show_progress)
        elapsed = time.perf_counter() - began
        if result.is_error or result.structured_content is None:
            raise StepError(f"{tool} failed: {' '.join(getattr(c, 'text', '') for c in result.content)}")
        print(f"{tool:<15} {_duration(elapsed):>8}  ", end="")
        return result.structured_content

    async def run(self, sandbox_id: str, tool: str, **arguments: Any) -> str:
        """Run a program and return what it printed."""
        done = await self.call(tool, sandbox_id=sandbox_id, **arguments)
        if done["status"] != "ok":
            print(done["status"])
            raise StepError(f"the program ended with {done['status']}: {done['stderr'].strip()}")
        return str(done["stdout"]).strip()


async def _show_progress(progress: float, total: float | None, message: str | None) -> None:
    del progress, total  # how much there will be, nobody knows
    if message:
        print(f"  ... {message}", flush=True)


def _duration(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.1f} ms"


async def main() -> None:
    server = StdioServerParameters(
        command=sys.executable, args=["-m", "pocket_dock_mcp"], env=dict(os.environ)
    )
    failure: StepError | None = None
    began = time.perf_counter()
    async with Client(server) as client:
        tools = (await client.list_tools()).tools
        print(
            f"The server answers over stdio after {_duration(time.perf_counter() - began)}: "
            f"protocol {client.protocol_version}, {len(tools)} tools.\n"
        )
        try:
            await tell(Steps(client))
        except StepError as error:
            # Raised again outside: inside, the client's task group would wrap it up.
            failure = error
    if failure is not None:
        raise failure


async def tell(steps: Steps) -> None:
    content = DATA.read_text(encoding="ascii")
    checksum = hashlib.sha256(content.encode("ascii")).hexdigest()

    first = await create(steps, name="first")
    written = await steps.call("write_file", sandbox_id=first, path=DATA.name, content=content)
    print(f"{written['path']}: {written['size']:,} bytes, {content.count(chr(10)):,} lines")
    print(await steps.run(first, "run_code", code=ANALYSIS))
    read = await steps.call("read_file", sandbox_id=first, path="report.json")
    print(f"{read['path']}: {read['size']:,} bytes")
    show(json.loads(read["content"]))

    kept = await steps.call("snapshot", sandbox_id=first, name="time zones")
    print(f"{kept['snapshot_id']}: {kept['size_mb']:g} MB with its image")
    try:
        second = await create(steps, name="second", snapshot=kept["snapshot_id"])
        found = await steps.run(second, "run_command", command=f"sha256sum {DATA.name}")
        same = found.split()[0] == checksum
        print(f"{found[:16]}... {'is the checksum of the file here' if same else 'IS ANOTHER FILE'}")
        if not same:
            raise StepError(f"the snapshot's {DATA.name} is not the file that was written: {found}")
    finally:
        await kill(steps, snapshot_id=kept["snapshot_id"])
    for sandbox in (first, second):
        await kill(steps, sandbox_id=sandbox)
    left = await steps.call("list_sandboxes")
    print(f"{len(left['sandboxes'])} sandboxes left")
    if left["sandboxes"]:
        raise StepError("a killed sandbox is still listed")


async def create(steps: Steps, **arguments: Any) -> str:
    made = await steps.call("create_sandbox", **arguments)
    print(
        f"{made['sandbox_id'][:11]}... {made['memory_mb']} MiB, {made['cpus']:g} CPU, "
        f"{made['pids']} processes, network: {made['network']}, Python {made['python']}"
    )
    return str(made["sandbox_id"])


async def kill(steps: Steps, **arguments: Any) -> None:
    done = await steps.call("kill", **arguments)
    print(f"{done['killed'][:13]}...")


def show(report: dict[str, Any]) -> None:
    print(
        f"\n  The time zone database has {report['zones']} zones in {report['eras']} eras, "
        f"{report['links']} other names for them,\n  and {report['rules']} rules for daylight saving time. "
        f"{report['still_change_clocks']} zones are under a rule that has no end."
    )
    print("\n  Most often redefined:")
    for count, zone in report["most_eras"]:
        print(f"    {count:5} eras   {zone}")
    print("\n  Largest jumps of standard time:")
    for hours, zone, year in report["largest_jumps"]:
        print(f"    {hours:5.1f} hours  {zone} ({year})")
    print()


if __name__ == "__main__":
    try:
        anyio.run(main)
    except Exception as error:  # noqa: BLE001  # whatever it is, it is said and ends in a failure
        sys.stdout.flush()
        print(f"first_run: {error}", file=sys.stderr)
        sys.exit(1)
