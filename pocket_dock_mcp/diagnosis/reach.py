"""Which engines there are, which of them is used and why, and who may use it."""

from __future__ import annotations

import grp
import pwd
import re
import shlex
import stat
from collections.abc import Iterator
from pathlib import Path

from pocket_dock_mcp.diagnosis.findings import Finding, Severity, some
from pocket_dock_mcp.diagnosis.remedies import Machine
from pocket_dock_mcp.engine.base import EngineInfo
from pocket_dock_mcp.engine.connect import Silence
from pocket_dock_mcp.engine.endpoint import Endpoint, Plan
from pocket_dock_mcp.errors import PocketDockError

Answers = list[tuple[Endpoint, Silence | None]]

_NAMES = {"podman": "Podman", "docker": "Docker"}
_UNITS = (
    (re.compile(r"(/var)?/run(/user/\d+)?/podman/podman\.sock"), "podman.socket"),
    (re.compile(r"(/var)?/run(/user/\d+)?/docker\.sock"), "docker"),
)
"""Where the sockets are that systemd's units serve."""


def unreachable(error: PocketDockError, plan: Plan, answers: Answers, machine: Machine) -> Iterator[Finding]:
    """Say that no engine answers, and how to get one."""
    denied = [silence for _, silence in answers if silence is not None and silence.reason == "denied"]
    if plan.variable is not None:
        [(endpoint, silence), *_] = answers
        advice = "Start that engine" if silence is None else _reviving(endpoint, silence, machine)
        remedy = f"{advice}   # or: unset {plan.variable}"
    elif denied:
        remedy = _may_use(denied[0].endpoint, machine)
    elif plan.brand == "docker":
        remedy = machine.as_root("systemctl start docker") + f"   # or: {machine.install('docker.io')}"
    else:
        remedy = machine.install("podman")
    yield Finding("engine", "problem", "No container engine answers", error.message, remedy)


def _may_use(endpoint: Endpoint, machine: Machine) -> str:
    path = Path(endpoint.url.removeprefix("unix://"))
    try:
        group = _group_name(path.stat().st_gid)
    except OSError:
        group = ""
    if group and group != "root":
        join = machine.as_root(f"usermod -aG {group} {machine.user}")
        return f"{machine.install('podman')}   # without root; or, which makes you root: {join}"
    return machine.install("podman")


def found(info: EngineInfo, plan: Plan, answers: Answers) -> Iterator[Finding]:
    """Say which engine is used, and how it was found."""
    source = next((endpoint.source for endpoint, _ in answers if endpoint.url == info.url), "")
    if plan.variable is not None:
        how = f"named by {plan.variable}"
    elif source:
        how = f"found as {source}, the first of the usual places that answers"
    else:
        how = "a Podman service of our own, since no socket answers"
    kind = _NAMES.get(info.kind, info.kind)
    rights = "rootless" if info.rootless else "rootful"
    yield Finding("engine", "ok", f"{kind} {info.version}, {rights}, at {info.url}", f"It was {how}.")


def passed_over(info: EngineInfo | None, plan: Plan, answers: Answers, machine: Machine) -> Iterator[Finding]:
    """Say what else was asked and why it is not used."""
    if plan.variable is not None:
        # That one is used, or it is the problem, and told as such.
        return
    for endpoint, silence in answers:
        if info is not None and endpoint.url == info.url:
            continue
        where = f"{endpoint.source} at {endpoint.url.removeprefix('unix://')}"
        if silence is None:
            yield Finding(
                "engine.other", "info", f"Not used: {where}", "It answers, and comes later in the order."
            )
        elif silence.reason == "missing":
            # Most of the usual places are empty on every machine.
            continue
        else:
            severity: Severity = "warning" if silence.reason in ("timeout", "refused") else "info"
            remedy = _reviving(endpoint, silence, machine)
            yield Finding("engine.other", severity, f"Passed over: {where}", silence.detail, remedy)


def _reviving(endpoint: Endpoint, silence: Silence, machine: Machine) -> str:
    """Return what may bring an engine back that does not answer, or shows why it does not."""
    if not endpoint.url.startswith("unix://"):
        return f"Start the engine at {endpoint.url}, and see that nothing between blocks its port."
    path = endpoint.url.removeprefix("unix://")
    quoted = shlex.quote(path)
    if silence.reason == "missing":
        return _restart(path, machine)
    if silence.reason == "denied":
        return f"ls -l {quoted}   # shows whose it is"
    if silence.reason == "other" or not _is_socket(path):
        return f"ls -ld {quoted}   # shows what is there"
    remedy = _restart(path, machine)
    # One that accepts and says nothing is somebody's: its engine may only be slow.
    unserved = f"   # or remove the socket that nobody serves: rm {quoted}"
    return remedy + (unserved if silence.reason == "refused" else "")


def _restart(path: str, machine: Machine) -> str:
    """Return the command that starts again what serves a socket, where its place tells what that is."""
    for pattern, unit in _UNITS:
        if pattern.fullmatch(path) and "/user/" in path:
            return f"systemctl --user restart {unit}"
        if pattern.fullmatch(path):
            return machine.as_root(f"systemctl restart {unit}")
    return f"Start the engine of {path} again"


def _is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(Path(path).stat().st_mode)
    except OSError:
        # We may not look: what is known is that it is there.
        return True


def socket_rights(info: EngineInfo) -> Iterator[Finding]:
    """Say who may use the engine's socket: with a rootful engine these are root."""
    if not info.url.startswith("unix://"):
        severity: Severity = "warning" if info.url.startswith(("tcp:", "http:")) else "info"
        detail = (
            "Whoever reaches this address can use the engine, unless something before it asks who they are."
        )
        remedy = "Use the engine's unix socket, forwarded by ssh if it is on another machine."
        yield Finding("engine.socket", severity, "The engine is reached over the network", detail, remedy)
        return
    path = Path(info.url.removeprefix("unix://"))
    try:
        status = path.stat()
    except OSError as error:
        yield Finding("engine.socket", "info", f"The socket {path} cannot be looked at", str(error))
        return
    mode = stat.S_IMODE(status.st_mode)
    shown = f"{path} is {mode:04o} {_user_name(status.st_uid)}:{_group_name(status.st_gid)}"
    power = "your account" if info.rootless else "root"
    if mode & stat.S_IWOTH and not _is_shut_off(path):
        detail = f"{shown}. Every user and program on this machine is {power} by it."
        yield Finding(
            "engine.socket", "problem", "Everybody may use the engine's socket", detail, f"chmod 0660 {path}"
        )
        return
    members = _members(status.st_gid) if mode & stat.S_IWGRP else []
    if members and not info.rootless:
        detail = f"{shown}. Membership in that group is as good as being root."
        group = _group_name(status.st_gid)
        title = f"Members of the group {group} are root by the engine's socket: {some(members)}"
        yield Finding("engine.socket", "info", title, detail, "Rootless Podman needs no such group.")
    else:
        yield Finding("engine.socket", "ok", "The engine's socket is closed to others", shown)


def _is_shut_off(path: Path) -> bool:
    """Whether a directory above keeps others out."""
    try:
        return any(not parent.stat().st_mode & stat.S_IXOTH for parent in path.resolve().parents)
    except OSError:
        return True


def _members(gid: int) -> list[str]:
    """Return a group's users, without root."""
    try:
        listed = set(grp.getgrgid(gid).gr_mem)
    except KeyError:
        listed = set()
    primary = {user.pw_name for user in pwd.getpwall() if user.pw_gid == gid}
    return sorted((listed | primary) - {"root"})


def _group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
