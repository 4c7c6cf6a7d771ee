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
    "cgroup",
    "identity",
    "children",
    "killing",
    "changes",
    "limits",
    "tapes",
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
    "facts",
    "readings",
    "files",
    "writing",
    "keeping",
    "main",
)
"""In the order of their imports."""

_BOOTSTRAP = """\
import base64, json, sys, types, zlib
p = types.ModuleType("agent"); p.__path__ = []; sys.modules["agent"] = p; a = []
for n, s in json.loads(zlib.decompress(base64.b85decode({packed!r}))):
    m = types.ModuleType("agent." + n); m.__package__ = "agent"; sys.modules[m.__name__] = m
    setattr(p, n, m); c = compile(s, "agent/" + n + ".py", "exec"); a.append((n, c)); exec(c, m.__dict__)
p.main.main(a)
"""

_QUICK_BOOTSTRAP = """\
import marshal, os, sys, types, zlib
def take(n):
    d = b""
    while len(d) < n:
        r = os.read(0, n - len(d))
        if not r: os._exit(0)
        d += r
    return d
v, _, d = take(int.from_bytes(take(4), "big")).partition(b"\\0")
if v != sys.version.encode(): sys.exit("This was compiled by another Python.")
p = types.ModuleType("agent"); p.__path__ = []; sys.modules["agent"] = p
for n, c in marshal.loads(zlib.decompress(d)):
    m = types.ModuleType("agent." + n); m.__package__ = "agent"; sys.modules[m.__name__] = m
    setattr(p, n, m); exec(c, m.__dict__)
del d
p.main.main([])
"""


@functools.cache
def agent_argv() -> tuple[str, ...]:
    """Return the command that runs the agent: isolated, without ``site``, unbuffered."""
    inside = resources.files("pocket_dock_mcp.agent.inside")
    sources = [(name, inside.joinpath(f"{name}.py").read_text(encoding="utf-8")) for name in _MODULES]
    packed = base64.b85encode(zlib.compress(json.dumps(sources).encode("utf-8"), 9)).decode("ascii")
    return ("python3", "-I", "-S", "-u", "-c", _BOOTSTRAP.format(packed=packed))


def quick_argv() -> tuple[str, ...]:
    """Return the command that runs an agent whose modules come as the first of its input, compiled."""
    return (*agent_argv()[:-1], _QUICK_BOOTSTRAP)


def quick_input(compiled: bytes) -> bytes:
    """Return what `quick_argv` reads before its first frame."""
    return len(compiled).to_bytes(4, "big") + compiled
