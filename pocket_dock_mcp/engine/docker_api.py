"""The adapter: the Docker API as Podman and Docker speak it, through aiodocker.

With `docker_images`, which has what it does with images, and `docker_connection` the only module that imports
aiodocker, and alone in knowing a field name of that API, or where the two engines differ.
"""

from __future__ import annotations

import json
import os
from collections.abc import (
    Awaitable,
    Callable,
    Mapping,
    Sequence,
)
from dataclasses import replace
from functools import partial
from pathlib import Path

import aiodocker
import aiohttp
import anyio

from pocket_dock_mcp.engine import docker_answers as answers
from pocket_dock_mcp.engine.base import (
    ContainerSetup,
    ContainerState,
    EngineDetails,
    EngineInfo,
    ExecStream,
    Stream,
)
from pocket_dock_mcp.engine.docker_connection import (
    CALL_DEADLINE,
    AttachedStream,
    Client,
    DeclaredVolumes,
    ExecutedStream,
    asked,
    connector,
    engine_call,
    opened,
)
from pocket_dock_mcp.engine.docker_details import engine_details
from pocket_dock_mcp.engine.docker_filter import BRINGS, EngineFilter
from pocket_dock_mcp.engine.docker_images import IMAGE_DEADLINE, DockerImages
from pocket_dock_mcp.engine.docker_setup import container_setup
from pocket_dock_mcp.engine.hardening import create_config
from pocket_dock_mcp.engine.seccomp import FilterUnreadableError
from pocket_dock_mcp.errors import (
    ContainerGoneError,
    EngineConflictError,
    EngineResponseError,
    EngineTimeoutError,
    EngineUnavailableError,
    RuntimeNotThereError,
)
from pocket_dock_mcp.models import ContainerSpec
from pocket_dock_mcp.settings import state_dir_of

PING_DEADLINE = 2.0
STOP_PAUSE = 0.02
COMMITS = 8
"""Of one container, until the engine has not removed what the image is to be made of."""
PASSING = ("layer not known", "pausing container")
"""What Podman says of a commit that succeeds the next time: its layer was that of another image, which was
removed meanwhile; or its runtime could not pause what was just starting or ending a process."""


class DockerApiEngine(DockerImages):
    """A Podman or Docker engine; see `pocket_dock_mcp.engine.base.Engine` for the contract."""

    def __init__(
        self,
        client: aiodocker.Docker,
        connector: aiohttp.BaseConnector,
        info: EngineInfo,
        on_close: Callable[[], Awaitable[None]] | None = None,
        state_dir: Path | None = None,
    ) -> None:
        self._client = client
        self._filter = EngineFilter(client, info, state_dir or state_dir_of(os.environ))
        self._connector = connector
        self._info = info
        self._on_close = on_close
        self._volumes = DeclaredVolumes(client)

    @classmethod
    async def connect(
        cls,
        url: str,
        *,
        on_close: Callable[[], Awaitable[None]] | None = None,
        state_dir: Path | None = None,
    ) -> DockerApiEngine:
        """Connect to an engine and learn who it is.

        Args:
            url: where it listens.
            on_close: the last thing that `aclose` does: ends what was started to reach the engine.
            state_dir: for a file that Podman reads; None for where the environment has our records.

        Raises:
            ConfigError: the URL is of no kind that we can speak to.
            EngineUnavailableError, EngineTimeoutError: nobody answers there.
        """
        dialler = connector(url)
        # With a connector of our own aiodocker takes the URL as it is: only its host part matters.
        client = Client(url="unix://localhost" if url.startswith("unix:") else url, connector=dialler)
        try:
            async with engine_call("ping", url, PING_DEADLINE):
                answer = await _ping(client)
            # Said here, because aiodocker would ask "version" for it, and that takes Podman a second.
            client.api_version = f"v{answer['Api-Version']}"
            async with engine_call("ping", url, CALL_DEADLINE):
                info = answers.engine_info(url, answer, await client.system.info())
        except BaseException:
            with anyio.CancelScope(shield=True):
                await client.close()
                await dialler.close()
            raise
        return cls(client, dialler, info, on_close, state_dir)

    @property
    def info(self) -> EngineInfo:
        """Who this is."""
        return self._info

    async def ping(self) -> None:
        """Raise unless the engine answers now."""
        async with engine_call("ping", self._info.url, PING_DEADLINE):
            await _ping(self._client)

    async def details(self) -> EngineDetails:
        """Say how it is set up; see the port."""
        async with engine_call("ping", self._info.url, CALL_DEADLINE):
            return engine_details(await self._client.system.info(), await self._client.version())

    # -- containers -------------------------------------------------------------------------------

    async def create(self, spec: ContainerSpec) -> str:
        """Create a hardened container; see the port."""
        if spec.confinement.seccomp == "engine":
            return await self._create(spec, None)
        words = await self._filter.words()
        for _ in range(BRINGS):
            try:
                return await self._create(spec, words)
            except FilterUnreadableError as error:
                # Where it is brought to, others may be the last to need it just then.
                words = await self._filter.words_elsewhere(words, spec.image, error)
        return await self._create(spec, words)

    async def _create(self, spec: ContainerSpec, seccomp: str | None) -> str:
        volumes = await self._volumes.of(spec.image)
        config = create_config(spec, image_volumes=volumes, seccomp=seccomp)
        async with engine_call("create", spec.image, CALL_DEADLINE):
            container = await self._client.containers.create(config, name=spec.name)
            container_id = answers.created(container.id)
        if (wanted := spec.confinement.runtime) and self._info.kind == "podman":
            try:
                told = await self._oci_runtime(container_id)
            except BaseException:
                with anyio.CancelScope(shield=True), anyio.move_on_after(CALL_DEADLINE):
                    await self.remove(container_id)
                raise
            if told != wanted:
                await self.remove(container_id)
                raise RuntimeNotThereError(f"Podman starts containers with {told}, not with {wanted}.")
        return container_id

    async def _oci_runtime(self, container_id: str) -> str:
        """Return what Podman starts a container with: it passes over what its Docker API is asked for."""
        path = f"v4.0.0/libpod/containers/{container_id}/json"
        async with engine_call("inspect", container_id, CALL_DEADLINE):
            query = self._client._query_json(path, versioned_api=False)  # noqa: SLF001  # aiodocker has no such call
            return str((await query)["OCIRuntime"]).rpartition("/")[2]

    async def attach(self, container_id: str) -> Stream:
        """Open the first program's streams; see the port."""
        container = self._client.containers.container(container_id)
        async with engine_call("attach", container_id, CALL_DEADLINE):
            stream = container.attach(stdin=True, stdout=True, stderr=True)
            await opened(stream)
        return AttachedStream(stream, partial(self._lives, container_id))

    async def start(self, container_id: str) -> None:
        """Start a created container; see the port."""
        async with engine_call("start", container_id, CALL_DEADLINE):
            await self._client.containers.container(container_id).start()

    async def stop(self, container_id: str) -> None:
        """Kill and keep; see the port."""
        try:
            # Not "stop": Podman then tidies up itself, and its monitor once more at any time after that.
            async with engine_call("stop", container_id, CALL_DEADLINE):
                await self._client.containers.container(container_id).kill(signal="SIGKILL")
        except (ContainerGoneError, EngineConflictError):
            pass
        deadline = anyio.current_time() + CALL_DEADLINE
        try:
            while (await self.inspect(container_id)).status in ("running", "paused", "stopping"):
                if anyio.current_time() > deadline:
                    message = f"The engine did not stop {container_id!r} within {CALL_DEADLINE:g} s."
                    raise EngineTimeoutError(message)
                await anyio.sleep(STOP_PAUSE)
        except ContainerGoneError:
            pass

    async def inspect(self, container_id: str, *, size: bool = False) -> ContainerState:
        """Say how a container is; see the port."""
        wanted = {"size": "true"} if size else {}

        async def ask() -> ContainerState:
            async with engine_call("inspect", container_id, CALL_DEADLINE):
                return answers.container(await self._client.containers.container(container_id).show(**wanted))

        return await asked(ask)

    async def setup(self, container_id: str) -> ContainerSetup:
        """Say how a container was set up; see the port."""
        async with engine_call("inspect", container_id, CALL_DEADLINE):
            found = container_setup(await self._client.containers.container(container_id).show())
        if self._info.kind != "podman":
            return found
        return replace(found, runtime=await self._oci_runtime(container_id))

    async def remove(self, container_id: str) -> None:
        """Kill and remove; see the port."""
        try:
            async with engine_call("remove", container_id, CALL_DEADLINE):
                await self._client.containers.container(container_id).delete(force=True, v=True)
        except ContainerGoneError:
            pass
        except EngineConflictError as error:
            # Docker's own auto-removal is at it; it will be gone in a moment.
            if "in progress" not in error.message:
                raise

    async def containers(self, label: str) -> list[ContainerState]:
        """List by label; see the port."""
        filters = json.dumps({"label": [label]})

        async def ask() -> list[ContainerState]:
            async with engine_call("list", label, CALL_DEADLINE):
                found = await self._client.containers.list(all=True, filters=filters)
                return [answers.listed_container(item) for item in found]

        return await asked(ask, may_go=True)

    async def exec(
        self,
        container_id: str,
        argv: Sequence[str],
        *,
        user: str,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
    ) -> ExecStream:
        """Start another program; see the port."""
        container = self._client.containers.container(container_id)
        async with engine_call("exec", container_id, CALL_DEADLINE):
            handle = await container.exec(list(argv), stdin=True, user=user, environment=env, workdir=cwd)
            stream = handle.start(detach=False)
            await opened(stream)
        return ExecutedStream(stream, partial(self._lives, container_id), handle)

    async def _lives(self, container_id: str) -> bool:
        return (await self.inspect(container_id)).status not in ("stopping", "exited", "removing")

    async def commit(self, container_id: str, tag: str, *, labels: Mapping[str, str]) -> str:
        """Make an image of the container's files; see the port."""
        state = await self.inspect(container_id)
        # A commit inherits the container's labels and command, and there is no way to say "without":
        # each is set to a value of ours.
        blank = {key: "" for key in state.labels if key.startswith("pocket-dock.")}
        changes = [answers.label(key, value) for key, value in {**blank, **labels}.items()]
        changes += ['ENTRYPOINT ["/bin/sh"]', "CMD []"]
        for _ in range(COMMITS - 1):
            try:
                return await self._commit(container_id, tag, changes)
            except EngineResponseError as error:
                if not any(reason in error.message for reason in PASSING):
                    raise
        return await self._commit(container_id, tag, changes)

    async def _commit(self, container_id: str, tag: str, changes: list[str]) -> str:
        repository, _, version = tag.rpartition(":")
        async with engine_call("commit", container_id, IMAGE_DEADLINE):
            # Podman 4.3 answers 500 to a commit without a JSON body.
            done = await self._client.containers.container(container_id).commit(
                repository=repository, tag=version, changes=changes, config={}
            )
            # Podman leaves the algorithm out here, and only here.
            image = f"sha256:{str(done['Id']).removeprefix('sha256:')}"
        # Known before many containers are made of it at once, each of which would ask.
        await self._volumes.of(image)
        return image

    async def aclose(self) -> None:
        """Close all connections, then what was started to reach the engine; also for a cancelled caller."""
        with anyio.CancelScope(shield=True):
            try:
                await self._filter.aclose()
                await self._client.close()
                await self._connector.close()
            finally:
                if self._on_close is not None:
                    await self._on_close()


async def _ping(client: aiodocker.Docker) -> Mapping[str, str]:
    """Ask for the answer that costs an engine nothing, and return its headers."""
    # aiodocker has no method for this endpoint.
    async with client._query("_ping", versioned_api=False) as response:  # noqa: SLF001
        await response.read()
    if "Api-Version" not in response.headers:
        raise EngineUnavailableError(f"What answers at {client.docker_host!r} is no container engine.")
    return response.headers
