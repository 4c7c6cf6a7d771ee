"""Refuse modules that are too long and code that is there twice.

Comments, docstrings and imports do not count as repetition: what they say may well be the same.
"""

from __future__ import annotations

import ast
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
MAX_LINES = 400
# Flat lists of classes, of which each stands for itself.
CATALOGUES = {"pocket_dock_mcp/errors.py", "pocket_dock_mcp/models.py"}
# A contract is one list of behaviours, and reads better in one piece.
MAX_TEST_LINES = 1000
MAX_REPEATED = 12
# Of what is written by a program, the program is looked at.
WRITTEN = "# Written by scripts/mirror.py"


def modules(*directories: str) -> Iterator[Path]:
    for directory in directories:
        found = sorted((ROOT / directory).rglob("*.py"))
        yield from (path for path in found if not path.read_text(encoding="utf-8").startswith(WRITTEN))


def too_long() -> Iterator[str]:
    for limit, directories in (
        (MAX_LINES, ("pocket_dock_mcp", "examples", "benchmarks", "scripts")),
        (MAX_TEST_LINES, ("tests",)),
    ):
        for path in modules(*directories):
            count = len(path.read_text(encoding="utf-8").splitlines())
            if count > limit and str(path.relative_to(ROOT)) not in CATALOGUES:
                yield f"{path.relative_to(ROOT)}: {count} lines, at most {limit}"


def code_lines(path: Path) -> list[tuple[int, str]]:
    """The lines that do something, with their numbers."""
    source = path.read_text(encoding="utf-8")
    left_out = set[int]()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Import, ast.ImportFrom)) or (
            isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        ):
            left_out |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    stripped = ((number, line.strip()) for number, line in enumerate(source.splitlines(), 1))
    return [(n, line) for n, line in stripped if line and n not in left_out and not line.startswith("#")]


def repeated() -> Iterator[str]:
    seen: dict[tuple[str, ...], tuple[Path, int]] = {}
    reported = defaultdict[tuple[Path, Path], int](int)
    for path in modules("pocket_dock_mcp", "scripts"):
        lines = code_lines(path)
        for start in range(len(lines) - MAX_REPEATED + 1):
            window = tuple(line for _, line in lines[start : start + MAX_REPEATED])
            first = seen.setdefault(window, (path, lines[start][0]))
            if first != (path, lines[start][0]):
                reported[first[0], path] += 1
                if reported[first[0], path] == 1:
                    where = f"{first[0].relative_to(ROOT)}:{first[1]}"
                    yield f"{path.relative_to(ROOT)}:{lines[start][0]}: the same code as in {where}"


if __name__ == "__main__":
    found = [*too_long(), *repeated()]
    print("\n".join(found), end="\n" if found else "")
    sys.exit(bool(found))
