"""Pure: the commands that mend. Exact where the distribution is known, and plain words where it is not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pocket_dock_mcp.engine.base import EngineInfo

FIX = "pocket-dock doctor --fix"
BUILD = "pocket-dock doctor --build"

_DELEGATE = "/etc/systemd/system/user@.service.d"
_FAMILIES = {"debian": "apt", "ubuntu": "apt", "fedora": "dnf", "rhel": "dnf", "centos": "dnf"}
_DNF_NAMES = {"uidmap": "shadow-utils", "docker.io": "moby-engine", "mmdebstrap": ""}
"""Packages that have another name there than in Debian; empty: there is none."""


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
    """Return the program with which people command an engine."""
    return "docker" if info.kind == "docker" else "podman"


def machine_of(release: Mapping[str, str], *, is_root: bool, user: str) -> Machine:
    """Return a machine from its ``os-release``."""
    names = [release.get("ID", ""), *release.get("ID_LIKE", "").split()]
    family = next((_FAMILIES[name] for name in names if name in _FAMILIES), "")
    return Machine(family, is_root=is_root, user=user or "USER")
