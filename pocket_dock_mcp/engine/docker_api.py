"""The adapter: the Docker API as Podman and Docker speak it, through aiodocker.

The only module that imports aiodocker, knows a field name of that API, or where the two engines differ.
"""

from __future__ import annotations

import io
import json
from collections.abc import AsyncIterable, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import aiodocker
import aiohttp
import anyio
from aiodocker.execs import Exec
from aiodocker.stream import Stream as DockerStream

from pocket_dock_mcp.engine.base import (
    ContainerState,
    EngineInfo,
    EngineKind,
    ExecState,
    ExecStream,
    ImageState,
    Stream,
)
from pocket_dock_mcp.engine.hardening import create_config
from pocket_dock_mcp.engine.translate import Verb, translate
from pocket_dock_mcp.errors import (
    ConfigError,
    ContainerGoneError,
    EngineConflictError,
    EngineTimeoutError,
    EngineUnavailableError,
    ImageNotFoundError,
    StreamLostError,
)
from pocket_dock_mcp.models import ContainerSpec

PING_DEADLINE = 2.0
CALL_DEADLINE = 30.0
"""Seconds for one verb on a busy machine. What is usual is a tenth of a second."""
IMAGE_DEADLINE = 600.0
"""Seconds for moving or building an image; progress is shown meanwhile."""

_STATUSES = frozenset({"created", "running", "paused", "exited", "removing"})
_STATUS_NAMES = {"configured": "created", "stopped": "exited", "dead": "exited", "stopping": "removing"}


class DockerApiEngine:
    """A Podman or Docker engine; see `pocket_dock_mcp.engine.base.Engine` for the contract."""

    def __init__(self, client: aiodocker.Docker, connector: aiohttp.BaseConnector, info: EngineInfo) -> None:
        self._client = client
        self._connector = connector
        self._info = info

    @classmethod
    async def connect(cls, url: str) -> DockerApiEngine:
        """Connect to an engine and learn who it is.

        Raises:
            ConfigError: the URL is of no kind that we can speak to.
            EngineUnavailableError, EngineTimeoutError: nobody answers there.
        """
        connector = _connector(url)
        # With a connector of our own aiodocker takes the URL as it is: only its host part matters.
        client = aiodocker.Docker(
            url="unix://localhost" if url.startswith("unix:") else url, connector=connector
        )
        try:
            async with _call("ping", url, PING_DEADLINE):
                version = await client.version()
            async with _call("ping", url, CALL_DEADLINE):
                system = await client.system.info()
        except BaseException:
            with anyio.CancelScope(shield=True):
                await client.close()
                await connector.close()
            raise
        return cls(client, connector, _engine_info(url, version, system))

    @property
    def info(self) -> EngineInfo:
        """Who this is."""
        return self._info

    async def ping(self) -> None:
        """Raise unless the engine answers now."""
        async with _call("ping", self._info.url, PING_DEADLINE):
            await self._client.version()

    # -- containers -------------------------------------------------------------------------------

    async def create(self, spec: ContainerSpec) -> str:
        """Create a hardened container; see the port."""
        image = await self._inspect_image(spec.image)
        volumes = (image.get("Config") or {}).get("Volumes") or {}
        config = create_config(spec, image_volumes=tuple(volumes))
        async with _call("create", spec.image, CALL_DEADLINE):
            container = await self._client.containers.create(config, name=spec.name)
        return container.id

    async def attach(self, container_id: str) -> Stream:
        """Open the first program's streams; see the port."""
        container = self._client.containers.container(container_id)
        async with _call("container", container_id, CALL_DEADLINE):
            stream = container.attach(stdin=True, stdout=True, stderr=True)
            await stream.__aenter__()
        return _AttachedStream(stream)

    async def start(self, container_id: str) -> None:
        """Start a created container; see the port."""
        async with _call("start", container_id, CALL_DEADLINE):
            await self._client.containers.container(container_id).start()

    async def inspect(self, container_id: str) -> ContainerState:
        """Say how a container is; see the port."""
        async with _call("container", container_id, CALL_DEADLINE):
            data = await self._client.containers.container(container_id).show()
        state = data["State"]
        status = _status(state.get("Status"))
        return ContainerState(
            id=data["Id"],
            name=data["Name"].lstrip("/"),
            status=status,
            labels=data["Config"].get("Labels") or {},
            exit_code=state.get("ExitCode") if status == "exited" else None,
            oom_killed=bool(state.get("OOMKilled")),
        )

    async def remove(self, container_id: str) -> None:
        """Kill and remove; see the port."""
        try:
            async with _call("container", container_id, CALL_DEADLINE):
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
        async with _call("list", label, CALL_DEADLINE):
            found = await self._client.containers.list(all=True, filters=filters)
        return [
            ContainerState(
                id=item["Id"],
                name=item["Names"][0].lstrip("/") if item["Names"] else "",
                status=_status(item["State"]),
                labels=item["Labels"] or {},
            )
            for item in found
        ]

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
        async with _call("exec", container_id, CALL_DEADLINE):
            handle = await container.exec(list(argv), stdin=True, user=user, environment=env, workdir=cwd)
            stream = handle.start(detach=False)
            await stream.__aenter__()
        return _ExecStream(stream, handle)

    async def commit(self, container_id: str, tag: str, *, labels: Mapping[str, str]) -> str:
        """Make an image of the container's files; see the port."""
        state = await self.inspect(container_id)
        # A commit inherits the container's labels and command, and there is no way to say "without":
        # each is set to a value of ours.
        blank = {key: "" for key in state.labels if key.startswith("pocket-dock.")}
        changes = [f"LABEL {key}={json.dumps(value)}" for key, value in {**blank, **labels}.items()]
        changes += ["ENTRYPOINT []", 'CMD ["/bin/sh"]']
        repository, _, version = tag.rpartition(":")
        async with _call("container", container_id, IMAGE_DEADLINE):
            # Podman 4.3 answers 500 to a commit without a JSON body.
            done = await self._client.containers.container(container_id).commit(
                repository=repository, tag=version, changes=changes, config={}
            )
        return str(done["Id"])

    # -- images -----------------------------------------------------------------------------------

    async def image(self, reference: str) -> ImageState:
        """Look up an image; see the port."""
        data = await self._inspect_image(reference)
        return ImageState(
            id=data["Id"],
            tags=tuple(data.get("RepoTags") or ()),
            labels=(data.get("Config") or {}).get("Labels") or {},
            size_bytes=int(data.get("Size") or 0),
        )

    async def images(self, label: str) -> list[ImageState]:
        """List images by label; see the port."""
        async with _call("list", label, CALL_DEADLINE):
            found = await self._client.images.list(filters={"label": [label]})
        return [
            ImageState(
                id=item["Id"],
                tags=tuple(item.get("RepoTags") or ()),
                labels=item.get("Labels") or {},
                size_bytes=int(item.get("Size") or 0),
            )
            for item in found
        ]

    async def pull(self, reference: str) -> AsyncIterator[str]:
        """Fetch an image; see the port."""
        async with _call("pull", reference, IMAGE_DEADLINE):
            async for event in self._client.images.pull(reference, stream=True):
                if line := _progress(event):
                    yield line
        # Podman reports some failures as progress only.
        await self._inspect_image(reference)

    async def build(
        self, context: bytes, tag: str, *, build_args: Mapping[str, str], labels: Mapping[str, str]
    ) -> AsyncIterator[str]:
        """Build an image; see the port."""
        async with _call("build", tag, IMAGE_DEADLINE):
            events = self._client.images.build(
                fileobj=io.BytesIO(context),
                encoding="identity",
                path_dockerfile="Containerfile",
                tag=tag,
                buildargs=build_args,
                labels=labels,
                forcerm=True,
                stream=True,
            )
            async for event in events:
                if line := _progress(event):
                    yield line
        await self._inspect_image(tag)

    async def import_rootfs(self, tar: AsyncIterable[bytes], tag: str) -> str:
        """Make an image of a root filesystem's tar; see the port."""
        repository, _, version = tag.rpartition(":")
        params = {"fromSrc": "-", "repo": repository, "tag": version}
        async with _call("import", tag, IMAGE_DEADLINE):
            # aiodocker has no method for this endpoint.
            query = self._client._query_chunked_post(  # noqa: SLF001
                "images/create", params=params, data=tar, headers={"Content-Type": "application/x-tar"}
            )
            async with query as response:
                await response.read()
        return (await self.image(tag)).id

    async def remove_image(self, reference: str) -> None:
        """Remove an image; see the port."""
        try:
            async with _call("image", reference, CALL_DEADLINE):
                await self._client.images.delete(reference, force=True)
        except ImageNotFoundError:
            pass

    async def aclose(self) -> None:
        """Close all connections."""
        await self._client.close()
        await self._connector.close()

    async def _inspect_image(self, reference: str) -> dict[str, Any]:
        async with _call("image", reference, CALL_DEADLINE):
            return await self._client.images.inspect(reference)


class _AttachedStream:
    """An attach or exec connection as a `Stream`."""

    def __init__(self, stream: DockerStream) -> None:
        self._stream = stream

    async def receive(self) -> tuple[int, bytes] | None:
        try:
            message = await self._stream.read_out()
        except (aiohttp.ClientError, OSError) as error:
            raise StreamLostError(f"The connection to the container broke: {error!r}.") from error
        return None if message is None else (message.stream, message.data)

    async def send(self, data: bytes) -> None:
        try:
            await self._stream.write_in(data)
        # aiodocker asserts that there still is a connection.
        except (aiohttp.ClientError, OSError, RuntimeError, AssertionError) as error:
            raise StreamLostError(f"The connection to the container broke: {error!r}.") from error

    async def send_eof(self) -> None:
        response = self._stream._resp  # noqa: SLF001  # Stream.close() would close both directions
        connection = response.connection if response is not None else None
        transport = connection.transport if connection is not None else None
        if transport is not None and transport.can_write_eof():
            transport.write_eof()

    async def aclose(self) -> None:
        try:
            await self._stream.close()
        except (aiohttp.ClientError, OSError, RuntimeError, AssertionError):
            # It is closed, which is what was wanted.
            pass


class _ExecStream(_AttachedStream):
    """An exec's streams and the engine's word on its fate."""

    def __init__(self, stream: DockerStream, handle: Exec) -> None:
        super().__init__(stream)
        self._handle = handle

    async def state(self) -> ExecState:
        async with _call("exec", self._handle.id, CALL_DEADLINE):
            data = await self._handle.inspect()
        running = bool(data.get("Running"))
        return ExecState(running=running, exit_code=None if running else data.get("ExitCode"))


@asynccontextmanager
async def _call(verb: Verb, subject: str, deadline: float) -> AsyncIterator[None]:
    """Give one request its deadline and turn its failures into our errors."""
    try:
        with anyio.fail_after(deadline):
            yield
    except aiodocker.DockerError as error:
        raise translate(verb, error.status, _plain(error.message), subject) from error
    except TimeoutError as error:
        message = f"The container engine did not answer within {deadline:g} s ({verb} {subject!r})."
        raise EngineTimeoutError(message) from error
    except (aiohttp.ClientError, OSError) as error:
        message = f"The connection to the container engine broke ({verb} {subject!r}): {error!r}."
        raise EngineUnavailableError(message, hint="Check that the engine runs, and try again.") from error


def _plain(message: str) -> str:
    """Return the text of an error that arrived as raw JSON (aiodocker parses one content type only)."""
    try:
        data = json.loads(message)
    except ValueError:
        return message.strip()
    if isinstance(data, dict):
        return str(data.get("message") or data.get("cause") or message)
    return message


def _connector(url: str) -> aiohttp.BaseConnector:
    # No pool: a connection that the engine closed while it lay idle must not fail the next request, and
    # attached streams would use up a pool's places. A unix socket costs next to nothing to open.
    if url.startswith("unix://"):
        return aiohttp.UnixConnector(url.removeprefix("unix://"), force_close=True, limit=0)
    if url.startswith(("tcp://", "http://", "https://")):
        return aiohttp.TCPConnector(force_close=True, limit=0)
    raise ConfigError(
        f"The engine address {url!r} is of no known kind.",
        hint="Use unix:///path/to.sock or tcp://host:port; for a remote engine, forward its socket by ssh.",
    )


def _engine_info(url: str, version: Mapping[str, Any], system: Mapping[str, Any]) -> EngineInfo:
    names = [str(component.get("Name", "")) for component in version.get("Components") or ()]
    options = [str(option) for option in system.get("SecurityOptions") or ()]
    kind: EngineKind = "podman" if any("podman" in name.lower() for name in names) else "docker"
    return EngineInfo(
        kind=kind,
        version=str(version.get("Version", "")),
        url=url,
        rootless=any("rootless" in option for option in options),
        cgroup_version=2 if str(system.get("CgroupVersion", "1")) == "2" else 1,
        identity=f"{kind}:{system.get('Name')}:{system.get('DockerRootDir')}",
    )


def _status(raw: object) -> Any:
    name = _STATUS_NAMES.get(str(raw), str(raw))
    return name if name in _STATUSES else "unknown"


def _progress(event: Mapping[str, Any]) -> str:
    """Return one line of a progress event, or nothing."""
    text = event.get("stream") or event.get("status") or ""
    detail = event.get("progress") or ""
    return f"{text} {detail}".strip()
