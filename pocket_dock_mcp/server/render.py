"""Pure: results as text for a model to read, and as structured data.

What a program printed is data: it stands between marks that it cannot have known, and without characters
that could act on a terminal.
"""

from __future__ import annotations

import datetime
import secrets

from mcp.types import CallToolResult, TextContent
from pydantic import BaseModel

from pocket_dock_mcp.errors import PocketDockError
from pocket_dock_mcp.manager.persistence import KeptSandbox
from pocket_dock_mcp.manager.sandbox import Sandbox
from pocket_dock_mcp.manager.snapshots import Snapshot
from pocket_dock_mcp.models import MIB, ContainerInfo, Network
from pocket_dock_mcp.output import neutralise
from pocket_dock_mcp.readings import Readings
from pocket_dock_mcp.server import render_live
from pocket_dock_mcp.server.schemas import (
    KillReply,
    ListReply,
    Port,
    SandboxReply,
    SnapshotReply,
)
from pocket_dock_mcp.server.sizes import MAX_ERROR, MAX_ONCE, fitted, within

MAX_LISTED = 140_000
"""Bytes of sandboxes on their way, and of snapshots: some hundred of each."""


def reply(text: str, structured: BaseModel) -> CallToolResult:
    """Return a successful tool result."""
    return CallToolResult(
        content=[TextContent(type="text", text=text)], structured_content=structured.model_dump(mode="json")
    )


def error(failure: PocketDockError) -> CallToolResult:
    """Return what the caller can mend, with the way to mend it."""
    text, _ = fitted(f"{failure.code}: {failure}", MAX_ERROR)
    if failure.excerpt:
        mark = secrets.token_hex(3)
        excerpt = (
            fitted(neutralise(failure.excerpt)[0], MAX_ONCE)[0]
            .encode("utf-8", "backslashreplace")
            .decode("utf-8")
        )
        text += f"\n--- lines {mark} ---\n{excerpt}\n--- end {mark} ---"
    return CallToolResult(content=[TextContent(type="text", text=text)], is_error=True)


def sandbox_reply(sandbox: Sandbox, info: ContainerInfo) -> SandboxReply:
    """Return a sandbox's structured form."""
    return SandboxReply(
        sandbox_id=sandbox.id,
        name=sandbox.request.name,
        status="running",
        persist=sandbox.request.persist,
        image=sandbox.request.snapshot or sandbox.request.image,
        home=info.home,
        python=info.python,
        memory_mb=info.limits.memory_bytes // MIB,
        cpus=info.limits.cpus,
        pids=info.limits.pids,
        disk_mb=info.limits.disk_bytes // MIB,
        network=_network(info.network),
        workspace=info.workspace,
        expires_in_s=round(sandbox.remaining_s()),
        unenforced=list(info.unenforced),
        ports=[Port(port=mapping.port, address=mapping.where) for mapping in info.ports],
        live=render_live.live_reply(info.live),
    )


def kept_reply(found: KeptSandbox) -> SandboxReply:
    """Return the structured form of a kept sandbox that nobody in this process uses."""
    request = found.kept.request
    return SandboxReply(
        sandbox_id=found.kept.id,
        name=request.name,
        status="busy" if found.busy else found.status,
        persist=True,
        image=request.snapshot or request.image,
        home=None,
        python=None,
        memory_mb=request.limits.memory_bytes // MIB,
        cpus=request.limits.cpus,
        pids=request.limits.pids,
        disk_mb=request.limits.disk_bytes // MIB,
        network=_network(request.network),
        workspace=request.workspace or "disk",
        expires_in_s=None,
        unenforced=[],
        ports=[],
        live=render_live.live_reply(Readings()),
    )


def created(structured: SandboxReply, notes: list[str]) -> CallToolResult:
    """Render a new sandbox."""
    parts = [
        f"sandbox_id: {structured.sandbox_id}",
        _describe(structured),
        f"It stops after {structured.expires_in_s} s without a call and starts again with the next; "
        "only kill ends it."
        if structured.persist
        else f"It ends after {structured.expires_in_s} s without a call, with this session, or by kill.",
    ]
    parts += [f"Port {port.port} is reached at {port.address}." for port in structured.ports]
    if structured.python is None:
        parts.append("Its image has no python3: run_command works, run_code does not, and calls are slower.")
    if structured.unenforced:
        parts.append(f"Not enforced by this engine: {', '.join(structured.unenforced)}.")
    return reply("\n".join([*notes, *parts]), structured)


def _describe(sandbox: SandboxReply) -> str:
    reach = sandbox.network if isinstance(sandbox.network, str) else ", ".join(sandbox.network)
    network = "no network" if reach == "none" else f"network {reach}"
    return (
        f"{sandbox.image}: {sandbox.memory_mb} MiB memory, {sandbox.cpus:g} CPU, {sandbox.pids} processes, "
        f"{network}{f', home {sandbox.home}' if sandbox.home else ''}"
        f"{' in memory' if sandbox.workspace == 'memory' else ''}"
    )


def _network(network: Network) -> str | list[str]:
    return network if isinstance(network, str) else list(network)


def _outlook(sandbox: SandboxReply) -> str:
    if sandbox.expires_in_s is not None:
        return f"{'stops' if sandbox.persist else 'ends'} in {sandbox.expires_in_s} s unused"
    return {
        "stopped": "stopped: the next call starts it",
        "running": "running: the next call joins it",
        "paused": "paused from outside: unpause its container",
        "busy": "in use by another process",
        "gone": "its container is gone: kill it to forget it",
    }[sandbox.status]


def listing(sandboxes: list[SandboxReply], snapshots: list[SnapshotReply]) -> CallToolResult:
    """Render what the caller has."""
    structured = ListReply(sandboxes=within(sandboxes, MAX_LISTED), snapshots=within(snapshots, MAX_LISTED))
    lines = [f"{count(len(sandboxes), 'sandbox', 'sandboxes')}, {count(len(snapshots), 'snapshot')}"]
    for sandbox in structured.sandboxes:
        name = f" {plain(sandbox.name)!r}" if sandbox.name else ""
        ports = "".join(f", port {port.port} at {port.address}" for port in sandbox.ports)
        lines.append(
            f"{sandbox.sandbox_id}{name}: {_describe(sandbox)}, {_outlook(sandbox)}{ports}"
            f"{render_live.summary(sandbox.live, sandbox.memory_mb, sandbox.pids)}"
        )
    for snapshot in structured.snapshots:
        name = f" {plain(snapshot.name)!r}" if snapshot.name else ""
        lines.append(f"{snapshot.snapshot_id}{name}: {snapshot.size_mb:g} MB, made {snapshot.created}")
    left_out = len(sandboxes) - len(structured.sandboxes) + len(snapshots) - len(structured.snapshots)
    if left_out:
        structured.hint = f"{left_out} more are not listed. Kill those that you are done with."
        lines.append(f"Hint: {structured.hint}")
    return reply("\n".join(lines), structured)


def snapshot_reply(snapshot: Snapshot, sandbox: Sandbox | None = None) -> SnapshotReply:
    """Return a snapshot's structured form."""
    created_at = datetime.datetime.fromtimestamp(snapshot.created, datetime.timezone.utc)
    return SnapshotReply(
        snapshot_id=snapshot.id,
        name=snapshot.name,
        sandbox_id=None if sandbox is None else sandbox.id,
        size_mb=round(snapshot.size_bytes / 1e6, 1),
        created=created_at.isoformat(timespec="seconds"),
    )


def snapshot_made(structured: SnapshotReply) -> CallToolResult:
    """Render a new snapshot."""
    return reply(
        f"snapshot_id: {structured.snapshot_id}\n"
        f"{structured.size_mb:g} MB with its image. Files only: processes and variables are not part of it. "
        "Use it with create_sandbox(snapshot=...); delete it with kill(snapshot_id=...).",
        structured,
    )


def killed(what: str) -> CallToolResult:
    """Render an end."""
    return reply(f"Killed {what}.", KillReply(killed=what))


def plain(text: str) -> str:
    """Return a name that cannot act on a terminal or break out of its line."""
    return neutralise(text.replace("\n", "\\n"))[0].encode("utf-8", "backslashreplace").decode("utf-8")


def block(name: str, text: str, size: str = "", mark: str | None = None) -> list[str]:
    """Put text that is data between marks that it cannot have known; nothing for no text."""
    if not text:
        return []
    mark = mark or secrets.token_hex(3)
    return [f"--- {name} {mark}{size} ---", text.removesuffix("\n"), f"--- end {mark} ---"]


def count(number: int | None, one: str, many: str | None = None) -> str:
    """Return a number with its noun."""
    return f"{number} {one if number == 1 else many or one + 's'}"
