"""The processes of a container's user, as a program in it lists them: what it says may still be a lie."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pocket_dock_mcp.container.core import LiveContainer
from pocket_dock_mcp.errors import SandboxError
from pocket_dock_mcp.models import MIB, RunResult

MOST = 4096
"""More than that no container can have."""
MAX_COMMAND = 4096
_TIMEOUT_S = 10.0
_STATE = re.compile(r"[A-Za-z]")

_WITH_PYTHON = """
import json, os
me, uid, found = os.getpid(), str(os.getuid()), []
tick, page = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")

def read(path):
    with open(path, "rb") as file:
        return file.read(65536).decode("utf-8", "replace")

for name in os.listdir("/proc"):
    try:
        # Not by the owner of the directory: a process that may not be traced is root's there. All four ids:
        # what starts programs wears the user's for a moment.
        if not name.isdigit() or int(name) == me:
            continue
        if read("/proc/" + name + "/status").partition("\\nUid:")[2].split()[:4] != 4 * [uid]:
            continue
        about, _, rest = read("/proc/" + name + "/stat").rpartition(")")
        argv = read("/proc/" + name + "/cmdline")[:4096].split("\\0")[:-1]
    except (OSError, IndexError):
        continue
    rest = rest.split()
    times = (int(rest[11]) + int(rest[12])) / tick
    argv = argv or ["[" + about.partition("(")[2] + "]"]
    found.append([int(name), int(rest[1]), rest[0], times, int(rest[21]) * page, argv])
print(json.dumps(found))
"""
_WITHOUT = """
echo $$
uid=$(id -u)
for folder in /proc/[0-9]*; do
    while IFS= read -r line; do
        case $line in
            Uid:*)
                set -- $line
                [ "$2$3$4" = "$uid$uid$uid" ] && IFS= read -r line <$folder/stat && printf '%s\\n' "$line"
                ;;
        esac
    done <$folder/status
done 2>/dev/null
true
"""
_STAT = re.compile(r"(\d+) \((.*)\) ([A-Za-z]) (\d+) ")


@dataclass(frozen=True, slots=True)
class ProcessInfo:
    """One process of a container's user, as a program in there sees it."""

    pid: int
    """In the container."""
    parent: int
    state: str
    """One letter, as ``ps`` has it: R runs, S sleeps, T is stopped, Z has ended."""
    command: tuple[str, ...]
    """Program and arguments; where these are not to be had, its name in brackets."""
    cpu_s: float = 0.0
    memory_bytes: int = 0

    def as_text(self) -> dict[str, str]:
        """Return it under the headings of ``ps``."""
        return {
            "PID": str(self.pid),
            "PPID": str(self.parent),
            "STAT": self.state,
            "TIME": f"{self.cpu_s:.2f}",
            "RSS": str(self.memory_bytes // 1024),
            "COMMAND": " ".join(self.command),
        }


async def list_processes(live: LiveContainer, python: str | None) -> list[ProcessInfo]:
    """Return the user's processes, by id; the one that looks is not among them.

    Raises:
        SandboxError: no program can be run that would look.
        And what `LiveContainer.run` raises.
    """
    if python is None:
        done = await _run(live, _WITHOUT, "shell")
        found = _of_lines(done.stdout)
    else:
        done = await _run(live, _WITH_PYTHON, "python")
        found = _of_json(done.stdout)
    return sorted(found, key=lambda process: process.pid)[:MOST]


async def _run(live: LiveContainer, code: str, language: str) -> RunResult:
    done = await live.run(code, language=language, output_bytes=8 * MIB, timeout_s=_TIMEOUT_S)
    if not done.ok:
        message = f"The processes cannot be listed: {done.status} {done.stderr.strip()[-200:]}".strip()
        raise SandboxError(message)
    return done


def _of_json(text: str) -> Iterator[ProcessInfo]:
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError):
        rows = None
    for row in rows if isinstance(rows, list) else ():
        if (found := _of_row(row)) is not None:
            yield found


def _of_row(row: Any) -> ProcessInfo | None:
    try:
        pid, parent, state, cpu_s, memory, argv = row
        command = tuple(str(argument)[:MAX_COMMAND] for argument in argv[:MAX_COMMAND])
        fits = _STATE.fullmatch(state) and all(0 <= int(number) < 1 << 53 for number in (pid, parent, memory))
        return ProcessInfo(int(pid), int(parent), state, command, float(cpu_s), int(memory)) if fits else None
    except (TypeError, ValueError, OverflowError, KeyError):
        return None


def _of_lines(text: str) -> Iterator[ProcessInfo]:
    me, _, lines = text.partition("\n")
    for line in lines.splitlines():
        found = _STAT.match(line[:MAX_COMMAND])
        if found is not None and found[1] != me and len(found[1]) < 10 and len(found[4]) < 10:
            yield ProcessInfo(int(found[1]), int(found[4]), found[3], (f"[{found[2]}]",))
