"""Evaluate programs that nobody trusts: each in a sandbox of its own, several at once, within limits.

The task: read offsets from UTC as the time zone database writes them ("-5:53:28"), one a line, and print
each in seconds. The tests are the offsets of the real database. The 200 submissions are right, wrong,
broken and hostile, and say what verdict they are to get; the exit code is 0 when all got theirs.

    python examples/evaluate_submissions.py [--parallel 4] [--first N] [--json] [FILE]

What a submission may rely on: nothing of it is believed but what the kernel says of its end and what it has
printed. The expected output never enters a sandbox, each submission has a container that nobody had before,
and each test begins with the file as it was submitted.
"""

from __future__ import annotations

import argparse
import collections
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio

from pocket_dock_mcp.async_ import AsyncContainer, AsyncContainerPool, ExecResult

DATA = Path(__file__).parent / "data"
SECONDS = 3.0
OUTPUT_BYTES = 100_000

_OF_STATUS = {
    "timeout": "time_limit",
    "oom": "memory_limit",
    "output_limit": "output_limit",
    "disk_full": "disk_limit",
}
"""Every other ending that is not ok is the submission's own fault: a runtime error."""


@dataclass(frozen=True)
class Test:
    """One input, and what has to come out."""

    stdin: str
    expected: str


@dataclass(frozen=True)
class Verdict:
    """What became of one submission."""

    id: str
    kind: str
    verdict: str
    expected: Sequence[str]
    detail: str
    seconds: float

    @property
    def is_right(self) -> bool:
        return self.verdict in self.expected


def offsets() -> Iterator[str]:
    """Return the offsets from UTC that the time zone database has."""
    for line in (DATA / "tzdata.zi").read_text().splitlines():
        words = line.split()
        if words[0] == "Z":
            yield words[2]
        elif words[0] not in ("#", "R", "L"):
            yield words[0]


def seconds(offset: str) -> int:
    """Return an offset in seconds; the solution."""
    sign = -1 if offset.startswith("-") else 1
    parts = [int(part) for part in offset.lstrip("-").split(":")]
    return sign * sum(part * unit for part, unit in zip(parts, (3600, 60, 1), strict=False))


def tests() -> list[Test]:
    """Return three tests: some offsets, one that is easy to get wrong, and all of them."""
    every = sorted(set(offsets()))
    inputs = (every[::40], ["-0:01:15"], every)
    return [
        Test("".join(f"{one}\n" for one in chosen), "".join(f"{seconds(one)}\n" for one in chosen))
        for chosen in inputs
    ]


async def judge(box: AsyncContainer, submission: dict[str, Any], cases: Sequence[Test]) -> tuple[str, str]:
    """Return the verdict on one submission and what led to it."""
    for number, case in enumerate(cases, 1):
        # Anew for each test: the last one may have changed it, or put something else in its place.
        await box.run(["rm", "-rf", "main.py"])
        await box.write_file("main.py", submission["code"])
        result = await box.run(
            ["python3", "main.py"], stdin=case.stdin, timeout=SECONDS, max_output=OUTPUT_BYTES
        )
        verdict = judged(result, case)
        if verdict != "accepted":
            return verdict, f"test {number}: {result.status}, exit code {result.exit_code}"
    return "accepted", f"{len(cases)} tests"


def judged(result: ExecResult, case: Test) -> str:
    """Return the verdict on one run: by how the kernel says that it ended, then by what it printed."""
    if result.truncated or result.status == "output_limit":
        return "output_limit"
    if not result.ok:
        return _OF_STATUS.get(result.status, "runtime_error")
    return "accepted" if result.stdout == case.expected else "wrong_answer"


async def evaluate(submissions: Sequence[dict[str, Any]], *, parallel: int, show: bool) -> list[Verdict]:
    """Evaluate all submissions, several at once, and return the verdicts in their order."""
    cases = tests()
    verdicts: dict[str, Verdict] = {}
    waiting = iter(submissions)

    async def work(pool: AsyncContainerPool) -> None:
        for submission in waiting:
            began = time.monotonic()
            async with await pool.claim() as box:
                verdict, detail = await judge(box, submission, cases)
            done = Verdict(
                submission["id"], submission["kind"], verdict, submission["expected"], detail,
                time.monotonic() - began,
            )  # fmt: skip
            verdicts[done.id] = done
            if show:
                mark = " " if done.is_right else "!"
                print(f"{mark} {done.id}  {done.kind:8} {done.verdict:13} {done.detail}", flush=True)

    pool = AsyncContainerPool(
        "minimal", size=parallel, mem_limit="96m", cpu_percent=100, pids_limit=48, disk_limit="64m"
    )
    async with pool, anyio.create_task_group() as group:
        for _ in range(parallel):
            group.start_soon(work, pool)
    return [verdicts[one["id"]] for one in submissions]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("file", nargs="?", type=Path, default=DATA / "submissions.jsonl", metavar="FILE")
    parser.add_argument("--parallel", type=int, default=4, metavar="N", help="submissions at once")
    parser.add_argument("--first", type=int, metavar="N", help="only so many")
    parser.add_argument("--json", action="store_true", help="print one JSON document for each")
    arguments = parser.parse_args()
    submissions = [json.loads(line) for line in arguments.file.read_text().splitlines()][: arguments.first]

    began = time.monotonic()
    verdicts = anyio.run(lambda: evaluate(submissions, parallel=arguments.parallel, show=not arguments.json))
    if arguments.json:
        for one in verdicts:
            print(
                json.dumps(
                    {"id": one.id, "verdict": one.verdict, "right": one.is_right, "detail": one.detail}
                )
            )
    wrong = [one for one in verdicts if not one.is_right]
    counts = ", ".join(
        f"{count} {name}"
        for name, count in collections.Counter(one.verdict for one in verdicts).most_common()
    )
    print(f"{len(verdicts)} submissions in {time.monotonic() - began:.0f} s: {counts}", file=sys.stderr)
    for one in wrong:
        print(f"{one.id}: {one.verdict}, expected {' or '.join(one.expected)}", file=sys.stderr)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
