"""Ask the server's own code which container engine it would use, or have it make its image there.

`ready.py engine` names the engine; `ready.py image` builds the default image, with progress.
Exit status: 0 ready, 3 there is no engine at all, 4 the image cannot be made without mmdebstrap, 1 anything
else.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from pathlib import Path

import anyio

from pocket_dock_mcp.engine.base import Engine
from pocket_dock_mcp.engine.connect import connect
from pocket_dock_mcp.engine.endpoint import candidates
from pocket_dock_mcp.errors import EngineUnavailableError, ImageBuildError, PocketDockError
from pocket_dock_mcp.images import ImageStore
from pocket_dock_mcp.settings import Settings

FAILED = 1
NO_ENGINE = 3
NO_MMDEBSTRAP = 4


async def main(what: str) -> int:
    try:
        engine = await connect(os.environ)
    except EngineUnavailableError as error:
        say(str(error))
        return FAILED if engine_is_chosen() else NO_ENGINE
    try:
        if what == "image":
            return await make_image(engine)
        info = engine.info
        say(f"{info.kind} {info.version}{' (rootless)' if info.rootless else ''} at {info.url}")
    finally:
        await engine.aclose()
    return 0


def engine_is_chosen() -> bool:
    """Whether the user named an engine: then installing another one would not help."""
    plan = candidates(os.environ, uid=os.getuid(), home=Path.home(), platform=sys.platform)
    return plan.variable is not None or plan.brand == "docker"


async def make_image(engine: Engine) -> int:
    profile = Settings.from_environ(os.environ).profile
    began = time.monotonic()
    try:
        image = await ImageStore(engine).ensure(profile, say)
    except ImageBuildError as error:
        say(str(error))
        return NO_MMDEBSTRAP if shutil.which("mmdebstrap") is None else FAILED
    say(f"{profile}: {image.size_bytes / 1e6:.0f} MB, there after {time.monotonic() - began:.1f} s")
    return 0


def say(line: str) -> None:
    print(f"    {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    try:
        status = anyio.run(main, sys.argv[1])
    except PocketDockError as error:
        say(str(error))
        status = FAILED
    sys.exit(status)
