"""Push and pull a tree of many files and one large file: all equal, memory flat, and how fast.

    python -m tests.trials.transfer --engine unix:///var/run/docker.sock --files 10000 --megabytes 1000

Rates are compared with what the bare stream does in the same run: a program that writes the same file to its
output, or reads its input into one. Memory is the high-water mark of this process, and that of the program
inside, which is looked at from here: engines that run as root show it.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import secrets
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median

import anyio
import anyio.to_thread

from pocket_dock_mcp.agent.transport import Program
from pocket_dock_mcp.container.core import LiveContainer
from pocket_dock_mcp.container.launch import Launch
from pocket_dock_mcp.engine.docker_api import DockerApiEngine
from pocket_dock_mcp.images import ImageStore
from pocket_dock_mcp.models import MIB, TransferProgress, Transferred

MOST_HERE = 64 * MIB
"""Growth of this process's memory that is still flat: windows, threads, what the allocator keeps."""
MOST_INSIDE = 64 * MIB
"""Of a Python interpreter with a window of a transfer."""
ROUNDS = 3
_PIECE = MIB


@dataclass
class Report:
    """What came of it."""

    lines: list[str] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    ratios: dict[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        return "\n".join([*self.lines, f"{len(self.violations)} violations", *self.violations])


class Watch:
    """Looks at memory while a transfer goes on."""

    def __init__(self, uid: int) -> None:
        self._uid = str(uid)
        self.inside = 0
        self.calls = 0

    def __call__(self, _progress: TransferProgress) -> None:
        """Look, as progress is told of."""
        self.calls += 1
        for status in Path("/proc").glob("[0-9]*/status"):
            try:
                lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
            except (OSError, ValueError):
                continue
            if lines.get("Uid", "").split()[:1] == [self._uid]:
                self.inside = max(self.inside, int(lines.get("VmHWM", "0 kB").split()[0]) * 1024)


def high_water() -> int:
    """Return how much memory this process has had at most since `forget`."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def forget() -> None:
    """Begin to look anew at what this process has at most."""
    Path("/proc/self/clear_refs").write_text("5")


async def trial(url: str, files: int, megabytes: int, *, image: str | None = None) -> Report:
    """Do it."""
    report = Report()
    engine = await DockerApiEngine.connect(url)
    try:
        image = image or (await ImageStore(engine).ensure("minimal", print)).id
        wanted = Launch(f"pocket-dock-trial-{secrets.token_hex(6)}", image, {})
        with tempfile.TemporaryDirectory() as place:
            async with await LiveContainer.create(engine, wanted) as container:
                moves = Moves(container, Path(place), report)
                await moves.warm_up()
                await moves.tree(files)
                await moves.large(megabytes)
                await moves.compare(min(megabytes, 100))
    finally:
        await engine.aclose()
    return report


class Moves:
    """The transfers of one trial."""

    def __init__(self, container: LiveContainer, place: Path, report: Report) -> None:
        self._box = container
        self._place = place
        self._report = report

    async def warm_up(self) -> None:
        """Have everything loaded that a transfer loads."""
        (self._place / "little").write_bytes(bytes(3 * MIB))
        await self._box.push(self._place / "little", "little")
        await self._box.pull("little", self._place / "little")

    async def tree(self, count: int) -> None:
        """Move many small files in and out."""
        await anyio.to_thread.run_sync(make_tree, self._place / "tree", count)
        for verb, move in (
            ("push", partial(self._box.push, self._place / "tree", "tree")),
            ("pull", partial(self._box.pull, "tree", self._place / "back")),
        ):
            seconds, _ = await self._timed(f"{verb} of {count} files", move)
            self._report.lines.append(f"  {count / seconds:.0f} files/s")
        expected = await anyio.to_thread.run_sync(described, self._place / "tree")
        found = await anyio.to_thread.run_sync(described, self._place / "back")
        if expected != found:
            self._report.violations.append("the tree came back as another one")

    async def large(self, megabytes: int) -> None:
        """Move one large file in and out."""
        source = self._place / "large"
        await anyio.to_thread.run_sync(make_large, source, megabytes)
        for verb, move in (
            ("push", partial(self._box.push, source, "large")),
            ("pull", partial(self._box.pull, "large", self._place / "again")),
        ):
            seconds, _ = await self._timed(f"{verb} of {megabytes} MB", move)
            self._report.lines.append(f"  {megabytes / seconds:.0f} MB/s")
        here = [await anyio.to_thread.run_sync(digest, path) for path in (source, self._place / "again")]
        inside = (await self._box.run("sha256sum large", timeout_s=300)).stdout.split()[0]
        if {*here, inside} != {inside}:
            self._report.violations.append("the large file came as another one")
        for path in (source, self._place / "again"):
            path.unlink()

    async def compare(self, megabytes: int) -> None:
        """Move a file as it is and by the bare stream, in turns: a machine's disk and load come and go."""
        source = self._place / "large"
        await anyio.to_thread.run_sync(make_large, source, megabytes)
        for verb, bare, move in (
            ("push", partial(self._bare_in, source), partial(self._box.push, source, "large")),
            ("pull", self._bare_out, partial(self._box.pull, "large", self._place / "again")),
        ):
            times: list[tuple[float, float]] = []
            for _ in range(ROUNDS):
                began = time.monotonic()
                await move()
                middle = time.monotonic()
                await bare()
                times.append((middle - began, time.monotonic() - middle))
            ours, theirs = (median(each) for each in zip(*times, strict=True))
            self._report.ratios[verb] = theirs / ours
            self._report.lines.append(
                f"{verb}, {ROUNDS} x {megabytes} MB: {megabytes / ours:.0f} MB/s; "
                f"the bare stream {megabytes / theirs:.0f} MB/s; ratio {theirs / ours:.2f}"
            )

    async def _bare_in(self, source: Path) -> None:
        program = Program("shell", "cat > bare", keep_stdin=True)
        process = await self._box._transport.start(program, lambda _stream, _data: None)
        with source.open("rb") as file:
            while piece := await anyio.to_thread.run_sync(file.read, _PIECE):
                await process.feed(piece)
        await process.feed(b"", end=True)
        await process.wait()

    async def _bare_out(self) -> None:
        # To the disk here, too: that is part of a pull.
        with (self._place / "bare").open("wb") as file:
            process = await self._box._transport.start(
                Program("shell", "cat large"), lambda _stream, data: _write(file.fileno(), data)
            )
            await process.wait()
        (self._place / "bare").unlink()

    async def _timed(
        self, what: str, move: Callable[..., Awaitable[Transferred]]
    ) -> tuple[float, Transferred]:
        watch = Watch(self._box.uid)
        forget()
        before = high_water()
        began = time.monotonic()
        moved = await move(on_progress=watch)
        seconds = time.monotonic() - began
        grown = high_water() - before
        self._report.lines.append(
            f"{what}: {seconds:.1f} s; memory here +{grown // MIB} MiB, inside {watch.inside // MIB} MiB"
        )
        if grown > MOST_HERE or watch.inside > MOST_INSIDE:
            self._report.violations.append(f"{what}: memory is not flat")
        if moved.skipped_count:
            self._report.violations.append(f"{what}: {moved.skipped[0]}")
        return seconds, moved


def _write(fd: int, data: bytes) -> None:
    os.write(fd, data)


def make_tree(root: Path, count: int) -> None:
    """Make many small files, a hundred to a directory, with modes and times of their own."""
    rng = random.Random(count)
    for number in range(count):
        directory = root / f"d{number // 1000}" / f"e{number // 100}"
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / f"f{number}"
        path.write_bytes(rng.randbytes(rng.choice((0, 10, 500, 4000, 20_000))))
        path.chmod(rng.choice((0o644, 0o600, 0o755)))
        os.utime(path, ns=(0, rng.randrange(1 << 60)))


def make_large(path: Path, megabytes: int) -> None:
    """Make a file that no compression and no hole makes smaller."""
    rng = random.Random(megabytes)
    with path.open("wb") as file:
        for _ in range(megabytes):
            file.write(rng.randbytes(1_000_000))


def described(root: Path) -> list[tuple[str, int, int, bytes]]:
    """Return names, modes, times and contents of a tree."""

    def one(path: Path) -> tuple[str, int, int, bytes]:
        status = path.lstat()
        content = hashlib.sha256(path.read_bytes()).digest() if path.is_file() else b""
        return str(path.relative_to(root)), status.st_mode, status.st_mtime_ns, content

    def paths() -> Iterator[Path]:
        yield from (root, *root.rglob("*"))

    return sorted(one(path) for path in paths())


def digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            found.update(piece)
    return found.hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--engine", required=True)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--megabytes", type=int, default=1000)
    arguments = parser.parse_args()
    report = anyio.run(trial, arguments.engine, arguments.files, arguments.megabytes)
    print(report)
    sys.exit(bool(report.violations))


if __name__ == "__main__":
    main()
