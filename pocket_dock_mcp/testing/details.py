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


class Described:
    """The part of a fake engine that is described, and describes itself."""

    details_told = DETAILS
    """How it says that it is set up; may be replaced."""

    async def details(self) -> EngineDetails:
        """Say how it is set up; see the port."""
        await self._called("details")
        return self.details_told

    async def _called(self, verb: str) -> None:
        raise NotImplementedError(verb)
