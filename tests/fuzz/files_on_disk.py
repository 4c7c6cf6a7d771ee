"""Files that people write and files that we wrote, damaged: a typed error, or passed over, and never a crash."""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path

from pocket_dock_mcp.errors import ConfigError
from pocket_dock_mcp.gate.secrets import read_secrets
from pocket_dock_mcp.manager.audit import read_log
from pocket_dock_mcp.manager.journal import dead_records
from pocket_dock_mcp.manager.records import Kept, KeptStore
from pocket_dock_mcp.manager.sandbox import SandboxRequest
from pocket_dock_mcp.models import Limits
from pocket_dock_mcp.projects.config import read_file
from pocket_dock_mcp.projects.history import History
from pocket_dock_mcp.projects.instances import read_instance_metadata
from pocket_dock_mcp.server.tokens import configured_tokens
from pocket_dock_mcp.settings import Settings
from tests.fuzz.harness import Surface
from tests.fuzz.values import TEXTS, mutated, mutated_bytes, odd_json

_SANDBOX = f"sb-{'0' * 32}"
_KEPT = Kept(
    _SANDBOX, "alice", "docker:1", "pocket-dock-1", "n", "sha256:1", 1_000_001,
    SandboxRequest(image="minimal", limits=Limits(), env={"A": "b"}, network=("a.example", "*.b.example:8443")), 1.5,
)  # fmt: skip
_YAML = (
    b"# of a project\nproject_name: demo\ndefault_profile: minimal\nsocket: podman\nlogging:\n  auto_log: true\n"
    b"  max_log_size: 10MB\n  retention_days: 30\ncontainers:\n  idle_timeout: 600\n  mem_limit: 512m\n  cpu_percent: 150\n"
    b"  network:\n    - example.com\n    - '*.example.org:8443'\n  env:\n    LANG: C.UTF-8\n"
)
_ODD_YAML = (
    b"&a [*a]", b"a: &a\n  b: *a\n", b"!!python/object/apply:os.system ['true']\n", b"a: !x 1\n", b"<<: {image: x}\n", b"--- a\n--- b\n", b"%YAML 9.9\n",
    b"? [a]\n: b\n", b"[" * 5000, b"a: " + b"{a: " * 2000, b"a: |\n  b\n c\n", b"\xff\xfeimage", b"image: \x00", b"image: 0x7fffffffffffffffffff\n",
    b"cpus: .inf\n", b"cpus: 1e999\n", b"memory: 99999999999999999999g\n", b"image: a\nimage: b\n", b"\t\n", b"a: " + b"9" * 100_000, b"'", b'"\\ud800"',
)  # fmt: skip
_INSTANCE = b'project = "p"\nname = "n"\nimage = "i"\ncreated_at = "2026-01-01T00:00:00Z"\npersist = true\npid = 5\nports = {8000 = 9000}\n'
_LINES = (
    {"intend": "container", "name": "a", "nonce": "n"}, {"made": "a"}, {"settled": "a"}, {"engine": "docker:1"}, {"intend": "image", "name": "b", "nonce": "m"},
    {"at": "2026-01-01T00:00:00Z", "event": "run", "sandbox": _SANDBOX}, {"time": 1e9, "type": "run", "command": "x", "id": "1"},
)  # fmt: skip


class Files(Surface):
    """What stands on this machine's disk."""

    name = "files"

    def make(self, rng: random.Random) -> bytes:
        """Return, in one line, what kind of file it is, and then what is in it."""
        kind = rng.choice(list(_READERS))
        return kind.encode() + b"\n" + _MAKERS[kind](rng)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Hold a directory."""
        with tempfile.TemporaryDirectory(prefix="pocket-dock-fuzz-") as folder:
            self._folder = Path(folder)
            yield

    async def attempt(self, data: bytes) -> str:
        """Write it and have it read."""
        kind, _, content = data.partition(b"\n")
        read = _READERS.get(kind.decode("ascii", "ignore"))
        if read is None:
            return "none"
        directory = self._folder / kind.decode()
        directory.mkdir(exist_ok=True)
        try:
            found = read(directory, content)
        except ConfigError as error:
            str(error).encode()
            return f"{kind.decode()} refused"
        return f"{kind.decode()} {'read' if found else 'passed over'}"


def _written(path: Path, content: bytes) -> Path:
    path.touch(0o600)
    path.write_bytes(content)
    return path


def _project(directory: Path, content: bytes) -> object:
    return read_file(_written(directory / "pocket-dock.yaml", content))


def _tokens(directory: Path, content: bytes) -> object:
    path = _written(directory / "tokens", content)
    return len(configured_tokens(Settings.from_environ({"POCKET_DOCK_TOKEN_FILE": str(path)})))


def _secrets(directory: Path, content: bytes) -> object:
    return read_secrets(_written(directory / "secrets", content))


def _record(directory: Path, content: bytes) -> object:
    _written(directory / f"{_SANDBOX}.json", content)
    store = KeptStore(directory, is_quiet=True)
    return [
        store.find("alice", "docker:1", _SANDBOX),
        *store.of(None, "docker:1"),
        store.has_container("a", "n"),
    ][0]


def _journal(directory: Path, content: bytes) -> object:
    _written(directory / "instance.jsonl", content)
    with dead_records(directory) as records:
        return [record.intents for _, record in records]


def _audit(directory: Path, content: bytes) -> object:
    return list(read_log(_written(directory / "log", content)))


def _instance(directory: Path, content: bytes) -> object:
    _written(directory / "instance.toml", content)
    return read_instance_metadata(directory)


def _history(directory: Path, content: bytes) -> object:
    history = History(_written(directory / "history.jsonl", content), max_bytes=10**6, max_age_s=1e12)
    history.append({"kind": "run"})
    history.expire()
    return history.read()


_READERS: dict[str, Callable[[Path, bytes], object]] = {
    "project": _project, "tokens": _tokens, "secrets": _secrets, "record": _record, "journal": _journal, "audit": _audit,
    "instance": _instance, "history": _history,
}  # fmt: skip


def _yaml(rng: random.Random) -> bytes:
    act = rng.randrange(4)
    if act == 0:
        return rng.choice(_ODD_YAML)
    if act == 1:
        return _YAML + rng.choice(_ODD_YAML)
    if act == 2:
        key = rng.choice(_YAML.splitlines()).partition(b":")[0]
        return key + b": " + rng.choice(TEXTS).encode("utf-8", "surrogatepass") + b"\n"
    return mutated_bytes(rng, _YAML)


def _token_lines(rng: random.Random) -> bytes:
    lines = [
        f"{rng.choice(('alice', 'bob', *TEXTS))} {rng.choice(('a' * 40, 'b' * 40, *TEXTS))}"
        for _ in range(rng.randrange(4))
    ]
    return mutated_bytes(rng, "\n".join(lines).encode("utf-8", "surrogatepass"))


def _json(whole: object) -> Callable[[random.Random], bytes]:
    def make(rng: random.Random) -> bytes:
        return odd_json(rng, whole) if rng.random() < 0.5 else json.dumps(mutated(rng, whole)).encode()

    return make


def _json_lines(rng: random.Random) -> bytes:
    lines = [
        _json(rng.choice(_LINES))(rng) if rng.random() < 0.5 else json.dumps(rng.choice(_LINES)).encode()
        for _ in range(rng.randrange(6))
    ]
    return rng.choice((b"\n", b"\n", b"\r\n", b"\r", b"\0")).join(lines)


_MAKERS: dict[str, Callable[[random.Random], bytes]] = {
    "project": _yaml, "tokens": _token_lines, "secrets": _json([{"host": "a.example", "header": "Authorization", "value": "Bearer x12345678"}] * 2),
    "record": _json(asdict(_KEPT)), "journal": _json_lines, "audit": _json_lines, "instance": lambda rng: mutated_bytes(rng, _INSTANCE),
    "history": _json_lines,
}  # fmt: skip
