"""What a fake engine says of how it is set up, unless a test has it say something else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pocket_dock_mcp.engine.base import ContainerSetup, EngineDetails, HostMount

if TYPE_CHECKING:
    from pocket_dock_mcp.testing.container import FakeContainer

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

    setup_told: Mapping[str, Any] = {}
    """Fields of a container's setup that it tells otherwise; may be replaced."""

    async def setup(self, container_id: str) -> ContainerSetup:
        """Say how a container was set up; see the port."""
        await self._called("setup")
        spec = self.container(container_id).spec
        made = ContainerSetup(
            argv=spec.argv,
            user="0:0",
            added_capabilities=spec.capabilities,
            seccomp=spec.confinement.seccomp,
            no_new_privileges=True,
            network="bridge" if spec.network == "open" else "none",
            namespaces={"ipc": "private", "cgroup": "private"},
            mounts=tuple(HostMount(one.source, one.target, "bind", "private") for one in spec.volumes),
            devices=tuple(one.source for one in spec.devices),
            memory_bytes=spec.limits.memory_bytes,
            swap_bytes=spec.limits.memory_bytes,
            cpus=spec.limits.cpus,
            pids=spec.limits.pids,
            log_driver="none",
            auto_remove=not spec.keep,
            health_check=("NONE",),
            open_stdin=True,
            stdin_once=True,
            runtime=spec.confinement.runtime or DETAILS.runtime,
        )
        return replace(made, **self.setup_told)

    def container(self, name: str) -> FakeContainer:
        """Return one of its containers, in any state."""
        raise NotImplementedError(name)

    async def details(self) -> EngineDetails:
        """Say how it is set up; see the port."""
        await self._called("details")
        return self.details_told

    async def _called(self, verb: str) -> None:
        raise NotImplementedError(verb)
