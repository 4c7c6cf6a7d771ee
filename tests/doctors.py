"""What the programs of the doctor's trial answer on a fake engine: the truth, or what a test says instead."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pocket_dock_mcp.diagnosis.trial import program
from pocket_dock_mcp.testing import FakeEngine, Process

HEALTHY: dict[str, Any] = {
    "look": {
        "uid": 1_234_567,
        "gid": 1_234_567,
        "caps": dict.fromkeys(("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"), "0" * 16),
        "no_new_privs": "1",
        "seccomp": "2",
        "calls": {"personality": "EPERM", "keyring": "EPERM", "user_namespace": "EPERM"},
        "interfaces": ["lo"],
        "has_route": False,
        "controllers": None,
        "disk_free": 10 << 30,
        "disk_total": 20 << 30,
        "inodes_free": 1000,
        "inodes_total": 2000,
    },
    "burn": {"cpu_s": 0.25, "wall_s": 1.0, "throttled": 9},
    "fork": {"started": 29, "reason": "EAGAIN"},
}


@dataclass
class Truth:
    """What the probes find in the sandboxes of a fake engine."""

    lies: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """By probe, what is otherwise than on a healthy engine."""
    memory_holds: bool = True

    async def __call__(self, process: Process) -> int:
        asked = json.loads(await process.read())
        probe = asked["probe"]
        if probe == "fill":
            process.oom = self.memory_holds
            return -9 if self.memory_holds else 0
        answer = {**HEALTHY[probe], **self.lies.get(probe, {})}
        await process.write(json.dumps(answer).encode() + b"\n")
        return 0


def teach_probes(fake: FakeEngine, truth: Truth | None = None) -> None:
    """Let a fake engine's sandboxes answer the doctor's programs."""
    truth = truth or Truth()
    fake.program(program(), truth)
    fake.program(shlex.join(["python3", "-I", "-c", program()]), truth)
