"""Records that cannot be read: what they were about, as far as log and engine tell, and what to do.

Of such a sandbox nobody hears any more: it is on no list and in no quota, and its container runs on. What is
on record nowhere cannot be proved to be ours, so nothing is removed here.
"""

from __future__ import annotations

import functools
import json
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from pocket_dock_mcp import policy
from pocket_dock_mcp.container.launch import KEPT_LABEL
from pocket_dock_mcp.diagnosis.findings import Finding, counted, some
from pocket_dock_mcp.diagnosis.remedies import program_of
from pocket_dock_mcp.engine.base import Engine
from pocket_dock_mcp.errors import ImageNotFoundError
from pocket_dock_mcp.manager.audit import read_log
from pocket_dock_mcp.manager.locking import open_locked
from pocket_dock_mcp.manager.records import KeptStore
from pocket_dock_mcp.manager.snapshots import Snapshot
from pocket_dock_mcp.manager.sweep import INSTANCE_LABEL

SHOWN = 5
"""Records of a kind that are told of at once."""
MAX_READ = 1024 * 1024

_CONTAINER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,200}")
_SNAPSHOT = re.compile(r"snap-[0-9a-f]{32}")
_JOURNAL = re.compile(r"[0-9a-f]{16}\.jsonl")
_JOURNAL_LINES = re.compile(r"(?:\{[ -~]*|)(?:\n(?:\{[ -~]*|))*")
"""Our journals are JSON objects in ASCII, one a line; any of them may be torn at its end."""


@dataclass(frozen=True, slots=True)
class LostSandbox:
    """A kept sandbox whose record cannot be read."""

    path: Path
    container: str
    """The container's name by the audit log; empty where that does not say."""
    is_held: bool
    """Whether a process has it in use, from when it could be read."""


@dataclass(frozen=True, slots=True)
class Damage:
    """What is in our directories and cannot be read."""

    sandboxes: Sequence[LostSandbox] = ()
    snapshots: Sequence[Path] = ()
    journals: Sequence[Path] = ()
    """Of dead processes."""
    foreign: Sequence[Path] = ()
    """What lies among the journals, and is not named like one."""
    recorded: frozenset[str] = frozenset()
    """Containers of those sandboxes whose records can be read."""


def look(state_dir: Path) -> Damage:
    """Look through our records on disk, and change nothing."""
    store = KeptStore(state_dir / "sandboxes", is_quiet=True)
    return Damage(
        [
            LostSandbox(path, _container(state_dir / "audit", path.stem), store.is_held(path.stem))
            for path in store.unreadable()
        ],
        unreadable_snapshots(state_dir),
        unreadable_journals(state_dir),
        [path for path in _journals(state_dir) if not _JOURNAL.fullmatch(path.name)],
        frozenset(kept.container for kept in store.records()),
    )


def _container(audit: Path, sandbox_id: str) -> str:
    """Return the container that a sandbox had at last."""
    found = ""
    for file in (f"{sandbox_id}.jsonl.1", f"{sandbox_id}.jsonl"):
        try:
            lines = list(read_log(audit / file))
        except OSError:
            continue
        for line in lines:
            name = line.get("container")
            if isinstance(name, str) and _CONTAINER.fullmatch(name):
                found = name
    return found


def unreadable_snapshots(state_dir: Path) -> list[Path]:
    """Return the records of snapshots that cannot be read."""
    every = sorted((state_dir / "snapshots").glob("*.json"))
    return [path for path in every if not _is_snapshot(path) and path.exists()]


@functools.cache
def _shape() -> TypeAdapter[Snapshot]:
    return TypeAdapter(Snapshot)


def _is_snapshot(path: Path) -> bool:
    try:
        text = path.read_text(encoding="utf-8")
        _shape().validate_json(text, strict=True)
        # The one is strict in types, the other in names.
        return Snapshot(**json.loads(text)).id == path.stem
    except (OSError, ValueError, TypeError, RecursionError):
        return False


def unreadable_journals(state_dir: Path) -> list[Path]:
    """Return the journals of dead processes that cannot be read."""
    return [path for path in _journals(state_dir) if _JOURNAL.fullmatch(path.name) and _is_damaged(path)]


@contextmanager
def held_back(paths: Iterable[Path]) -> Iterator[None]:
    """Keep a sweep from journals: it would find nothing in them, and remove them."""
    with ExitStack() as stack:
        for path in paths:
            try:
                file = open_locked(path)
            except OSError:
                continue
            if file is not None:
                stack.enter_context(file)
        yield


def _journals(state_dir: Path) -> list[Path]:
    """Return what is among the journals, but for half-written ones."""
    return [path for path in sorted((state_dir / "instances").glob("*")) if not path.name.startswith(".")]


def _is_damaged(path: Path) -> bool:
    """Whether a dead process's journal has anything but lines of ours."""
    try:
        file = open_locked(path)
    except OSError:
        # Its process lives, and knows what it has written.
        return False
    if file is None:
        return path.exists()
    with file:
        return _JOURNAL_LINES.fullmatch(file.read(MAX_READ)) is None


# -- what is said --------------------------------------------------------------------------------------


async def told(damage: Damage, engine: Engine | None) -> list[Finding]:
    """Say what cannot be read, and what of it is on the engine.

    Args:
        damage: what was found on disk.
        engine: None if none answers.

    Raises:
        EngineError: the engine failed.
    """
    found = []
    if damage.sandboxes:
        found += await _of_sandboxes(damage, engine)
    if damage.snapshots:
        found.append(await _of_snapshots(damage.snapshots, engine))
    found += _of_journals(damage, "podman" if engine is None else program_of(engine.info))
    if not found:
        found.append(Finding("records", "ok", "All records can be read"))
    return found


async def _of_sandboxes(damage: Damage, engine: Engine | None) -> list[Finding]:
    if engine is None:
        logged = some(one.container for one in damage.sandboxes if one.container)
        return [_sandboxes(damage.sandboxes, f"Their containers: {logged or 'not known'}.", _ASK_AGAIN)]
    states = {state.name: state.status for state in await engine.containers(KEPT_LABEL)}
    strangers = states.keys() - damage.recorded - {one.container for one in damage.sandboxes}
    groups: dict[str, list[LostSandbox]] = {"held": [], "known": [], "unknown": []}
    for one in damage.sandboxes:
        kind = "held" if one.is_held else "known" if one.container or not strangers else "unknown"
        groups[kind].append(one)
    program = program_of(engine.info)
    found = []
    if groups["held"]:
        remedy = "End the process that uses them (the MCP client, say); then: pocket-dock doctor"
        found.append(_sandboxes(groups["held"], "A process is using them just now.", remedy))
    if groups["known"]:
        found.append(_known(groups["known"], states, program))
    if groups["unknown"]:
        names = sorted(strangers)
        detail = f"Kept containers that are on no record here, and may be theirs: {some(names, most=20)}."
        removal = _rm(one.path for one in groups["unknown"][:SHOWN])
        remedy = f"{removal}   # and, if nobody else needs it, {program} rm --force CONTAINER"
        found.append(_sandboxes(groups["unknown"], detail, remedy))
    return found


def _known(lost: Sequence[LostSandbox], states: Mapping[str, str], program: str) -> Finding:
    shown = lost[:SHOWN]
    there = [one.container for one in shown if one.container in states]
    remedy = _rm(one.path for one in shown)
    words = [_whereabouts(one, states) for one in shown]
    detail = f"By the audit log, {', '.join(words)}."
    if there:
        detail += f" To save files first: {program} cp {there[0]}:{policy.HOME} DIRECTORY."
        remedy = f"{program} rm --force {' '.join(there)} && {remedy}   # with their files"
    return _sandboxes(lost, detail, remedy)


def _whereabouts(one: LostSandbox, states: Mapping[str, str]) -> str:
    if not one.container:
        return "its container is not known, and none on this engine is without a record"
    if one.container in states:
        return f"its container {one.container} is {states[one.container]}"
    return f"its container {one.container} is not on this engine"


_ASK_AGAIN = "pocket-dock doctor   # again when the engine answers: it knows what runs"


def _sandboxes(lost: Sequence[LostSandbox], detail: str, remedy: str) -> Finding:
    count = counted(lost, "record of a kept sandbox", "records of kept sandboxes")
    title = f"{count} cannot be read: {some(str(one.path) for one in lost)}"
    why = "Such a sandbox is on no list, and nothing ends it."
    return Finding("records.sandboxes", "problem", title, f"{why} {detail}", f"{remedy}{_rest(lost)}")


async def _of_snapshots(paths: Sequence[Path], engine: Engine | None) -> Finding:
    count = counted(paths, "record of a snapshot", "records of snapshots")
    title = f"{count} cannot be read: {some(map(str, paths))}"
    if engine is None:
        return Finding("records.snapshots", "problem", title, "Their images may be there.", _ASK_AGAIN)
    shown = paths[:SHOWN]
    tags = [f"localhost/pocket-dock/snapshot:{path.stem}" for path in shown if _SNAPSHOT.fullmatch(path.stem)]
    there = [tag for tag in tags if await _has(engine, tag)]
    remedy = _rm(shown)
    if there:
        remedy = f"{program_of(engine.info)} rmi {' '.join(there)} && {remedy}"
    detail = f"Images of them that are on the engine: {some(there) or 'none'}."
    return Finding("records.snapshots", "problem", title, detail, f"{remedy}{_rest(paths)}")


async def _has(engine: Engine, tag: str) -> bool:
    try:
        await engine.image(tag)
    except ImageNotFoundError:
        return False
    return True


def _of_journals(damage: Damage, program: str) -> Iterator[Finding]:
    if paths := damage.journals:
        count = counted(paths, "journal", "journals")
        title = f"{count} of dead processes cannot be read: {some(map(str, paths))}"
        detail = "What these had on an engine is not known, and is not removed."
        look = f"{program} ps --all --filter label={INSTANCE_LABEL}={paths[0].stem}"
        remedy = f"{look}   # remove what nobody needs; then: {_rm(paths[:1])}"
        yield Finding("records.journals", "problem", title, detail, f"{remedy}{_rest(paths, 1)}")
    if paths := damage.foreign:
        title = f"{counted(paths, 'file', 'files')} among the journals, and none: {some(map(str, paths))}"
        remedy = f"{_rm(paths[:SHOWN])}   # if they are not yours{_rest(paths)}"
        yield Finding("records.foreign", "warning", title, "Nothing of ours reads them.", remedy)


def _rest(items: Sequence[object], shown: int = SHOWN) -> str:
    """Return what to add to a command that is not for all of them."""
    return (
        f"   # for {shown} of {len(items)}: then run pocket-dock doctor again" if len(items) > shown else ""
    )


def _rm(paths: Iterable[Path]) -> str:
    every = list(paths)
    option = "--recursive " if any(path.is_dir() for path in every) else ""
    return f"rm {option}{' '.join(shlex.quote(str(path)) for path in every)}"
