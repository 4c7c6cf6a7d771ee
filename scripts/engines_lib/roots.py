"""Debian trees made by mmdebstrap: what takes long, made once and kept in the cache."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import mkdtemp

from . import host
from .processes import run_logged
from .state import State, remove_tree, say

Files = Sequence[tuple[str, str]]

SUITE = "trixie"
TOOLS = {
    "mmdebstrap": "mmdebstrap",
    str(host.KEYRINGS / f"debian-archive-{SUITE}-stable.gpg"): "debian-archive-keyring",
}


@dataclass(frozen=True)
class Recipe:
    """A change of any field makes another cache entry."""

    name: str
    packages: tuple[str, ...]
    hooks: tuple[str, ...] = ()
    files: Files = ()

    @property
    def key(self) -> str:
        text = json.dumps([SUITE, asdict(self)])
        return f"{self.name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def cached(state: State, recipe: Recipe, build: Callable[[Path], None]) -> Path:
    """The entry's folder; one that was not finished is never seen under its name."""
    entry = state.cache / recipe.key
    if not entry.exists():
        # A build whose script was killed may still be writing to the one before.
        partial = Path(mkdtemp(prefix=f"{recipe.key}-", suffix=".partial", dir=state.cache))
        partial.chmod(0o755)
        build(partial)
        partial.rename(entry)
    return entry


def bootstrap(recipe: Recipe, target: Path, log: Path, files: Files = ()) -> None:
    """Build the recipe's tree; `files` are there before any package is configured."""
    say(f"building a Debian {SUITE} tree for {recipe.name} (about half a minute)")
    options = [f"--aptopt={option}" for option in host.apt_options()]
    hooks = [f"--customize-hook={hook}" for hook in recipe.hooks]
    overlay = target.with_name("overlay")
    write_files(overlay, files)
    command: Sequence[str] = (
        "mmdebstrap",
        "--variant=minbase",
        "--format=directory",
        f"--include={','.join(recipe.packages)}",
        f"--essential-hook=sync-in {shlex.quote(str(overlay))} /",
        *options,
        *hooks,
        SUITE,
        str(target),
        f"deb [signed-by={host.debian_keyring()}] {host.debian_mirror()} {SUITE} main",
    )
    run_logged(command, log, "mmdebstrap")
    remove_tree(overlay)


def write_files(root: Path, files: Files) -> None:
    root.mkdir()
    for name, text in files:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
