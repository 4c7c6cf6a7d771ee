"""This machine: users for rootless containers, monitors that were left running, and disk space."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from pocket_dock_mcp.diagnosis.findings import Finding, size
from pocket_dock_mcp.diagnosis.remedies import Machine
from pocket_dock_mcp.engine.base import EngineKind
from pocket_dock_mcp.models import GIB, MIB

MANY_MONITORS = 50
MIN_IDS = 65_536
_EXEC_MARKS = (b"--exec-process-spec", b"-e", b"--exec")
_NO_DISK, _LITTLE_DISK = 64 * MIB, GIB

_DELAY = (
    "Podman keeps one for 300 s after each exec has ended. In containers.conf, "
    "exit_command_delay shortens that."
)


def subordinate_ids(machine: Machine, uid: int, etc: Path = Path("/etc")) -> Iterator[Finding]:
    """See whether this user can have containers with users of their own. Root needs nothing for that."""
    if uid == 0:
        return
    for name in ("subuid", "subgid"):
        count = _ids(etc / name, {machine.user, str(uid)})
        title = f"{machine.user} has {count} ids in /etc/{name}"
        if count >= MIN_IDS:
            yield Finding(f"host.{name}", "ok", title)
        else:
            detail = f"Rootless engines need {MIN_IDS} of them for the users inside containers."
            yield Finding(f"host.{name}", "warning", title, detail, machine.subids())
    missing = [name for name in ("newuidmap", "newgidmap") if shutil.which(name) is None]
    if missing:
        detail = "Rootless engines need them for the users inside containers."
        title = f"There is no {' and no '.join(missing)}"
        yield Finding("host.newuidmap", "warning", title, detail, machine.install("uidmap"))
    else:
        yield Finding("host.newuidmap", "ok", "newuidmap and newgidmap are there")


def _ids(path: Path, names: set[str]) -> int:
    """Return how many subordinate ids a file gives to a user."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return 0
    parts = (line.strip().split(":") for line in lines)
    return sum(int(part[2]) for part in parts if len(part) == 3 and part[0] in names and part[2].isdigit())


def monitors(engine: EngineKind | None, proc: Path = Path("/proc")) -> Iterator[Finding]:
    """Count the processes with which Podman watches over containers and execs.

    Where Podman is not the engine that is used, they are only worth a word if they are many.

    Args:
        engine: the one that is used, if any: many of another one's are none of our business.
        proc: where processes are shown.
    """
    every, of_execs = 0, 0
    for folder in proc.glob("[0-9]*"):
        try:
            if (folder / "comm").read_text().strip() != "conmon":
                continue
            arguments = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        every += 1
        of_execs += any(mark in arguments for mark in _EXEC_MARKS)
    title = f"{every} conmon processes, {of_execs} of them of execs"
    if of_execs > MANY_MONITORS:
        place = "/etc/containers/containers.conf.d"
        write = f"printf '[engine]\\nexit_command_delay = 10\\n' > {place}/exit-delay.conf"
        remedy = f"mkdir -p {place} && {write}   # as root; then restart Podman's service"
        if engine == "podman":
            yield Finding("host.conmon", "warning", title, _DELAY, remedy)
        else:
            detail = f"{_DELAY} Podman is not the engine used here."
            yield Finding("host.conmon", "info", title, detail, remedy)
    elif engine == "podman":
        yield Finding("host.conmon", "ok", title, _DELAY if of_execs else "")


def state_directory(directory: Path) -> Iterator[Finding]:
    """See whether our records can be written, and are ours alone."""
    existing = _nearest(directory)
    if existing is None or not os.access(existing, os.W_OK | os.X_OK, effective_ids=True):
        detail = f"The user {os.geteuid()} may not write there."
        remedy = "Set POCKET_DOCK_STATE_DIR to a directory of your own."
        yield Finding("state.directory", "problem", f"{directory} cannot be written", detail, remedy)
        return
    if existing == directory and directory.stat().st_mode & 0o022:
        detail = "Others can change what our records say."
        yield Finding(
            "state.directory",
            "warning",
            f"{directory} is writable for others",
            detail,
            f"chmod 700 {directory}",
        )
    else:
        yield Finding("state.directory", "ok", f"Records are in {directory}")
    free = shutil.disk_usage(existing).free
    title = f"{size(free)} are free for records and output"
    remedy = f"df -h {existing}   # then make room, or set POCKET_DOCK_STATE_DIR"
    if free < _NO_DISK:
        yield Finding(
            "disk.state", "problem", title, "Sandboxes cannot be recorded, so none can be made.", remedy
        )
    elif free < _LITTLE_DISK:
        detail = "Output of runs goes there; POCKET_DOCK_SPOOL_MB says how much."
        yield Finding("disk.state", "warning", title, detail, remedy)
    else:
        yield Finding("disk.state", "ok", title)


def _nearest(directory: Path) -> Path | None:
    """Return the directory, or the nearest one above that is there; None if we may not even look."""
    for folder in (directory, *directory.parents):
        try:
            folder.stat()
        except FileNotFoundError:
            continue
        except OSError:
            return None
        return folder
    return None
