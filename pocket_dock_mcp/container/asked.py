"""What people write when they ask for ports, volumes and devices, and what it means."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterable, Mapping, Sequence

from pocket_dock_mcp import policy
from pocket_dock_mcp.container.arguments import encoded, is_of
from pocket_dock_mcp.container.forwarding import MOST_PORTS, check_mapping
from pocket_dock_mcp.errors import HostPathError, InvalidArgumentError
from pocket_dock_mcp.models import Workspace
from pocket_dock_mcp.outside import LOOPBACK, Device, PortMapping, Volume

MOST_VOLUMES = 32
MOST_DEVICES = 32

_NEVER_IN = (
    "/proc", "/sys", "/dev", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32",
    "/usr/bin", "/usr/sbin", "/usr/lib", "/usr/lib64", "/usr/local/bin", "/usr/local/lib",
)  # fmt: skip
"""What programs inside need as the image has it, the agent first of all."""
_NEVER_OVER = (*_NEVER_IN, policy.HOME, "/tmp", "/var/tmp", "/etc/passwd", "/etc/group", "/etc/hosts", "/run")  # noqa: S108
_DEVICE = re.compile(r"(?P<source>.+?)(?::(?P<target>/dev/[^:]+))?(?::(?P<access>[rwm]{1,3}))?")
_THE_CONTAINERS_OWN = frozenset(
    {"console", "core", "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm"}
    | {"stderr", "stdin", "stdout", "tty", "urandom", "zero"}
)
"""In /dev, whatever is asked for."""
_UNSAFE = re.compile(r"[\x00-\x1f\x7f,\"]")


def ports_of(
    ports: Mapping[int, int] | Iterable[PortMapping], address: str = LOOPBACK
) -> tuple[PortMapping, ...]:
    """Return port mappings, from ``{host: inside}`` where 0 is a free port of the host.

    Raises:
        InvalidArgumentError: no such port can be, or a port of the host is there twice.
    """
    if isinstance(ports, Mapping):
        mappings = tuple(PortMapping(inside, host, address) for host, inside in ports.items())
    else:
        mappings = tuple(ports)
    for mapping in mappings:
        check_mapping(mapping)
    chosen = [(mapping.address, mapping.host_port) for mapping in mappings if mapping.host_port]
    if len(set(chosen)) < len(chosen) or len(mappings) > MOST_PORTS:
        message = f"Ports of the host have to be different ones, and no more than {MOST_PORTS}."
        raise InvalidArgumentError(message)
    return mappings


def volumes_of(volumes: Mapping[str, str], base: str | os.PathLike[str] | None = None) -> tuple[Volume, ...]:
    """Return volumes, from ``{path on the host: path inside}``, to which ``:ro`` may be added.

    Symbolic links on the host are resolved now: what they lead to later has no effect. Whether the sandbox
    may be given the path is looked at when it starts.

    Args:
        volumes: what is asked for. ``~`` is the user's home directory.
        base: what relative paths on the host start from; None for the current directory.

    Raises:
        HostPathError: nothing is there on the host.
        InvalidArgumentError: a path inside that cannot be, or two that are in each other's way.
    """
    if len(volumes) > MOST_VOLUMES:
        message = f"There are {len(volumes)} volumes; at most {MOST_VOLUMES} are possible."
        raise InvalidArgumentError(message)
    found = tuple(_volume(host, inside, base) for host, inside in volumes.items())
    targets = [volume.target for volume in found]
    for one in targets:
        if targets.count(one) > 1 or any(_is_in(other, one) and other != one for other in targets):
            message = f"The volumes at {one!r} are in each other's way."
            raise InvalidArgumentError(message, hint="Mount each at a place of its own, none in another.")
    return found


def check_volumes(volumes: tuple[Volume, ...], workspace: Workspace | None) -> None:
    """Refuse volumes that cannot be with a home directory in memory: a snapshot would copy them.

    Raises:
        InvalidArgumentError: names one.
    """
    for volume in volumes:
        if workspace == "memory" and _is_in(volume.target, policy.HOME):
            message = f"The home directory is to be in memory, and the volume {volume.target!r} is in it."
            raise InvalidArgumentError(message, hint="Mount it elsewhere, such as at /data.")


def _volume(host: str | os.PathLike[str], inside: str, base: str | os.PathLike[str] | None) -> Volume:
    if not is_of(host, str, os.PathLike) or not is_of(inside, str):
        message = f"{host!r}: {inside!r} is no path on this machine with a path inside."
        raise InvalidArgumentError(message)
    host = os.fspath(host)
    target, _, option = inside.partition(":")
    if option not in ("", "ro", "rw"):
        message = f"{inside!r} is no path inside: behind it may be ':ro' or ':rw', and nothing else."
        raise InvalidArgumentError(message)
    return Volume(_source(host, base), _checked_target(target), read_only=option == "ro")


def _source(host: str, base: str | os.PathLike[str] | None) -> str:
    if not host or _UNSAFE.search(host):
        message = f"{host!r} cannot be a volume: engines take no commas, quotes and control characters in it."
        raise InvalidArgumentError(message)
    given = os.path.join(base or os.getcwd(), os.path.expanduser(host))  # noqa: PTH109, PTH111, PTH118
    encoded("the path of a volume", given)
    try:
        source = os.path.realpath(given, strict=True)
    except OSError as error:
        message = f"{host!r} cannot be given to a sandbox: {error.strerror}."
        raise HostPathError(message, hint="Nothing is made where nothing is: make it first.") from error
    if _UNSAFE.search(source):
        message = (
            f"{source!r} cannot be a volume: engines take no commas, quotes and control characters in it."
        )
        raise InvalidArgumentError(message)
    return source


def _checked_target(target: str) -> str:
    if not target.startswith("/") or _UNSAFE.search(target) or len(target) > 1000:
        message = f"{target!r} is no path inside: it has to be absolute, without commas and quotes."
        raise InvalidArgumentError(message)
    path = posixpath.normpath("/" + target.lstrip("/"))
    if ".." in target.split("/") or any(_is_in(path, place) for place in _NEVER_IN):
        message = f"Nothing can be mounted at {target!r}: programs need what the image has there."
        raise InvalidArgumentError(message, hint=f"Use a path such as {policy.HOME}/data or /data.")
    if any(_is_in(place, path) for place in _NEVER_OVER):
        message = f"Nothing can be mounted over {path!r}: it has what the sandbox needs."
        raise InvalidArgumentError(message, hint=f"Use a path such as {policy.HOME}/data or /data.")
    return path


def _is_in(path: str, place: str) -> bool:
    """Whether a path is `place` or below it."""
    return path == place or path.startswith(place.rstrip("/") + "/")


def devices_of(devices: Sequence[str]) -> tuple[Device, ...]:
    """Return devices, from ``/dev/x``, ``/dev/x:/dev/y`` or ``/dev/x:/dev/y:r``.

    Symbolic links on the host are resolved now. Whether there is such a device, and a sandbox may have it, is
    looked at when it starts.

    Raises:
        InvalidArgumentError: it cannot be understood, or two would be at one place.
    """
    found = tuple(_device(text) for text in devices)
    if len(found) > MOST_DEVICES or len({device.target for device in found}) < len(found):
        message = f"Devices have to be at different places inside, and no more than {MOST_DEVICES}."
        raise InvalidArgumentError(message)
    return found


def _device(text: str) -> Device:
    match = _DEVICE.fullmatch(text) if is_of(text, str) else None
    if match is None or not text.startswith("/") or _UNSAFE.search(text):
        raise _no_device(text)
    source = os.path.realpath(match["source"])
    access = match["access"] or "rw"
    if "m" in access or len(set(access)) < len(access):
        message = (
            f"{access!r} is no access to a device: it is 'r', 'w' or 'rw', and nodes cannot be made inside."
        )
        raise InvalidArgumentError(message)
    target = match["target"] or (match["source"] if ":" not in match["source"] else source)
    if ":" in source:
        # It is an address within the container that was not understood; and engines have colons in between.
        raise _no_device(text)
    target = posixpath.normpath(target)
    if not target.startswith("/dev/") or target.split("/")[2] in _THE_CONTAINERS_OWN:
        message = f"{target!r} is no place for a device: it has to be in /dev, and not what is there anyway."
        raise InvalidArgumentError(message, hint=f"Say where it is to be: {source}:/dev/NAME")
    return Device(source, target, access)


def _no_device(text: str) -> InvalidArgumentError:
    return InvalidArgumentError(
        f"{text!r} is no device.",
        hint="Say '/dev/x', '/dev/x:/dev/y' or '/dev/x:/dev/y:r'; /dev/y is inside.",
    )
