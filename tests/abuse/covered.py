"""Cases that tests of the project cover: they are run by node id, and not written a second time."""

from __future__ import annotations

import ast
import asyncio
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.engines import Target

ROOT = Path(__file__).parents[2]
_FILE_AND_NAME = re.compile(r"(tests/[\w/]+\.py)::(\w+)(\[.+\])?")
_TOLD = 1500


def missing(nodes: Sequence[str]) -> Iterator[str]:
    """Yield what is wrong with node ids: a file without such a test. Parameters are not looked at."""
    for node in nodes:
        found = _FILE_AND_NAME.fullmatch(node)
        if found is None:
            yield f"{node!r} is no tests/FILE.py::NAME"
        elif found[2] not in _names(ROOT / found[1]):
            yield f"there is no test {found[2]} in {found[1]}"


def _names(path: Path) -> set[str]:
    if not path.is_file():
        return set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))}


async def run_tests(target: Target, nodes: Sequence[str]) -> list[str]:
    """Run tests on one engine; return why they do not show what they should, or nothing."""
    if wrong := list(missing(nodes)):
        return wrong
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pytest", "-q", "--no-header", "-p", "no:cacheprovider"),
        *("--engine", f"{target.name}={target.url}", *nodes),
        cwd=ROOT,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    if process.returncode == 0:
        return []
    return [f"pytest ends with {process.returncode}: {said.decode(errors='replace')[-_TOLD:]}"]
