"""Packs the agent's modules into the one command-line argument that starts it in any image with python3."""

from __future__ import annotations

import base64
import functools
import json
import zlib
from importlib import resources

_MODULES = (
    "wire",
    "loop",
    "sending",
    "receiving",
    "clients",
    "cgroup",
    "identity",
    "children",
    "killing",
    "leaving",
    "changes",
    "filtered",
    "facts",
    "disk",
    "limits",
    "tapes",
    "shelf",
    "outputs",
    "inputs",
    "helpers",
    "spawner",
    "tracebacks",
    "values",
    "pictures",
    "program",
    "freezing",
    "interpreter",
    "zygote",
    "dialects",
    "cold",
    "runs",
    "cells",
    "forks",
    "checkpoints",
    "sessions",
    "ports",
    "dialling",
    "way_out",
    "provisions",
    "early",
    "readings",
    "files",
    "writing",
    "keeping",
    "main",
)

_LOADER = """\
class AgentLoader:
    codes = dict()
    def find_spec(name, path=None, target=None):
        return spec_from_loader(name, AgentLoader) if name in AgentLoader.codes else None
    def create_module(spec): return None
    def exec_module(module):
        exec(compiled(module.__name__), module.__dict__)
p = type(sys)("agent"); p.__path__ = []; sys.modules["agent"] = p; sys.meta_path.insert(0, AgentLoader)
"""
"""Loads a module when it is first imported: those that only interpreters need cost the agent nothing."""

_BOOTSTRAP = (
    """\
import base64, json, sys, zlib
from _frozen_importlib import spec_from_loader
def compiled(name):
    c = AgentLoader.codes[name]
    if isinstance(c, str):
        c = AgentLoader.codes[name] = compile(c, name.replace(".", "/") + ".py", "exec", 0, True, 2)
    return c
"""
    + _LOADER
    + """\
AgentLoader.codes.update(json.loads(zlib.decompress(base64.b85decode({packed!r}))))
from agent import main
main.main(lambda: {{n: compiled(n) for n in AgentLoader.codes}})
"""
)

_QUICK_BOOTSTRAP = (
    """\
import marshal, os, sys
from _frozen_importlib import spec_from_loader
def take(n):
    d = b""
    while len(d) < n:
        r = os.read(0, n - len(d))
        if not r: os._exit(0)
        d += r
    return d
def part(): return take(int.from_bytes(take(4), "big"))
def compiled(name): return marshal.loads(AgentLoader.codes[name])
u, _, h = part().decode().partition(" ")
if part() != sys.version.encode(): sys.exit("This was compiled by another Python.")
"""
    + _LOADER
    + """\
AgentLoader.codes.update(marshal.loads(part()))
from agent import early
e = early.begin(int(u), h)
rest = part()
early.wait()
AgentLoader.codes.update(marshal.loads(early.zlib.decompress(rest)))
from agent import main
main.main(dict, e)
"""
)


@functools.cache
def source_of(name: str) -> str:
    """Return the source of a module that runs inside: one of the agent's, or a program by itself."""
    return resources.files("pocket_dock_mcp.agent.inside").joinpath(f"{name}.py").read_text(encoding="utf-8")


@functools.cache
def agent_argv() -> tuple[str, ...]:
    """Return the command that runs the agent: isolated, without ``site``, unbuffered."""
    sources = {f"agent.{name}": source_of(name) for name in _MODULES}
    packed = base64.b85encode(zlib.compress(json.dumps(sources).encode("utf-8"), 9)).decode("ascii")
    return ("python3", "-I", "-S", "-u", "-c", _BOOTSTRAP.format(packed=packed))


def quick_argv() -> tuple[str, ...]:
    """Return the command that runs an agent whose modules come as the first of its input, compiled.

    Its first frame has what holds inside, and comes before all else is loaded. That is not before it is asked
    for something: of many that start at once, each would keep the others from their first frame.
    """
    return (*agent_argv()[:-1], _QUICK_BOOTSTRAP)


def quick_input(compiled: bytes, uid: int, home: str) -> bytes:
    """Return what `quick_argv` reads before its first frame."""
    user = f"{uid} {home}".encode()
    return len(user).to_bytes(4, "big") + user + compiled
