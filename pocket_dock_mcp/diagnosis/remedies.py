"""Pure: the commands that mend. Exact where the distribution is known, and plain words where it is not."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass

from pocket_dock_mcp.engine.base import EngineInfo

FIX = "pocket-dock doctor --fix"
BUILD = "pocket-dock doctor --build"

_DELEGATE = "/etc/systemd/system/user@.service.d"
_FAMILIES = {"debian": "apt", "ubuntu": "apt", "fedora": "dnf", "rhel": "dnf", "centos": "dnf"}
_DNF_NAMES = {"uidmap": "shadow-utils", "docker.io": "moby-engine", "mmdebstrap": ""}
"""Packages that have another name there than in Debian; empty: there is none."""


_DOCKERS_OWN = frozenset({"unix:///var/run/docker.sock", "unix:///run/docker.sock"})
_PODMANS_OWN = re.compile(
    r"unix:///run/user/[0-9]+/podman/podman\.sock|unix:///.*/pocket-dock-[0-9a-f]{16}/podman\.sock"
)
"""Addresses of a user's Podman, and of one that we have started for its user."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What the commands depend on."""

    family: str = ""
    """``apt``, ``dnf``, or empty where it is not known."""
    is_root: bool = False
    user: str = "USER"

    def as_root(self, command: str) -> str:
        """Return a command as this user has to type it."""
        return command if self.is_root else f"sudo {command}"

    def install(self, package: str) -> str:
        """Return the command that installs a package, by its name in Debian."""
        if self.family == "dnf" and (name := _DNF_NAMES.get(package, package)):
            return self.as_root(f"dnf install {name}")
        if self.family == "apt":
            return self.as_root(f"apt-get install {package}")
        return f"Install the package {package!r} with this system's package manager."

    def delegate(self) -> str:
        """Return the command that lets a user's containers have limits on cgroup v2."""
        unit = "'[Service]\\nDelegate=cpu cpuset io memory pids\\n'"
        steps = (
            f"mkdir -p {_DELEGATE} && printf {unit} > {_DELEGATE}/delegate.conf && systemctl daemon-reload"
        )
        return f'{self.as_root("")}sh -c "{steps}"   # then log out and in again'

    def subids(self) -> str:
        """Return the command that gives a user ids for user namespaces."""
        ranges = "--add-subuids 100000-165535 --add-subgids 100000-165535"
        return f"{self.as_root(f'usermod {ranges} {self.user}')} && podman system migrate"


def program_of(info: EngineInfo) -> str:
    """Return how a command line begins that commands this engine, and no other one of the machine."""
    if info.kind == "docker":
        return "docker" if info.url in _DOCKERS_OWN else f"docker --host {_address(info.url)}"
    # Podman alone uses the store of who types it: that of root is another one than a user's.
    return "podman" if _PODMANS_OWN.fullmatch(info.url) else f"podman --url {_address(info.url)}"


def _address(url: str) -> str:
    scheme, _, rest = url.partition("://")
    return shlex.quote(f"tcp://{rest}" if scheme in ("http", "https") else url)


def machine_of(release: Mapping[str, str], *, is_root: bool, user: str) -> Machine:
    """Return a machine from its ``os-release``."""
    names = [release.get("ID", ""), *release.get("ID_LIKE", "").split()]
    family = next((_FAMILIES[name] for name in names if name in _FAMILIES), "")
    return Machine(family, is_root=is_root, user=user or "USER")
