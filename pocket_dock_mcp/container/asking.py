"""Programs of ours that run as the sandbox's user, and what they answer: data, like all that comes of it."""

from __future__ import annotations

import anyio

from pocket_dock_mcp.agent.transport import Program, RunEnd, Transport

KILL_DEADLINE_S = 10.0


async def ask(transport: Transport, program: Program, max_bytes: int) -> tuple[RunEnd, bytes]:
    """Run a program to its end, and return how it ended and the beginning of what it said.

    Whoever is cancelled kills it.

    Raises: what `Transport.start` and `Process.wait` raise.
    """
    answer = bytearray()

    def take(_stream: int, data: bytes) -> None:
        answer.extend(data[: max_bytes - len(answer)])

    process = await transport.start(program, take)
    try:
        return await process.wait(), bytes(answer)
    except anyio.get_cancelled_exc_class():
        with anyio.CancelScope(shield=True), anyio.move_on_after(KILL_DEADLINE_S):
            await process.kill()
            await process.wait()
        raise
