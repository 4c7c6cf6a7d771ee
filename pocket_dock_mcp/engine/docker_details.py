"""Pure: how an engine that speaks the Docker API says that it is set up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pocket_dock_mcp.engine.base import EngineDetails


def engine_details(system: Mapping[str, Any], version: Mapping[str, Any]) -> EngineDetails:
    """Return how an engine is set up, from ``/info`` and ``/version``."""
    status = {str(pair[0]): str(pair[1]) for pair in system.get("DriverStatus") or () if len(pair) == 2}
    runtime = str(system.get("DefaultRuntime") or "")
    return EngineDetails(
        api_version=str(version.get("ApiVersion") or ""),
        storage_driver=str(system.get("Driver") or ""),
        storage_dir=str(system.get("DockerRootDir") or ""),
        backing_filesystem=status.get("Backing Filesystem", ""),
        runtime=runtime,
        runtime_version=_runtime_version(runtime, version),
        security_options=tuple(str(option) for option in system.get("SecurityOptions") or ()),
        cgroup_driver=str(system.get("CgroupDriver") or ""),
        kernel=str(system.get("KernelVersion") or ""),
        system=str(system.get("OperatingSystem") or ""),
        swarm=(system.get("Swarm") or {}).get("LocalNodeState") not in (None, "", "inactive"),
    )


def _runtime_version(runtime: str, version: Mapping[str, Any]) -> str:
    """Return the version of the runtime that is used, with what a distribution has added to it."""
    for component in version.get("Components") or ():
        # Docker calls it by its name, Podman "OCI Runtime (runc)".
        if runtime and runtime in str(component.get("Name")):
            details = component.get("Details") or {}
            first_line = (str(component.get("Version") or "").splitlines() or [""])[0]
            plain = first_line.removeprefix(f"{runtime} version ")
            # Where a distribution builds it, its own version is here: that says which patches it has.
            package = str(details.get("Package") or details.get("GitCommit") or "")
            package = package.removeprefix(f"{runtime}_")
            return f"{plain} ({package})" if package and package not in plain else plain
    return ""
