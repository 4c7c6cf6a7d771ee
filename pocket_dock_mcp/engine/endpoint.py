"""Pure: where a container engine may be listening, in the order in which we ask.

Nothing here touches the machine. `pocket_dock_mcp.engine.connect` follows the plan.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pocket_dock_mcp.errors import ConfigError

Brand = Literal["podman", "docker"]

ENGINE_VARIABLE = "POCKET_DOCK_ENGINE"

_ADDRESSES = "unix:///path/to/engine.sock, tcp://host:port, http://host:port or https://host:port."

_FOREIGN_VARIABLES: dict[str, Brand] = {"CONTAINER_HOST": "podman", "DOCKER_HOST": "docker"}
"""The engines' own variables, in the order in which they count."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One address that is worth a try."""

    url: str
    source: str
    """Whose address this is: the variable that names it, or the engine that usually listens there."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Which endpoints to try, in order, and what to do when none of them answers."""

    endpoints: tuple[Endpoint, ...]
    variable: str | None = None
    """The environment variable that names the only endpoint: if that is dead, it is an error."""
    brand: Brand | None = None
    """What has to answer; None: either."""
    own_service: bool = False
    """Whether to start a Podman service of our own at last."""


def candidates(
    environ: Mapping[str, str], *, uid: int, home: Path, platform: str, named_by: str = ENGINE_VARIABLE
) -> Plan:
    """Return where to look for an engine. An empty variable counts as unset.

    Args:
        environ: the environment; MCP hosts pass on little more than HOME and PATH.
        uid: the user's id.
        home: the user's home directory.
        platform: as in `sys.platform`.
        named_by: what has put an engine into the environment, where that is not its user: a file, say.

    Raises:
        ConfigError: a variable holds something that can never work.
    """
    choice = environ.get(ENGINE_VARIABLE, "").strip()
    brand: Brand | None = None
    if choice.lower() == "podman":
        brand = "podman"
    elif choice.lower() == "docker":
        brand = "docker"
    elif choice:
        return _only(named_by, choice, brand)
    for variable, owner in _FOREIGN_VARIABLES.items():
        address = environ.get(variable, "").strip()
        # Who asks for one engine does not mean the other one's variable.
        if address and brand in (None, owner):
            _refuse_client_certificates(environ, variable, address)
            return _only(variable, address, brand)
    known = _known(environ, uid, home, platform)
    endpoints = dict.fromkeys(endpoint for owner, endpoint in known if brand in (None, owner))
    # Elsewhere `podman` is a remote client without a service.
    own_service = platform == "linux" and brand != "docker"
    return Plan(tuple(endpoints), brand=brand, own_service=own_service)


def _only(variable: str, address: str, brand: Brand | None) -> Plan:
    return Plan((Endpoint(_checked(variable, address), variable),), variable=variable, brand=brand)


def _checked(variable: str, address: str) -> str:
    """Return the address if it is one that we can connect to."""
    words = "" if variable in _FOREIGN_VARIABLES else "the words podman and docker, and "
    wrong = ConfigError(
        f"{variable} is {address!r}, which is no engine that can be used.",
        hint=f"Valid are {words}{_ADDRESSES}",
    )
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError as error:
        raise wrong from error
    if parts.scheme == "ssh":
        raise ConfigError(
            f"{variable} is {address!r}: there is no ssh client in here.",
            hint="Forward the remote engine's socket (ssh -N -L /tmp/engine.sock:/path/to/remote.sock host) "
            f"and set {variable}=unix:///tmp/engine.sock.",
        )
    if parts.scheme == "unix":
        # Cut by hand: to urlsplit a path ends at "?" and "#".
        path = address[len("unix:") :].removeprefix("//")
        if path.startswith("/"):
            return f"unix://{path}"
    if parts.scheme in ("tcp", "http", "https") and parts.hostname and port and parts.path in ("", "/"):
        return address.rstrip("/")
    raise wrong


def _refuse_client_certificates(environ: Mapping[str, str], variable: str, address: str) -> None:
    # Spoken to in the clear, such a daemon answers nothing that would explain the failure.
    if variable == "DOCKER_HOST" and address.startswith("tcp:") and environ.get("DOCKER_TLS_VERIFY"):
        raise ConfigError(
            f"DOCKER_TLS_VERIFY is set for {address!r}, and TLS client certificates are not supported.",
            hint="Forward the engine's socket by ssh and point POCKET_DOCK_ENGINE at it.",
        )


def _known(
    environ: Mapping[str, str], uid: int, home: Path, platform: str
) -> Iterator[tuple[Brand, Endpoint]]:
    """Yield the usual places, best first."""
    if platform not in ("linux", "darwin"):
        return
    user_dirs = runtime_dirs(environ, uid=uid) if platform == "linux" else ()
    desktop = home / ".docker"
    for directory in user_dirs:
        yield "podman", _unix(directory / "podman/podman.sock", "rootless Podman")
    if platform == "linux":
        yield "podman", _unix("/run/podman/podman.sock", "rootful Podman")
    for directory in user_dirs:
        yield "docker", _unix(directory / "docker.sock", "rootless Docker")
    yield "docker", _unix("/var/run/docker.sock", "Docker")
    yield "docker", _unix(desktop / "run/docker.sock", "Docker Desktop")
    yield "docker", _unix(desktop / "desktop/docker.sock", "Docker Desktop")
    yield from (("podman", _unix(path, "Podman machine")) for path in _machines(environ, user_dirs, home))


def _machines(environ: Mapping[str, str], user_dirs: tuple[Path, ...], home: Path) -> Iterator[Path]:
    machine = home / ".local/share/containers/podman/machine"
    yield machine / "podman.sock"
    yield machine / "podman-machine-default/podman.sock"
    yield machine / "qemu/podman.sock"
    # Since version 5 it lies with what is temporary.
    temporary = environ.get("TMPDIR", "")
    for directory in user_dirs or ((Path(temporary),) if temporary.startswith("/") else ()):
        yield directory / "podman/podman-machine-default-api.sock"


def runtime_dirs(environ: Mapping[str, str], *, uid: int) -> tuple[Path, ...]:
    """Return where this user's sockets may be: what the environment says, then what systemd makes."""
    said = environ.get("XDG_RUNTIME_DIR", "").strip()
    usual = Path(f"/run/user/{uid}")
    # A relative path is to be ignored, says the XDG specification.
    first = (Path(said),) if said.startswith("/") else ()
    return tuple(dict.fromkeys((*first, usual)))


def _unix(path: Path | str, source: str) -> Endpoint:
    return Endpoint(f"unix://{path}", source)
