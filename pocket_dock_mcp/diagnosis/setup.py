"""Pure: what an engine says of itself, and what that means."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pocket_dock_mcp.diagnosis.findings import Finding
from pocket_dock_mcp.diagnosis.remedies import Machine
from pocket_dock_mcp.engine.base import EngineDetails, EngineInfo

Version = tuple[int, int, int]

_RUNC_HOLES: tuple[tuple[str, tuple[tuple[Version, Version], ...]], ...] = (
    ("CVE-2024-21626", (((0, 0, 0), (1, 1, 12)),)),
    ("CVE-2025-31133, CVE-2025-52565 and CVE-2025-52881", (((0, 0, 0), (1, 2, 8)), ((1, 3, 0), (1, 3, 3)))),
)
"""Ways out of a container, and from which version up to which they were open."""
_DISTRIBUTIONS = re.compile(r"\+ds|~|deb\d|ubuntu|\.el\d|\.fc\d|-\d")
"""In a version: somebody builds it from older source with patches."""


def setup(info: EngineInfo, details: EngineDetails, machine: Machine) -> Iterator[Finding]:
    """Look at what an engine says of itself."""
    yield Finding(
        "engine.api", "ok", f"API {details.api_version}", f"on {details.system}, kernel {details.kernel}"
    )
    yield _cgroups(info, details, machine)
    yield _runtime(details, machine)
    yield _storage(details)
    if not any("seccomp" in option for option in details.security_options):
        yield Finding(
            "engine.seccomp",
            "problem",
            "The engine has no seccomp filter",
            f"It says that it has: {', '.join(details.security_options) or 'nothing'}.",
            "Use an engine and a kernel with seccomp (CONFIG_SECCOMP_FILTER).",
        )


def _cgroups(info: EngineInfo, details: EngineDetails, machine: Machine) -> Finding:
    title = f"cgroup version {info.cgroup_version}, driver {details.cgroup_driver}"
    if info.rootless and info.cgroup_version == 1:
        return Finding(
            "engine.cgroup",
            "problem",
            title,
            "Rootless engines apply no limits at all on version 1.",
            "Boot with systemd.unified_cgroup_hierarchy=1 on the kernel's command line.",
        )
    if info.rootless and details.cgroup_driver == "cgroupfs":
        detail = "Rootless with this driver only applies limits where cgroups are delegated to it."
        return Finding("engine.cgroup", "warning", title, detail, machine.delegate())
    return Finding("engine.cgroup", "ok", title)


def _runtime(details: EngineDetails, machine: Machine) -> Finding:
    title = f"Runtime {details.runtime} {details.runtime_version}".strip()
    version = parse_version(details.runtime_version)
    holes = [
        name
        for name, ranges in _RUNC_HOLES
        if details.runtime == "runc" and version and any(low <= version < high for low, high in ranges)
    ]
    if not holes:
        return Finding("engine.runtime", "ok", title)
    detail = f"This version of runc was released with ways out of a container: {'; '.join(holes)}."
    if _DISTRIBUTIONS.search(details.runtime_version):
        detail += " Distributions mend these without a new version number, so yours may be mended already."
        look = "apt-get changelog runc | grep CVE-" if machine.family == "apt" else "rpm -q --changelog runc"
        return Finding("engine.runtime", "info", title, detail, look)
    return Finding("engine.runtime", "warning", title, detail, machine.install("runc"))


def parse_version(text: str) -> Version | None:
    """Return the three numbers that a version begins with."""
    match = re.match(r"v?(\d+)\.(\d+)\.(\d+)", text)
    return None if match is None else (int(match[1]), int(match[2]), int(match[3]))


def _storage(details: EngineDetails) -> Finding:
    title = f"Storage driver {details.storage_driver} in {details.storage_dir}"
    if details.storage_driver == "vfs":
        detail = "vfs copies the whole image for each sandbox: seconds and megabytes for every create."
        remedy = (
            'Install fuse-overlayfs, or use a kernel from 5.13 on; then set driver = "overlay" in '
            "storage.conf, and: podman system reset   # removes all images and containers"
        )
        return Finding("engine.storage", "warning", title, detail, remedy)
    detail = f"on {details.backing_filesystem}" if details.backing_filesystem else ""
    return Finding("engine.storage", "ok", title, detail)
