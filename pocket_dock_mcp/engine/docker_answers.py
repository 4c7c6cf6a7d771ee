"""Pure: what the answers of the Docker API say, in our words, and where Podman and Docker differ in them.

An answer that lacks something is no answer: whoever reads it here must be prepared for a `LookupError`,
`TypeError` or `ValueError` (see `docker_connection.engine_call`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from pocket_dock_mcp.engine.base import ContainerState, EngineInfo, EngineKind, ImageState
from pocket_dock_mcp.engine.translate import IN_STREAM, Verb, translate
from pocket_dock_mcp.errors import InvalidArgumentError

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_PLAIN = re.compile(r"[A-Za-z0-9._:/@+-]*")
_STATUSES = frozenset({"created", "running", "paused", "stopping", "exited", "removing"})
# Podman's "stopped" is what has ended and is still to be tidied up, by a process of its own: a container
# that was started again meanwhile would be tidied up with it.
_STATUS_NAMES = {"configured": "created", "stopped": "stopping", "dead": "exited"}


def container(data: Mapping[str, Any]) -> ContainerState:
    """Return what an inspection says."""
    state = data["State"]
    status = _status(state["Status"])
    return ContainerState(
        id=str(data["Id"]),
        name=data["Name"].lstrip("/"),
        status=status,
        labels=_labels(data["Config"].get("Labels")),
        exit_code=state.get("ExitCode") if status == "exited" else None,
        oom_killed=bool(state.get("OOMKilled")),
        size_bytes=None if data.get("SizeRw") is None else int(data["SizeRw"]),
    )


def _labels(said: object) -> Mapping[str, str]:
    """Return labels, of which there may be none. Both our own and those of a user's image are texts."""
    if not said:
        return {}
    if not isinstance(said, dict) or not all(isinstance(value, str) for value in said.values()):
        raise TypeError(said)
    return said


def created(some_id: object) -> str:
    """Return the id of what was made."""
    if not isinstance(some_id, str) or not some_id:
        raise TypeError(some_id)
    return some_id


def listed_container(item: Any) -> ContainerState:
    """Return what a list says of one container. It comes as something that can be subscripted, no more."""
    return ContainerState(
        id=str(item["Id"]),
        name=item["Names"][0].lstrip("/") if item["Names"] else "",
        status=_status(item["State"]),
        labels=_labels(item["Labels"]),
    )


def image(data: Mapping[str, Any], with_labels: Mapping[str, Any]) -> ImageState:
    """Return what an inspection or a list says of one image."""
    return ImageState(
        id=str(data["Id"]),
        tags=tuple(data.get("RepoTags") or ()),
        labels=_labels(with_labels.get("Labels")),
        size_bytes=int(data.get("Size") or 0),
    )


def engine_info(url: str, answer: Mapping[str, str], system: Mapping[str, Any]) -> EngineInfo:
    """Return who answers, from the headers of a ping and what the engine tells of its system."""
    options = [str(option) for option in system.get("SecurityOptions") or ()]
    kind: EngineKind = "podman" if "Libpod-Api-Version" in answer else "docker"
    return EngineInfo(
        kind=kind,
        version=str(system.get("ServerVersion", "")),
        url=url,
        # Podman 4.3 says it here only, Docker there only.
        rootless=bool(system.get("Rootless")) or any("rootless" in option for option in options),
        cgroup_version=2 if str(system.get("CgroupVersion", "1")) == "2" else 1,
        identity=_identity(kind, system),
    )


def _identity(kind: EngineKind, system: Mapping[str, Any]) -> str:
    # Docker has an id that lasts; Podman, which has no daemon, makes one up for each answer.
    if kind == "docker" and system.get("ID"):
        return f"docker:{system['ID']}"
    return f"{kind}:{system.get('Name')}:{system.get('DockerRootDir')}"


def label(key: str, value: str) -> str:
    """Return a Containerfile instruction. Engines differ in how they unquote values, so ours are plain."""
    if not _PLAIN.fullmatch(value):
        raise InvalidArgumentError(f"{value!r} cannot be the value of the label {key}.")
    return f'LABEL {key}="{value}"'


def _status(raw: object) -> Any:
    name = _STATUS_NAMES.get(str(raw), str(raw))
    return name if name in _STATUSES else "unknown"


def progress_lines(verb: Verb, subject: str, event: Mapping[str, Any]) -> list[str]:
    """Return the lines of a progress event, or raise the failure that it reports."""
    detail = event.get("errorDetail") or {}
    if problem := detail.get("message") or event.get("error"):
        raise translate(verb, IN_STREAM, str(problem), subject)
    text = event.get("stream") or event.get("status") or ""
    # Docker paints what a step writes to its standard error.
    plain = _COLOUR.sub("", f"{text} {event.get('progress') or ''}")
    return [line.strip() for line in plain.splitlines() if line.strip()]


def loaded(lines: Iterable[str]) -> list[str]:
    """Return what has been loaded, from "Loaded image: a" and "Loaded image ID: sha256:b"; Podman: "a,b"."""
    found = [line.partition(":")[2] for line in lines if line.startswith("Loaded image")]
    return [name.strip() for names in found for name in names.split(",") if name.strip()]
