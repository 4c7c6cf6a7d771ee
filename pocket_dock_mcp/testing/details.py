"""What a fake engine says of how it is set up, unless a test has it say something else."""

from __future__ import annotations

from pocket_dock_mcp.engine.base import EngineDetails

DETAILS = EngineDetails(
    api_version="0",
    storage_driver="overlay",
    storage_dir="/fake",
    backing_filesystem="fake",
    runtime="runc",
    runtime_version="1.4.0",
    security_options=("name=seccomp,profile=default",),
    cgroup_driver="fake",
    kernel="0",
    system="fake",
)
