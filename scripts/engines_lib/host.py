"""What the host is and has: its release, its cgroups, its packages and their mirror."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from .state import EngineFailedError, UnfitHostError, say

TOOL_DIRS = (
    "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    ":/usr/lib/podman:/usr/libexec/podman:/usr/lib/cni"
)
KEYRINGS = Path("/usr/share/keyrings")
APT = ("apt-get", "-o", "DPkg::Lock::Timeout=300")


def complete_path() -> None:
    """Add the system's own directories, which the PATH of a cron job or of CI may lack."""
    os.environ["PATH"] = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/bin:/sbin:/bin"


def cgroups_v2() -> bool:
    return Path("/sys/fs/cgroup/cgroup.controllers").exists()


def is_debian() -> bool:
    return platform.freedesktop_os_release().get("ID") == "debian"


def require_root() -> None:
    if os.geteuid() != 0:
        msg = "needs root: run it with sudo"
        raise UnfitHostError(msg)


def require_apt() -> None:
    if shutil.which("apt-get") is None:
        msg = "needs Debian or Ubuntu: there is no apt-get here"
        raise UnfitHostError(msg)


def install_missing(tools: Mapping[str, str]) -> None:
    """Install the packages of the tools that are not there, as far as the release has them."""
    missing = sorted({package for tool, package in tools.items() if not _has(tool)})
    if not missing:
        return
    _update()
    wanted = [package for package in missing if _available(package)]
    if unknown := sorted(set(missing) - set(wanted)):
        say(f"not in this release, so done without: {' '.join(unknown)}")
    say(f"apt-get install {' '.join(wanted)}")
    command = [*APT, "install", "--yes", "--no-install-recommends", "--no-remove", *wanted]
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(command, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode != 0:
        msg = f"apt-get install failed:\n{done.stdout[-1500:]}{done.stderr[-1500:]}"
        raise EngineFailedError(msg)


def debian_mirror() -> str:
    """The mirror that the host's own release comes from, as apt itself reads its sources."""
    found = _mirrors()
    if not found:
        _update()
        found = _mirrors()
    if not found:
        msg = "needs the host's own Debian release among apt's sources"
        raise UnfitHostError(msg)
    return found[0]


def apt_options() -> list[str]:
    """The host's settings on how to fetch, such as a proxy, for an apt with its own files."""
    dump = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=True)
    return [
        line
        for line in dump.stdout.splitlines()
        if re.match(r'Acquire::(https?::|Check-|Retries)[^"]*"[^"]+";', line)
    ]


def debian_keyring() -> Path:
    return KEYRINGS / "debian-archive-keyring.gpg"


def _has(tool: str) -> bool:
    return Path(tool).exists() or shutil.which(tool, path=TOOL_DIRS) is not None


def _update() -> None:
    say("apt-get update")
    subprocess.run([*APT, "--quiet=2", "update"], stdin=subprocess.DEVNULL, capture_output=True)


def _available(package: str) -> bool:
    shown = subprocess.run(["apt-cache", "show", package], capture_output=True)
    return shown.returncode == 0


def _mirrors() -> list[str]:
    codename = platform.freedesktop_os_release().get("VERSION_CODENAME", "")
    fields = "$(ORIGIN)|$(LABEL)|$(COMPONENT)|$(CODENAME)|$(REPO_URI)"
    command = ["apt-get", "indextargets", "--format", fields, "Created-By: Packages"]
    listed = subprocess.run(command, capture_output=True, text=True)
    start = f"Debian|Debian|main|{codename}|"
    return [line.removeprefix(start) for line in listed.stdout.splitlines() if line.startswith(start)]
