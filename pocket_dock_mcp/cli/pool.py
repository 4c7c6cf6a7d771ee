"""`pocket-dock pool`: many programs, each in a fresh sandbox of its own, several at once."""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pocket_dock_mcp.cli import exits, options
from pocket_dock_mcp.cli.console import Console, denied, error_document, in_our_words, plain, told
from pocket_dock_mcp.cli.steps import Steps
from pocket_dock_mcp.errors import FileTooLargeError, InvalidArgumentError, PocketDockError

if TYPE_CHECKING:
    import anyio
    from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

    from pocket_dock_mcp.container.pool import LivePool
    from pocket_dock_mcp.models import RunResult

_LANGUAGES = {".py": "python", ".js": "javascript", ".mjs": "javascript", ".sh": "shell", ".bash": "bash"}
_MAX_LINE = 128 * 1024
MAX_SIZE = 64
_OUTPUT_BYTES = 1024 * 1024
_AHEAD = 4
"""Times the size: so many are begun before the first of them is told."""


def register(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "pool",
        help="run many programs, each in a fresh sandbox",
        description="Runs each file, or else each line of standard input as a shell command, in a fresh "
        "sandbox that is removed after it; several at once, from a pool of sandboxes that are ready before "
        "they are needed. What came of each is told in the order in which they were given. Exits with 0 only "
        "if all ended well.",
    )
    parser.add_argument("files", metavar="FILE", nargs="*", help="a program, run as what its suffix says")
    parser.add_argument("--profile", help="of the sandboxes: minimal if left out; see profiles")
    parser.add_argument(
        "--size", type=options.count, metavar="N", help="how many at once, at most 64; one for each core"
    )
    parser.add_argument(
        "--lang", metavar="LANGUAGE", help="python, javascript, bash or shell, whatever the suffixes say"
    )
    parser.add_argument(
        "--timeout", type=options.seconds, default=60.0, metavar="S", help="seconds that each may take; 60"
    )
    parser.add_argument("--mem-limit", type=options.size, metavar="SIZE", help="memory of each, such as 256m")
    options.add_network(parser, "what they reach; nothing if left out")
    parser.add_argument(
        "--json",
        action="store_true",
        help="print one JSON document on a line for each, as soon as it is its turn",
    )
    parser.set_defaults(run=run)


@dataclass
class _Job:
    """One program and, when it is `done`, what came of it."""

    name: str
    code: str
    language: str
    done: anyio.Event
    result: RunResult | None = None
    error: PocketDockError | None = None

    @property
    def is_ok(self) -> bool:
        """Whether it ended well."""
        return self.result is not None and self.result.ok


async def run(arguments: argparse.Namespace, console: Console) -> int:
    """Run all, and tell of each in its turn."""
    import anyio

    size = min(arguments.size or os.cpu_count() or 1, MAX_SIZE)
    all_ok = True
    send, receive = anyio.create_memory_object_stream[_Job](0)
    begun, in_turn = anyio.create_memory_object_stream[_Job](size * _AHEAD)
    async with _pool(arguments, console, size) as pool, anyio.create_task_group() as group:
        group.start_soon(_give_out, arguments, send, begun)
        for _ in range(size):
            group.start_soon(_work, pool, receive.clone(), arguments.timeout)
        receive.close()
        async for job in in_turn:
            await job.done.wait()
            all_ok = all_ok and job.is_ok
            _show(job, console)
            if not console.flush():
                # Whoever closed the pipe has seen enough.
                group.cancel_scope.cancel()
    return exits.OK if all_ok else exits.FAILED


@asynccontextmanager
async def _pool(arguments: argparse.Namespace, console: Console, size: int) -> AsyncIterator[LivePool]:
    from pocket_dock_mcp.async_.create import limits_of
    from pocket_dock_mcp.cli.surroundings import environ
    from pocket_dock_mcp.container.pool import LivePool
    from pocket_dock_mcp.engine.connect import connect
    from pocket_dock_mcp.gate.opening import gates
    from pocket_dock_mcp.gate.rules import parse_network
    from pocket_dock_mcp.images import ImageStore
    from pocket_dock_mcp.models import MIB
    from pocket_dock_mcp.settings import Settings

    surroundings = environ()
    settings = Settings.from_environ(surroundings)
    limits = limits_of(settings, arguments.mem_limit, None, None, None, None)
    image = options.checked_profile(arguments.profile) or settings.profile
    network = arguments.network
    engine = await connect(surroundings)
    try:
        steps = Steps(console, plain(image))
        # Here, where somebody sees how far it is.
        with steps.shown_if_it_fails():
            await ImageStore(engine).ensure(image, steps.tell)
        console.clear()
        async with LivePool(
            image,
            size=size,
            engine=engine,
            limits=limits,
            network="none" if network is None else parse_network(network),
            gates=gates(settings, surroundings),
            enforce=settings.limits,
            confinement=settings.confinement,
            warm_python=settings.warm_python,
            min_free_bytes=settings.min_free_mb * MIB,
        ) as pool:
            yield pool
    finally:
        await engine.aclose()


async def _give_out(
    arguments: argparse.Namespace, send: MemoryObjectSendStream[_Job], begun: MemoryObjectSendStream[_Job]
) -> None:
    """Hand jobs to whoever is free, and in their order to whoever tells of them."""
    async with send, begun, aclosing(_jobs(arguments)) as jobs:
        async for job in jobs:
            await begun.send(job)
            if job.error is not None:
                job.done.set()
            else:
                await send.send(job)


async def _jobs(arguments: argparse.Namespace) -> AsyncGenerator[_Job, None]:
    import anyio

    if arguments.files:
        for name in arguments.files:
            suffix = Path(name).suffix
            job = _Job(name, "", arguments.lang or _LANGUAGES.get(suffix, "shell"), anyio.Event())
            try:
                job.code = (await anyio.Path(name).read_bytes()).decode("utf-8", "surrogateescape")
            except OSError as error:
                job.error = InvalidArgumentError(f"It cannot be read: {error.strerror}.")
            yield job
        return
    number = 0
    async with aclosing(_lines()) as lines:
        async for line in lines:
            number += 1
            code = line.decode("utf-8", "surrogateescape")
            if code.strip():
                yield _Job(f"line {number}", code, arguments.lang or "shell", anyio.Event())


async def _lines() -> AsyncGenerator[bytes, None]:
    """Yield the lines of standard input as they come."""
    from pocket_dock_mcp.async_.descriptors import Reader

    if sys.stdin is None or os.isatty(0):
        message = "There is nothing to run: no FILE, and standard input is a terminal."
        raise InvalidArgumentError(message, hint="Name files, or pipe commands in, one on a line.")
    reader, rest = Reader(0), b""
    try:
        while piece := await reader.read():
            *whole, rest = (rest + piece).split(b"\n")
            for line in whole:
                yield line
            if len(rest) > _MAX_LINE:
                message = f"A line of standard input is longer than {_MAX_LINE} bytes."
                # Others have been run meanwhile, so the command line was not wrong from the beginning.
                raise FileTooLargeError(message, hint="Put it into a file.")
        if rest:
            yield rest
    finally:
        reader.close()


async def _work(pool: LivePool, jobs: MemoryObjectReceiveStream[_Job], timeout: float) -> None:
    """Run one job after the other, each in a sandbox of its own."""
    limit = None if timeout == math.inf else timeout
    async with jobs:
        async for job in jobs:
            try:
                async with await pool.claim() as box:
                    job.result = await box.run(
                        job.code, language=job.language, timeout_s=limit, output_bytes=_OUTPUT_BYTES
                    )
            except PocketDockError as error:
                job.error = error
            finally:
                job.done.set()


def _show(job: _Job, console: Console) -> None:
    if console.as_json:
        console.say(json.dumps(_document(job)))
        return
    result = job.result
    if result is None:
        said = "not run" if job.error is None else f"not run: {told(job.error)}"
        console.say(f"{console.paint('FAILED', 'red')}  {plain(job.name)}  {said}")
        return
    word = console.paint("ok    ", "green") if result.ok else console.paint("FAILED", "red")
    code = "" if result.exit_code is None else f" {result.exit_code}"
    status = "" if result.ok else f", {result.status.replace('_', ' ')}{code}"
    console.say(f"{word}  {plain(job.name)}  {result.duration_ms / 1000:.2f} s{status}")
    for text in (result.stdout, result.stderr):
        for line in text.splitlines():
            console.say(f"        {plain(line)}")
    if result.network_denied:
        console.say(f"        {plain(denied(result.network_denied))}")
    if result.hint and not result.ok and result.status != "nonzero":
        console.say(f"        {console.paint('->', 'red')} {in_our_words(plain(result.hint))}")


def _document(job: _Job) -> dict[str, object]:
    if job.result is None:
        error = job.error or InvalidArgumentError("It was not run.")
        return {"name": job.name, "ok": False, **error_document(error)}
    result = job.result
    return {
        "name": job.name,
        "ok": result.ok,
        "status": result.status,
        "exit_code": result.exit_code,
        "signal": result.signal,
        "stdout": result.stdout,
        "stderr": result.stderr,
        "truncated": result.truncated,
        "duration_ms": round(result.duration_ms, 1),
        "network_denied": list(result.network_denied),
        "hint": None if result.hint is None else in_our_words(result.hint),
    }
