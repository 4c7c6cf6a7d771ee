"""Pulls and pushes trees while a program in the sandbox swaps them for links."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from pocket_dock_mcp.container.core import LiveContainer
from pocket_dock_mcp.container.launch import Launch
from pocket_dock_mcp.errors import PocketDockError
from tests.abuse.runner import Attack
from tests.engines import LABELS, connect, unique

TRANSFERS = 12
"""In each direction."""


async def drive(attack: Attack) -> None:
    """Transfer, in a container of its own: tools of the server move no trees."""
    home = attack.ground.home / "transfers"
    (home / "out").mkdir(parents=True)
    (home / "out" / "flag").write_text("pushed")
    engine = await connect(attack.ground.target)
    done = 0
    try:
        launch = Launch(unique("races"), attack.ground.image, LABELS)
        async with await LiveContainer.create(engine, launch) as container:
            await container.run("mkdir -p tree")
            racing = await container.start(attack.file("swap.py"), language="python")
            for number in range(TRANSFERS):
                done += await _pulled(container, home / f"in-{number}")
                attack.verdict.violations += looked_at(home / f"in-{number}", attack.ground.canaries.secret)
                done += await _pushed(container, home / "out")
            if not racing.is_running:
                attack.red("nobody has raced")
            await racing.kill()
    finally:
        await engine.aclose()
    if not done:
        attack.red("no transfer has worked at all")
    if left := [path.name for path in home.iterdir() if not path.name.startswith(("in-", "out"))]:
        attack.red(f"transfers have left {left}")
    shutil.rmtree(home)


async def _pulled(container: LiveContainer, to: Path) -> bool:
    try:
        await container.pull("tree", to)
    except PocketDockError:
        # What changes meanwhile may stop it.
        return False
    return True


async def _pushed(container: LiveContainer, tree: Path) -> bool:
    try:
        await container.push(tree, "tree/here/pushed")
    except PocketDockError:
        return False
    return True


def looked_at(tree: Path, secret: str) -> Iterator[str]:
    """Yield what is wrong with a tree that was pulled."""
    for path in sorted(tree.rglob("*")):
        if path.is_symlink():
            if not path.resolve().is_relative_to(tree.resolve()):
                yield f"a link leads out of what was pulled: {path.name} -> {path.readlink()}"
        elif path.is_file() and secret in path.read_text(errors="replace"):
            yield f"a secret of the host is in what was pulled, as {path.name}"
