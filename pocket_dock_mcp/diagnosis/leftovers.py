"""What dead processes of ours have left: on the engine, by their journals, and on disk.

What is mended here is what can be proved to be ours, by a journal or, for pools of the SDK, by what
`pocket_dock_mcp.container.abandoned` says. A label proves nothing, so images that carry one and
that no record names are shown, with the command that removes them, and never removed.
"""

from __future__ import annotations

import re
import shutil
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pocket_dock_mcp.container.abandoned import find_abandoned, find_doubtful, remove_abandoned
from pocket_dock_mcp.diagnosis.damaged import held_back, unreadable_journals, unreadable_snapshots
from pocket_dock_mcp.diagnosis.findings import Finding, counted, some
from pocket_dock_mcp.diagnosis.remedies import FIX, program_of
from pocket_dock_mcp.engine.base import Engine
from pocket_dock_mcp.errors import ImageNotFoundError, SandboxBusyError
from pocket_dock_mcp.images import PROFILES
from pocket_dock_mcp.images.build import PROFILE_LABEL
from pocket_dock_mcp.manager.journal import Intent, Record, dead_records
from pocket_dock_mcp.manager.locking import remove_torn
from pocket_dock_mcp.manager.records import Kept, KeptStore
from pocket_dock_mcp.manager.snapshots import Snapshot, SnapshotStore
from pocket_dock_mcp.manager.sweep import GRACE_S, NONCE_LABEL, IsKept, sweep, there

SNAPSHOT_LABEL = "pocket-dock.snapshot"
SETTLED_S = 60.0
"""Seconds after which a half-written file is nobody's any more: writing one takes a millisecond."""
_SERVICE = re.compile(r"pocket-dock-[0-9a-f]{16}")
"""The directory of a Podman service of ours; see `pocket_dock_mcp.engine.service`."""
RECORDS = ("instances", "snapshots", "sandboxes")
"""Where records are, below our state directory."""


@dataclass(slots=True)
class Left:
    """All that was found of dead processes."""

    objects: list[str] = field(default_factory=list)
    """Names of containers and images."""
    journals: list[Path] = field(default_factory=list)
    """Of dead processes that have nothing on this engine or any other."""
    pending: int = 0
    """How many dead processes had asked for what the engine may still make."""
    elsewhere: list[str] = field(default_factory=list)
    """Engines that other dead processes have something on, perhaps."""
    snapshots: list[Snapshot] = field(default_factory=list)
    """On record, and without an image."""
    sandboxes: list[Kept] = field(default_factory=list)
    """Kept sandboxes on record, and without a container."""
    unrecorded: list[str] = field(default_factory=list)
    """Images that say that they are a snapshot, and that no record of ours names."""
    nameless: list[str] = field(default_factory=list)
    """Images of profiles that newer ones have replaced."""
    doubtful: list[str] = field(default_factory=list)
    """Names of pools' containers that do not run, of processes that cannot be seen from here."""


async def look(engine: Engine, state_dir: Path) -> Left:
    """Look for what is left, and change nothing.

    Raises:
        EngineError: the engine failed.
    """
    left = Left()
    here = engine.info.identity
    is_kept = _kept(state_dir)
    # Of these `damaged` tells.
    unreadable = unreadable_journals(state_dir)
    with dead_records(state_dir / "instances") as records:
        for path, record in records:
            if record.intents and record.engine != here:
                left.elsewhere.append(record.engine or "unknown")
                continue
            intents = [intent for intent in record.intents.values() if not is_kept(intent)]
            objects = await there(engine, record.instance, intents)
            left.objects += objects
            if path in unreadable:
                continue
            if not objects and _may_come(record, intents):
                left.pending += 1
            elif not objects:
                left.journals.append(path)
    left.objects += [state.name for state in await find_abandoned(engine)]
    left.doubtful = [state.name for state in await find_doubtful(engine)]
    damaged = {path.stem for path in unreadable_snapshots(state_dir)}
    everybodys = SnapshotStore(state_dir / "snapshots").everybodys(here)
    recorded = [snapshot for snapshot in everybodys if snapshot.id not in damaged]
    left.snapshots = [snapshot for snapshot in recorded if not await _has(engine, snapshot)]
    kept = kept_store(state_dir).of(None, here)
    left.sandboxes = [one for one in kept if not one.renewing and not await _has_container(engine, one)]
    # Of these their damaged records are told.
    known = damaged.union(snapshot.id for snapshot in recorded)
    left.unrecorded = [
        " ".join(image.tags) or image.id
        for image in await engine.images(SNAPSHOT_LABEL)
        if image.labels.get(SNAPSHOT_LABEL)
        and image.labels[SNAPSHOT_LABEL] not in known
        and not set(image.tags) & set(left.objects)
    ]
    for profile in PROFILES:
        images = await engine.images(f"{PROFILE_LABEL}={profile.name}")
        left.nameless += [image.id for image in images if all("<none>" in tag for tag in image.tags)]
    return left


def kept_store(state_dir: Path) -> KeptStore:
    """Return the records of kept sandboxes; what is wrong with them is told by `damaged`."""
    return KeptStore(state_dir / "sandboxes", is_quiet=True)


def _kept(state_dir: Path) -> IsKept:
    """Return what tells whether something is on record as kept on purpose."""
    snapshots, sandboxes = SnapshotStore(state_dir / "snapshots"), kept_store(state_dir)

    def is_kept(intent: Intent) -> bool:
        if intent.kind == "image":
            return snapshots.has_tag(intent.name)
        return sandboxes.has_container(intent.name, intent.nonce)

    return is_kept


def _may_come(record: Record, intents: list[Intent]) -> bool:
    """Whether the engine may still make what a process had asked for when it died."""
    return any(not intent.is_made and record.age_s < GRACE_S[intent.kind] for intent in intents)


async def _has(engine: Engine, snapshot: Snapshot) -> bool:
    try:
        await engine.image(snapshot.tag)
    except ImageNotFoundError:
        return False
    return True


async def _has_container(engine: Engine, kept: Kept) -> bool:
    found = await engine.containers(f"{NONCE_LABEL}={kept.nonce}")
    return any(state.name == kept.container for state in found)


def told(left: Left, engine: Engine, state_dir: Path) -> Iterator[Finding]:
    """Say what is left on the engine and in our records."""
    program = program_of(engine.info)
    if left.objects:
        title = (
            f"{counted(left.objects, 'container or image', 'containers or images')} left of dead processes"
        )
        yield Finding("leftovers.objects", "problem", title, some(left.objects), FIX)
    else:
        title = "No containers or images of dead processes are left"
        detail = (
            f"By the journals in {state_dir / 'instances'}: those of other state directories are not seen."
        )
        yield Finding("leftovers.objects", "ok", title, detail)
    if left.journals:
        title = f"{counted(left.journals, 'journal', 'journals')} left of dead processes"
        yield Finding("leftovers.journals", "warning", title, some(p.name for p in left.journals), FIX)
    if left.pending:
        who = "A process" if left.pending == 1 else f"{left.pending} processes"
        title = f"{who} died while the engine was making something for it"
        detail = (
            "It may still come, and is removed then, by whatever of ours runs; after ten minutes it will not."
        )
        yield Finding("leftovers.pending", "info", title, detail, f"{FIX}   # in ten minutes")
    if left.elsewhere:
        dead = counted(left.elsewhere, "dead process", "dead processes")
        title = f"{dead} may have left something on another engine"
        remedy = f"POCKET_DOCK_ENGINE=ADDRESS {FIX}   # with the address of that engine"
        yield Finding("leftovers.elsewhere", "info", title, some(sorted(set(left.elsewhere))), remedy)
    if left.snapshots:
        title = f"The engine has no image any more of {counted(left.snapshots, 'snapshot', 'snapshots')}"
        names = some(snapshot.name or snapshot.id for snapshot in left.snapshots)
        yield Finding("leftovers.snapshots", "warning", title, names, FIX)
    if left.sandboxes:
        kept = counted(left.sandboxes, "kept sandbox", "kept sandboxes")
        title = f"The engine has no container any more of {kept}"
        names = some(sandbox.request.name or sandbox.id for sandbox in left.sandboxes)
        yield Finding("leftovers.sandboxes", "warning", title, names, FIX)
    if left.unrecorded:
        title = f"{counted(left.unrecorded, 'image', 'images')} of snapshots on no record here"
        detail = f"{some(left.unrecorded)}. Another user or state directory may have them on record."
        count = len(left.unrecorded)
        part = f"; these are 5 of {count}, so repeat it" if count > 5 else ""
        remedy = f"{program} rmi {' '.join(left.unrecorded[:5])}   # if nobody needs them{part}"
        yield Finding("leftovers.unrecorded", "info", title, detail, remedy)
    if left.doubtful:
        stopped = counted(left.doubtful, "stopped container", "stopped containers")
        title = f"{stopped} of pools whose programs cannot be seen"
        detail = f"{some(left.doubtful)}. They are of before a reboot, of a container, or of another machine."
        remedy = f"{program} rm {' '.join(left.doubtful[:5])}   # if no program is about to start them"
        yield Finding("leftovers.doubtful", "info", title, detail, remedy)
    if left.nameless:
        title = (
            f"Room is taken up by {counted(left.nameless, 'replaced image', 'replaced images')} of profiles"
        )
        remedy = f"{program} image prune --filter label={PROFILE_LABEL}"
        yield Finding("leftovers.nameless", "info", title, some(i[:19] for i in left.nameless), remedy)


async def mend(engine: Engine, state_dir: Path) -> list[str]:
    """Remove what is left of dead processes, and the records of snapshots that are gone; say what was done.

    Raises:
        EngineError: the engine failed.
    """
    left = await look(engine, state_dir)
    with held_back(unreadable_journals(state_dir)):
        swept = await sweep(engine, state_dir / "instances", _kept(state_dir))
    abandoned = await remove_abandoned(engine)
    done = [f"removed {name}" for name in (*swept.removed, *abandoned.removed)]
    done += [f"removed the journal {path.name}" for path in left.journals if not path.exists()]
    store = SnapshotStore(state_dir / "snapshots")
    for snapshot in left.snapshots:
        if not await _has(engine, snapshot):
            store.remove(snapshot.id)
            done.append(f"removed the record of the snapshot {snapshot.id}, whose image is gone")
    for kept in left.sandboxes:
        if await _forget(engine, kept_store(state_dir), kept):
            done.append(f"removed the record of the sandbox {kept.id}, whose container is gone")
    return done


async def _forget(engine: Engine, store: KeptStore, kept: Kept) -> bool:
    """Take a sandbox that is gone off the record, unless some process is at it."""
    try:
        claim = store.claim(kept.id)
    except SandboxBusyError:
        return False
    if claim is None:
        return False
    try:
        if await _has_container(engine, kept):
            return False
        claim.remove()
        return True
    finally:
        claim.release()


# -- on disk, whatever the engine says ----------------------------------------------------------------


def half_written(state_dir: Path) -> list[Path]:
    """Return files that their writers have not finished, and will not."""
    paths = [path for folder in RECORDS for path in (state_dir / folder).glob(".*.new")]
    return [path for path in paths if _age(path) > SETTLED_S]


def dead_services(places: Sequence[Path], uid: int) -> list[Path]:
    """Return the directories of Podman services of ours that do not run any more."""
    found = []
    for place in places:
        try:
            folders = [folder for folder in place.iterdir() if _SERVICE.fullmatch(folder.name)]
        except OSError:
            continue
        found += [folder for folder in folders if _is_dead(folder, uid)]
    return found


def _is_dead(folder: Path, uid: int) -> bool:
    try:
        status = folder.lstat()
        if status.st_uid != uid or not folder.is_dir() or folder.is_symlink() or _age(folder) < SETTLED_S:
            return False
        names = [path.name for path in folder.iterdir()]
    except OSError:
        return False
    # With anything else in it, it is not what we have made.
    return not names or (names == ["podman.sock"] and not _is_served(folder / "podman.sock"))


def _is_served(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.setblocking(False)
        try:
            sock.connect(str(path))
        except ConnectionRefusedError:
            return False
        except OSError:
            # A full queue, say: whatever it is, somebody may be there.
            return True
    return True


def _age(path: Path) -> float:
    try:
        return time.time() - path.lstat().st_mtime
    except OSError:
        return 0.0


def told_of_disk(files: list[Path], services: list[Path]) -> Iterator[Finding]:
    """Say what is left on disk."""
    if files:
        title = f"{counted(files, 'half-written file', 'half-written files')} left"
        yield Finding("leftovers.files", "warning", title, some(map(str, files)), FIX)
    if services:
        title = f"{counted(services, 'directory', 'directories')} left of Podman services that ended"
        yield Finding("leftovers.services", "warning", title, some(map(str, services)), FIX)
    if not files and not services:
        yield Finding("leftovers.files", "ok", "No files of dead processes are left")


def mend_disk(files: list[Path], services: list[Path]) -> list[str]:
    """Remove what is left on disk; say what was done."""
    for folder in {path.parent for path in files}:
        remove_torn(folder)
    for folder in services:
        shutil.rmtree(folder, ignore_errors=True)
    return [f"removed {path}" for path in (*files, *services) if not path.exists()]
