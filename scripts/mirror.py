"""Writes the blocking SDK (`pocket_dock_mcp/sync`) from the asynchronous one, by way of its syntax trees.

What is public there is public here, under the same name without ``Async``, with the same parameters,
defaults, overloads and docstrings; the bodies only call. With ``--check`` nothing is written, and the exit
status says whether all of it is up to date.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCE, TARGET = ROOT / "pocket_dock_mcp" / "async_", ROOT / "pocket_dock_mcp" / "sync"
FROM, TO = "pocket_dock_mcp.async_", "pocket_dock_mcp.sync"
MARK = "# Written by scripts/mirror.py from {}; change that, and run scripts/mirror.py again."

RENAMED = {
    "__aenter__": "__enter__",
    "__aexit__": "__exit__",
    "__aiter__": "__iter__",
    "__anext__": "__next__",
    "aclose": "close",
    "AsyncIterator": "Iterator",
}
CONSTRUCTED = {"AsyncContainerPool"}
"""Made by users, not by a function or method of ours."""
WORDS = (
    ("an async iterator", "an iterator"),
    ("async with await ", "with "),
    ("async with ", "with "),
    ("async for ", "for "),
    ("(await ", "("),
    ("await ", ""),
    ("asynchronous", "blocking"),
)

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass
class Module:
    """One module of the source, and what of it has a mirror."""

    name: str
    tree: ast.Module
    classes: list[ast.ClassDef] = field(default_factory=list)
    functions: list[ast.AsyncFunctionDef] = field(default_factory=list)


def main(argv: list[str]) -> int:
    """Write, or check."""
    wanted = mirror()
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text() != text]
    extra = [path for path in TARGET.glob("*.py") if path not in wanted and MARK[:30] in path.read_text()]
    if "--check" in argv:
        for path in (*stale, *extra):
            print(f"{path.relative_to(ROOT)} is out of date: run scripts/mirror.py", file=sys.stderr)
        return 1 if stale or extra else 0
    for path in stale:
        path.write_text(wanted[path])
    for path in extra:
        path.unlink()
    return 0


def mirror() -> dict[Path, str]:
    """Return the files that there are to be, formatted."""
    modules = {path.stem: Module(path.stem, ast.parse(path.read_text())) for path in SOURCE.glob("*.py")}
    public = _exported(modules.pop("__init__").tree)
    for module in modules.values():
        module.functions = [
            one for one in module.tree.body if isinstance(one, ast.AsyncFunctionDef) and one.name in public
        ]
    names = {module.name: module for module in modules.values()}
    _find_classes(names, public)
    chosen = [module for module in modules.values() if module.classes or module.functions]
    mirrored = {one.name: module.name for module in chosen for one in module.classes}
    mirrored |= {one.name: module.name for module in chosen for one in module.functions}
    files = {TARGET / f"{module.name}.py": _written(module, mirrored) for module in chosen}
    init = ast.parse((SOURCE / "__init__.py").read_text())
    files[TARGET / "__init__.py"] = _init(init, mirrored)
    return {path: _tidy(path, text) for path, text in files.items()}


def _exported(tree: ast.Module) -> set[str]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return set(ast.literal_eval(node.value))
    raise SystemExit("the SDK exports nothing")


def _find_classes(modules: dict[str, Module], public: set[str]) -> None:
    """Find the classes that are exported, and what they are made of."""
    homes = {
        node.name: (module, node)
        for module in modules.values()
        for node in module.tree.body
        if isinstance(node, ast.ClassDef)
    }
    wanted = [name for name in homes if name in public and name.startswith("Async")]
    while wanted:
        module, node = homes[wanted.pop()]
        if node not in module.classes:
            module.classes.append(node)
            wanted += [ast.unparse(base) for base in node.bases if ast.unparse(base) in homes]


def _tidy(path: Path, text: str) -> str:
    """Return it as the linter would have it, without imports that nobody needs."""
    for command in (
        ["check", "--fix-only", "--quiet", "--select", "F401,I,TC004,F811,UP037"],
        ["format", "--quiet"],
    ):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "--stdin-filename", str(path), "-"],
            input=text, capture_output=True, text=True, check=True, cwd=ROOT,
        )  # fmt: skip
        text = done.stdout
    return text


# -- one module -----------------------------------------------------------------------------------


class Renamer(ast.NodeTransformer):
    """Gives names and docstrings their other colour."""

    def __init__(self, mirrored: Iterable[str]) -> None:
        self._names = {name: name.removeprefix("Async") for name in mirrored} | RENAMED

    def visit_Name(self, node: ast.Name) -> ast.Name:
        return ast.Name(self._names.get(node.id, node.id), node.ctx)

    def text(self, text: str) -> str:
        """Return prose or an example."""
        text = re.sub(r"\ban async(\s+)context manager", r"a\1context manager", text)
        for old, new in (*WORDS, *sorted(self._names.items(), reverse=True)):
            text = text.replace(old, new)
        return text


def _written(module: Module, mirrored: dict[str, str]) -> str:
    renamer = Renamer(mirrored)
    lines = [MARK.format(f"async_/{module.name}.py")]
    doc = ast.get_docstring(module.tree, clean=False) or ""
    lines += [_quoted(renamer.text(doc), ""), "", "from __future__ import annotations", ""]
    lines += _imports(module, mirrored)
    body = {one.name: _class(one, renamer, mirrored) for one in module.classes}
    body |= {one.name: _function(one, renamer, mirrored) for one in module.functions}
    for node in module.tree.body:
        if isinstance(node, (ast.ClassDef, ast.AsyncFunctionDef)) and node.name in body:
            lines += ["", "", body[node.name]]
    return "\n".join(lines) + "\n"


def _imports(module: Module, mirrored: dict[str, str]) -> list[str]:
    """Return more imports than are needed: those of the source, and of what it defines itself."""
    lines = [
        "from collections.abc import Iterator",
        "from typing import TYPE_CHECKING, Any, cast",
        *(f"from {FROM}.{module.name} import {one.name} as _{one.name}" for one in module.functions),
        f"from {TO}.facade import Facade, aside, call, mirrored",
    ]
    own = [
        name
        for node in module.tree.body
        for name in _defined(node)
        if not name.startswith("_") and (name.startswith("Async") or name not in mirrored)
    ]
    lines += [f"from {FROM}.{module.name} import {name}" for name in own]
    used = {node.id for one in (*module.classes, *module.functions) for node in _names_of(one)}
    for node in module.tree.body:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            lines += _import(node, mirrored, used)
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            inner = [line for one in node.body for line in _import(one, mirrored, used)]
            lines += ["if TYPE_CHECKING:", *(f"    {line}" for line in inner)]
    return lines


def _names_of(node: ast.AST) -> Iterator[ast.Name]:
    """Yield the names in signatures."""
    for one in ast.walk(node):
        if isinstance(one, Function):
            signature: list[ast.AST] = [one.args, *([one.returns] if one.returns else [])]
            signature += one.decorator_list
            yield from (name for part in signature for name in ast.walk(part) if isinstance(name, ast.Name))
        elif isinstance(one, ast.ClassDef):
            yield from (name for base in one.bases for name in ast.walk(base) if isinstance(name, ast.Name))


def _defined(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.Assign):
        return [ast.unparse(target) for target in node.targets if isinstance(target, ast.Name)]
    return []


def _import(node: ast.stmt, mirrored: dict[str, str], used: set[str]) -> list[str]:
    if not isinstance(node, ast.ImportFrom):
        return []
    lines = []
    for alias in node.names:
        name = alias.asname or alias.name
        if node.module == "__future__" or name not in used:
            continue
        if alias.name in mirrored:
            lines.append(f"from {TO}.{mirrored[alias.name]} import {alias.name.removeprefix('Async')}")
        else:
            as_name = f" as {alias.asname}" if alias.asname else ""
            lines.append(f"from {node.module} import {alias.name}{as_name}")
    return lines


def _quoted(text: str, indent: str) -> str:
    return f'{indent}"""{text}"""'


# -- classes and functions ------------------------------------------------------------------------


def _class(node: ast.ClassDef, renamer: Renamer, mirrored: dict[str, str]) -> str:
    bases = [renamer.visit(base) for base in node.bases if ast.unparse(base) in mirrored]
    heading = [ast.unparse(base) for base in bases] or ["Facade[Any]"]
    if node.name.startswith("Async"):
        heading.append(f"of={node.name}")
    lines = [f"class {node.name.removeprefix('Async')}({', '.join(heading)}):"]
    doc = ast.get_docstring(node, clean=False)
    if doc is not None:
        lines.append(_quoted(renamer.text(doc), "    "))
    for one in node.body:
        if isinstance(one, Function) and _is_mirrored(node, one):
            lines += ["", _method(node, one, renamer, mirrored)]
    return "\n".join(lines)


def _is_mirrored(node: ast.ClassDef, method: Function) -> bool:
    if method.name == "__init__":
        return node.name in CONSTRUCTED
    return not method.name.startswith("_") or method.name in RENAMED


def _decorators(node: Function) -> list[str]:
    return [ast.unparse(one) for one in node.decorator_list]


def _heading(node: Function, renamer: Renamer, indent: str) -> tuple[list[str], ast.expr | None]:
    """Return decorators and signature, and what is returned in the other colour."""
    returns = node.returns
    copy = ast.parse(ast.unparse(node)).body[0]
    assert isinstance(copy, Function)
    args = renamer.visit(copy.args)
    name = RENAMED.get(node.name, node.name)
    result = f" -> {ast.unparse(renamer.visit(copy.returns))}" if copy.returns else ""
    lines = [f"{indent}@{one}" for one in _decorators(node)]
    lines.append(f"{indent}def {name}({ast.unparse(args)}){result}:")
    return lines, returns


def _doc(node: Function, renamer: Renamer, indent: str) -> list[str]:
    doc = ast.get_docstring(node, clean=False)
    return [] if doc is None else [_quoted(renamer.text(doc), indent)]


def _method(owner: ast.ClassDef, node: Function, renamer: Renamer, mirrored: dict[str, str]) -> str:
    lines, returns = _heading(node, renamer, "    ")
    if _decorators(node) == ["overload"]:
        return "\n".join(lines) + " ..."
    lines += _doc(node, renamer, "        ")
    lines += [f"        {line}" for line in _body(owner, node, returns, mirrored)]
    return "\n".join(lines)


def _body(
    owner: ast.ClassDef,
    node: Function,
    returns: ast.expr | None,
    mirrored: dict[str, str],
) -> list[str]:
    passed = _passed(node, mirrored)
    there = f"self._async.{node.name}"
    if node.name == "__init__":
        return [f"self._wrap({owner.name}({passed}))"]
    if "property" in _decorators(node):
        return [f"return cast({_text(returns)!r}, {there})"]
    if node.name == "__aenter__":
        return [f"self._call({there})", "return self"]
    if node.name == "__aiter__":
        return [f"return self._loop({there}())"]
    if node.name == "__anext__":
        return [f"return cast({_text(returns)!r}, self._next({there}))"]
    how = "_call" if isinstance(node, ast.AsyncFunctionDef) else "_here"
    called = f"self.{how}({there}{', ' if passed else ''}{passed})"
    wrap = "mirrored" if owner.name in CONSTRUCTED else "self._mirrored"
    return [_returned(called, returns, mirrored, wrap, is_any=True)]


def _text(node: ast.expr | None) -> str:
    return "None" if node is None else ast.unparse(node)


def _returned(
    called: str, returns: ast.expr | None, mirrored: dict[str, str], wrap: str, *, is_any: bool
) -> str:
    text = _text(returns)
    if text == "None":
        return called
    names = {one.id for one in ast.walk(returns) if isinstance(one, ast.Name)} if returns else set()
    if names & set(mirrored):
        renamed = _text(Renamer(mirrored).visit(ast.parse(text, mode="eval").body))
        return f"return cast({renamed!r}, {wrap}({called}))"
    return f"return cast({text!r}, {called})" if is_any else f"return {called}"


def _passed(node: Function, mirrored: dict[str, str]) -> str:
    """Return the arguments of a call that hands all parameters on."""
    is_method = bool(node.args.args) and node.args.args[0].arg == "self"
    positional = [*node.args.posonlyargs, *node.args.args][1 if is_method else 0 :]
    parts = [_argument(one, mirrored, is_method=is_method) for one in positional]
    parts += [f"{one.arg}={_argument(one, mirrored, is_method=is_method)}" for one in node.args.kwonlyargs]
    return ", ".join(parts)


def _argument(node: ast.arg, mirrored: dict[str, str], *, is_method: bool) -> str:
    text = _text(node.annotation)
    if "Callable[" not in text:
        return node.arg
    if not is_method:
        return f"aside({node.arg})"
    with_me = any(f"Callable[[{name}" in text for name in mirrored)
    return f"self._{'with_me' if with_me else 'aside'}({node.arg})"


def _function(node: ast.AsyncFunctionDef, renamer: Renamer, mirrored: dict[str, str]) -> str:
    lines, returns = _heading(node, renamer, "")
    lines += _doc(node, renamer, "    ")
    called = f"call(_{node.name}, {_passed(node, mirrored)})"
    lines.append(f"    {_returned(called, returns, mirrored, 'mirrored', is_any=False)}")
    return "\n".join(lines)


# -- the package ----------------------------------------------------------------------------------


def _init(tree: ast.Module, mirrored: dict[str, str]) -> str:
    lines = [MARK.format("async_/__init__.py")]
    doc = "The SDK for programs without an event loop: the same names, with functions that block."
    lines += [_quoted(doc, ""), ""]
    lines += ["from __future__ import annotations", ""]
    for node in tree.body:
        if isinstance(node, ast.ImportFrom):
            lines += _import(node, mirrored, {alias.asname or alias.name for alias in node.names})
    exported = sorted(name.removeprefix("Async") if name in mirrored else name for name in _exported(tree))
    lines.append(f"__all__ = {exported!r}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
