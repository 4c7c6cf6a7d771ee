"""Payloads of controls, run where nothing contains them: by the engine as root, or on this machine."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import anyio

from tests.trials.api import Api
from tests.trials.host import slowness

DEADLINE_S = 30.0


async def as_root(api: Api, container: str, source: str, name: str) -> str:
    """Run a program in a container as uid 0, which its first process has, and return what it printed."""
    argv = ["python3", "-c", source] if name.endswith(".py") else ["/bin/sh", "-c", source]
    wanted = {
        "Cmd": argv,
        "User": "0:0",
        "AttachStdout": True,
        "AttachStderr": True,
        # Without it the output comes in pieces with headers.
        "Tty": True,
    }
    made = await api.call("POST", f"containers/{container}/exec", wanted)
    with anyio.fail_after(DEADLINE_S * slowness()):
        printed = await api.call("POST", f"exec/{made['Id']}/start", {"Detach": False, "Tty": True})
    return str(printed).replace("\r\n", "\n")


async def on_host(source: str, name: str, environ: Mapping[str, str]) -> str:
    """Run a program on this machine, in an empty directory, and return what it printed."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        path.write_text(source)
        argv = [sys.executable, str(path)] if name.endswith(".py") else ["/bin/sh", str(path)]
        process = await asyncio.create_subprocess_exec(
            *argv,
            cwd=folder,
            env=dict(environ),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        with anyio.fail_after(DEADLINE_S * slowness()):
            printed, _ = await process.communicate()
    return printed.decode("utf-8", "replace")
