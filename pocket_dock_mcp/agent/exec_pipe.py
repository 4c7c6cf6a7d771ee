"""A program in a container without an agent, whose input and output are not held by anybody on the way."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence

from pocket_dock_mcp.agent.exec_mark import RELEASE, Marked
from pocket_dock_mcp.beside import beside
from pocket_dock_mcp.engine.base import Engine, ExecStream
from pocket_dock_mcp.errors import EngineError, StreamLostError

Take = Callable[[int, bytes], Awaitable[None]]
"""Called with (1 for stdout or 2 for stderr, data); no more is read before it returns."""


async def piped(
    engine: Engine,
    container_id: str,
    argv: Sequence[str],
    *,
    user: str,
    env: Mapping[str, str],
    source: AsyncIterator[bytes] | None,
    take: Take,
) -> int:
    """Run a program and return the exit code that the engine reports.

    Of its input, `source`, it must read all and no more.

    Raises:
        StreamLostError: nobody knows how it ended, or not all of its output has come.
    """
    pieces: list[tuple[int, bytes]] = []
    marked = Marked(lambda stream, data: pieces.append((stream, data)))
    command = marked.command(argv, has_input=source is not None)
    failures: list[Exception] = []
    try:
        stream = await engine.exec(container_id, command, user=user, env=env, cwd="/")
        try:
            async with beside(_send, stream, source, failures):
                was_complete = False
                while not failures and (received := await stream.receive()) is not None:
                    marked.take(*received)
                    while pieces:
                        await take(*pieces.pop(0))
                    if marked.is_complete and not was_complete:
                        was_complete = True
                        stream.send_nowait(RELEASE)
            if failures:
                raise failures[0]
            state = await stream.state()
        finally:
            await stream.aclose()
    except EngineError as error:
        raise StreamLostError(f"The engine lost the sandbox: {error.message}") from error
    if state.running or state.exit_code is None or not marked.is_complete:
        message = "The stream of a program ended before the program had."
        raise StreamLostError(message)
    return state.exit_code


async def _send(stream: ExecStream, source: AsyncIterator[bytes] | None, failures: list[Exception]) -> None:
    if source is None:
        return
    try:
        async for data in source:
            await stream.send(data)
    except StreamLostError:
        # The program ended without reading it all. The reading side tells how.
        pass
    except Exception as error:  # noqa: BLE001  # raised by whoever reads
        failures.append(error)
        await stream.aclose()
