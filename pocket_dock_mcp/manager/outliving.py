"""New sandboxes that are to outlive us: all of them are put on record, or none is left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import anyio

from pocket_dock_mcp.container.core import LiveContainer
from pocket_dock_mcp.manager.making import Maker
from pocket_dock_mcp.manager.persistence import SandboxKeeper
from pocket_dock_mcp.manager.sandbox import Owner, Sandbox, SandboxRequest, new_id


def sandboxes_of(
    owner: Owner, request: SandboxRequest, containers: Sequence[LiveContainer], names: Sequence[str]
) -> list[Sandbox]:
    """Return new sandboxes, one for each container; `names` is empty, or has one for each."""
    titles = names or [request.name] * len(containers)
    return [
        Sandbox(new_id(), owner, replace(request, name=title), container)
        for container, title in zip(containers, titles, strict=True)
    ]


async def keep_all(persistence: SandboxKeeper, maker: Maker, made: Sequence[Sandbox]) -> None:
    """Put new sandboxes on record, and only then have them outlive us: no one is left that nobody knows.

    Raises: what `SandboxKeeper.keep` raises; none of them is there any more then.
    """
    try:
        for sandbox in made:
            sandbox.claim = await persistence.keep(sandbox)
            maker.over(sandbox.container.name, is_removed=True)
    except BaseException:
        with anyio.CancelScope(shield=True):
            for sandbox in made:
                await _give_up(maker, sandbox)
        raise


async def _give_up(maker: Maker, sandbox: Sandbox) -> None:
    await sandbox.container.destroy()
    if sandbox.claim is None:
        maker.over(sandbox.container.name, sandbox.container.removed)
    elif sandbox.container.removed:
        sandbox.claim.remove()
    else:
        # On record it is still there to be destroyed.
        sandbox.claim.release()
